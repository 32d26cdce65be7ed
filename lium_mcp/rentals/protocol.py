"""The protocol around a rent: written down before it is sent, sent once, and settled before anything else is rented.

A rent spends money. Its row is committed to the ledger before its request leaves, so that a crash at any point leaves
something to settle. When the answer is lost, its pod is looked for. Where none is listed, the request is repeated, only
with the same idempotency key, and only where the API promises to replay it. What cannot be established stays unknown,
never failed. This package knows nothing of tools.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final
from uuid import uuid4

import anyio
import anyio.lowlevel

from lium_mcp.api.account import Me
from lium_mcp.api.changes import noted_changes
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.admission import Admission, FindJudge, allow, note_being_settled
from lium_mcp.rentals.batches import BatchedRent, Batches, FindAnother, Wanted
from lium_mcp.rentals.belonging import anothers, not_its_own
from lium_mcp.rentals.entries import Entry, PodNameTaken, has_something_left, is_only_to_check
from lium_mcp.rentals.expected import ANYTHING, Expected
from lium_mcp.rentals.identity import Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.orders import Order, Rental, pod_count, to_json
from lium_mcp.rentals.removal_time import keep_removal_time
from lium_mcp.rentals.remover import Remover
from lium_mcp.rentals.sending import Sender
from lium_mcp.rentals.settling import Readmit, Settler
from lium_mcp.rentals.upkeep import Upkeep


class RentSettled(str):
    """A sentence for a call: an earlier rent, whose answer was lost, turned out meanwhile to have pods that bill."""

    __slots__ = ("pod_ids",)
    pod_ids: tuple[str, ...]

    def __new__(cls, entry: Entry) -> "RentSettled":
        """Say it of an earlier rent."""
        pods = " and ".join(entry.pod_ids)
        sentence = super().__new__(
            cls,
            f"The earlier rent of {entry.pod_name}, whose answer was lost, has turned out to have a pod that bills: "
            f"{pods}.",
        )
        sentence.pod_ids = tuple(entry.pod_ids)
        return sentence

    def is_told_in(self, text: str) -> bool:
        """Whether a text names these pods already."""
        return all(pod_id in text for pod_id in self.pod_ids)


class Renter:
    """Rents for one account, one at a time."""

    def __init__(
        self,
        lium: LiumClient,
        clock: Clock,
        turn: anyio.Lock,
        ledger: LazyLedger,
        identity: Identity,
        readmit: Readmit,
    ) -> None:
        """Act with a key.

        Args:
            lium: The API client with the key.
            clock: For pauses.
            turn: Held from the look at what exists until the answer; all who rent with the key on this server share it.
            ledger: Where the ledger is.
            identity: The key, and the account that it acts for.
            readmit: Judges whether a rent whose answer was lost may leave again.
        """
        self._lium = lium
        self._clock = clock
        self._turn = turn
        self._ledger = ledger
        self._identity = identity
        self.rents: Final = AccountRents(ledger, identity, lium.now)
        self._remover = Remover(lium, clock, self.rents)
        self._settler = Settler(lium, clock, ledger, self.rents, self._remover, identity.key_tag, readmit)
        self._sender = Sender(lium, self.rents, self._settler)
        self._upkeep = Upkeep(lium, self.rents, self._settler, self._remover, identity.key_tag)
        self._admission = Admission(lium, clock, ledger, identity, self.rents, self._settler, self._upkeep)
        self._batches = Batches(lium, clock, self.rents, self._admission, self._sender)

    @property
    def key_tag(self) -> str:
        """The tag that stands for the key in the ledger."""
        return self._identity.key_tag

    async def recall_account(self) -> None:
        """Name the account of the key in the audit trail, if the ledger knows it."""
        await self._identity.recall()

    async def me(self) -> Me:
        """Whom the key belongs to (`GET /users/me`).

        Raises:
            LiumError: it cannot be read.
        """
        return await self._identity.me()

    async def earlier(self, pod_name: str, asked: str) -> Rental | None:
        """Settle open rents, and return what an earlier call with the same request rented, if its pods live.

        Raises:
            As `earlier_of`.
        """
        return (await self.earlier_of([pod_name], asked)).get(pod_name)

    async def earlier_of(self, pod_names: Sequence[str], asked: str) -> dict[str, Rental]:
        """Settle open rents, and return what earlier calls with the same request rented under names, if it lives.

        Raises:
            PodNameTaken: a pod of one of the names lives, and another request rented it, or a standing order waits.
            LedgerUnavailable: the ledger cannot be read.
            LiumError: the pods cannot be listed.
        """
        if self._ledger.is_empty:
            return {}
        rentals: dict[str, Rental] = {}
        async with self._own_turn():
            pods = await self._lium.pods.list()
            account = await self._identity.known()
            entries = await self._admission.bring_up_to_date(account, pods)
            for pod_name in pod_names:
                try:
                    rental = await self._admission.match(entries, pods, pod_name, asked)
                except PodNameTaken as taken:
                    if not taken.removing:  # else it may be gone by the time of the rent
                        raise
                    continue
                if rental is not None:
                    rentals[pod_name] = rental
            free = [pod_name for pod_name in pod_names if pod_name not in rentals]
            await self._ledger.open().refuse_ordered(account, free, now=self._lium.now())
        return rentals

    @asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[None]:
        """Act for the key one at a time. A call that is cut off while it waits cannot say that nothing was rented."""
        if self._turn.locked():
            note_being_settled()
        known = len(self._admission.settled)
        async with self._turn:
            try:
                yield
            finally:
                # Also those that turned out so while this call waited for its turn.
                noted_changes().extend(map(RentSettled, self._admission.settled[known:]))

    async def refuse_in_vain(self, pod_names: Sequence[str]) -> None:
        """Refuse, before anybody is asked, what no rent under these names gets past now; `earlier_of` was called.

        Rents that servers wait for now are none: a rent waits for them, too.

        Raises:
            RentUnsettled: an earlier rent is not settled.
            PodNameTaken: a pod of one of the names lives.
            AccountUnknown: Lium does not say which account the key acts for.
            LedgerUnavailable: the ledger cannot be used.
            LiumError: there is no key, or Lium does not know it, or the pods cannot be listed.
        """
        if not self._ledger.is_empty:
            account = await self._identity.learn()
            self._admission.refuse_lost(await self._ledger.open().open_entries(account))
            return
        self._ledger.refuse_unmakeable()
        await self._identity.hear()
        pods = await self._lium.pods.list()
        for pod_name in pod_names:
            await self._admission.match([], pods, pod_name, "")

    async def look(self) -> tuple[Rows[Pod], list[Entry]]:
        """List the account's pods, with its open rents brought up to date.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
            LiumError: the pods cannot be listed.
        """
        if self._ledger.is_empty:
            return await self._lium.pods.list(), []
        async with self._own_turn():
            pods = await self._lium.pods.list()
            account = await self._identity.known()
            before = await self._ledger.open().open_entries(account)
            entries = await self._admission.bring_up_to_date(account, pods) if before else []
            if entries != before or any(has_something_left(entry) and not is_only_to_check(entry) for entry in before):
                pods = await self._lium.pods.list()
        return pods, entries

    async def attend(self, *, in_background: bool = False) -> list[Entry]:
        """Settle what is unsettled, set removal times, and go on removing what must go.

        Returns:
            The rents that are still open.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
            LiumError: the pods cannot be listed.
        """
        if self._ledger.is_empty:
            return []
        async with self._own_turn():
            account = await self._identity.known()
            entries = await self._ledger.open().open_entries(account)
            if not any(self._upkeep.is_needed(entry, in_background=in_background) for entry in entries):
                return entries
            pods = await self._lium.pods.list()
            return await self._admission.bring_up_to_date(account, pods, in_background=in_background)

    @asynccontextmanager
    async def rent(
        self,
        order: Order,
        *,
        asked: str,
        price_per_hour_usd: float | None = None,
        expected: Expected = ANYTHING,
        hours: float | None = None,
        task_id: str | None = None,
        find_judge: FindJudge = allow,
    ) -> AsyncIterator[Rental]:
        """Rent, and give the rental to the block. A cancelled block never leaves a pod that nobody heard of.

        Args:
            order: What to rent.
            asked: A digest of what the caller asked for: the same call again gets the same pod.
            price_per_hour_usd: What everything ordered costs together, as quoted; None where nobody said.
            expected: What the pods have to be to be kept.
            hours: Lium is to remove the pods so many hours after they boot; None for never.
            task_id: The task that the rent is for. The pods are the task's then: they stay when the block is cancelled.
            find_judge: Finds what judges whether the limits leave room.

        Raises:
            PodNameTaken: a pod of that name lives, or a standing order waits; nothing was sent.
            RentUnsettled: an earlier rent is not settled; nothing was sent.
            TaskOver: the task that it is for is over; nothing was sent.
            AccountUnknown: Lium does not say which account the key acts for; nothing was sent.
            LoginEnded: the login that the key is of has ended; nothing was sent.
            LedgerUnavailable: the rent could not be written down; nothing was sent.
            RentOutcomeUnknown: the request left and nothing proves what became of it.
            LiumError: a definite refusal; nothing was rented.
        """
        entry = self._entry(order, asked, price_per_hour_usd, expected, hours)
        entry = replace(entry, task_id=task_id, handed_out=task_id is not None)
        async with self._own_turn():
            [admitted] = await self._admission.admit([entry], find_judge)
            rental = await self._sender.send(order, admitted) if isinstance(admitted, Entry) else admitted
        try:
            await anyio.lowlevel.checkpoint()  # a call that was cancelled meanwhile stops here
            yield rental
            await anyio.lowlevel.checkpoint()  # one that was cancelled in its last step has told nobody of the pod
        except anyio.get_cancelled_exc_class():
            if not rental.earlier:
                with anyio.CancelScope(shield=True):
                    await self._give_up(rental)
            raise

    @asynccontextmanager
    async def rent_several(
        self,
        wanted: Sequence[Wanted],
        *,
        asked: str,
        find_judge: FindJudge,
        find_another: FindAnother,
    ) -> AsyncIterator[Sequence[BatchedRent]]:
        """Rent several pods that are admitted together, and give to the block what became of each.

        A cancelled block never leaves a pod that nobody heard of, and what was not sent by then never is.

        Args:
            wanted: What to rent, each under a name of its own.
            asked: As for `rent`, the same for all.
            find_judge: Finds what judges whether the limits leave room for all of them.
            find_another: Finds what may be rented in place of one that Lium refused, for no more.

        Raises:
            PodNameTaken, RentUnsettled, AccountUnknown, LedgerUnavailable, LiumError: as `rent`; none is sent.
        """
        entries = [
            replace(self._entry(one.order, asked, one.price_per_hour_usd, one.expected, one.hours), status="admitted")
            for one in wanted
        ]
        rents: list[BatchedRent] = []
        try:
            async with self._own_turn():
                admitted = await self._admission.admit(entries, find_judge)
                rents += [BatchedRent.of(one, row) for one, row in zip(wanted, admitted, strict=True)]
                await self._batches.send(rents, find_judge, find_another)
            await anyio.lowlevel.checkpoint()  # as in `rent`
            yield rents
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._batches.disown(rents, self._give_up)
            raise

    async def _give_up(self, rental: Rental) -> None:
        """Remove what a cancelled call rented, if it can be known to be its own."""
        await self._remover.remove_unheard_of(await self._settler.prove(rental))

    async def refuse_anothers(self, rental: Rental, pods: Iterable[Pod]) -> None:
        """Disclaim a rental if its pods, as Lium shows them, are another's: then nobody knows what became of the rent.

        Raises:
            RentOutcomeUnknown: they are another's.
        """
        if named := anothers(rental.entry, pods):
            await self.rents.disclaim(rental.entry, named)
            raise not_its_own(rental.entry, named)

    async def give_back(self, rental: Rental, reason: str) -> bool:
        """Remove the pods of a rental that must not stay; Lium's schedule or a later look removes what cannot go yet.

        Returns:
            Whether nothing is left to order for any of them.

        Raises:
            LiumError: nothing could be done now; the ledger says that they must go.
        """
        await self.rents.note_must_go(rental.pod_id, reason)
        accepted = await self._remover.remove_all(rental.entry, rental.pod_ids, known_since=rental.rented_at)
        if not accepted or rental.entry.missing_count:
            return False
        await self.rents.note_accepted(rental.pod_id)
        return True

    async def keep_removal_time(self, rental: Rental, pod: Pod, hours: float) -> tuple[PodDetail | None, bool]:
        """Make a pod's removal time what was asked for, as the function of that name does, and note when it is done.

        Raises:
            LiumError: it could not be set or read back.
        """
        newest, is_set = await keep_removal_time(self._lium, pod, hours, rental.rented_at)
        if is_set:
            await self.rents.forget_removal_time(pod.id)
        return newest, is_set

    def _entry(
        self, order: Order, asked: str, price_per_hour_usd: float | None, expected: Expected, hours: float | None
    ) -> Entry:
        return Entry(
            account="",  # learned when its turn has come
            key_tag=self.key_tag,
            pod_name=order.request.pod_name,
            order=to_json(order),
            asked=asked,
            idempotency_key=str(uuid4()),
            known_pod_ids=(),
            pod_count=pod_count(order),
            created_at=self._lium.now(),
            price_per_hour_usd=price_per_hour_usd,
            expected=expected.to_json() if expected != ANYTHING else None,
            hours=hours,
            by_login=self._identity.is_login,
        )
