"""The protocol around a rent: written down before it is sent, sent once, and settled before anything else is rented.

A rent spends money. Its row is committed to the ledger before its request leaves, so that a crash at any point leaves
something to settle. When the answer is lost, the request is repeated only with the same idempotency key, and only where
the API promises to replay it. Elsewhere the pod is looked for, and what cannot be established stays unknown, never
failed. This package knows nothing of tools.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import anyio
import anyio.lowlevel

from lium_mcp.api.account import Me
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError, RentOutcomeUnknown
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.api.wire import noted_changes
from lium_mcp.rentals.belonging import anothers, not_its_own
from lium_mcp.rentals.entries import (
    UNSETTLED,
    Entry,
    Extension,
    LedgerUnavailable,
    PastCost,
    has_something_left,
    is_only_to_check,
)
from lium_mcp.rentals.expected import ANYTHING, Expected, expected_after
from lium_mcp.rentals.identity import Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.orders import Order, Rental, pod_count, to_json
from lium_mcp.rentals.removal_time import keep_removal_time
from lium_mcp.rentals.settling import (
    BEING_SETTLED,
    Settler,
    post,
)

log = logging.getLogger(__name__)

# Together about ten minutes: a pod that still starts cannot be removed, and most take less to start.
_REMOVE_ATTEMPTS: Final = 45
_REMOVE_PAUSE_SECONDS: Final = 3.0
_LONGEST_REMOVE_PAUSE_SECONDS: Final = 15.0
_SETTLE_LIMIT_SECONDS: Final = 38.0
# For rents in flight on other servers; many hosts end a call after 60 s.
_OTHERS_LIMIT_SECONDS: Final = 30.0
_OTHERS_PAUSE_SECONDS: Final = 1.0
# For a pod of the same name that is being removed.
_REMOVAL_LIMIT_SECONDS: Final = 6.0
# The call of a rent waits for at most ten minutes, and settles the rent before.
_LONGEST_CALL: Final = timedelta(minutes=15)

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


class Renter:
    """Rents for one account, one at a time."""

    def __init__(
        self, lium: LiumClient, clock: Clock, turn: anyio.Lock, ledger: LazyLedger, identity: Identity
    ) -> None:
        """Act with a key.

        Args:
            lium: The API client with the key.
            clock: For pauses.
            turn: Held from the look at what exists until the answer; all who rent with the key on this server share it.
            ledger: Where the ledger is.
            identity: The key, and the account that it acts for.
        """
        self._lium = lium
        self._clock = clock
        self._turn = turn
        self._ledger = ledger
        self._identity = identity
        self._settler = Settler(lium, clock, ledger, identity.key_tag)

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
            entries = await self._settler.attend(await self._identity.known(), pods)
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
            noted_changes().append(BEING_SETTLED)
        async with self._turn:
            yield

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
            entries = await self._settler.attend(account, pods) if before else []
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
            if not any(self._settler.needs_attention(entry, in_background=in_background) for entry in entries):
                return entries
            pods = await self._lium.pods.list()
            return await self._settler.attend(account, pods, in_background=in_background)

    async def standing(self) -> tuple[list[Entry], list[Extension]]:
        """The account's open rents and admitted extensions, as the ledger has them.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return [], []
        return await self._ledger.open().standing(await self._identity.known())

    async def open_entries(self) -> list[Entry]:
        """The account's open rents, as the ledger has them; none where it cannot be read."""
        with suppress(LedgerUnavailable):
            return (await self.standing())[0]
        return []

    async def hand_out(self, pod_id: str) -> None:
        """Note that another call than the one that rented a pod works with it: that one's end no longer removes it."""
        for entry in await self.open_entries():
            is_its_call_over = self._lium.now() - entry.created_at > _LONGEST_CALL
            if pod_id in entry.pod_ids and not entry.handed_out and not is_its_call_over:
                with suppress(LedgerUnavailable):
                    await self._hand_out(entry)

    async def has_something_left(self, pod_id: str) -> bool:
        """Whether something is left to do for the rent of this pod.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries, _ = await self.standing()
        return any(pod_id in entry.pod_ids and has_something_left(entry) for entry in entries)

    async def given_back(self) -> list[Entry]:
        """The account's rents, newest first, whose pods were given back by a look after the rent's call.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        return await self._ledger.open().given_back(await self._identity.known())

    async def has_removal_to_set(self, pod_id: str) -> bool:
        """Whether the removal time that this pod's rent asked for is still to be set or made exact.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries, _ = await self.standing()
        return any(pod_id in entry.pod_ids and not entry.removal_is_set for entry in entries)

    async def removed_since(self, moment: datetime) -> list[PastCost]:
        """The costs of the account's rents whose pods were removed since a moment.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        return await self._ledger.open().closed_since(await self._identity.known(), moment)

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
            rental = await self._send_unheard(order, admitted) if isinstance(admitted, Entry) else admitted
        try:
            await anyio.lowlevel.checkpoint()  # a call that was cancelled meanwhile stops here
            yield rental
        except anyio.get_cancelled_exc_class():
            if not rental.earlier:
                with anyio.CancelScope(shield=True):
                    await self._remove_unheard_of(rental)
            raise

    async def admit_extension(self, extension: Extension, judge: Callable[..., None]) -> None:
        """Write that a pod may live until a later time, unless `judge` raises when it sees open rents and extensions.

        Meanwhile no server on the ledger admits anything else for the account.

        Raises:
            AccountUnknown: Lium does not say which account the key acts for.
            LedgerUnavailable: it could not be kept.
        """
        await self._ledger.open().admit_extension(await self._identity.learn(), extension, judge)

    async def forget_extension(self, pod_id: str) -> None:
        """Delete a pod's admitted extension: Lium refused it, or the pod is to end earlier."""
        if self._ledger.is_empty:
            return
        try:
            await self._ledger.open().forget_extension(await self._identity.known(), pod_id)
        except LedgerUnavailable as error:
            # Until it is out of date, the pod counts for more than it should.
            log.warning("The ledger cannot drop the later removal time of pod %r: %s", pod_id, error)

    async def refuse_anothers(self, rental: Rental, pods: Iterable[Pod]) -> None:
        """Disclaim a rental if its pods, as Lium shows them, are another's: then nobody knows what became of the rent.

        Raises:
            RentOutcomeUnknown: they are another's.
        """
        if named := anothers(rental.entry, pods):
            await self._settler.disclaim(rental.entry, named)
            raise not_its_own(rental.entry, named)

    async def give_back(self, rental: Rental, reason: str) -> bool:
        """Remove the pods of a rental that must not stay; Lium's schedule or a later look removes what cannot go yet.

        Returns:
            Whether nothing is left to order for any of them.

        Raises:
            LiumError: nothing could be done now; the ledger says that they must go.
        """
        await self._change(rental.pod_id, lambda _: {"status": "removing", "note": reason})
        accepted = await self._settler.remove_all(rental.entry, rental.pod_ids, known_since=rental.rented_at)
        if accepted:
            await self._note_accepted(rental.pod_id)
        return accepted

    async def keep_removal_time(self, rental: Rental, pod: Pod, hours: float) -> tuple[PodDetail | None, bool]:
        """Make a pod's removal time what was asked for, as the function of that name does, and note when it is done.

        Raises:
            LiumError: it could not be set or read back.
        """
        newest, is_set = await keep_removal_time(self._lium, pod, hours, rental.rented_at)
        if is_set:
            await self.forget_removal_time(pod.id)
        return newest, is_set

    async def forget_removal_time(self, pod_id: str) -> None:
        """Note that the removal time that this pod's rent asked for needs no setting: it is set, or replaced."""

        def kept(entry: Entry) -> dict[str, Any] | None:
            return None if entry.removal_is_set else {"kept_pod_ids": sorted({*entry.kept_pod_ids, pod_id})}

        await self._change(pod_id, kept)

    async def note_checked(self, pods: Sequence[Pod]) -> None:
        """Note that a rent's pods, as these rows show them, were held against what was asked for and allowed."""

        def checked(entry: Entry) -> dict[str, Any] | None:
            left = expected_after(entry, pods)
            return None if left == entry.expected else {"expected": left}

        await self._change(pods[0].id, checked)

    async def forget_template(self, pod_id: str) -> None:
        """Note that another template is chosen for a pod: nobody holds it against the first one any more."""

        def without(entry: Entry) -> dict[str, Any] | None:
            left = Expected.from_json(entry.expected).without_template().to_json() or None
            return None if left == entry.expected else {"expected": left}

        await self._change(pod_id, without)

    async def note_removal(self, pod_id: str) -> None:
        """Note that Lium has accepted to remove a pod; its name is free once Lium says that it is gone."""

        def without(entry: Entry) -> dict[str, Any]:
            others = [other for other in entry.pod_ids if other != pod_id]
            if others:
                return {"pod_ids": others}
            return {"status": "removing", "removal_accepted": True, "note": "removed on request"}

        await self._change(pod_id, without)

    async def note_gone(self, pod_id: str) -> None:
        """Note that Lium itself says that a pod is gone, if it had accepted to remove it."""
        await self._change(pod_id, lambda entry: {"status": "removed"} if entry.removal_accepted else None)

    async def _admit(self, entry: Entry, find_judge: Callable[[], Awaitable[Judge]]) -> Entry | Rental:
        """Write a rent into the ledger once it may be sent, or return what an earlier call rented."""
        account = await self._identity.learn()
        started = self._clock.monotonic()
        while True:
            pods = await self._lium.pods.list()
            entries = await self._settler.attend(account, pods)
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
        if named is not None and named.status == "rented" and named.asked == asked and await self._hand_out(named):
            return Rental(tuple(named.pod_ids), named.confirmed, named, earlier=True)
        taken = [pod.id for pod in pods if pod.pod_name == pod_name and pod.is_alive]
        if named is not None or taken:
            removing = named is not None and (named.status == "removing" or named.asked == asked)
            raise PodNameTaken(pod_name, list(named.pod_ids) if named else taken, removing=removing)
        return None

    async def _hand_out(self, entry: Entry) -> bool:
        """Write that another call is told of a rent's pods, so that cancelling their own call does not remove them."""
        ledger = self._ledger.open()
        return await ledger.change(entry, "rented", now=self._lium.now(), only_from={"rented"}, handed_out=True)

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

    async def _send_unheard(self, order: Order, entry: Entry) -> Rental:
        """Send a rent and see it through, even if the call is cancelled; write that it was, at once."""
        outcome: list[Rental | Exception] = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._note_when_unwanted, entry, outcome)
                with anyio.CancelScope(shield=True):
                    await self._send_into(outcome, order, entry)
                group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            if not outcome:
                # The shield does not hold when the process ends.
                log.critical("Stopped during the rent of %r: it may exist and bill", entry.pod_name)
                raise
        [came] = outcome
        if isinstance(came, Exception):
            await anyio.lowlevel.checkpoint()  # a cancelled call ends as cancelled, and with no other error
            raise came
        return came

    async def _send_into(self, outcome: list[Rental | Exception], order: Order, entry: Entry) -> None:
        try:
            outcome.append(await self._send(order, entry))
        except Exception as error:  # noqa: BLE001 - raised by the caller as it is, and not in a group
            outcome.append(error)

    async def _note_when_unwanted(self, entry: Entry, outcome: Sequence[object]) -> None:
        """Write that the call was cancelled, as soon as it is: a pod that nobody knows of yet is removed once known."""
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            if not outcome:
                with anyio.CancelScope(shield=True):
                    # The rent goes on, and writing what became of it leaves this as it is.
                    await self._note_unwanted(entry)
            raise

    async def _note_unwanted(self, entry: Entry) -> None:
        try:
            await self._ledger.open().mark_unwanted(entry)
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note that the rent of %r is unwanted: %s", entry.pod_name, error)

    async def _send(self, order: Order, entry: Entry) -> Rental:
        try:
            rental = await post(self._lium, order, entry)
        except RentOutcomeUnknown as unknown:
            log.warning("The answer to a rent was lost; settling it. request_id=%r", unknown.request_id)
            await self._settler.note(entry, "unknown", note=str(unknown.cause))
            return await self._find_out(entry, unknown)
        except LiumError as refusal:
            if await self._settler.note(entry, "refused", only_from={"sending"}, note=str(refusal)):
                raise
            # Another server has asked again meanwhile, and its request may have rented.
            key = entry.idempotency_key
            lost = RentOutcomeUnknown(idempotency_key=key, pod_name=entry.pod_name, cause=refusal)
            return await self._find_out(entry, lost)
        # Another server may have settled it meanwhile by the pod's name alone; this answer is the API's own word.
        pod_ids = list(rental.pod_ids)
        await self._settler.note(entry, "rented", only_from=UNSETTLED | {"rented"}, pod_ids=pod_ids, confirmed=True)
        return rental

    async def _find_out(self, entry: Entry, lost: RentOutcomeUnknown) -> Rental:
        """Return what a rent rented, or raise the error that nobody knows."""
        with anyio.move_on_after(_SETTLE_LIMIT_SECONDS):
            settled = await self._settler.settle(entry)
            if settled is not None:
                return settled
        raise lost

    async def _remove_unheard_of(self, rental: Rental) -> None:
        if not rental.confirmed:
            # They could be somebody else's: they are removed once Lium says that they came of this rent.
            log.error("A cancelled rent left pods %r, found only by name", rental.pod_ids)
            await self._change(rental.pod_id, lambda _: {"unwanted": True})
            return
        if not await self._disown(rental):
            log.info("Pods %r of a cancelled rent stay: another call was told of them", rental.pod_ids)
            return
        removed: list[bool] = []

        async def remove(pod_id: str) -> None:
            removed.append(await self._remove(rental.entry, pod_id))

        async with anyio.create_task_group() as removals:
            for pod_id in rental.pod_ids:
                removals.start_soon(remove, pod_id)
        if all(removed):
            await self._note_accepted(rental.pod_id)

    async def _disown(self, rental: Rental) -> bool:
        """Write that the pods of a cancelled call must go; False where another call was told of them."""
        try:
            ledger = self._ledger.open()
            for entry in await ledger.open_entries(await self._identity.known()):
                if rental.pod_id in entry.pod_ids:
                    values: dict[str, Any] = {"note": "the call was cancelled", "unwanted": True}
                    now, only_if = self._lium.now(), {"handed_out": False}
                    return await ledger.change(entry, "removing", now=now, only_if=only_if, **values)
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note that pods %r must go: %s", rental.pod_ids, error)
        return True

    async def _remove(self, entry: Entry, pod_id: str) -> bool:
        scheduled = False
        for attempt in range(1, _REMOVE_ATTEMPTS + 1):
            try:
                known_since = entry.created_at
                if await self._settler.remove(entry, pod_id, known_since=known_since, schedule=not scheduled):
                    log.info("Nothing is left to order for pod %r, whose rent was cancelled", pod_id)
                    return True
                scheduled = True
            except LiumError as error:
                log.warning("Pod %r of a cancelled rent has no removal time either: %s", pod_id, error)
            await self._clock.sleep(min(attempt * _REMOVE_PAUSE_SECONDS, _LONGEST_REMOVE_PAUSE_SECONDS))
        log.error("Pod %r of a cancelled rent could not be removed and bills: remove it by hand", pod_id)
        return False

    async def _note_accepted(self, pod_id: str) -> None:
        await self._change(pod_id, lambda _: {"removal_accepted": True})

    async def _change(self, pod_id: str, decide: Callable[[Entry], dict[str, Any] | None]) -> None:
        """Change the open rent that made a pod, if the ledger has one and `decide` names columns of it to set."""
        try:
            entries, _ = await self.standing()
            for entry in entries:
                if pod_id not in entry.pod_ids or (values := decide(entry)) is None:
                    continue
                # A change that leaves the status as it is yields to one that has changed it meanwhile.
                only_from = None if "status" in values else {entry.status}
                values = {"status": entry.status} | values
                await self._ledger.open().change(entry, now=self._lium.now(), only_from=only_from, **values)
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note what became of pod %r: %s", pod_id, error)
