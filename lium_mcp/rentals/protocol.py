"""The protocol around a rent: written down before it is sent, sent once, and settled before anything else is rented.

A rent spends money. Its row is committed to the ledger before its request leaves, so that a crash at any point leaves
something to settle. When the answer is lost, the request is repeated only with the same idempotency key, and only where
the API promises to replay it. Elsewhere the pod is looked for, and what cannot be established stays unknown, never
failed. This package knows nothing of tools.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final
from uuid import uuid4

import anyio
import anyio.lowlevel

from lium_mcp.api.account import Me
from lium_mcp.api.changes import noted_changes, noting_changes
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.belonging import anothers, not_its_own
from lium_mcp.rentals.entries import Entry, Extension, has_something_left, is_only_to_check
from lium_mcp.rentals.expected import ANYTHING, Expected
from lium_mcp.rentals.identity import Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.orders import Order, Rental, pod_count, to_json
from lium_mcp.rentals.removal_time import keep_removal_time
from lium_mcp.rentals.remover import Remover
from lium_mcp.rentals.sending import Sender
from lium_mcp.rentals.settling import Readmit, Settler
from lium_mcp.rentals.upkeep import Upkeep

# For rents in flight on other servers; many hosts end a call after 60 s.
_OTHERS_LIMIT_SECONDS: Final = 30.0
_OTHERS_PAUSE_SECONDS: Final = 1.0
# For a pod of the same name that is being removed.
_REMOVAL_LIMIT_SECONDS: Final = 6.0

BEING_SETTLED: Final = (
    "Another rent was under way or being settled, and may have made a pod that bills: call list_pods."
)


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


Judge = Callable[[Rows[Pod], Sequence[Entry], Sequence[Extension]], None]
"""Raises where living pods, open rents and admitted extensions, of whatever server, leave no room for the rent."""


class PodNameTaken(Exception):
    """A living pod has the name already, and another request rented it; nothing was sent.

    Attributes:
        removing: Whether it is being removed, so that the name may soon be free.
    """

    def __init__(self, pod_name: str, pod_ids: Sequence[str], *, removing: bool = False) -> None:
        super().__init__(f"A pod named {pod_name} exists already")
        self.pod_name = pod_name
        self.pod_ids = pod_ids
        self.removing = removing


class RentUnsettled(Exception):
    """Earlier rents of the account may have made pods that nobody knows of yet; nothing was sent.

    Attributes:
        entries: These rents; none where other servers rented one after the other all the time.
        in_flight: Whether servers still wait for the answers to them.
    """

    def __init__(self, entries: Sequence[Entry], *, in_flight: bool = False) -> None:
        super().__init__("An earlier rent is not settled")
        self.entries = entries
        self.in_flight = in_flight


class _InFlight(Exception):
    """The account's rents have changed just now, or another server waits for the answer to one."""


async def _allow() -> Judge:
    """Return a judge that allows everything."""
    return lambda _pods, _entries, _extensions: None


