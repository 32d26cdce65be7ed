"""Finds out what became of a rent: asks again with the same key, looks for the pod, and brings the ledger up to date.

The API's contract says what an answer proves: a repeat with the same idempotency key is answered with the stored
outcome, which is marked as replayed. After the time for which the API keeps a key, a repeat would rent again: then a
person decides. One list without a pod proves nothing. A settled rent is closed when Lium says of its pod itself that it
is gone; one that may have made a pod, once several lists, some time apart, lack it. Every question is claimed in the
ledger first, so that Lium is asked no more often however many servers look.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import anyio

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError, NotFound, RateLimited, RentOutcomeUnknown
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.retries import Repeat
from lium_mcp.api.wire import noted_changes, noting_changes
from lium_mcp.figures import rate_in_usd
from lium_mcp.rentals.belonging import anothers, not_its_own, of_its_name
from lium_mcp.rentals.entries import (
    GIVEN_BACK,
    UNSETTLED,
    Entry,
    LedgerUnavailable,
    Status,
    has_something_left,
    is_only_to_check,
)
from lium_mcp.rentals.expected import DEARER, Expected, expected_after
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.orders import ClusterOrder, NodeOrder, Order, Rental, from_json
from lium_mcp.rentals.removal_time import keep_removal_time

log = logging.getLogger(__name__)

# The API keeps a key for 24 hours.
REPLAY_WINDOW: Final = timedelta(hours=23)
# The API's own lock on a key ends after 300 seconds: after that no request of the rent runs any more.
_RUN_OUT: Final = timedelta(seconds=330)
# After its time limit for a request and this margin, a living server has its answer or has written that it has none.
_SENDING_MARGIN_SECONDS: Final = 3.0
# A new pod may take some seconds to be listed, or to be known by its id.
_LISTED_WITHIN: Final = timedelta(seconds=30)
_REMOVE_AFTER: Final = timedelta(minutes=2)
# In the call that lost the answer. With the first request, the question about the API's features and a last look at
# the list, this makes six requests.
_SETTLE_PAUSES_SECONDS: Final = (1.0, 3.0, 6.0)
# Between two questions about one rent, whoever asks them.
_FIRST_LOOK_PAUSE: Final = timedelta(seconds=1)
_LONGEST_LOOK_PAUSE: Final = timedelta(seconds=60)
# After so many complete lists without its pod, so far apart, a rent is taken to have made none.
_MISSED_LISTS: Final = 3
_MISSED_LISTS_APART: Final = timedelta(seconds=60)
_LISTS_APART_AT_MOST: Final = timedelta(minutes=10)
# In one look, even if a list lacks many pods.
_MOST_RENTS_ASKED_ABOUT: Final = 12
_MOST_PODS_ASKED_FOR: Final = 4
_ATTEND_LIMIT_SECONDS: Final = 30.0
_LOOK_BEFORE_REMOVAL_SECONDS: Final = 5.0
BEING_SETTLED: Final = (
    "Another rent was under way or being settled, and may have made a pod that bills: call list_pods."
)


def unlisted_pod_ids(entry: Entry, pods: Sequence[Pod]) -> list[str]:
    """The pods of a rent that a list does not show alive."""
    alive = {pod.id for pod in pods if pod.is_alive}
    return [pod_id for pod_id in entry.pod_ids if pod_id not in alive]


async def post(lium: LiumClient, order: Order, entry: Entry) -> Rental:
    """Send a rent, for the first time or again, and return what it made.

    Raises:
        RentOutcomeUnknown: the answer names no pod, or one that was there before, or none came.
        LiumError: as `Executors.rent`.
    """
    key = entry.idempotency_key
    if isinstance(order, ClusterOrder):
        pod_ids = (await lium.clusters.rent(order.request, idempotency_key=key)).pod_ids
    elif isinstance(order, NodeOrder):
        pod_ids = (await lium.executors.rent(order.executor_id, order.request, idempotency_key=key),)
    else:
        pod_ids = (await lium.executors.rent_by_spec(order.request, idempotency_key=key),)
    if known := [pod_id for pod_id in pod_ids if pod_id in entry.known_pod_ids]:
        raise not_its_own(entry, known)
    return _rented(entry, pod_ids, confirmed=True)


def _rented(entry: Entry, pod_ids: Sequence[str], *, confirmed: bool) -> Rental:
    return Rental(tuple(pod_ids), confirmed, replace(entry, pod_ids=tuple(pod_ids), confirmed=confirmed))


class Settler:
    """Settles rents of the ledger, whoever sent them."""

    def __init__(self, lium: LiumClient, clock: Clock, ledger: LazyLedger, key_tag: str) -> None:
        """Act with a key, which the ledger calls `key_tag`."""
        self._lium = lium
        self._clock = clock
        self._ledger = ledger
        self._key_tag = key_tag
        # By rent: when pods were last listed between calls and told nothing of it. This is not in the ledger, since
        # another server's list, or a call's, may tell something at any time.
        self._in_vain: dict[str, datetime] = {}
        # How long the server of a rent may wait for its answer, if it has the settings of this one.
        self.sending_ends_after: Final = timedelta(seconds=lium.timeout_seconds + _SENDING_MARGIN_SECONDS)

    def is_in_flight(self, entry: Entry) -> bool:
        """Whether the server of a rent may be waiting for its answer now."""
        return entry.status == "sending" and self._lium.now() - entry.created_at < self.sending_ends_after

    def needs_attention(self, entry: Entry, *, in_background: bool) -> bool:
        """Whether there is something to do for an open rent now; between calls that is so less and less often."""
        now = self._lium.now()
        if not entry.is_unsettled:
            looked_at = self._in_vain.get(entry.id) if in_background and is_only_to_check(entry) else None
            is_early = looked_at is not None and now - looked_at < _pause_between_lists(looked_at - entry.created_at)
            return has_something_left(entry) and not is_early
        if self.is_in_flight(entry) or (entry.next_look_at is not None and entry.next_look_at > now):
            return False
        if not in_background or now - entry.created_at <= _RUN_OUT:
            return True
        if entry.key_tag != self._key_tag:
            return False  # this key's lists prove nothing, and only a call takes a pod by its name
        lists = [at for at in (entry.missed_at, self._in_vain.get(entry.id)) if at is not None]
        return not lists or now - max(lists) >= _pause_between_lists(max(lists) - entry.created_at)

    async def attend(self, account: str, pods: Rows[Pod], *, in_background: bool = False) -> list[Entry]:
        """Bring every open rent of an account up to date.

        Args:
            account: Whose rents.
            pods: The account's pods, as Lium lists them.
            in_background: No call waits, so nobody would hear of a pod that comes of it.

        Returns:
            The rents that are still open.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries = await self._ledger.open().open_entries(account)
        if any(entry.is_unsettled for entry in entries):
            noted_changes().append(BEING_SETTLED)
        with noting_changes():  # the call at hand was to do none of this
            await self._attend(entries, pods, in_background=in_background)
        return await self._ledger.open().open_entries(account)

    async def _attend(self, entries: Sequence[Entry], pods: Rows[Pod], *, in_background: bool) -> None:
        is_short = False
        left_to_ask_about = _MOST_RENTS_ASKED_ABOUT
        with anyio.move_on_after(_ATTEND_LIMIT_SECONDS):
            # Settled rents come first: they tell whether the list is complete.
            for entry in sorted(entries, key=lambda entry: entry.is_unsettled):
                try:
                    if entry.is_unsettled:
                        is_complete = not (is_short or pods.skipped or pods.truncated)
                        await self._attend_to_unsettled(entry, pods, is_complete, in_background=in_background)
                        continue
                    if named := anothers(entry, pods):
                        await self.disclaim(entry, named)
                        continue
                    unlisted = unlisted_pod_ids(entry, pods)
                    is_due = bool(unlisted) or entry.status == "removing" or entry.is_doubtful
                    left_to_ask_about -= is_due
                    may_ask = is_due and left_to_ask_about >= 0 and await self._claim_look(entry)
                    gone, lacks = await self._find_gone(entry, unlisted, pods, may_ask=may_ask)
                    is_short |= lacks
                    await self._attend_to_settled(entry, gone, pods, may_ask=may_ask)
                    if in_background and self._lium.now() - entry.created_at > _RUN_OUT:
                        self._in_vain[entry.id] = pods.asked_at
                except LiumError as error:
                    is_short = True
                    log.warning("The rent of %r could not be attended to for now: %s", entry.pod_name, error)

    async def settle(self, entry: Entry) -> Rental | None:
        """Find out what became of a rent whose answer was just lost: ask again with its key, then look for its pod.

        Returns:
            What it rented; None while nothing proves anything.

        Raises:
            LiumError: the refusal that the API has stored for the rent, which rented nothing.
        """
        order = await self._find_order(entry)
        for pause_seconds in _SETTLE_PAUSES_SECONDS:
            await self._clock.sleep(pause_seconds)
            if not await self._claim_look(entry):
                rental = await self._settled_meanwhile(entry)
            elif order is not None:
                rental = await self._ask_again(entry, order)
            else:
                rental = await self._look_for(entry)
            if rental is not None:
                return rental
        return await self._look_for(entry) if order is not None else None

    async def note(
        self,
        entry: Entry,
        status: Status,
        *,
        only_from: Collection[Status] | None = None,
        only_if: Mapping[str, Any] | None = None,
        **values: Any,  # noqa: ANN401 - columns of the ledger
    ) -> bool:
        """Write what became of a rent, unless another server has written something else meanwhile.

        A ledger that fails must not hide a pod, so the failure is only logged, and the rent is settled again later.

        Returns:
            False where something else was written.
        """
        known = UNSETTLED if entry.is_unsettled else {entry.status}
        try:
            return await self._ledger.open().change(
                entry, status, now=self._lium.now(), only_from=only_from or known, only_if=only_if, **values
            )
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note that the rent of %r is %s: %s", entry.pod_name, status, error)
            return True

    async def disclaim(self, entry: Entry, pod_ids: Collection[str]) -> None:
        """Note that the pods which Lium named for a rent are another's, so that its outcome is unknown again."""
        log.error("Pods %r, which Lium named for the rent of %r, are another's", list(pod_ids), entry.pod_name)
        known = sorted({*entry.known_pod_ids, *pod_ids})
        await self.note(
            entry,
            "unknown",
            only_from={"sending", "unknown", "rented", "removing"},
            pod_ids=[],
            kept_pod_ids=[],
            known_pod_ids=known,
            confirmed=False,
            removal_accepted=False,
            settled_at=None,
        )

    async def remove(self, entry: Entry, pod_id: str, *, known_since: datetime, schedule: bool = True) -> bool:
        """Remove a pod that must go, or have Lium remove it soon where it cannot be removed yet.

        A pod that turns out to be another's is left alone.

        Returns:
            Whether nothing is left to order: Lium has accepted to remove it, or knows no such pod, or it is another's.

        Raises:
            LiumError: neither was possible; or Lium answers 404 so soon that it may not know the pod yet.
        """
        # What cannot be read now speaks for nothing, and the pod bills.
        with suppress(LiumError), anyio.move_on_after(_LOOK_BEFORE_REMOVAL_SECONDS):
            if named := anothers(entry, [await self._lium.pods.get(pod_id, repeat=Repeat.NEVER)]):
                await self.disclaim(entry, named)
                return True
        asked_at = self._lium.now()
        try:
            await self._lium.pods.remove(pod_id)
        except NotFound:
            if asked_at - known_since <= _LISTED_WITHIN:
                raise
        except LiumError as error:
            log.warning("Removing pod %r was refused for now: %s", pod_id, error)
            if schedule:  # this process may not live until the pod can be removed
                await self._lium.pods.schedule_removal(pod_id, at=self._lium.now() + _REMOVE_AFTER)
            return False
        return True

    async def remove_all(
        self, entry: Entry, pod_ids: Iterable[str], *, known_since: datetime, due_pod_ids: Collection[str] = ()
    ) -> bool:
        """Remove several pods, as `remove` does; one that cannot be removed does not keep the others.

        Args:
            entry: Their rent.
            pod_ids: The pods.
            known_since: Soon after this moment, Lium may not know them by their ids yet.
            due_pod_ids: Those that Lium removes soon anyhow: another time would only put that off.

        Returns:
            Whether Lium has accepted to remove all of them.

        Raises:
            LiumError: for one of them, neither was possible.
        """
        failure: LiumError | None = None
        removed = []
        for pod_id in pod_ids:
            try:
                schedule = pod_id not in due_pod_ids
                removed.append(await self.remove(entry, pod_id, known_since=known_since, schedule=schedule))
            except LiumError as error:
                failure = error
        if failure is not None:
            raise failure
        return all(removed)

    # settled rents

    async def _attend_to_settled(self, entry: Entry, gone: Collection[str], pods: Rows[Pod], *, may_ask: bool) -> None:
        """Do what is left to do for a rent whose pods are known, `gone` ones aside."""
        left = [pod_id for pod_id in entry.pod_ids if pod_id not in gone]
        if not left:
            await self.note(entry, "removed")
            return
        if gone:
            await self.note(entry, entry.status, pod_ids=left)
        if entry.is_doubtful and may_ask:
            order = await self._find_order(entry)
            if order is not None and await self._ask_again(entry, order) is not None:
                return
        if entry.status != "removing":
            await self._attend_to_rented(entry, pods)
        elif may_ask:
            await self._go_on_removing(entry, left, pods)

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
        if entry.key_tag == self._key_tag:
            is_known = entry.removal_accepted or asked_at - entry.known_since > _LISTED_WITHIN
            return "gone" if is_known else "unseen"
        # This key may not see another key's pod, whether that lives or not; the record of a removed one says so.
        with suppress(NotFound):
            return "gone" if (await self._lium.pods.record(pod_id)).removed is True else "unseen"
        return "unseen"

    async def _go_on_removing(self, entry: Entry, pod_ids: Sequence[str], pods: Sequence[Pod]) -> None:
        soon = self._lium.now() + _REMOVE_AFTER
        due = [pod.id for pod in pods if pod.removal_scheduled_at is not None and pod.removal_scheduled_at <= soon]
        if entry.removal_accepted:
            # A pod that is being removed is not listed any more; one that is listed has to be ordered to go once more.
            pod_ids = [pod.id for pod in pods if pod.id in pod_ids and pod.is_alive]
        await self._order_removal(entry, pod_ids, due_pod_ids=due)

    async def _order_removal(self, entry: Entry, pod_ids: Iterable[str], *, due_pod_ids: Collection[str] = ()) -> None:
        """Remove pods of a rent that is `removing`, as `remove_all` does, and note it once Lium has accepted that.

        Raises:
            LiumError: for one of them, neither was possible.
        """
        if await self.remove_all(entry, pod_ids, known_since=entry.known_since, due_pod_ids=due_pod_ids):
            await self.note(entry, "removing", only_from={"removing"}, removal_accepted=True)

    async def _attend_to_rented(self, entry: Entry, pods: Rows[Pod]) -> None:
        alive = [pod for pod in pods if pod.id in entry.pod_ids and pod.is_alive]
        if alive and entry.expected is not None and await self._is_not_as_expected(entry, alive):
            return
        if entry.hours is not None:
            kept = set(entry.kept_pod_ids)
            for pod in alive:
                if pod.id not in kept and (await keep_removal_time(self._lium, pod, entry.hours, entry.created_at))[1]:
                    kept.add(pod.id)
            if kept != set(entry.kept_pod_ids):
                await self.note(entry, "rented", kept_pod_ids=sorted(kept))

    async def _is_not_as_expected(self, entry: Entry, alive: Sequence[Pod]) -> bool:
        """Hold pods against what no look could check yet, and remove them if they are not as they have to be."""
        expected = Expected.from_json(entry.expected or {})
        contradictions = [found for pod in alive if (found := expected.contradiction(pod)) is not None]
        problem = next(iter(contradictions), None)
        if expected.is_dearer(alive):
            problem = f"{DEARER}, at {rate_in_usd(sum(pod.price or 0 for pod in alive), 4)} an hour"
        if problem is not None and entry.confirmed:
            log.warning("The pods of %r came out other than asked or allowed and are removed", entry.pod_name)
            await self.note(entry, "removing", note=f"{GIVEN_BACK}{problem}")
            await self._order_removal(entry, entry.pod_ids)
            return True
        if problem is not None:
            log.error("The pods of %r are not as asked or allowed, and were found only by name", entry.pod_name)
            await self.note(entry, "rented", expected=None)
        elif (left := expected_after(entry, alive)) != entry.expected:
            await self.note(entry, "rented", expected=left)
        return False

    # unsettled rents

    async def _attend_to_unsettled(
        self, entry: Entry, pods: Rows[Pod], is_complete: bool, *, in_background: bool
    ) -> None:
        if self.is_in_flight(entry):
            return
        has_run_out = self._lium.now() - entry.created_at > _RUN_OUT
        is_listed = bool(of_its_name(entry, pods))
        if has_run_out and not is_listed:
            # A repeat could be the first request to arrive, and rent when nobody waits for it any more.
            is_late_enough = pods.asked_at - entry.created_at > _RUN_OUT
            if is_complete and is_late_enough and entry.key_tag == self._key_tag:
                await self._count_missed_list(entry, pods.asked_at)
            elif in_background:
                self._in_vain[entry.id] = pods.asked_at
            return
        if in_background and has_run_out:
            self._in_vain[entry.id] = pods.asked_at
            return  # as above; only a call can tell somebody of the pod that comes of it
        if not await self._claim_look(entry):
            return
        try:
            order = await self._find_order(entry)
            rental = await self._ask_again(entry, order) if order is not None else None
            if rental is None and is_listed:
                rental = await self._take(entry, of_its_name(entry, pods))
        except LiumError as refusal:
            log.info("Settled the rent of %r: it was refused: %s", entry.pod_name, refusal)
            return
        if rental is not None:
            log.info("Settled the rent of %r: it was rented", entry.pod_name)

    async def _count_missed_list(self, entry: Entry, asked_at: datetime) -> None:
        """Note that a complete list shows no pod of a rent; after several, some time apart, it made none."""
        if entry.missed_at is not None and asked_at - entry.missed_at < _MISSED_LISTS_APART:
            return
        count = entry.missed_lists + 1
        if count >= _MISSED_LISTS:
            log.warning("Settled the rent of %r: it runs no more, and Lium lists no such pod", entry.pod_name)
            await self.note(entry, "absent")
        else:
            await self.note(entry, "unknown", missed_lists=count, missed_at=asked_at)

    async def _find_order(self, entry: Entry) -> Order | None:
        """Return the order that may be sent again for a rent; None where the API might take the repeat for a new rent.

        None for another key's rent too: if the repeat were the first to arrive, the pod would be this key's, and the
        key of the rent, which may see only its own pods, would take it for gone.
        """
        order = from_json(entry.order) if entry.key_tag == self._key_tag else None
        if order is None or self._lium.now() - entry.created_at >= REPLAY_WINDOW:
            return None
        # An older server, which may have replaced this one, knows no idempotency keys.
        return order if await self._lium.supports("rent_idempotency", still=True) else None

    async def _ask_again(self, entry: Entry, order: Order) -> Rental | None:
        """Repeat a rent with its own key.

        Returns:
            What it rented, if that is proved.

        Raises:
            LiumError: the refusal that the API has stored for it.
        """
        try:
            rental = await post(self._lium, order, entry)
        except (RentOutcomeUnknown, RateLimited):
            return None  # the answer is not about the first request, or its outcome is not known yet
        except LiumError as error:
            if error.replayed and error.effect == "none":
                await self.note(entry, "refused", note=str(error))
                raise
            return None
        await self.note(entry, "rented", pod_ids=list(rental.pod_ids), confirmed=True)
        await self._remove_if_unwanted(rental)
        return rental

    async def _remove_if_unwanted(self, rental: Rental) -> None:
        """Remove the pods of a rental whose call was cancelled before anybody knew of them."""
        entry = rental.entry
        only_if = {"unwanted": True, "handed_out": False}
        note = "the call was cancelled"
        if await self.note(entry, "removing", only_from={"rented"}, only_if=only_if, note=note):
            with suppress(LiumError):  # then a later look orders it
                if await self.remove_all(entry, rental.pod_ids, known_since=self._lium.now()):
                    await self.note(entry, "removing", only_from={"removing"}, removal_accepted=True)

    async def _look_for(self, entry: Entry) -> Rental | None:
        with suppress(LiumError):
            return await self._take(entry, of_its_name(entry, await self._lium.pods.list(repeat=Repeat.NEVER)))
        return None

    async def _take(self, entry: Entry, found: Sequence[str]) -> Rental | None:
        """Take pods of a rent's name for its own, if there are as many as it orders."""
        if len(found) != entry.pod_count:
            return None
        await self.note(entry, "rented", pod_ids=list(found), confirmed=False)
        return _rented(entry, found, confirmed=False)

    async def _claim_look(self, entry: Entry) -> bool:
        """Claim the next question to Lium about a rent, if it is time; a rent in flight is unknown from then on."""
        try:
            return await self._ledger.open().claim_look(entry, now=self._lium.now(), pause_after=_pause_after)
        except LedgerUnavailable as error:
            log.warning("The rent of %r cannot be settled without the ledger: %s", entry.pod_name, error)
            return False

    async def _settled_meanwhile(self, entry: Entry) -> Rental | None:
        """Return what another server has found that a rent rented, if one has."""
        with suppress(LedgerUnavailable):
            for newest in await self._ledger.open().open_entries(entry.account):
                if newest.id == entry.id and newest.pod_ids:
                    return Rental(tuple(newest.pod_ids), newest.confirmed, newest)
        return None


def _pause_after(looks: int) -> timedelta:
    return min(_FIRST_LOOK_PAUSE * (1 << min(looks, 10)), _LONGEST_LOOK_PAUSE)


def _pause_between_lists(age: timedelta) -> timedelta:
    """How long to wait before listing pods between calls again, for a rent of that age at the last list."""
    return min(max(age / 6, _MISSED_LISTS_APART), _LISTS_APART_AT_MOST)
