"""Restores: a backup's data written into a pod."""

from lium_mcp.api.addresses import endpoint, segment
from lium_mcp.api.errors import InvalidRequest, NotFound
from lium_mcp.api.model import ApiBool, ApiFloat, ApiId, ApiInt, ApiModel, ApiReason, ApiStr, ApiText, ApiTime, ApiTuple
from lium_mcp.api.paging import PAGE_SIZE, Page, Rows, collect_pages
from lium_mcp.api.resource import Resource
from lium_mcp.api.retries import Repeat

FINAL_RESTORE_STATUSES = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class Restore(ApiModel):
    """One restore run; `stage` means nothing once the run is over."""

    id: ApiId
    backup_id: ApiStr = None
    pod_id: ApiStr = None
    status: ApiText = ""
    stage: ApiStr = None
    progress: ApiFloat = None
    restore_path: ApiStr = None
    created_at: ApiTime = None
    started_at: ApiTime = None
    completed_at: ApiTime = None
    last_heartbeat_at: ApiTime = None
    error_message: ApiReason = None
    logs: ApiTuple[str] = ()
    backup_engine: ApiStr = None
    restore_mode: ApiStr = None
    total_files: ApiInt = None
    processed_files: ApiInt = None
    total_bytes: ApiInt = None
    processed_bytes: ApiInt = None
    elapsed_seconds: ApiInt = None
    throughput_bytes_per_second: ApiInt = None
    estimated_remaining_seconds: ApiInt = None

    @property
    def state(self) -> str:
        """The status, upper case, with the older spelling of a failure read as today's."""
        status = self.status.upper()
        return "FAILED" if status == "ERROR" else status

    @property
    def is_final(self) -> bool:
        """Whether the run is over."""
        return self.state in FINAL_RESTORE_STATUSES


class RestoreStarted(ApiModel):
    """A restore has begun."""

    restore_log_id: ApiStr = None
    operation_id: ApiStr = None
    restore_id: ApiStr = None
    success: ApiBool = None
    message: ApiReason = None

    @property
    def id(self) -> str | None:
        """The id of the restore, under whichever name the server gives it."""
        return self.restore_log_id or self.operation_id or self.restore_id


class Restores(Resource):
    """Calls on restores."""

    async def list(self, pod_id: str) -> Rows[Restore]:
        """GET /pods/{pod_id}/restore-logs: all restores into a pod, page by page up to a bound."""
        path = endpoint("/pods/{pod_id}/restore-logs", pod_id=pod_id)

        async def fetch(number: int) -> Page[Restore]:
            answer = await self._wire.request("GET", path, query={"page": number, "limit": PAGE_SIZE})
            return answer.page(Restore)

        try:
            return await collect_pages(fetch)
        except NotFound:
            return Rows()  # the API's way to say that there are none

    async def start(self, pod_id: str, *, backup_id: str, restore_path: str) -> RestoreStarted:
        """POST /pods/{pod_id}/restore: write a completed backup into a new or empty directory of a running pod."""
        if not restore_path.startswith("/"):
            raise InvalidRequest("restore_path is not an absolute path.")
        path = endpoint("/pods/{pod_id}/restore", pod_id=pod_id)
        body = {"backup_id": segment("backup_id", backup_id), "restore_path": restore_path}
        return (await self._wire.request("POST", path, json=body)).model(RestoreStarted)

    async def cancel(self, restore_id: str) -> None:
        """POST /restore-logs/{restore_id}/cancel: stop a running restore; files already written stay."""
        path = endpoint("/restore-logs/{restore_id}/cancel", restore_id=restore_id)
        await self._wire.request("POST", path, repeat=Repeat.ALWAYS)
