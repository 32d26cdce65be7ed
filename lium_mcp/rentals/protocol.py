"""The protocol around a rent: one request, and certainty about what became of it.

A rent spends money, so its request is sent once. When the answer is lost, the request is repeated only with the same
idempotency key and only where the API promises to replay it (feature `rent_idempotency`); elsewhere the pod is looked
for, and what cannot be established is reported as unknown, never as failed. This package knows nothing of tools.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

import anyio
import anyio.lowlevel

from lium_mcp.api import (
    Clock,
    ClusterRentRequest,
    LiumClient,
    LiumError,
    NotFound,
    RateLimited,
    RentBySpecRequest,
    RentOutcomeUnknown,
    RentRequest,
)

log = logging.getLogger(__name__)

_REPLAY_PAUSES_SECONDS: Final = (1.0, 3.0, 6.0)
_LOOK_PAUSES_SECONDS: Final = (0.0, 3.0, 3.0)
_SETTLE_LIMIT_SECONDS: Final = 40.0
# About ten minutes, which is longer than most pods take to start; one that starts cannot be removed yet.
_REMOVE_ATTEMPTS: Final = 45
_REMOVE_PAUSE_SECONDS: Final = 3.0
_LONGEST_REMOVE_PAUSE_SECONDS: Final = 15.0
_REMOVE_AFTER: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class NodeOrder:
    """Rent GPUs of one chosen node."""

    executor_id: str
    request: RentRequest


@dataclass(frozen=True, slots=True)
class SpecOrder:
    """Let the API pick the cheapest node that fits."""

    request: RentBySpecRequest


@dataclass(frozen=True, slots=True)
class ClusterOrder:
    """Rent several whole nodes of one fabric, all or none."""

    request: ClusterRentRequest


Order = NodeOrder | SpecOrder | ClusterOrder


@dataclass(frozen=True, slots=True)
class Rental:
    """Pods that bill now: one, or the members of a cluster.

    Attributes:
        pod_ids: Never empty.
        confirmed: The API named these pods as the answer to our request. False: they were found by name after the
            answer was lost on a server that cannot replay, so they could in theory be somebody else's.
    """

    pod_ids: tuple[str, ...]
    confirmed: bool

    @property
    def pod_id(self) -> str:
        """The pod, or the first member of a cluster."""
        return self.pod_ids[0]


class PodNameTaken(Exception):
    """A living pod has the name already; nothing was sent."""

    def __init__(self, pod_name: str, pod_ids: list[str]) -> None:
        super().__init__(f"A pod named {pod_name} exists already")
        self.pod_name = pod_name
        self.pod_ids = pod_ids


class Renter:
    """Sends rents for one account, one at a time."""

    def __init__(self, lium: LiumClient, clock: Clock, turn: anyio.Lock) -> None:
        """`turn` is held from the look at what exists until the answer: whoever rents for the account shares it."""
        self._lium = lium
        self._clock = clock
        self._one_at_a_time = turn

    @asynccontextmanager
    async def rent(self, order: Order) -> AsyncIterator[Rental]:
        """Rent, and hand the pod to the body. A cancelled body never leaves a pod that nobody heard of.

        Raises:
            PodNameTaken: a pod of that name lives; nothing was sent.
            RentOutcomeUnknown: the request left and nothing proves what became of it.
            LiumError: a definite refusal; nothing was rented.
        """
        async with self._one_at_a_time:
            known = await self._refuse_taken_name(order.request.pod_name)
            with anyio.CancelScope(shield=True):
                try:
                    rental = await self._send(order, known)
                except anyio.get_cancelled_exc_class():
                    # No shield holds when the process ends.
                    log.critical("Stopped during the rent of %r: it may exist and bill", order.request.pod_name)
                    raise
        try:
            await anyio.lowlevel.checkpoint()  # a call that was cancelled meanwhile stops here
            yield rental
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._remove_unheard_of(rental)
            raise

    async def _refuse_taken_name(self, pod_name: str) -> frozenset[str]:
        pods = await self._lium.pods.list()
        taken = [pod.id for pod in pods if pod.pod_name == pod_name and (pod.is_billing or not pod.is_terminal)]
        if taken:
            raise PodNameTaken(pod_name, taken)
        return frozenset(pod.id for pod in pods)

    async def _send(self, order: Order, known: frozenset[str]) -> Rental:
        key = str(uuid4())
        try:
            return Rental(await self._post(order, key), confirmed=True)
        except RentOutcomeUnknown as unknown:
            log.warning("The answer to a rent was lost; settling it. request_id=%r", unknown.request_id)
            rental: Rental | None = None
            with anyio.move_on_after(_SETTLE_LIMIT_SECONDS):
                rental = await self._settle(order, key, known)
            if rental is None:
                raise
            return rental

    async def _post(self, order: Order, key: str) -> tuple[str, ...]:
        # The client raises RentOutcomeUnknown for an answer that names no pod.
        if isinstance(order, ClusterOrder):
            return (await self._lium.clusters.rent(order.request, idempotency_key=key)).pod_ids
        if isinstance(order, NodeOrder):
            rented = await self._lium.executors.rent(order.executor_id, order.request, idempotency_key=key)
            return (rented.pod_id,)
        answer = await self._lium.executors.rent_by_spec(order.request, idempotency_key=key)
        return (answer.pod_id or "",)

    async def _settle(self, order: Order, key: str, known: frozenset[str]) -> Rental | None:
        if await self._lium.supports("rent_idempotency"):
            for pause in _REPLAY_PAUSES_SECONDS:
                await self._clock.sleep(pause)
                try:
                    return Rental(await self._post(order, key), confirmed=True)
                except RateLimited:
                    continue  # whoever answered this did not look at the first request
                except LiumError as error:
                    if error.replayed and error.effect == "none":
                        raise  # the stored refusal of the first request: nothing was rented
        return await self._look_for(order, known)

    async def _look_for(self, order: Order, known: frozenset[str]) -> Rental | None:
        wanted = len(order.request.executor_uuids) if isinstance(order, ClusterOrder) else 1
        pod_name = order.request.pod_name
        for pause in _LOOK_PAUSES_SECONDS:
            await self._clock.sleep(pause)
            try:
                pods = await self._lium.pods.list()
            except LiumError:
                continue
            found = tuple(pod.id for pod in pods if pod.pod_name == pod_name and pod.id not in known)
            if len(found) == wanted:
                return Rental(found, confirmed=False)
        return None

    async def _remove_unheard_of(self, rental: Rental) -> None:
        if not rental.confirmed:
            log.error("A cancelled rent left pods %r, found only by name: remove them by hand", rental.pod_ids)
            return
        async with anyio.create_task_group() as removals:
            for pod_id in rental.pod_ids:
                removals.start_soon(self._remove, pod_id)

    async def _remove(self, pod_id: str) -> None:
        scheduled = False
        for attempt in range(1, _REMOVE_ATTEMPTS + 1):
            try:
                await self._lium.pods.remove(pod_id)
            except NotFound:
                pass
            except LiumError as error:
                log.warning("Removing pod %r of a cancelled rent was refused for now: %s", pod_id, error)
                scheduled = scheduled or await self._schedule_removal(pod_id)
                await self._clock.sleep(min(attempt * _REMOVE_PAUSE_SECONDS, _LONGEST_REMOVE_PAUSE_SECONDS))
                continue
            log.info("Removed pod %r, whose rent was cancelled", pod_id)
            return
        log.error("Pod %r of a cancelled rent could not be removed and bills: remove it by hand", pod_id)

    async def _schedule_removal(self, pod_id: str) -> bool:
        """Let Lium remove a pod that cannot be removed yet, since this process may not live until it can be."""
        try:
            await self._lium.pods.schedule_removal(pod_id, at=self._lium.now() + _REMOVE_AFTER)
        except LiumError as error:
            log.warning("Pod %r of a cancelled rent has no removal time either: %s", pod_id, error)
            return False
        return True
