"""Sends rents that were admitted together, one after the other, and tells of each what became of it.

Each has a row, a name and an idempotency key of its own. A lost answer keeps no other rent of the batch from leaving:
all of them were judged together, beside which whatever the lost one may have made counts in full, and none of them can
be a second try of it, since each was asked for by a name of its own before the answer was lost. What else the account
wants to rent waits, as ever, until the lost one is settled.
"""

import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import uuid4

import anyio
import anyio.lowlevel

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError, LoginEnded, RentOutcomeUnknown
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.admission import Admission, FindJudge
from lium_mcp.rentals.entries import Entry
from lium_mcp.rentals.expected import Expected
from lium_mcp.rentals.node_refusals import is_of_its_node
from lium_mcp.rentals.orders import Order, Rental, to_json
from lium_mcp.rentals.sending import Sender
from lium_mcp.rentals.settling import SENDS_WITHIN_SECONDS

log = logging.getLogger(__name__)

# Lium does not answer, and each further rent might be one more pod that nobody can tell of.
_MOST_LOST: Final = 2
# So many different nodes are not all taken in one moment: it is the request that is refused.
_MOST_REFUSED_AT_FIRST: Final = 3
_MOST_TRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One of several pods to rent.

    Attributes:
        order: What to rent.
        price_per_hour_usd: What it costs, as quoted; None where nobody said.
        hours: Lium is to remove it so many hours after it boots; None for never.
        expected: What the pod has to be to be kept.
    """

    order: Order
    price_per_hour_usd: float | None
    hours: float | None
    expected: Expected


FindAnother = Callable[[Wanted, LiumError], Wanted | None]
"""Finds what to rent in place of what Lium refused; None where nothing is left that costs no more."""


class NotSent(Exception):
    """A rent that was admitted never left, and never will; it says why."""


@dataclass(slots=True)
class BatchedRent:
    """One of several rents, and what became of it: a rental or a failure, once it was its turn.

    Attributes:
        wanted: What was ordered last.
        entry: Its row in the ledger.
        rental: What it rented, or what an earlier call had.
        failure: Why it has no pod, or why nobody knows.
        is_asked_about: Its answer was lost, and what this call may ask about it was asked.
    """

    wanted: Wanted
    entry: Entry
    rental: Rental | None = None
    failure: RentOutcomeUnknown | LiumError | NotSent | None = None
    is_asked_about: bool = False

    @classmethod
    def of(cls, wanted: Wanted, admitted: Entry | Rental) -> "BatchedRent":
        """A rent that was just admitted, or that an earlier call has carried out."""
        if isinstance(admitted, Rental):
            return cls(wanted, admitted.entry, rental=admitted)
        return cls(wanted, admitted)

    @property
    def is_open(self) -> bool:
        """Whether its turn is still to come."""
        return self.rental is None and self.failure is None


class Batches:
    """Sends what was admitted together with one key."""

    def __init__(
        self, lium: LiumClient, clock: Clock, rents: AccountRents, admission: Admission, sender: Sender
    ) -> None:
        """Act with a key; `clock` tells how long sending may go on."""
        self._lium = lium
        self._clock = clock
        self._rents = rents
        self._admission = admission
        self._sender = sender

    async def send(self, rents: Sequence[BatchedRent], find_judge: FindJudge, find_another: FindAnother) -> None:
        """Send what is open of a batch, and find out what became of those whose answers were lost.

        What is not sent is withdrawn in the ledger, whatever ends this.
        """
        ends_at = self._clock.monotonic() + SENDS_WITHIN_SECONDS
        try:
            for rent in [rent for rent in rents if rent.is_open]:
                await anyio.lowlevel.checkpoint()
                if _lost_count(rents) >= _MOST_LOST:
                    await self._find_out_all(rents)
                why = self._reason_to_stop(rents, ends_at)
                if why is not None:
                    rent.failure = NotSent(why)
                    continue
                await self._send_one(rent, rents, find_judge, find_another)
        finally:
            with anyio.CancelScope(shield=True):
                for rent in rents:
                    if rent.entry.status == "admitted":
                        note = str(rent.failure or "the call was cancelled")
                        # It never left, also where the ledger wrote that it does and could not say so.
                        await self._rents.note(rent.entry, "withdrawn", only_from={"admitted", "sending"}, note=note)
        await self._find_out_all(rents)

    async def disown(
        self, rents: Sequence[BatchedRent], give_up: Callable[[Rental], Coroutine[Any, Any, None]]
    ) -> None:
        """Give up what a cancelled call rented, and note that whatever else comes of it must go."""
        for rent in rents:
            if rent.rental is None:
                await self._rents.note_unwanted(rent.entry)
        async with anyio.create_task_group() as group:
            for rent in rents:
                if rent.rental is not None and not rent.rental.earlier:
                    group.start_soon(give_up, rent.rental)

    def _reason_to_stop(self, rents: Sequence[BatchedRent], ends_at: float) -> str | None:
        failures = [rent.failure for rent in rents if rent.failure is not None]
        for failure in failures:
            if isinstance(failure, NotSent):
                return str(failure)
            if not isinstance(failure, RentOutcomeUnknown) and not is_of_its_node(failure):
                return f"Lium refused another one: {str(failure).rstrip('.')}"
        lost = _lost_count(rents)
        if lost >= _MOST_LOST:
            return f"the answers to {lost} others were lost"
        if len(failures) - lost >= _MOST_REFUSED_AT_FIRST and all(rent.rental is None for rent in rents):
            return f"Lium refused {len(failures) - lost} others"
        return "there was no time left for it" if self._clock.monotonic() >= ends_at else None

    async def _send_one(
        self, rent: BatchedRent, rents: Sequence[BatchedRent], find_judge: FindJudge, find_another: FindAnother
    ) -> None:
        for _ in range(_MOST_TRIES):
            try:
                rent.entry = await self._begin(rent.entry, rents)
                rent.rental = await self._sender.send_once(rent.wanted.order, rent.entry)
                rent.failure = None
            except (RentOutcomeUnknown, NotSent) as failure:
                rent.failure = failure
            except LoginEnded as ended:
                rent.failure = NotSent(str(ended).rstrip("."))
            except LiumError as refusal:
                rent.failure = refusal
                if is_of_its_node(refusal) and await self._has_another(rent, refusal, rents, find_judge, find_another):
                    continue
            return

    async def _begin(self, entry: Entry, rents: Sequence[BatchedRent]) -> Entry:
        """Write that a rent is being sent: from then on it may have made a pod.

        Raises:
            NotSent: another server has taken this one for gone, or it could not be written.
            LoginEnded: the login that it is for has ended.
        """
        # Of what the batch has made by now, nothing is this one's.
        made = [pod_id for rent in rents if rent.rental is not None for pod_id in rent.rental.pod_ids]
        begun = replace(
            entry,
            status="sending",
            created_at=self._lium.now(),
            known_pod_ids=list(dict.fromkeys([*entry.known_pod_ids, *made])),
        )
        if await self._rents.begin(entry, begun):
            return begun
        raise NotSent("the ledger could not note that it leaves, or another server took this one for gone")

    async def _has_another(
        self,
        rent: BatchedRent,
        refusal: LiumError,
        rents: Sequence[BatchedRent],
        find_judge: FindJudge,
        find_another: FindAnother,
    ) -> bool:
        """Admit another order in place of one that Lium refused, if there is one."""
        wanted = find_another(rent.wanted, refusal)
        if wanted is None:
            return False
        entry = replace(
            rent.entry,
            status="admitted",
            order=to_json(wanted.order),
            idempotency_key=str(uuid4()),
            price_per_hour_usd=wanted.price_per_hour_usd,
            hours=wanted.hours,
            expected=wanted.expected.to_json() or None,
        )
        try:
            entry = await self._admission.admit_instead(entry, [other.entry.id for other in rents], find_judge)
        except Exception as error:  # noqa: BLE001 - whatever the judge raises leaves the refusal as it is
            log.info("The rent of %r is not placed elsewhere: %s", entry.pod_name, error)
            return False
        rent.wanted, rent.entry = wanted, entry
        return True

    async def _find_out_all(self, rents: Sequence[BatchedRent]) -> None:
        """Find out what became of those whose answers were lost, once for each."""
        async with anyio.create_task_group() as group:
            for rent in rents:
                if isinstance(rent.failure, RentOutcomeUnknown) and not rent.is_asked_about:
                    rent.is_asked_about = True
                    group.start_soon(self._find_out, rent, rent.failure)

    async def _find_out(self, rent: BatchedRent, lost: RentOutcomeUnknown) -> None:
        try:
            rent.rental = await self._sender.find_out(rent.entry, lost)
            rent.failure = None
        except LiumError as error:
            rent.failure = error


def _lost_count(rents: Sequence[BatchedRent]) -> int:
    return sum(isinstance(rent.failure, RentOutcomeUnknown) for rent in rents)
