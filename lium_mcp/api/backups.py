"""Backup schedules (the API's backup-configs, one per pod) and backups (one run and its data, a backup-log)."""

from datetime import datetime

from lium_mcp.api.addresses import endpoint, segment
from lium_mcp.api.answers import Answer
from lium_mcp.api.errors import InvalidRequest, NotFound
from lium_mcp.api.fields import ApiBool, ApiId, ApiInt, ApiModel, ApiStr, ApiTime, read_time
from lium_mcp.api.paging import PAGE_SIZE, Page, Rows, collect_pages
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.retries import Repeat
from lium_mcp.api.storage_runs import StorageRun
from lium_mcp.api.wire import Resource

_MAX_FREQUENCY_HOURS = 168
_MAX_RETENTION_DAYS = 365


class BackupSchedule(ApiModel):
    """When a pod is backed up; `pod_executor_id` is the historic name of the link to the rental."""

    id: ApiId
    pod_executor_id: ApiStr = None
    pod_id: ApiStr = None
    backup_frequency_hours: ApiInt = None
    retention_days: ApiInt = None
    backup_path: ApiStr = None
    is_active: ApiBool = None
    next_backup_at: ApiTime = None
    updated_at: ApiStr = None

    def was_changed_since(self, moment: datetime) -> bool | None:
        """Whether it was changed at a moment or later; `None` where Lium does not say when it was changed last."""
        if self.updated_at is None:
            return False if "updated_at" in self.model_fields_set else None
        changed = read_time(self.updated_at)
        return None if changed is None else changed >= moment


class Backup(StorageRun):
    """One backup run; its id is what a restore or a rent takes. Most servers name its schedule, and not its pod."""

    FINAL_STATUSES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "SKIPPED", "EXPIRED", "DELETED"})

    backup_config_id: ApiStr = None
    pod_id: ApiStr = None
    pod_name: ApiStr = None
    backup_path: ApiStr = None
    deletion_state: ApiStr = None

    @property
    def is_deleted(self) -> bool:
        """Whether its data is gone, and not only to be deleted."""
        return "DELETED" in (self.state, (self.deletion_state or "").upper()) or self.state == "EXPIRED"

    @property
    def has_data(self) -> bool:
        """Whether it has data or will have some; without data its figures mean nothing."""
        return self.is_completed or not self.is_final

    @property
    def is_empty(self) -> bool:
        """Whether Lium says of a complete one that it holds no file and no byte."""
        return self.is_completed and self.total_files == 0 and self.total_bytes == 0

    @property
    def says_content(self) -> bool:
        """Whether Lium says of it that it holds, or will hold, a file or a byte."""
        return bool(self.total_files or self.total_bytes)

    @property
    def held_files(self) -> int | None:
        """How many files it holds, or will hold."""
        return self.total_files if not self.is_partial or self.processed_files is None else self.processed_files


class BackupStarted(ApiModel):
    """A manual backup has begun."""

    backup_log_id: ApiStr = None


