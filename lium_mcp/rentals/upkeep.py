"""Brings the open rents of an account up to date, given how Lium lists its pods, whoever sent the rents.

One list without a pod proves nothing. A settled rent is closed when Lium says of its pod itself that it is gone; one
that may have made a pod, once several lists, some time apart, lack it. Until then its pods are held against what they
have to be, get their removal times, and are removed where they must go.
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import anyio

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import LiumError, NotFound
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.retries import Repeat
from lium_mcp.figures import rate_in_usd
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.belonging import anothers, is_its_own, missing_members, of_its_name
from lium_mcp.rentals.entries import FAILED_TO_START, GIVEN_BACK, Entry, has_something_left
from lium_mcp.rentals.expected import DEARER, expected_after, still_expected
from lium_mcp.rentals.removal_time import keep_removal_time
from lium_mcp.rentals.remover import LISTED_WITHIN, Remover
from lium_mcp.rentals.settling import Settler

log = logging.getLogger(__name__)

# The API's own lock on a key ends after 300 seconds: after that no request of the rent runs any more.
_RUN_OUT: Final = timedelta(seconds=330)
# After so many complete lists without its pod, so far apart, a rent is taken to have made none.
_MISSED_LISTS: Final = 3
_MISSED_LISTS_APART: Final = timedelta(seconds=60)
_LISTS_APART_AT_MOST: Final = timedelta(minutes=10)
_MISSED_AGAIN_WITHIN: Final = timedelta(days=1)
# In one look, even if a list lacks many pods.
_MOST_RENTS_ASKED_ABOUT: Final = 12
_MOST_PODS_ASKED_FOR: Final = 4
_ATTEND_LIMIT_SECONDS: Final = 30.0


def unlisted_pod_ids(entry: Entry, pods: Sequence[Pod]) -> list[str]:
    """The pods of a rent that a list does not show alive."""
    alive = {pod.id for pod in pods if pod.is_alive}
    return [pod_id for pod_id in entry.pod_ids if pod_id not in alive]


class Upkeep:
    """Attends to the open rents of one account."""

    def __init__(self, lium: LiumClient, rents: AccountRents, settler: Settler, remover: Remover, key_tag: str) -> None:
        """Act with a key, which the ledger calls `key_tag`."""
        self._lium = lium
        self._rents = rents
        self._settler = settler
        self._remover = remover
        self._key_tag = key_tag
        # By rent: when pods were last listed between calls and told nothing of it. This is not in the ledger, since
        # another server's list, or a call's, may tell something at any time.
        self._in_vain: dict[str, datetime] = {}
        # When this server first looked: what was sent before then is no call's of its own.
        self._since: datetime | None = None

    def is_needed(self, entry: Entry, *, in_background: bool) -> bool:
        """Whether there is something to do for an open rent now; between calls that is so less and less often."""
        now = self._lium.now()
        if entry.status == "admitted":
            return not self._settler.is_in_flight(entry)
        if not entry.is_unsettled:
            looked_at = self._in_vain.get(entry.id) if in_background and entry.status != "removing" else None
            is_early = looked_at is not None and now - looked_at < _pause_between_lists(looked_at - entry.created_at)
            return has_something_left(entry) and not is_early
        if self._settler.is_in_flight(entry) or (entry.next_look_at is not None and entry.next_look_at > now):
            return False
        if not in_background or now - entry.created_at <= _RUN_OUT:
            return True
        if entry.key_tag != self._key_tag:
            return False  # this key's lists prove nothing, and only a call takes a pod by its name
        lists = [at for at in (entry.missed_at, self._in_vain.get(entry.id)) if at is not None]
        return not lists or now - max(lists) >= _pause_between_lists(max(lists) - entry.created_at)

    async def attend(self, entries: Sequence[Entry], pods: Rows[Pod], *, in_background: bool) -> None:
        """Bring open rents up to date.

        Args:
            entries: All that the account has open.
            pods: The account's pods, as Lium lists them.
            in_background: No call waits, so nobody would hear of a pod that comes of it.
        """
        self._since = self._since or pods.asked_at
        is_short = False
        left_to_ask_about = _MOST_RENTS_ASKED_ABOUT
        with anyio.move_on_after(_ATTEND_LIMIT_SECONDS):
            # Settled rents come first: they tell whether the list is complete.
            for known in sorted(entries, key=lambda entry: entry.is_unsettled):
                entry = await self._with_members(known, pods)
                try:
                    if entry.status == "admitted":
                        # Its server is gone: what another server admitted is never sent by this one.
                        if not self._settler.is_in_flight(entry):
                            await self._rents.note(entry, "withdrawn", note="its server ended before it was sent")
                        continue
                    if entry.is_unsettled:
                        is_complete = not (is_short or pods.skipped or pods.truncated)
                        await self._attend_to_unsettled(entry, pods, is_complete, in_background=in_background)
                        continue
                    if await self._is_disclaimed(entry, pods):
                        continue
                    unlisted = unlisted_pod_ids(entry, pods)
                    is_due = bool(unlisted) or entry.status == "removing" or entry.is_doubtful
                    left_to_ask_about -= is_due
                    may_ask = is_due and left_to_ask_about >= 0 and await self._settler.claim_look(entry)
                    gone, lacks = await self._find_gone(entry, unlisted, pods, may_ask=may_ask)
                    is_short |= lacks
                    await self._attend_to_settled(entry, gone, pods, may_ask=may_ask)
                    if in_background and self._lium.now() - entry.created_at > _RUN_OUT:
                        self._in_vain[entry.id] = pods.asked_at
                except LiumError as error:
                    is_short = True
                    if in_background and self._lium.now() - entry.created_at > _RUN_OUT:
                        self._in_vain[entry.id] = pods.asked_at
                    log.warning("The rent of %r could not be attended to for now: %s", entry.pod_name, error)

    async def _is_disclaimed(self, entry: Entry, pods: Rows[Pod]) -> bool:
        """Disclaim the pods of a rent that are another's by what Lium states of them; tell whether there are any."""
        named = anothers(entry, pods)
        if named:
            await self._rents.disclaim(entry, named)
        return bool(named)

    # settled rents

    async def _with_members(self, entry: Entry, pods: Rows[Pod]) -> Entry:
        """Take the pods of a cluster that are listed and that Lium did not name when it was rented for its own."""
        found = missing_members(entry, pods)
        if not found:
            return entry
        pod_ids = [*entry.pod_ids, *found]
        await self._rents.note(entry, entry.status, pod_ids=pod_ids)
        return replace(entry, pod_ids=pod_ids)

    async def _attend_to_settled(self, entry: Entry, gone: Collection[str], pods: Rows[Pod], *, may_ask: bool) -> None:
        """Do what is left to do for a rent whose pods are known, `gone` ones aside."""
        left = [pod_id for pod_id in entry.pod_ids if pod_id not in gone]
        if not left:
            # Those that Lium has not named yet may be listed later than the others go.
            if not entry.missing_count or self._lium.now() - entry.known_since > _RUN_OUT:
                await self._rents.note(entry, "removed", **_why_gone(entry, pods))
            return
        if gone:
            await self._rents.note(entry, entry.status, pod_ids=left, pod_count=entry.pod_count - len(gone))
        if entry.is_doubtful and may_ask and await self._settler.ask_again(entry, pods) is not None:
            return
        if entry.status != "removing":
            await self._attend_to_rented(entry, pods)
        elif may_ask:
            await self._remover.go_on(entry, left, pods)

    async def _find_gone(
        self, entry: Entry, unlisted: Sequence[str], pods: Rows[Pod], *, may_ask: bool
    ) -> tuple[set[str], bool]:
        """Find out which of a rent's pods are gone by Lium's own word, in the list or when it is asked for the pod.

        Returns:
            Their ids, and whether the list lacks a pod that it has to show: one of this key that is not known to be
            gone, or one of another key that this key sees.
        """
        listed = {pod.id for pod in pods}
        gone = {pod_id for pod_id in unlisted if pod_id in listed}  # not alive, by the list's own word
        absent = [pod_id for pod_id in unlisted if pod_id not in listed]
        is_seen = False
        for pod_id in absent[:_MOST_PODS_ASKED_FOR] if may_ask else ():
            found = await self._look_at(entry, pod_id)
            is_seen |= found == "alive"
            if found == "gone":
                gone.add(pod_id)
        return gone, is_seen or (entry.key_tag == self._key_tag and len(gone) < len(unlisted))

    async def _look_at(self, entry: Entry, pod_id: str) -> Literal["alive", "gone", "unseen"]:
        asked_at = self._lium.now()
        try:
            return "alive" if (await self._lium.pods.get(pod_id, repeat=Repeat.NEVER)).is_alive else "gone"
        except NotFound:
            pass
        is_own = entry.key_tag == self._key_tag
        if is_own and entry.removal_accepted:
            return "gone"
        # Lium may not know a new pod by its id yet, and this key may not see another key's pod, whether that lives or
        # not; the record of a removed one says so.
        has_records = await self._lium.supports("run_record")
        with suppress(NotFound):
            if has_records and (removed := (await self._lium.pods.record(pod_id)).removed) is not None:
                return "gone" if removed else "unseen"
        # Neither a pod nor a record of one. A removed pod has that too, unless an older server keeps none: Lium may
        # not know for long what it has named and never shown.
        was_shown = entry.status != "rented" or entry.expected is None or pod_id in entry.kept_pod_ids
        if not is_own or asked_at - entry.known_since <= (LISTED_WITHIN if was_shown else _RUN_OUT):
            return "unseen"
        return "gone" if has_records or await self._is_missed_again(entry, asked_at) else "unseen"

    async def _is_missed_again(self, entry: Entry, asked_at: datetime) -> bool:
        """Whether a second look, some time after a first, finds no pod of a rent: one alone may be an accident."""
        since = None if entry.missed_at is None else asked_at - entry.missed_at
        if since is not None and _MISSED_LISTS_APART <= since <= _MISSED_AGAIN_WITHIN:
            return True
        if since is None or since > _MISSED_AGAIN_WITHIN:
            await self._rents.note(entry, entry.status, missed_at=asked_at)
        return False

    async def _attend_to_rented(self, entry: Entry, pods: Rows[Pod]) -> None:
        alive = [pod for pod in pods if pod.id in entry.pod_ids and pod.is_alive]
        if alive and entry.expected is not None and await self._is_not_as_expected(entry, alive):
            return
        if entry.hours is not None:
            kept = set(entry.kept_pod_ids)
            for pod in alive:
                if pod.id not in kept and await self._is_done_with_removal(entry, pod, entry.hours):
                    kept.add(pod.id)
            if kept != set(entry.kept_pod_ids):
                await self._rents.note(entry, "rented", kept_pod_ids=sorted(kept))

    async def _is_done_with_removal(self, entry: Entry, pod: Pod, hours: float) -> bool:
        if not is_its_own(entry, pod):
            return pod.is_ready  # what Lium does not state of it by then, it never will
        return (await keep_removal_time(self._lium, pod, hours, entry.created_at))[1]

    async def _is_not_as_expected(self, entry: Entry, alive: Sequence[Pod]) -> bool:
        """Hold pods against what no look could check yet, and remove them if they are not as they have to be."""
        expected = still_expected(entry)
        contradictions = [found for pod in alive if (found := expected.contradiction(pod)) is not None]
        problem = next(iter(contradictions), None)
        if expected.is_dearer(alive):
            problem = f"{DEARER}, at {rate_in_usd(sum(pod.price or 0 for pod in alive), 4)} an hour"
        if problem is not None and entry.confirmed:
            log.warning("The pods of %r came out other than asked or allowed and are removed", entry.pod_name)
            await self._rents.note(entry, "removing", note=f"{GIVEN_BACK}{problem}")
            await self._remover.order_removal(entry, entry.pod_ids)
            return True
        if problem is not None:
            log.error("The pods of %r are not as asked or allowed, and were found only by name", entry.pod_name)
            await self._rents.note(entry, "rented", expected=None)
        elif (left := expected_after(entry, alive)) != entry.expected:
            await self._rents.note(entry, "rented", expected=left)
        return False

    # unsettled rents

    async def _attend_to_unsettled(
        self, entry: Entry, pods: Rows[Pod], is_complete: bool, *, in_background: bool
    ) -> None:
        if self._settler.is_in_flight(entry):
            return
        has_run_out = self._lium.now() - entry.created_at > _RUN_OUT
        found = of_its_name(entry, pods)
        if has_run_out and not found:
            # A repeat could be the first request to arrive, and rent when nobody waits for it any more.
            is_late_enough = pods.asked_at - entry.created_at > _RUN_OUT
            if is_complete and is_late_enough and entry.key_tag == self._key_tag:
                await self._count_missed_list(entry, pods.asked_at)
            elif in_background:
                self._in_vain[entry.id] = pods.asked_at
        elif has_run_out and in_background and (self._since is None or entry.created_at >= self._since):
            self._in_vain[entry.id] = pods.asked_at  # as above; only a call can tell somebody of the pod
        elif await self._settler.settle_later(entry, pods):
            # What a server left that has ended bills on: its pod gets its removal time, and goes if it must.
            for settled in await self._rents.open_entries():  # as it is now: its call may have been given up
                is_it = settled.id == entry.id and settled.status == "rented"
                if is_it and not await self._is_disclaimed(settled, pods):
                    await self._attend_to_rented(settled, pods)

    async def _count_missed_list(self, entry: Entry, asked_at: datetime) -> None:
        """Note that a complete list shows no pod of a rent; after several, some time apart, it made none."""
        if entry.missed_at is not None and asked_at - entry.missed_at < _MISSED_LISTS_APART:
            return
        count = entry.missed_lists + 1
        if count >= _MISSED_LISTS:
            log.warning("Settled the rent of %r: it runs no more, and Lium lists no such pod", entry.pod_name)
            await self._rents.note(entry, "absent")
        else:
            await self._rents.note(entry, "unknown", missed_lists=count, missed_at=asked_at)


def _why_gone(entry: Entry, pods: Rows[Pod]) -> dict[str, Any]:
    """What to note of a rent whose pods are gone: on which node one did not come to run, if Lium still lists it."""
    failed = (pod.node_id for pod in pods if pod.id in entry.pod_ids and pod.has_failed_to_start)
    node_id = next(filter(None, failed), None)
    return {} if node_id is None or entry.status != "rented" else {"note": f"{FAILED_TO_START}{node_id}"}


def _pause_between_lists(age: timedelta) -> timedelta:
    """How long to wait before listing pods between calls again, for a rent of that age at the last list."""
    return min(max(age / 6, _MISSED_LISTS_APART), _LISTS_APART_AT_MOST)
