"""Sends a rent that the ledger has, once, and sees it through when its answer is lost or its call is cancelled."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import anyio
import anyio.lowlevel

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import LiumError, RentOutcomeUnknown
from lium_mcp.observing import Work, observed
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.entries import REFUSED_BY, UNSETTLED, Entry
from lium_mcp.rentals.node_refusals import is_of_its_node
from lium_mcp.rentals.orders import ClusterOrder, NodeOrder, Order, Rental, SpecOrder
from lium_mcp.rentals.settling import Settler, post

log = logging.getLogger(__name__)

_SETTLE_LIMIT_SECONDS: Final = 38.0
_KINDS: Final = {NodeOrder: "node", SpecOrder: "spec", ClusterOrder: "cluster"}


class Sender:
    """Sends rents with one key."""

    def __init__(self, lium: LiumClient, rents: AccountRents, settler: Settler) -> None:
        """Act with a key."""
        self._lium = lium
        self._rents = rents
        self._settler = settler

    async def send(self, order: Order, entry: Entry) -> Rental:
        """Send a rent and see it through, even if the call is cancelled; write that it was, at once.

        Raises:
            RentOutcomeUnknown: the request left and nothing proves what became of it.
            LiumError: a definite refusal; nothing was rented.
        """

        async def send() -> Rental:
            try:
                rental = await self._post(order, entry)
            except RentOutcomeUnknown as lost:
                rental = await self._find_out(entry, lost)
            return await self._settler.find_members(rental)

        return await self._see_through(entry, send)

    async def send_once(self, order: Order, entry: Entry) -> Rental:
        """Send a rent, even if the call is cancelled; where its answer is lost, `find_out` is to follow.

        Raises:
            As `send`.
        """
        return await self._see_through(entry, lambda: self._post(order, entry))

    async def find_out(self, entry: Entry, lost: RentOutcomeUnknown) -> Rental:
        """Find out what a rent rented whose answer was lost, even if the call is cancelled.

        Raises:
            As `send`.
        """
        return await self._see_through(entry, lambda: self._find_out(entry, lost))

    async def _see_through(self, entry: Entry, work: Callable[[], Awaitable[Rental]]) -> Rental:
        outcome: list[Rental | Exception] = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._note_when_unwanted, entry, outcome)
                with anyio.CancelScope(shield=True):
                    try:
                        outcome.append(await work())
                    except Exception as error:  # noqa: BLE001 - raised below as it is, and not in a group
                        outcome.append(error)
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

    async def _note_when_unwanted(self, entry: Entry, outcome: Sequence[object]) -> None:
        """Write that the call was cancelled, as soon as it is: a pod that nobody knows of yet is removed once known."""
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            if not outcome:
                with anyio.CancelScope(shield=True):
                    # The rent goes on, and writing what became of it leaves this as it is.
                    await self._rents.note_unwanted(entry)
            raise

    async def _post(self, order: Order, entry: Entry) -> Rental:
        with observed(Work("rent", _KINDS[type(order)])) as work:
            try:
                rental = await self._post_and_note(order, entry)
            except RentOutcomeUnknown:
                work.outcome = "unknown"
                raise
            except LiumError:
                work.outcome = "refused"
                raise
            work.outcome = "rented"
            return rental

    async def _post_and_note(self, order: Order, entry: Entry) -> Rental:
        try:
            rental = await post(self._lium, order, entry)
        except RentOutcomeUnknown as unknown:
            log.warning("The answer to a rent was lost; settling it. request_id=%r", unknown.request_id)
            await self._rents.note(entry, "unknown", note=str(unknown.cause))
            raise
        except LiumError as refusal:
            if await self._rents.note(entry, "refused", only_from={"sending"}, note=_refused(order, refusal)):
                raise
            # Another server has asked again meanwhile, and its request may have rented.
            key, name = entry.idempotency_key, entry.pod_name
            raise RentOutcomeUnknown(idempotency_key=key, pod_name=name, cause=refusal) from refusal
        # Another server may have settled it meanwhile by the pod's name alone; this answer is the API's own word.
        pod_ids = list(rental.pod_ids)
        await self._rents.note(entry, "rented", only_from=UNSETTLED | {"rented"}, pod_ids=pod_ids, confirmed=True)
        return rental

    async def _find_out(self, entry: Entry, lost: RentOutcomeUnknown) -> Rental:
        """Return what a rent rented, or raise the error that nobody knows."""
        with anyio.move_on_after(_SETTLE_LIMIT_SECONDS):
            settled = await self._settler.settle(entry)
            if settled is not None:
                return replace(settled, was_lost=True)
        raise lost


def _refused(order: Order, refusal: LiumError) -> str:
    """What the ledger keeps of a refusal, with the node where it speaks of that alone."""
    if isinstance(order, NodeOrder) and is_of_its_node(refusal):
        return f"{REFUSED_BY}{order.executor_id}: {refusal}"
    return str(refusal)
