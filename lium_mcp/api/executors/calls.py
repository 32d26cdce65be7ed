"""Calls on nodes (the API's executors): list, quote, rent."""

from collections.abc import Sequence
from contextlib import suppress

import anyio

from lium_mcp.api.addresses import endpoint
from lium_mcp.api.errors import LiumError
from lium_mcp.api.executors.models import (
    DefaultImage,
    Executor,
    Quote,
    RentBySpecResponse,
)
from lium_mcp.api.gpu_names import gpu_names, matching_machine_names
from lium_mcp.api.machines import Machine
from lium_mcp.api.paging import Rows
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest, rented_pod_id, send_rent
from lium_mcp.api.retries import Repeat
from lium_mcp.api.wire import QueryValue, Resource

# Less than a read may take, since the nodes themselves are read after it.
MACHINES_SECONDS = 10.0


class Executors(Resource):
    """Calls on nodes."""

    async def list(
        self,
        *,
        gpu_type: str | None = None,
        min_download_mbps: float | None = None,
    ) -> Rows[Executor]:
        """GET /executors: nodes that can be rented now, in no particular order; works without a key.

        `gpu_type` is a GPU's name as people say it, or several with commas between. The filters are sent, and applied
        again here, so that the rows are the same where a server does not know a filter or reads it more loosely.
        """
        wanted = ",".join(gpu_names(gpu_type or ""))
        names = await self._machine_names(wanted) if wanted else []
        query: dict[str, QueryValue] = {
            "view": "summary",
            "machine_names": ",".join(names) or None,
            "min_download_mbps": min_download_mbps,
        }
        rows = (await self._wire.request("GET", "/executors", query=query, needs_key=False)).rows(Executor)

        def fits(node: Executor) -> bool:
            return (not wanted or node.is_gpu(wanted)) and (
                min_download_mbps is None or (node.download_mbps or 0) >= min_download_mbps
            )

        return rows.where(fits)

    async def _machine_names(self, wanted: str) -> Sequence[str]:
        """Return the full names that the words mean, since the API's filter takes no others; words without one stay."""
        parts = gpu_names(wanted)
        machines: Sequence[Machine] = ()  # without them the words are the second-best filter
        with suppress(LiumError), anyio.move_on_after(MACHINES_SECONDS):
            machines = (await self._wire.request("GET", "/machines", needs_key=False)).rows(Machine)
        known = [machine.name for machine in machines]
        names = [name for part in parts for name in matching_machine_names(part, known) or [part]]
        return list(dict.fromkeys(names))

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
