"""Removes the pods of rents that must go: at once, or by Lium's schedule where that is refused for now.

A pod that turns out to be another's is left alone.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import anyio

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError, NotFound
from lium_mcp.api.permits import undoing
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.retries import Repeat
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.belonging import anothers
from lium_mcp.rentals.entries import Entry
from lium_mcp.rentals.orders import Rental

log = logging.getLogger(__name__)

# A new pod may take some seconds to be listed, or to be known by its id.
LISTED_WITHIN: Final = timedelta(seconds=30)
_REMOVE_AFTER: Final = timedelta(minutes=2)
_LOOK_BEFORE_REMOVAL_SECONDS: Final = 5.0
# Together about ten minutes: a pod that still starts cannot be removed, and most take less to start.
_REMOVE_ATTEMPTS: Final = 45
_REMOVE_PAUSE_SECONDS: Final = 3.0
_LONGEST_REMOVE_PAUSE_SECONDS: Final = 15.0


class Remover:
    """Removes pods of one account's rents, whoever sent them."""

    def __init__(self, lium: LiumClient, clock: Clock, rents: AccountRents) -> None:
        """Act with a key; `clock` is for pauses."""
        self._lium = lium
        self._clock = clock
        self._rents = rents

    async def remove_all(
        self, entry: Entry, pod_ids: Iterable[str], *, known_since: datetime, due_pod_ids: Collection[str] = ()
    ) -> bool:
        """Remove several pods that must go; one that cannot be removed does not keep the others.

        Args:
            entry: Their rent.
            pod_ids: The pods.
            known_since: Soon after this moment, Lium may not know them by their ids yet.
            due_pod_ids: Those that Lium removes soon anyhow: another time would only put that off.

        Returns:
            Whether nothing is left to order: of each, Lium has accepted to remove it, or knows no such pod, or it is
            another's.

        Raises:
            LiumError: one of them could neither be removed nor have its removal scheduled; or Lium answers 404 so
                soon that it may not know the pod yet.
        """
        failure: LiumError | None = None
        removed = []
        for pod_id in pod_ids:
            try:
                schedule = pod_id not in due_pod_ids
                removed.append(await self._remove(entry, pod_id, known_since=known_since, schedule=schedule))
            except LiumError as error:
                failure = error
        if failure is not None:
            raise failure
        return all(removed)

    async def order_removal(self, entry: Entry, pod_ids: Iterable[str], *, due_pod_ids: Collection[str] = ()) -> None:
        """Remove pods of a rent that is `removing`, as `remove_all` does, and note it once Lium has accepted that.

        Raises:
            LiumError: as `remove_all`.
        """
        if await self.remove_all(entry, pod_ids, known_since=entry.known_since, due_pod_ids=due_pod_ids):
            await self._rents.note(entry, "removing", only_from={"removing"}, removal_accepted=True)

    async def go_on(self, entry: Entry, pod_ids: Sequence[str], pods: Sequence[Pod]) -> None:
        """Go on removing pods of a rent that is `removing`, given how Lium lists them.

        Raises:
            LiumError: as `remove_all`.
        """
        soon = self._lium.now() + _REMOVE_AFTER
        due = [pod.id for pod in pods if pod.removal_scheduled_at is not None and pod.removal_scheduled_at <= soon]
        if entry.removal_accepted:
            # A pod that is being removed is not listed any more; one that is listed has to be ordered to go once more.
            pod_ids = [pod.id for pod in pods if pod.id in pod_ids and pod.is_alive]
        await self.order_removal(entry, pod_ids, due_pod_ids=due)

    async def remove_if_unwanted(self, rental: Rental) -> None:
        """Remove the pods of a rental whose call was cancelled before anybody knew of them."""
        entry = rental.entry
        only_if = {"unwanted": True, "handed_out": False}
        note = "the call was cancelled"
        if await self._rents.note(entry, "removing", only_from={"rented"}, only_if=only_if, note=note):
            with suppress(LiumError):  # then a later look orders it
                if await self.remove_all(entry, rental.pod_ids, known_since=self._lium.now()):
                    await self._rents.note(entry, "removing", only_from={"removing"}, removal_accepted=True)

    async def remove_unheard_of(self, rental: Rental) -> None:
        """Remove the pods of a call that was cancelled before it could tell of them, however often it takes."""
        if not rental.confirmed:
            # They could be somebody else's: they are removed once Lium says that they came of this rent.
            log.error("A cancelled rent left pods %r, found only by name", rental.pod_ids)
            await self._rents.note_doubtful(rental.pod_id)
            return
        if not await self._rents.disown(rental):
            log.info("Pods %r of a cancelled rent stay: another call was told of them", rental.pod_ids)
            return
        removed: list[bool] = []

        async def remove(pod_id: str) -> None:
            removed.append(await self._remove_at_last(rental.entry, pod_id))

        async with anyio.create_task_group() as removals:
            for pod_id in rental.pod_ids:
                removals.start_soon(remove, pod_id)
        if all(removed):
            await self._rents.note_accepted(rental.pod_id)

    async def _remove_at_last(self, entry: Entry, pod_id: str) -> bool:
        scheduled = False
        for attempt in range(1, _REMOVE_ATTEMPTS + 1):
            try:
                if await self._remove(entry, pod_id, known_since=entry.created_at, schedule=not scheduled):
                    log.info("Nothing is left to order for pod %r, whose rent was cancelled", pod_id)
                    return True
                scheduled = True
            except LiumError as error:
                log.warning("Pod %r of a cancelled rent has no removal time either: %s", pod_id, error)
            await self._clock.sleep(min(attempt * _REMOVE_PAUSE_SECONDS, _LONGEST_REMOVE_PAUSE_SECONDS))
        log.error("Pod %r of a cancelled rent could not be removed and bills: remove it by hand", pod_id)
        return False

    async def _remove(self, entry: Entry, pod_id: str, *, known_since: datetime, schedule: bool) -> bool:
        """Remove a pod, or have Lium remove it soon where it cannot be removed yet; see `remove_all`."""
        # What cannot be read now speaks for nothing, and the pod bills.
        with suppress(LiumError), anyio.move_on_after(_LOOK_BEFORE_REMOVAL_SECONDS):
            if named := anothers(entry, [await self._lium.pods.get(pod_id, repeat=Repeat.NEVER)]):
                await self._rents.disclaim(entry, named)
                return True
        asked_at = self._lium.now()
        try:
            with undoing():
                await self._lium.pods.remove(pod_id)
        except NotFound:
            if asked_at - known_since <= LISTED_WITHIN:
                raise
        except LiumError as error:
            log.warning("Removing pod %r was refused for now: %s", pod_id, error)
            if schedule:  # this process may not live until the pod can be removed
                with undoing():
                    await self._lium.pods.schedule_removal(pod_id, at=self._lium.now() + _REMOVE_AFTER)
            return False
        return True
