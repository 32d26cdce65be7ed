"""Finds out what became of a rent whose answer was lost: asks again with the same key, or looks for its pod.

The API's contract says what an answer proves: a repeat with the same idempotency key is answered with the stored
outcome, which is marked as replayed. A repeat may also be the first to arrive, so it leaves only where the rent itself
might leave now. After the time for which the API keeps a key, a repeat would rent again: then a person decides. Every
question is claimed in the ledger first, so that Lium is asked no more often however many servers look.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError, RateLimited, RentOutcomeUnknown
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.retries import Repeat
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.belonging import missing_members, not_its_own, of_its_name
from lium_mcp.rentals.entries import NOT_SENT_AGAIN, Entry, LedgerUnavailable
from lium_mcp.rentals.expected import Expected
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.orders import ClusterOrder, NodeOrder, Order, Rental, from_json
from lium_mcp.rentals.remover import Remover

log = logging.getLogger(__name__)

# The API keeps a key for 24 hours.
REPLAY_WINDOW: Final = timedelta(hours=23)
# After its time limit for a request and this margin, a living server has its answer or has written that it has none.
_SENDING_MARGIN_SECONDS: Final = 3.0
# For rents that were admitted together, in one call: many hosts end a call after 60 s.
SENDS_WITHIN_SECONDS: Final = 30.0
# In the call that lost the answer. With the first request, the question about the API's features and a last look at
# the list, this makes six requests.
_SETTLE_PAUSES_SECONDS: Final = (1.0, 3.0, 6.0)
# Before each look for members of a cluster that its answer did not name: they may take some seconds to be listed.
_MEMBERS_PAUSES_SECONDS: Final = (0.0, 3.0, 3.0)
# Between two questions about one rent, whoever asks them.
_FIRST_LOOK_PAUSE: Final = timedelta(seconds=1)
_LONGEST_LOOK_PAUSE: Final = timedelta(seconds=60)


class NotSentAgain(Exception):
    """A rent whose answer was lost must not leave again from here; it says why."""


Readmit = Callable[[Entry, Rows[Pod] | None], Awaitable[Expected]]
"""Judges whether a rent of the ledger may leave again, and returns what its pods have to be now.

