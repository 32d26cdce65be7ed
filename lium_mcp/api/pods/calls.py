"""Calls on pods: look, change, remove. The calls that rent are those on nodes and clusters."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from lium_mcp.api.addresses import MAX_PORT, endpoint, segment
from lium_mcp.api.errors import BadRequest, Conflict, FirewallBlocked, InvalidRequest
from lium_mcp.api.fields import ApiModel, read_text
from lium_mcp.api.lines import Tail
from lium_mcp.api.paging import Rows, once_each
from lium_mcp.api.pods.models import (
    FeedbackRequest,
    GpuResetState,
    Pod,
    PodDetail,
    PodEvent,
    PodRecord,
)
from lium_mcp.api.refusal_words import says_going
from lium_mcp.api.retries import Repeat
from lium_mcp.api.wire import QueryValue, Resource

GPU_RESET_TIMEOUT_SECONDS = 120.0
DEFAULT_LOG_BYTES = 2**20
_LATELY_SECONDS = 2.0
# The names before the colon in lines of server-sent events that are comments or hold no data.
_FRAMING = frozenset({"", "event", "id", "retry"})
_LOG_FIELDS = ("log", "line", "text", "output", "message", "error")


class PodChange(ApiModel):
    """The answer that a change of a pod has begun: the pod as it is then, or only a word of success."""


class Pods(Resource):
    """Calls on pods."""

    async def list(self, *, repeat: Repeat = Repeat.ALWAYS) -> Rows[Pod]:
        """GET /pods: pods of the account that are not being removed, each once, in no particular order."""
        return once_each((await self._wire.request("GET", "/pods", repeat=repeat)).rows(Pod))

    async def lately(self) -> Rows[Pod]:
        """The same, once for all who ask with this key within two seconds and no change of ours between.

        It is for showing, since Lium allows about 60 such reads a minute; what is settled, rented or removed by is read
        with `list`.
        """
        return (await self._wire.share_own("pods", self.list, most_seconds=_LATELY_SECONDS)).value

    async def get(self, pod_id: str, *, repeat: Repeat = Repeat.ALWAYS) -> PodDetail:
        """GET /pods/{pod_id}: one pod with its last event."""
        path = endpoint("/pods/{pod_id}", pod_id=pod_id)
        return (await self._wire.request("GET", path, repeat=repeat)).model(PodDetail, id=pod_id)

    async def remove(self, pod_id: str, *, feedback: FeedbackRequest | None = None) -> None:
        """DELETE /pods/{pod_id}: begin to remove a pod; it is gone when the list no longer has it.

        Irreversible: only attached volumes and finished backups remain. Feedback that the firewall blocks is left out.
        A refusal because the pod is being removed already counts as success.
        """
        path = endpoint("/pods/{pod_id}", pod_id=pod_id)
        try:
            try:
                await self._wire.request("DELETE", path, json=feedback.body() if feedback else None)
            except FirewallBlocked:  # some texts never pass; the API has not seen the request
                if feedback is None:
                    raise
                await self._wire.request("DELETE", path)
        except (BadRequest, Conflict) as error:
            if not says_going(error.message):
                raise

    async def reboot(self, pod_id: str, *, volume_id: str | None = None) -> None:
        """POST /pods/{pod_id}/reboot: replace the container, with a new SSH host key; may attach a volume."""
        body = {} if volume_id is None else {"volume_id": segment("volume_id", volume_id)}
        path = endpoint("/pods/{pod_id}/reboot", pod_id=pod_id)
        (await self._wire.request("POST", path, json=body)).model(PodChange)

    async def switch_template(self, pod_id: str, *, template_id: str) -> None:
        """PUT /pods/{pod_id}/switch-template: start over from another template; container data is lost."""
        path = endpoint("/pods/{pod_id}/switch-template", pod_id=pod_id)
        body = {"template_id": segment("template_id", template_id)}
        (await self._wire.request("PUT", path, json=body)).model(PodChange)

    async def reset_gpus(self, pod_id: str, *, gpu_indices: Sequence[int] | None = None) -> GpuResetState:
        """POST /pods/{pod_id}/reset-gpu: stop every process and reset GPUs, all of them by default. Sent once."""
        indices = None if gpu_indices is None else list(gpu_indices)
        if indices is not None and (not indices or min(indices) < 0):
            raise InvalidRequest("gpu_indices is empty or holds a negative number.")
        answer = await self._wire.request(
            "POST",
            endpoint("/pods/{pod_id}/reset-gpu", pod_id=pod_id),
            json={"gpu_indices": indices},
            repeat=Repeat.NEVER,
            timeout_seconds=GPU_RESET_TIMEOUT_SECONDS,
        )
        return answer.model(GpuResetState, pod_id=pod_id)

    async def get_gpu_reset(self, pod_id: str, request_id: str) -> GpuResetState:
        """GET /pods/{pod_id}/reset-gpu/{request_id}: how a reset stands. Sent once, since callers poll it."""
        path = endpoint("/pods/{pod_id}/reset-gpu/{reset_id}", pod_id=pod_id, reset_id=request_id)
        answer = await self._wire.request("GET", path, repeat=Repeat.NEVER)
        return answer.model(GpuResetState, request_id=request_id, pod_id=pod_id)

    async def logs(self, pod_id: str, *, tail: int = 100, max_bytes: int = DEFAULT_LOG_BYTES) -> Tail:
        """GET /pods/{pod_id}/logs: the newest lines of the main process; a 404 may mean "not started yet"."""
        if tail < 1:
            raise InvalidRequest("tail is less than 1.")
        path = endpoint("/pods/{pod_id}/logs", pod_id=pod_id)
        query: dict[str, QueryValue] = {"tail": tail, "follow": "false"}
        return await self._wire.tail_lines(path, query=query, read=_log_text, most_lines=tail, max_bytes=max_bytes)

    async def events(self, pod_id: str) -> Rows[PodEvent]:
        """GET /pods/{pod_id}/events: oldest first, also after removal. Older servers have no such route."""
        path = endpoint("/pods/{pod_id}/events", pod_id=pod_id)
        return (await self._wire.request("GET", path, repeat=Repeat.NEVER)).rows(PodEvent, pod_id=pod_id)

    async def record(self, pod_id: str) -> PodRecord:
        """GET /pods/{pod_id}/record: what remains of a pod. Needs the feature `run_record`."""
        path = endpoint("/pods/{pod_id}/record", pod_id=pod_id)
        return (await self._wire.request("GET", path)).model(PodRecord, pod_id=pod_id)

    async def send_feedback(self, pod_id: str, feedback: FeedbackRequest) -> None:
        """POST /pods/{pod_id}/feedback: rate a living pod's node."""
        path = endpoint("/pods/{pod_id}/feedback", pod_id=pod_id)
        await self._wire.request("POST", path, json=feedback.body())

    async def schedule_removal(self, pod_id: str, *, at: datetime) -> None:
        """POST /pods/{pod_id}/schedule-removal: set or replace the time at which Lium removes a pod.

        A pod rented with `termination_hours` replaces it at boot.
        """
        if at.tzinfo is None:
            raise InvalidRequest("at has no time zone.")
        path = endpoint("/pods/{pod_id}/schedule-removal", pod_id=pod_id)
        body = {"removal_scheduled_at": f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        await self._wire.request("POST", path, json=body, repeat=Repeat.ALWAYS)

    async def cancel_removal(self, pod_id: str) -> None:
        """DELETE /pods/{pod_id}/schedule-removal: the pod then bills until it is removed by hand."""
        await self._wire.request("DELETE", endpoint("/pods/{pod_id}/schedule-removal", pod_id=pod_id))

    async def install_jupyter(self, pod_id: str, *, port: int) -> None:
        """POST /pods/{pod_id}/install-jupyter: install Jupyter on an internal port of a running pod."""
        if not 1 <= port <= MAX_PORT:
            raise InvalidRequest(f"port is not between 1 and {MAX_PORT}.")
        path = endpoint("/pods/{pod_id}/install-jupyter", pod_id=pod_id)
        await self._wire.request("POST", path, json={"jupyter_internal_port": port})


def _log_text(line: str) -> str | None:
    """Return the text of `data: {"log": ...}`, or `None` for what only frames a stream or keeps it open.

    A line in another form is kept as it is: it may be the output of a server that frames nothing.
    """
    line = line.removeprefix("\ufeff")
    name, colon, value = line.partition(":")
    if not line or (colon and name in _FRAMING):
        return None
    if not colon or name != "data":
        return line
    value = value.removeprefix(" ")
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        return value
    if not isinstance(event, dict):
        return event if isinstance(event, str) else value
    texts = (read_text(event.get(name)) for name in _LOG_FIELDS)
    text = next((text for text in texts if text is not None), None)
    return None if text is None else text.rstrip("\r\n")