def _note_being_settled() -> None:
    """Note that the call at hand cannot say, if it fails, that nothing was rented."""
    noted_changes().append(BEING_SETTLED)


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
        # The rents that earlier calls had lost, and that turned out to have pods, in the order in which they did.
        self._settled: list[Entry] = []
        self._upkeep = Upkeep(lium, self.rents, self._settler, self._remover, identity.key_tag)

    @property
    def key_tag(self) -> str:
        """The tag that stands for the key in the ledger."""
        return self._identity.key_tag

    async def me(self) -> Me:
        """Whom the key belongs to (`GET /users/me`).

        Raises:
            LiumError: it cannot be read.
        """
        return await self._identity.me()

    async def earlier(self, pod_name: str, asked: str) -> Rental | None:
        """Settle open rents, and return what an earlier call with the same request rented, if its pods live.

        Raises:
            PodNameTaken: a pod of that name lives, and another request rented it.
            LedgerUnavailable: the ledger cannot be read.
            LiumError: the pods cannot be listed.
        """
        if self._ledger.is_empty:
            return None
        async with self._own_turn():
            pods = await self._lium.pods.list()
            entries = await self._bring_up_to_date(await self._identity.known(), pods)
            try:
                return await self._match(entries, pods, pod_name, asked)
            except PodNameTaken as taken:
                if taken.removing:  # it may be gone by the time of the rent
                    return None
                raise

    @asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[None]:
        """Act for the key one at a time. A call that is cut off while it waits cannot say that nothing was rented."""
        if self._turn.locked():
            _note_being_settled()
        known = len(self._settled)
        async with self._turn:
            try:
                yield
            finally:
                # Also those that turned out so while this call waited for its turn.
                noted_changes().extend(map(RentSettled, self._settled[known:]))

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
            entries = await self._bring_up_to_date(account, pods) if before else []
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
            return await self._bring_up_to_date(account, pods, in_background=in_background)

    @asynccontextmanager
    async def rent(
        self,
        order: Order,
        *,
        asked: str,
        price_per_hour_usd: float | None = None,
        expected: Expected = ANYTHING,
        hours: float | None = None,
        find_judge: Callable[[], Awaitable[Judge]] = _allow,
    ) -> AsyncIterator[Rental]:
        """Rent, and give the rental to the block. A cancelled block never leaves a pod that nobody heard of.

        Args:
            order: What to rent.
            asked: A digest of what the caller asked for: the same call again gets the same pod.
            price_per_hour_usd: What everything ordered costs together, as quoted; None where nobody said.
            expected: What the pods have to be to be kept.
            hours: Lium is to remove the pods so many hours after they boot; None for never.
            find_judge: Reads what the judge has to know besides living pods and open rents. It is called after these
                were read, so that what ends meanwhile counts twice rather than not at all. No other server on the
                ledger is admitted between the verdict and the writing of the row.

        Raises:
            PodNameTaken: a pod of that name lives; nothing was sent.
            RentUnsettled: an earlier rent is not settled; nothing was sent.
            AccountUnknown: Lium does not say which account the key acts for; nothing was sent.
            LedgerUnavailable: the rent could not be written down; nothing was sent.
            RentOutcomeUnknown: the request left and nothing proves what became of it.
            LiumError: a definite refusal; nothing was rented.
        """
        entry = Entry(
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
        )
        async with self._own_turn():
            admitted = await self._admit(entry, find_judge)
            rental = await self._sender.send(order, admitted) if isinstance(admitted, Entry) else admitted
        try:
            await anyio.lowlevel.checkpoint()  # a call that was cancelled meanwhile stops here
            yield rental
        except anyio.get_cancelled_exc_class():
            if not rental.earlier:
                with anyio.CancelScope(shield=True):
                    await self._remover.remove_unheard_of(rental)
            raise

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

    async def _bring_up_to_date(self, account: str, pods: Rows[Pod], *, in_background: bool = False) -> list[Entry]:
        """Attend to every open rent of the account, given its pods; return those that are still open.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries = await self._ledger.open().open_entries(account)
        if any(entry.is_unsettled for entry in entries):
            _note_being_settled()
        with noting_changes():  # the call at hand was to do none of this
            await self._upkeep.attend(entries, pods, in_background=in_background)
        after = await self._ledger.open().open_entries(account)
        unsettled = {entry.id for entry in entries if entry.is_unsettled}
        self._settled += [entry for entry in after if entry.id in unsettled and entry.status == "rented"]
        return after

    async def _admit(self, entry: Entry, find_judge: Callable[[], Awaitable[Judge]]) -> Entry | Rental:
        """Write a rent into the ledger once it may be sent, or return what an earlier call rented."""
        account = await self._identity.learn()
        started = self._clock.monotonic()
        while True:
            pods = await self._lium.pods.list()
            entries = await self._bring_up_to_date(account, pods)
            try:
                rental = await self._match(entries, pods, entry.pod_name, entry.asked)
            except PodNameTaken as taken:
                if not taken.removing or self._clock.monotonic() - started > _REMOVAL_LIMIT_SECONDS:
                    raise
                await self._clock.sleep(_OTHERS_PAUSE_SECONDS)
                continue
            if rental is not None:
                return rental
            try:
                known = [pod.id for pod in pods]
                entry = replace(entry, account=account, known_pod_ids=known, created_at=self._lium.now())
                return await self._write(entry, pods, await find_judge())
            except _InFlight:
                left_seconds = _OTHERS_LIMIT_SECONDS - (self._clock.monotonic() - started)
                await self._wait_for_others(account, left_seconds)

    async def _match(self, entries: Sequence[Entry], pods: Sequence[Pod], pod_name: str, asked: str) -> Rental | None:
        named = next((entry for entry in entries if entry.pod_name == pod_name), None)
        if named is not None and named.is_unsettled:
            return None
        if named is not None and named.status == "rented" and named.asked == asked and await self.rents.hand_out(named):
            return Rental(tuple(named.pod_ids), named.confirmed, named, earlier=True)
        taken = [pod.id for pod in pods if pod.pod_name == pod_name and pod.is_alive]
        if named is not None or taken:
            removing = named is not None and (named.status == "removing" or named.asked == asked)
            raise PodNameTaken(pod_name, list(named.pod_ids) if named else taken, removing=removing)
        return None

    async def _write(self, entry: Entry, pods: Rows[Pod], judge: Judge) -> Entry:
        def admit(entries: Sequence[Entry], extensions: Sequence[Extension]) -> None:
            unsettled = [other for other in entries if other.is_unsettled]
            if lost := [other for other in unsettled if not self._settler.is_in_flight(other)]:
                raise RentUnsettled(lost)
            if unsettled or any(other.pod_name == entry.pod_name for other in entries):
                raise _InFlight
            judge(pods, entries, extensions)

        return await self._ledger.open().admit(entry, admit)

    async def _wait_for_others(self, account: str, seconds: float) -> None:
        """Wait, without asking Lium, until no server waits for the answer to a rent of the account.

        Raises:
            RentUnsettled: one still waits when the time is over.
        """
        ends_at = self._clock.monotonic() + seconds
        while True:
            entries = await self._ledger.open().open_entries(account)
            in_flight = [entry for entry in entries if self._settler.is_in_flight(entry)]
            if self._clock.monotonic() >= ends_at:
                raise RentUnsettled(in_flight, in_flight=True)
            if not in_flight:
                return
            await self._clock.sleep(_OTHERS_PAUSE_SECONDS)
