"""Calls on nodes (the API's executors): list, quote, rent."""

from collections.abc import Callable
from datetime import datetime

from lium_mcp.api.addresses import endpoint
from lium_mcp.api.errors import AuthenticationFailed, PermissionDenied
from lium_mcp.api.executors.models import (
    DefaultImage,
    Executor,
    Quote,
    RentBySpecResponse,
)
from lium_mcp.api.paging import Rows
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest, rented_pod_id, send_rent
from lium_mcp.api.retries import Repeat
from lium_mcp.api.shared_readings import Reading
from lium_mcp.api.wire import QueryValue, Resource

MARKET_SECONDS = 2.0
"""For so long everybody is told of the same market."""

_MARKET = "market"


class Executors(Resource):
    """Calls on nodes."""

    async def list(self) -> Rows[Executor]:
        """GET /executors: nodes that can be rented now, in no particular order, as this account sees them now."""
        query: dict[str, QueryValue] = {"view": "summary"}
        return (await self._wire.request("GET", "/executors", query=query, needs_key=False)).rows(Executor)

    async def market(self, *, most_seconds: float = MARKET_SECONDS) -> Reading[Rows[Executor]]:
        """GET /executors without a key, once for all who ask within `most_seconds`: to look at, and not to rent by.

        Whether an account sees other nodes or prices than everybody, Lium does not say: what is rented is read with
        `list`. A server that shows its market to accounts alone is asked as the account.
        """
        try:
            return await self._wire.share_public(
                _MARKET, lambda wire: Executors(wire).list(), most_seconds=most_seconds
            )
        except (AuthenticationFailed, PermissionDenied):
            if not self._wire.has_api_key:
                raise
            return Reading(await self.list(), 0.0)

    def hear_market(self, listener: Callable[[Rows[Executor], datetime], None]) -> None:
        """Let a listener hear of each reading of the market without a key, and when it is of by Lium's clock.

        It hears of all that are made over these connections, whoever asks. It raises nothing, and takes no time.
        """
        self._wire.hear_public(_MARKET, listener)

    async def quote(
        self,
        executor_id: str,
        *,
        hours: float,
        gpu_count: int | None = None,
        volume_gb: float = 0,
        backup_gb: float = 0,
    ) -> Quote:
        """GET /executors/{executor_id}/quote: what a rental would cost; without `gpu_count`, of all free GPUs."""
        query: dict[str, QueryValue] = {
            "hours": hours,
            "gpu_count": gpu_count,
            "volume_gb": volume_gb,
            "backup_gb": backup_gb,
        }
        path = endpoint("/executors/{executor_id}/quote", executor_id=executor_id)
        answer = await self._wire.request("GET", path, query=query, needs_key=False)
        return answer.model(Quote, executor_id=executor_id, gpu_count=gpu_count, hours=hours)

    async def rent(self, executor_id: str, request: RentRequest, *, idempotency_key: str) -> str:
        """POST /executors/{executor_id}/rent: rent a pod on a chosen node. Spends money and is sent once.

        Returns the id of the pod. `RentOutcomeUnknown` means that a pod may exist. Every other error proves that this
        request rented nothing, but proves something about an earlier request with the same key only if it is
        `replayed`: key, budget and balance (401, 402, 403) are checked before the server looks for the stored outcome.
        """
        request.check()
        path = endpoint("/executors/{executor_id}/rent", executor_id=executor_id)
        name = request.pod_name
        answer = await send_rent(self._wire, path, request.body(), idempotency_key=idempotency_key, pod_name=name)
        return rented_pod_id(answer, self._wire.redact, idempotency_key=idempotency_key, pod_name=name)

    async def rent_by_spec(self, request: RentBySpecRequest, *, idempotency_key: str) -> str:
        """POST /executors/rent-by-spec: rent the cheapest node that fits. Spends money and is sent once.

        Returns the id of the pod. Needs the feature `rent_by_spec`. Errors mean the same as for `rent`.
        """
        request.check()
        name = request.pod_name
        answer = await send_rent(
            self._wire,
            "/executors/rent-by-spec",
            request.body(dry_run=False),
            idempotency_key=idempotency_key,
            pod_name=name,
        )
        return rented_pod_id(answer, self._wire.redact, idempotency_key=idempotency_key, pod_name=name)

    async def select_by_spec(self, request: RentBySpecRequest) -> RentBySpecResponse:
        """POST /executors/rent-by-spec as a dry run: which node a rent would take and at what price.

        Never sends an idempotency key: the server would keep it as pending for ever.
        """
        request.check()
        answer = await self._wire.request(
            "POST", "/executors/rent-by-spec", json=request.body(dry_run=True), repeat=Repeat.ALWAYS, mutates=False
        )
        return answer.model(RentBySpecResponse)

    async def default_images(
        self, *, gpu_model: str | None = None, driver_version: str | None = None
    ) -> Rows[DefaultImage]:
        """GET /executors/default-docker-image: recommended images for a GPU and driver, best first."""
        query: dict[str, QueryValue] = {"gpu_model": gpu_model, "driver_version": driver_version}
        return (await self._wire.request("GET", "/executors/default-docker-image", query=query)).rows(DefaultImage)