It is given the living pods, or None in the very call that the rent is of. It raises `NotSentAgain` where it may not.
"""


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
    once = tuple(dict.fromkeys(pod_ids))
    return Rental(once, confirmed, replace(entry, pod_ids=once, confirmed=confirmed))


class Settler:
    """Settles rents of the ledger, whoever sent them."""

    def __init__(
        self,
        lium: LiumClient,
        clock: Clock,
        ledger: LazyLedger,
        rents: AccountRents,
        remover: Remover,
        key_tag: str,
        readmit: Readmit,
    ) -> None:
        """Act with a key, which the ledger calls `key_tag`; `readmit` judges whether a rent may leave again."""
        self._lium = lium
        self._clock = clock
        self._ledger = ledger
        self._rents = rents
        self._remover = remover
        self._key_tag = key_tag
        self._readmit = readmit
        # How long the server of a rent may wait for its answer, if it has the settings of this one.
        self._sending_ends_after: Final = timedelta(seconds=lium.timeout_seconds + _SENDING_MARGIN_SECONDS)

    def is_in_flight(self, entry: Entry) -> bool:
        """Whether the server of a rent may be waiting for its answer now, or be about to send it."""
        age = self._lium.now() - entry.created_at
        if entry.status == "admitted":
            # The last of several leaves in that time, and its answer may be the one before's that is waited for.
            return age < self._sending_ends_after + timedelta(seconds=SENDS_WITHIN_SECONDS)
        return entry.status == "sending" and age < self._sending_ends_after

    async def settle(self, entry: Entry) -> Rental | None:
        """Find out what became of a rent whose answer was just lost: ask again with its key, then look for its pod.

        Returns:
            What it rented; None while nothing proves anything.

        Raises:
            LiumError: the refusal that the API has stored for the rent, which rented nothing.
        """
        order = await self._find_order(entry)
        entry = _being_asked_about(entry)
        for pause_seconds in _SETTLE_PAUSES_SECONDS:
            await self._clock.sleep(pause_seconds)
            if not await self.claim_look(entry):
                rental = await self._settled_meanwhile(entry)
            elif order is not None:
                rental = await self._post_again(entry, order, None)
            else:
                rental = await self._look_for(entry)
            if rental is not None:
                return rental
        return await self._look_for(entry) if order is not None else None

    async def find_members(self, rental: Rental) -> Rental:
        """Look for the pods of a cluster that the answer to its rent did not name, and return the rental with them."""
        for pause_seconds in _MEMBERS_PAUSES_SECONDS if rental.entry.missing_count else ():
            await self._clock.sleep(pause_seconds)
            with suppress(LiumError):
                entry, pods = rental.entry, await self._lium.pods.list(repeat=Repeat.NEVER)
                if found := missing_members(entry, pods):
                    rented = _rented(entry, [*rental.pod_ids, *found], confirmed=rental.confirmed)
                    rental = replace(rented, was_lost=rental.was_lost)
                    await self._rents.note(entry, "rented", only_from={"rented"}, pod_ids=list(rental.pod_ids))
            if not rental.entry.missing_count:
                break
        return rental

    async def settle_later(self, entry: Entry, found: Sequence[str], pods: Rows[Pod]) -> bool:
        """Ask once about a rent whose answer was lost in an earlier call, if it is time.

        Args:
            entry: The rent.
            found: The pods of its name that Lium lists; they are taken where asking proves nothing.
            pods: All that Lium lists.

        Returns:
            Whether it is known now what it rented.
        """
        if not await self.claim_look(entry):
            return False
        entry = _being_asked_about(entry)
        try:
            rental = await self.ask_again(entry, pods)
            if rental is None and found:
                rental = await self._take(entry, found)
        except LiumError as refusal:
            log.info("Settled the rent of %r: it was refused: %s", entry.pod_name, refusal)
            return False
        if rental is not None:
            log.info("Settled the rent of %r: it was rented", entry.pod_name)
        return rental is not None

    async def ask_again(self, entry: Entry, pods: Rows[Pod]) -> Rental | None:
        """Repeat a rent with its own key, where the API cannot take the repeat for a new rent, and it may leave now.

        Returns:
            What it rented, if that is proved.

        Raises:
            LiumError: the refusal that the API has stored for it.
        """
        order = await self._find_order(entry)
        return await self._post_again(entry, order, pods) if order is not None else None

    async def claim_look(self, entry: Entry) -> bool:
        """Claim the next question to Lium about a rent, if it is time; a rent in flight is unknown from then on."""
        try:
            return await self._ledger.open().claim_look(entry, now=self._lium.now(), pause_after=_pause_after)
        except LedgerUnavailable as error:
            log.warning("The rent of %r cannot be settled without the ledger: %s", entry.pod_name, error)
            return False

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

    async def _post_again(self, entry: Entry, order: Order, pods: Rows[Pod] | None) -> Rental | None:
        try:
            entry = await self._readmitted(entry, pods)
            rental = await post(self._lium, order, entry)
        except NotSentAgain as why:
            log.warning("The rent of %r is not sent again: %s", entry.pod_name, why)
            await self._rents.note(entry, entry.status, note=f"{NOT_SENT_AGAIN}{why}")
            return None
        except (RentOutcomeUnknown, RateLimited):
            return None  # the answer is not about the first request, or its outcome is not known yet
        except LiumError as error:
            if error.replayed and error.effect == "none":
                await self._rents.note(entry, "refused", note=str(error))
                raise
            return None
        await self._rents.note(entry, "rented", pod_ids=list(rental.pod_ids), confirmed=True)
        await self._remover.remove_if_unwanted(rental)
        return rental

    async def _readmitted(self, entry: Entry, pods: Rows[Pod] | None) -> Entry:
        """The rent as it may leave again now, held to the limits that are in force.

        Raises:
            NotSentAgain: it may not.
        """
        values: dict[str, Any] = {}
        expected = (await self._readmit(entry, pods)).to_json() or None
        if expected != entry.expected:
            values["expected"] = expected
        if entry.not_sent_again_because is not None:
            values["note"] = ""
        if values:
            await self._rents.note(entry, entry.status, **values)
        return replace(entry, **values)

    async def _look_for(self, entry: Entry) -> Rental | None:
        with suppress(LiumError):
            return await self._take(entry, of_its_name(entry, await self._lium.pods.list(repeat=Repeat.NEVER)))
        return None

    async def _take(self, entry: Entry, found: Sequence[str]) -> Rental | None:
        """Take pods of a rent's name for its own, if there are as many as it orders."""
        if len(found) != entry.pod_count:
            return None
        await self._rents.note(entry, "rented", pod_ids=list(found), confirmed=False)
        return _rented(entry, found, confirmed=False)

    async def _settled_meanwhile(self, entry: Entry) -> Rental | None:
        """Return what another server has found that a rent rented, if one has."""
        with suppress(LedgerUnavailable):
            for newest in await self._ledger.open().open_entries(entry.account):
                if newest.id == entry.id and newest.pod_ids:
                    return Rental(tuple(newest.pod_ids), newest.confirmed, newest)
        return None


def _pause_after(looks: int) -> timedelta:
    return min(_FIRST_LOOK_PAUSE * (1 << min(looks, 10)), _LONGEST_LOOK_PAUSE)


def _being_asked_about(entry: Entry) -> Entry:
    """A rent as the ledger has it once a question about it is claimed."""
    return replace(entry, status="unknown") if entry.is_unsettled else entry