class BackupSchedules(Resource):
    """Calls on backup schedules."""

    async def list(self) -> Rows[BackupSchedule]:
        """GET /backup-configs: all backup schedules."""
        return (await self._wire.request("GET", "/backup-configs")).rows(BackupSchedule)

    async def get_for_pod(self, pod_id: str) -> BackupSchedule | None:
        """GET /backup-configs/pod/{pod_id}: a pod's schedule, or `None`."""
        try:
            answer = await self._wire.request("GET", endpoint("/backup-configs/pod/{pod_id}", pod_id=pod_id))
        except NotFound:
            return None
        return await self._of_pod(answer, pod_id) if answer.body.strip() and answer.json() else None

    async def create(
        self, pod_id: str, *, backup_path: str, backup_frequency_hours: int = 6, retention_days: int = 7
    ) -> BackupSchedule:
        """POST /backup-configs: give a pod its schedule; a second one is refused."""
        body = {
            "pod_id": segment("pod_id", pod_id),
            **_schedule_body(backup_frequency_hours, retention_days, backup_path),
        }
        return await self._of_pod(await self._wire.request("POST", "/backup-configs", json=body), pod_id)

    async def _of_pod(self, answer: Answer, pod_id: str) -> BackupSchedule:
        schedule = answer.model(BackupSchedule, pod_id=pod_id)
        # Older servers have only this field, with the id of a pod, a node or a rental: only another pod's id is wrong.
        link = (schedule.pod_executor_id or pod_id).casefold()
        if schedule.pod_id is None and link != pod_id.casefold():
            pods = (await self._wire.request("GET", "/pods")).rows(Pod)
            if any(pod.id.casefold() == link for pod in pods):
                raise answer.about_another(BackupSchedule, "pod_executor_id", pod_id)
        return schedule

    async def update(
        self,
        config_id: str,
        *,
        backup_path: str | None,
        backup_frequency_hours: int | None,
        retention_days: int | None,
        is_active: bool | None = None,
    ) -> BackupSchedule:
        """PUT /backup-configs/{config_id}: change a schedule; a refused update leaves the old one.

        What is `None` is not sent. Whether the server keeps or resets it is not documented: send all that is known.
        """
        path = endpoint("/backup-configs/{config_id}", config_id=config_id)
        body = _schedule_body(backup_frequency_hours, retention_days, backup_path)
        if is_active is not None:
            body["is_active"] = is_active
        answer = await self._wire.request("PUT", path, json=body)
        shown = [schedule for schedule in await self.list() if schedule.id == config_id] if answer.is_bare else []
        return shown[0] if shown else answer.model(BackupSchedule, id=config_id)

    async def delete(self, config_id: str) -> None:
        """DELETE /backup-configs/{config_id}: stop backing up; stored backups stay until their retention ends."""
        await self._wire.request("DELETE", endpoint("/backup-configs/{config_id}", config_id=config_id))


class Backups(Resource):
    """Calls on backups."""

    async def list(self, *, pod_id: str | None = None) -> Rows[Backup]:
        """GET /backup-logs/ or /backup-logs/pod/{pod_id}: all backups, page by page up to a bound."""
        path = "/backup-logs/" if pod_id is None else endpoint("/backup-logs/pod/{pod_id}", pod_id=pod_id)

        async def fetch(number: int) -> Page[Backup]:
            answer = await self._wire.request("GET", path, query={"page": number, "limit": PAGE_SIZE})
            return answer.page(Backup)

        try:
            return await collect_pages(fetch)
        except NotFound:
            if pod_id is None:
                raise
            return Rows()  # the API's way to say that the pod has none

    async def get(self, backup_id: str) -> Backup:
        """GET /backup-logs/{backup_id}: one backup."""
        path = endpoint("/backup-logs/{backup_id}", backup_id=backup_id)
        return (await self._wire.request("GET", path)).model(Backup, id=backup_id)

    async def start(self, pod_id: str, *, name: str, description: str = "") -> BackupStarted:
        """POST /pods/{pod_id}/backup: back up now; the pod needs a schedule, whose path is used."""
        if not name.strip():
            raise InvalidRequest("name is empty.")
        path = endpoint("/pods/{pod_id}/backup", pod_id=pod_id)
        body = {"name": name, "description": description}
        return (await self._wire.request("POST", path, json=body)).model(BackupStarted)

    async def cancel(self, backup_id: str) -> None:
        """POST /backup-logs/{backup_id}/cancel: stop a running backup."""
        path = endpoint("/backup-logs/{backup_id}/cancel", backup_id=backup_id)
        await self._wire.request("POST", path, repeat=Repeat.ALWAYS)

    async def delete(self, backup_id: str) -> None:
        """DELETE /backup-logs/{backup_id}: delete a completed backup's data, in the background. Irreversible."""
        await self._wire.request("DELETE", endpoint("/backup-logs/{backup_id}", backup_id=backup_id))


def _schedule_body(
    backup_frequency_hours: int | None, retention_days: int | None, backup_path: str | None
) -> dict[str, int | str]:
    if backup_frequency_hours is not None and not 1 <= backup_frequency_hours <= _MAX_FREQUENCY_HOURS:
        raise InvalidRequest(f"backup_frequency_hours is not between 1 and {_MAX_FREQUENCY_HOURS}.")
    if retention_days is not None and not 1 <= retention_days <= _MAX_RETENTION_DAYS:
        raise InvalidRequest(f"retention_days is not between 1 and {_MAX_RETENTION_DAYS}.")
    body = {
        "backup_frequency_hours": backup_frequency_hours,
        "retention_days": retention_days,
        "backup_path": backup_path,
    }
    return {name: value for name, value in body.items() if value is not None}
