"""The protocol around a rent: journaled before it is sent, sent once, and settled before anything else is rented.

A rent spends money. Its row is committed to the ledger before its request leaves, so that a crash at any point leaves
something to settle. When the answer is lost, the request is repeated only with the same idempotency key and only where
the API promises to replay it; elsewhere the pod is looked for, and what cannot be established stays unknown, never
failed. This package knows nothing of tools.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import anyio
import anyio.lowlevel

from lium_mcp.api import Clock, LiumClient, LiumError, Pod, PodDetail, RentOutcomeUnknown, Rows
from lium_mcp.rentals.entries import UNSETTLED, Entry, LedgerUnavailable, Status
from lium_mcp.rentals.journal import Journal
from lium_mcp.rentals.orders import Order, Rental, Terms, pod_count, to_json
from lium_mcp.rentals.removal import keep_removal_time
from lium_mcp.rentals.settling import Settler, is_alive, post

log = logging.getLogger(__name__)

# About ten minutes, which is longer than most pods take to start; one that starts cannot be removed yet.
_REMOVE_ATTEMPTS: Final = 45
_REMOVE_PAUSE_SECONDS: Final = 3.0
_LONGEST_REMOVE_PAUSE_SECONDS: Final = 15.0
_SETTLE_LIMIT_SECONDS: Final = 38.0
_SETTLE_PAUSES_SECONDS: Final = (1.0, 3.0, 6.0)
# Another server that rents under this name has its answer by then.
_OTHERS_ATTEMPTS: Final = 15
_OTHERS_PAUSE_SECONDS: Final = 1.0

Judge = Callable[[Sequence[Pod], Sequence[Entry]], None]
"""Raises where living pods and open rents, of this server or another, leave no room for a rent."""


class PodNameTaken(Exception):
    """A living pod has the name already, and another request rented it; nothing was sent."""

    def __init__(self, pod_name: str, pod_ids: Sequence[str]) -> None:
        super().__init__(f"A pod named {pod_name} exists already")
        self.pod_name = pod_name
        self.pod_ids = pod_ids


class RentUnsettled(Exception):
    """Earlier rents of the account may have made pods, and nobody knows yet; nothing was sent."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__("An earlier rent is not settled")
        self.entries = entries


class _InFlight(Exception):
    """Another server is renting under this name at this moment."""


async def _allow() -> Judge:
    """A judge for whom nothing stands against a rent."""
    return lambda _pods, _entries: None


