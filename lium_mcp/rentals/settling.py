"""Finds out what became of a rent whose answer was lost: looks for its pod, and else asks again with the same key.

The API's contract says what an answer proves: a repeat with the same idempotency key is answered with the stored
outcome, which is marked as replayed. But a server of the API that does not keep to that rents again. So no repeat
leaves while a pod is listed that may be the rent's, unless it is one that must go if it is. A repeat may also be the
first to arrive, so it leaves only where the rent itself might leave now. After the time for which the API keeps a key,
a person decides. Every question is claimed in the ledger first, so that Lium is asked no more often however many
servers look.
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
from lium_mcp.rentals.expected import Expected, still_expected
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
# Before each look in the call that lost the answer. A new pod may take some seconds to be listed, so the first one asks
# Lium nothing. With the first request, the question about the API's features, two repeats and a last look at the list,
# this makes eight requests.
_SETTLE_PAUSES_SECONDS: Final = (1.0, 3.0, 6.0)
# The API's own lock on a key ends after 300 seconds: if a request has died there, a repeat rents anew from then on.
_ASKED_AGAIN_WITHIN: Final = timedelta(seconds=270)
# Before each look for members of a cluster that its answer did not name: they may take some seconds to be listed.
_MEMBERS_PAUSES_SECONDS: Final = (0.0, 3.0, 3.0)
# Between two questions about one rent, whoever asks them.
_FIRST_LOOK_PAUSE: Final = timedelta(seconds=1)
_LONGEST_LOOK_PAUSE: Final = timedelta(seconds=60)


class NotSentAgain(Exception):
    """A rent whose answer was lost must not leave again from here; it says why."""


Readmit = Callable[[Entry, Rows[Pod], bool], Awaitable[Expected]]
"""Judges whether a rent of the ledger may leave again, and returns what its pods have to be now.

It is given the living pods, and whether this is the very call that the rent is of. It raises `NotSentAgain` where it
may not.
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
        """Find out what became of a rent whose answer was just lost: look for its pod, and else ask again with its key.

        Returns:
            What it rented; None while nothing proves anything.

        Raises:
            LiumError: the refusal that the API has stored for the rent, which rented nothing.
        """
        order = await self._find_order(entry)
        entry = _being_asked_about(entry)
        for number, pause_seconds in enumerate(_SETTLE_PAUSES_SECONDS):
            await self._clock.sleep(pause_seconds)
            if await self.claim_look(entry):
                rental = await self._look_and_ask(entry, order if number else None)
            else:
                rental = await self._settled_meanwhile(entry)
            if rental is not None:
                return rental
        return await self._look_and_ask(entry, None) if order is not None else None

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

    async def settle_later(self, entry: Entry, pods: Rows[Pod]) -> bool:
        """Settle a rent whose answer was lost in an earlier call by the pods that Lium lists, if it is time.

        Returns:
            Whether it is known now what it rented.
        """
        if not await self.claim_look(entry):
            return False
        entry = _being_asked_about(entry)
        try:
            rental = await self._settle_by(entry, await self._find_order(entry), pods, in_its_call=False)
        except LiumError as refusal:
            log.info("Settled the rent of %r: it was refused: %s", entry.pod_name, refusal)
            return False
        if rental is not None:
            log.info("Settled the rent of %r: it was rented", entry.pod_name)
        return rental is not None

    async def ask_again(self, entry: Entry, pods: Rows[Pod]) -> Rental | None:
        """Repeat a rent whose pods were found by name, so that Lium says whether they are its own.

        That is done where the API cannot take the repeat for a new rent, the rent may leave now, and no repeat has
        made another pod of its name already.

        Returns:
            What it rented, if that is proved.

        Raises:
            LiumError: the refusal that the API has stored for it.
        """
        order = await self._find_order(entry)
        if order is None or len(of_its_name(entry, pods)) > entry.pod_count:
            return None
        return await self._post_again(entry, order, pods, in_its_call=False)

    async def prove(self, rental: Rental) -> Rental:
        """In the call that rented, ask once whether pods that were found by name are its own; return what is known."""
        with suppress(LiumError):
            if not rental.confirmed:
                pods = await self._lium.pods.list(repeat=Repeat.NEVER)
                return await self.ask_again(rental.entry, pods) or rental
        return rental

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

    async def _look_and_ask(self, entry: Entry, order: Order | None) -> Rental | None:
        """In the call that a rent is of: look for its pods, and else send its order again, if there is one to send."""
        try:
            pods = await self._lium.pods.list(repeat=Repeat.NEVER)
        except LiumError:
            return None  # its pod may be there
        return await self._settle_by(entry, order, pods, in_its_call=True)

    async def _settle_by(
        self, entry: Entry, order: Order | None, pods: Rows[Pod], *, in_its_call: bool
    ) -> Rental | None:
        """Take the listed pods that may be a rent's; where none is, or it must go if it is its own, ask Lium first."""
        found = of_its_name(entry, pods)
        rental = None
        if order is not None:
            is_locked = self._lium.now() - entry.created_at < _ASKED_AGAIN_WITHIN
            if _must_go(entry, [pod for pod in pods if pod.id in found]) if found else is_locked:
                rental = await self._post_again(entry, order, pods, in_its_call=in_its_call)
        return rental or await self._take(entry, found)

    async def _post_again(self, entry: Entry, order: Order, pods: Rows[Pod], *, in_its_call: bool) -> Rental | None:
        try:
            entry = await self._readmitted(entry, pods, in_its_call=in_its_call)
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

    async def _readmitted(self, entry: Entry, pods: Rows[Pod], *, in_its_call: bool) -> Entry:
        """The rent as it may leave again now, held to the limits that are in force.

        Raises:
            NotSentAgain: it may not.
        """
        values: dict[str, Any] = {}
        expected = (await self._readmit(entry, pods, in_its_call)).to_json() or None
        if expected != entry.expected:
            values["expected"] = expected
        if entry.not_sent_again_because is not None:
            values["note"] = ""
        if values:
            await self._rents.note(entry, entry.status, **values)
        return replace(entry, **values)

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


def _must_go(entry: Entry, pods: Sequence[Pod]) -> bool:
    """Whether the pods that have a rent's name have to be removed if Lium says that they are its own."""
    expected = still_expected(entry)
    is_unfit = expected.is_dearer(pods) or any(expected.contradiction(pod) for pod in pods)
    return len(pods) == entry.pod_count and (entry.unwanted or is_unfit)


def _pause_after(looks: int) -> timedelta:
    return min(_FIRST_LOOK_PAUSE * (1 << min(looks, 10)), _LONGEST_LOOK_PAUSE)


def _being_asked_about(entry: Entry) -> Entry:
    """A rent as the ledger has it once a question about it is claimed."""
    return replace(entry, status="unknown") if entry.is_unsettled else entry
