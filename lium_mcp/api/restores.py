"""Restores: a backup's data written into a pod."""

from lium_mcp.api.addresses import endpoint, segment
from lium_mcp.api.errors import InvalidRequest, NotFound
from lium_mcp.api.fields import ApiModel, ApiStr
from lium_mcp.api.paging import PAGE_SIZE, Page, Rows, collect_pages
from lium_mcp.api.retries import Repeat
from lium_mcp.api.storage_runs import StorageRun
from lium_mcp.api.wire import Resource


class Restore(StorageRun):
    """One restore run."""

    FINAL_STATUSES = frozenset({"COMPLETED", "FAILED", "CANCELLED"})

    backup_id: ApiStr = None
    pod_id: ApiStr = None
    restore_path: ApiStr = None


class RestoreStarted(ApiModel):
    """A restore has begun."""

    restore_log_id: ApiStr = None
    operation_id: ApiStr = None
    restore_id: ApiStr = None

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
            return answer.page(Restore, pod_id=pod_id)

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