class Renter:
    """Rents for one account, one at a time."""

    def __init__(self, lium: LiumClient, clock: Clock, turn: anyio.Lock, journal: Journal, account: str) -> None:
        """Act for an account.

        Args:
            lium: The API client with the account's key.
            clock: For pauses.
            turn: Held from the look at what exists until the answer; whoever rents for the account here shares it.
            journal: Where the ledger is.
            account: What the account is called there.
        """
        self._lium = lium
        self._clock = clock
        self._turn = turn
        self._journal = journal
        self._account = account
        self._settler = Settler(lium, clock, journal)

    async def earlier(self, pod_name: str, asked: str) -> Rental | None:
        """The pod that an earlier call with the same request rented, if it lives; what is not settled is settled first.

        Raises:
            PodNameTaken: a pod of that name lives, and another request rented it.
            LedgerUnavailable: the ledger cannot be read.
            LiumError: the pods cannot be listed.
        """
        if self._journal.is_empty:
            return None
        async with self._turn:
            pods = await self._lium.pods.list()
            return self._match(await self._settler.attend(self._account, pods), pods, pod_name, asked)

    async def look(self) -> tuple[Rows[Pod], list[Entry]]:
        """List the account's pods, with its open rents brought up to date.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
            LiumError: the pods cannot be listed.
        """
        if self._journal.is_empty:
            return await self._lium.pods.list(), []
        async with self._turn:
            pods = await self._lium.pods.list()
            before = await self._journal.open().open_entries(self._account)
            entries = await self._settler.attend(self._account, pods) if before else []
            if any(needs_attention(entry) for entry in before):
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
        if self._journal.is_empty:
            return []
        async with self._turn:
            entries = await self._journal.open().open_entries(self._account)
            if not any(needs_attention(entry) for entry in entries):
                return entries
            pods = await self._lium.pods.list()
            return await self._settler.attend(self._account, pods, in_background=in_background)

    async def open_entries(self) -> list[Entry]:
        """The account's open rents as they are written, without asking anybody.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        return [] if self._journal.is_empty else await self._journal.open().open_entries(self._account)

    async def has_removal_to_set(self, pod_id: str) -> bool:
        """Whether the removal time that the rent of this pod asked for is still to be set, or to be made exact.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        return any(pod_id in entry.pod_ids and not entry.removal_is_set for entry in await self.open_entries())

    async def removed_since(self, moment: datetime) -> list[Entry]:
        """The account's rents whose pods were removed since a moment.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        return [] if self._journal.is_empty else await self._journal.open().closed_since(self._account, moment)

    @asynccontextmanager
    async def rent(
        self, order: Order, terms: Terms, find_judge: Callable[[], Awaitable[Judge]] = _allow
    ) -> AsyncIterator[Rental]:
        """Rent, and hand the pod to the body. A cancelled body never leaves a pod that nobody heard of.

        Args:
            order: What to rent.
            terms: What was asked for, and on what terms.
            find_judge: Reads what the judge has to know beside living pods and open rents, after these were read: what
                ends meanwhile counts twice rather than nowhere. No other server of the same ledger is admitted between
                the verdict and the writing of the row.

        Raises:
            PodNameTaken: a pod of that name lives; nothing was sent.
            RentUnsettled: an earlier rent is not settled; nothing was sent.
            LedgerUnavailable: the rent could not be journaled; nothing was sent.
            RentOutcomeUnknown: the request left and nothing proves what became of it.
            LiumError: a definite refusal; nothing was rented.
        """
        async with self._turn:
            admitted = await self._admit(order, terms, find_judge)
            if isinstance(admitted, Entry):
                with anyio.CancelScope(shield=True):
                    try:
                        rental = await self._send(order, admitted)
                    except anyio.get_cancelled_exc_class():
                        # No shield holds when the process ends.
                        log.critical("Stopped during the rent of %r: it may exist and bill", admitted.pod_name)
                        raise
            else:
                rental = admitted
        try:
            await anyio.lowlevel.checkpoint()  # a call that was cancelled meanwhile stops here
            yield rental
        except anyio.get_cancelled_exc_class():
            if not rental.earlier:
                with anyio.CancelScope(shield=True):
                    await self._remove_unheard_of(rental)
            raise

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let nobody rent for the account here while the body runs."""
        async with self._turn:
            yield

    async def give_back(self, rental: Rental, reason: str) -> bool:
        """Remove the pods of a rental that must not stay; what cannot be removed yet is removed by schedule or later.

        Returns:
            Whether all of them are being removed now.

        Raises:
            LiumError: nothing could be done now; the ledger says that they must go.
        """
        await self._note(rental.pod_id, "removing", reason)
        gone = await self._settler.remove_all(rental.pod_ids)
        if gone:
            await self._note(rental.pod_id, "removed", reason)
        return gone

    async def keep_removal_time(self, rental: Rental, pod: Pod, hours: float) -> tuple[PodDetail | None, bool]:
        """As the function of that name, and note in the ledger that it is done.

        Raises:
            LiumError: it could not be set or read back.
        """
        newest, is_set = await keep_removal_time(self._lium, pod, hours, rental.rented_at)
        if is_set:
            await self.forget_removal_time(pod.id)
        return newest, is_set

    async def forget_removal_time(self, pod_id: str) -> None:
        """Let nobody set the removal time that the rent of this pod asked for: it is set, or another was chosen."""

        def kept(entry: Entry) -> dict[str, Any] | None:
            return None if entry.removal_is_set else {"kept_pod_ids": sorted({*entry.kept_pod_ids, pod_id})}

        await self._change(pod_id, kept)

    async def note_price(self, pod_id: str) -> None:
        """Note that what this rent may cost was held against what Lium bills."""

        def checked(entry: Entry) -> dict[str, Any] | None:
            return None if entry.ceiling_per_hour_usd is None else {"ceiling_per_hour_usd": None}

        await self._change(pod_id, checked)

    async def note_removed(self, pod_id: str) -> None:
        """Take a pod that is removed out of its rent; without any the rent is closed, and its name is free."""

        def without(entry: Entry) -> dict[str, Any]:
            others = [other for other in entry.pod_ids if other != pod_id]
            return {"pod_ids": others} if others else {"status": "removed", "note": "removed on request"}

        await self._change(pod_id, without)

    async def _admit(self, order: Order, terms: Terms, find_judge: Callable[[], Awaitable[Judge]]) -> Entry | Rental:
        """A row of the ledger for a request that may be sent now, or what an earlier one rented."""
        name = order.request.pod_name
        entries: list[Entry] = []
        for _ in range(_OTHERS_ATTEMPTS):
            pods = await self._lium.pods.list()
            entries = [] if self._journal.is_empty else await self._settler.attend(self._account, pods)
            rental = self._match(entries, pods, name, terms.asked)
            if rental is not None:
                return rental
            try:
                return await self._write(order, terms, pods, await find_judge())
            except _InFlight:
                await self._clock.sleep(_OTHERS_PAUSE_SECONDS)
        raise RentUnsettled([entry for entry in entries if entry.pod_name == name])

    def _match(self, entries: Sequence[Entry], pods: Sequence[Pod], pod_name: str, asked: str) -> Rental | None:
        named = next((entry for entry in entries if entry.pod_name == pod_name), None)
        if named is not None and named.is_unsettled:
            return None
        if named is not None and named.status == "rented" and named.asked == asked:
            return Rental(tuple(named.pod_ids), named.confirmed, named.created_at, earlier=True)
        taken = [pod.id for pod in pods if pod.pod_name == pod_name and is_alive(pod)]
        if named is not None or taken:
            raise PodNameTaken(pod_name, list(named.pod_ids) if named else taken)
        return None

    async def _write(self, order: Order, terms: Terms, pods: Sequence[Pod], judge: Judge) -> Entry:
        name = order.request.pod_name

        def admit(entries: Sequence[Entry]) -> None:
            if unknown := [entry for entry in entries if entry.status == "unknown"]:
                raise RentUnsettled(unknown)
            if any(entry.pod_name == name for entry in entries):
                raise _InFlight
            judge(pods, entries)

        entry = Entry(
            account=self._account,
            pod_name=name,
            order=to_json(order),
            asked=terms.asked,
            idempotency_key=str(uuid4()),
            known_pod_ids=[pod.id for pod in pods],
            pod_count=pod_count(order),
            created_at=self._lium.now(),
            price_per_hour_usd=terms.price_per_hour_usd,
            ceiling_per_hour_usd=terms.ceiling_per_hour_usd,
            hours=terms.hours,
        )
        return await self._journal.open().admit(entry, admit)

    async def _send(self, order: Order, entry: Entry) -> Rental:
        try:
            rental = Rental(await post(self._lium, order, entry.idempotency_key), True, entry.created_at)
        except RentOutcomeUnknown as unknown:
            log.warning("The answer to a rent was lost; settling it. request_id=%r", unknown.request_id)
            await self._settler.note(entry, "unknown", note=str(unknown.cause))
            return await self._find_out(entry, unknown)
        except LiumError as refusal:
            if await self._settler.note(entry, "refused", only_from={"sending"}, note=str(refusal)):
                raise
            # Another server has asked again meanwhile: that one may have rented.
            key = entry.idempotency_key
            lost = RentOutcomeUnknown(idempotency_key=key, pod_name=entry.pod_name, cause=refusal)
            return await self._find_out(entry, lost)
        # Whoever settled it meanwhile may have found a pod by name only; this is the API's own word.
        answered = {"pod_ids": list(rental.pod_ids), "confirmed": True}
        await self._settler.note(entry, "rented", only_from=UNSETTLED | {"rented"}, **answered)
        return rental

    async def _find_out(self, entry: Entry, lost: RentOutcomeUnknown) -> Rental:
        """What became of a rent, or the error that nobody knows."""
        with anyio.move_on_after(_SETTLE_LIMIT_SECONDS):
            settled = await self._settler.settle(entry, pauses_seconds=_SETTLE_PAUSES_SECONDS)
            if settled is not None:
                return settled
        raise lost

    async def _remove_unheard_of(self, rental: Rental) -> None:
        if not rental.confirmed:
            log.error("A cancelled rent left pods %r, found only by name: remove them by hand", rental.pod_ids)
            return
        await self._note(rental.pod_id, "removing", "the call was cancelled")
        removed: list[bool] = []

        async def remove(pod_id: str) -> None:
            removed.append(await self._remove(pod_id))

        async with anyio.create_task_group() as removals:
            for pod_id in rental.pod_ids:
                removals.start_soon(remove, pod_id)
        if all(removed):
            await self._note(rental.pod_id, "removed", "the call was cancelled")

    async def _remove(self, pod_id: str) -> bool:
        scheduled = False
        for attempt in range(1, _REMOVE_ATTEMPTS + 1):
            try:
                if await self._settler.remove(pod_id, schedule=not scheduled):
                    log.info("Removed pod %r, whose rent was cancelled", pod_id)
                    return True
                scheduled = True
            except LiumError as error:
                log.warning("Pod %r of a cancelled rent has no removal time either: %s", pod_id, error)
            await self._clock.sleep(min(attempt * _REMOVE_PAUSE_SECONDS, _LONGEST_REMOVE_PAUSE_SECONDS))
        log.error("Pod %r of a cancelled rent could not be removed and bills: remove it by hand", pod_id)
        return False

    async def _note(self, pod_id: str, status: Status, note: str) -> None:
        await self._change(pod_id, lambda _: {"status": status, "note": note})

    async def _change(self, pod_id: str, decide: Callable[[Entry], dict[str, Any] | None]) -> None:
        """Change the open rent that made a pod, if the ledger has one and `decide` names columns of it to set."""
        try:
            for entry in await self.open_entries():
                if pod_id not in entry.pod_ids or (values := decide(entry)) is None:
                    continue
                # What leaves the status as it is gives way to whoever has changed it meanwhile.
                only_from = None if "status" in values else {entry.status}
                values = {"status": entry.status} | values
                await self._journal.open().change(entry, now=self._lium.now(), only_from=only_from, **values)
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note what became of pod %r: %s", pod_id, error)


def needs_attention(entry: Entry) -> bool:
    """Whether something is left to be done for an open rent."""
    is_to_check = entry.ceiling_per_hour_usd is not None or not entry.removal_is_set
    return entry.is_unsettled or entry.status == "removing" or is_to_check
