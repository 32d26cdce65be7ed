"""What became of a rent: asking again with the same key, looking for the pod, and bringing the ledger up to date.

What an answer proves is the contract's: a repeat with the same idempotency key tells the stored outcome, once it is
marked as replayed. Past the time for which the API keeps a key, a repeat would rent again: then a person decides.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import anyio

from lium_mcp.api import (
    Clock,
    LiumClient,
    LiumError,
    NotFound,
    Pod,
    RateLimited,
    RentOutcomeUnknown,
    Rows,
)
from lium_mcp.rentals.entries import UNSETTLED, Entry, LedgerUnavailable, Status
from lium_mcp.rentals.expected import costs_more
from lium_mcp.rentals.journal import Journal
from lium_mcp.rentals.orders import ClusterOrder, NodeOrder, Order, Rental, from_json
from lium_mcp.rentals.removal import keep_removal_time

log = logging.getLogger(__name__)

# The API keeps a key for 24 hours.
REPLAY_WINDOW: Final = timedelta(hours=23)
# With nobody there to hear of the pod, an old rent is not repeated.
_BACKGROUND_WINDOW: Final = timedelta(minutes=10)
# The API's own lock on a key ends after 300 seconds: no request of that rent runs any more.
_RUN_OUT: Final = timedelta(seconds=330)
# A server that is alive has its answer, or has written that it has none.
_SENDING_ENDS: Final = timedelta(seconds=60)
# A new pod may take some seconds to be listed.
_LISTED_WITHIN: Final = timedelta(seconds=30)
_REMOVE_AFTER: Final = timedelta(minutes=2)
_LOOK_PAUSES_SECONDS: Final = (0.0, 3.0, 3.0)
# Twice: if the first repeat is the first to arrive, the second tells what the API has stored of it.
_AT_ONCE: Final = (0.0, 0.0)
_ATTEND_LIMIT_SECONDS: Final = 30.0
DEARER: Final = "it came out dearer than allowed"


def is_alive(pod: Pod) -> bool:
    """Whether a pod has its name: it bills, or will."""
    return pod.is_billing or not pod.is_terminal


def is_gone(entry: Entry, pods: Sequence[Pod], now: datetime) -> bool:
    """Whether a complete list of pods says that those of a settled rent are no more."""
    listed = [pod for pod in pods if pod.id in entry.pod_ids]
    if entry.status != "rented" or entry.settled_at is None or any(map(is_alive, listed)):
        return False
    return bool(listed) or now - entry.settled_at > _LISTED_WITHIN


async def post(lium: LiumClient, order: Order, key: str) -> tuple[str, ...]:
    """Send a rent and return the pods it made.

    Raises:
        RentOutcomeUnknown: the answer names no pod, or none came.
        LiumError: as `Executors.rent`.
    """
    if isinstance(order, ClusterOrder):
        return (await lium.clusters.rent(order.request, idempotency_key=key)).pod_ids
    if isinstance(order, NodeOrder):
        return ((await lium.executors.rent(order.executor_id, order.request, idempotency_key=key)).pod_id,)
    return ((await lium.executors.rent_by_spec(order.request, idempotency_key=key)).pod_id or "",)


class Settler:
    """Settles rents of the ledger, whoever sent them. Its callers see to it that one of them acts at a time."""

    def __init__(self, lium: LiumClient, clock: Clock, journal: Journal) -> None:
        self._lium = lium
        self._clock = clock
        self._journal = journal

    async def attend(self, account: str, pods: Rows[Pod], *, in_background: bool = False) -> list[Entry]:
        """Bring every open rent of an account up to date.

        Args:
            account: Whose rents.
            pods: The account's pods, as listed just now.
            in_background: Nobody would hear of a pod that comes of it.

        Returns:
            The rents that are still open.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries = await self._journal.open().open_entries(account)
        with anyio.move_on_after(_ATTEND_LIMIT_SECONDS):
            for entry in entries:
                try:
                    await self._attend_to(entry, pods, in_background=in_background)
                except LiumError as error:
                    log.warning("The rent of %r could not be attended to for now: %s", entry.pod_name, error)
        return await self._journal.open().open_entries(account)

    async def settle(self, entry: Entry, *, pauses_seconds: Iterable[float]) -> Rental | None:
        """Find out what became of a rent whose answer was just lost: ask again with its key, then look for its pod.

        Returns:
            What it rented; None while nothing proves anything.

        Raises:
            LiumError: the refusal that the API has stored for it: it rented nothing.
        """
        return await self._ask_again(entry, pauses_seconds) or await self._look_for(entry, _LOOK_PAUSES_SECONDS)

    async def note(
        self,
        entry: Entry,
        status: Status,
        *,
        only_from: Collection[Status] | None = None,
        **values: Any,  # noqa: ANN401 - columns of the ledger
    ) -> bool:
        """Write what became of a rent, unless somebody has decided something else about it meanwhile.

        A ledger that fails now must not hide a pod: the rent is settled again later.

        Returns:
            False where something else was decided.
        """
        known = UNSETTLED if entry.is_unsettled else {entry.status}
        try:
            return await self._journal.open().change(
                entry, status, now=self._lium.now(), only_from=only_from or known, **values
            )
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note that the rent of %r is %s: %s", entry.pod_name, status, error)
            return True

    async def remove(self, pod_id: str, *, schedule: bool = True) -> bool:
        """Remove a pod that must go, or have Lium remove it soon where it cannot be removed yet.

        Returns:
            Whether it is being removed now, or is gone.

        Raises:
            LiumError: neither was possible.
        """
        try:
            await self._lium.pods.remove(pod_id)
        except NotFound:
            pass
        except LiumError as error:
            log.warning("Removing pod %r was refused for now: %s", pod_id, error)
            if schedule:  # this process may not live until the pod can be removed
                await self._lium.pods.schedule_removal(pod_id, at=self._lium.now() + _REMOVE_AFTER)
            return False
        return True

    async def remove_all(self, pod_ids: Iterable[str], *, due_pod_ids: Collection[str] = ()) -> bool:
        """As `remove` for several; one that cannot be removed stands in no other's way.

        Args:
            pod_ids: Which.
            due_pod_ids: Those that Lium removes soon anyhow: another time would only put that off.

        Returns:
            Whether all are being removed now, or are gone.

        Raises:
            LiumError: for one of them, neither was possible.
        """
        failure: LiumError | None = None
        removed = []
        for pod_id in pod_ids:
            try:
                removed.append(await self.remove(pod_id, schedule=pod_id not in due_pod_ids))
            except LiumError as error:
                failure = error
        if failure is not None:
            raise failure
        return all(removed)

    async def _attend_to(self, entry: Entry, pods: Rows[Pod], *, in_background: bool) -> None:
        if entry.is_unsettled:
            await self._attend_to_unsettled(entry, pods, in_background=in_background)
        elif entry.status == "removing":
            await self._go_on_removing(entry, pods)
        else:
            await self._attend_to_rented(entry, pods)

    async def _go_on_removing(self, entry: Entry, pods: Sequence[Pod]) -> None:
        soon = self._lium.now() + _REMOVE_AFTER
        due = [pod.id for pod in pods if pod.removal_scheduled_at is not None and pod.removal_scheduled_at <= soon]
        if await self.remove_all(entry.pod_ids, due_pod_ids=due):
            await self.note(entry, "removed")

    async def _attend_to_unsettled(self, entry: Entry, pods: Rows[Pod], *, in_background: bool) -> None:
        age = self._lium.now() - entry.created_at
        if age >= (_BACKGROUND_WINDOW if in_background else REPLAY_WINDOW):
            if entry.status != "unknown":
                await self.note(entry, "unknown")
            return
        if in_background and entry.status == "sending" and age < _SENDING_ENDS:
            return  # its own server waits for the answer
        if age > _RUN_OUT and not pods.skipped and not _new_pods(entry, pods):
            # A repeat now could be the first to arrive, and rent long after anybody waits for it.
            log.warning("Settled the rent of %r: it runs no more, and Lium lists no such pod", entry.pod_name)
            await self.note(entry, "absent")
            return
        try:
            rental = await self._ask_again(entry, _AT_ONCE) or await self._look_for(entry, _AT_ONCE[:1])
        except LiumError as refusal:
            log.info("Settled the rent of %r: it was refused: %s", entry.pod_name, refusal)
            return
        if rental is not None:
            log.info("Settled the rent of %r: it was rented", entry.pod_name)
        elif age > _SENDING_ENDS and entry.status != "unknown":
            await self.note(entry, "unknown")

    async def _ask_again(self, entry: Entry, pauses_seconds: Iterable[float]) -> Rental | None:
        """Repeat a rent with its own key, where the API keeps it.

        Returns:
            What it rented, if that is proved.
        """
        order = from_json(entry.order)
        age = self._lium.now() - entry.created_at
        # A server that was replaced by an older one would take the repeat for a new rent.
        if order is None or age >= REPLAY_WINDOW or not await self._lium.supports("rent_idempotency", still=True):
            return None
        if not await self._claim(entry):
            return await self._settled_meanwhile(entry)
        for pause_seconds in pauses_seconds:
            await self._clock.sleep(pause_seconds)
            try:
                pod_ids = await post(self._lium, order, entry.idempotency_key)
            except (RentOutcomeUnknown, RateLimited):
                pass  # whoever answered this did not look at the first request, or cannot tell of it yet
            except LiumError as error:
                if error.replayed and error.effect == "none":
                    await self.note(entry, "refused", note=str(error))
                    raise
            else:
                await self.note(entry, "rented", pod_ids=list(pod_ids), confirmed=True)
                return Rental(pod_ids, True, entry.created_at)
        return None

    async def _claim(self, entry: Entry) -> bool:
        """Write that its request is repeated, while nobody has settled it: from then on no first refusal closes it."""
        try:
            return await self._journal.open().change(entry, "repeated", now=self._lium.now(), only_from=UNSETTLED)
        except LedgerUnavailable as error:
            log.warning("The rent of %r cannot be settled without the ledger: %s", entry.pod_name, error)
            return False

    async def _settled_meanwhile(self, entry: Entry) -> Rental | None:
        """What another server has found out about a rent."""
        with suppress(LedgerUnavailable):
            for newest in await self._journal.open().open_entries(entry.account):
                if newest.id == entry.id and newest.pod_ids:
                    return Rental(tuple(newest.pod_ids), newest.confirmed, newest.created_at)
        return None

    async def _attend_to_rented(self, entry: Entry, pods: Rows[Pod]) -> None:
        if not pods.skipped and is_gone(entry, pods, self._lium.now()):
            await self.note(entry, "removed")
            return
        alive = [pod for pod in pods if pod.id in entry.pod_ids and is_alive(pod)]
        if alive and entry.ceiling_per_hour_usd is not None and await self._is_dearer(entry, alive):
            return
        if entry.hours is not None:
            kept = set(entry.kept_pod_ids)
            for pod in alive:
                if pod.id not in kept and (await keep_removal_time(self._lium, pod, entry.hours, entry.created_at))[1]:
                    kept.add(pod.id)
            if kept != set(entry.kept_pod_ids):
                await self.note(entry, "rented", kept_pod_ids=sorted(kept))

    async def _is_dearer(self, entry: Entry, alive: Sequence[Pod]) -> bool:
        """Hold pods that no call has looked at against what they may cost; dearer ones must go."""
        prices = [pod.price for pod in alive]
        is_dearer = costs_more(sum(price or 0 for price in prices), entry.ceiling_per_hour_usd)
        if is_dearer and entry.confirmed:
            log.warning("The pods of %r came out dearer than allowed and are removed", entry.pod_name)
            await self.note(entry, "removing", note=DEARER)
            if await self.remove_all(entry.pod_ids):
                await self.note(entry, "removed", only_from={"removing"}, note=DEARER)
            return True
        if None not in prices and len(alive) == len(entry.pod_ids):
            if is_dearer:
                log.error("The pods of %r cost more than allowed, and were found only by name", entry.pod_name)
            await self.note(entry, "rented", ceiling_per_hour_usd=None)
        return False

    async def _look_for(self, entry: Entry, pauses_seconds: Iterable[float]) -> Rental | None:
        for pause_seconds in pauses_seconds:
            await self._clock.sleep(pause_seconds)
            try:
                found = _new_pods(entry, await self._lium.pods.list())
            except LiumError:
                continue
            if len(found) == entry.pod_count:
                await self.note(entry, "rented", pod_ids=found, confirmed=False)
                return Rental(tuple(found), False, entry.created_at)
        return None


def _new_pods(entry: Entry, pods: Sequence[Pod]) -> list[str]:
    """Pods of the rent's name that were not there before it."""
    return [pod.id for pod in pods if pod.pod_name == entry.pod_name and pod.id not in entry.known_pod_ids]
