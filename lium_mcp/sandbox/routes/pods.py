"""The routes of a pod: reading it, its logs and events, rebooting, scheduling, removing."""

import math
import time
from collections import deque
from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import timedelta
from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox import lifecycle
from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import (
    FeedbackBody,
    GpuResetBody,
    JupyterBody,
    LogsQuery,
    RebootBody,
    ScheduleBody,
    SwitchTemplateBody,
)
from lium_mcp.sandbox.money import require_budget
from lium_mcp.sandbox.node_rows import gpu_uuid
from lium_mcp.sandbox.pod_rows import LogLines, pod_row, ports_mapping, record_row
from lium_mcp.sandbox.records import StoredGpuReset, StoredPod, StoredTemplate
from lium_mcp.sandbox.refusals import detailed, missing, rate_limited, refuse
from lium_mcp.sandbox.routes.rents import NOT_READY, require_free_volume
from lium_mcp.sandbox.simulated_clock import iso_naive
from lium_mcp.sandbox.world import RECENT

POLL_WINDOW_SECONDS: Final = 60.0
FOLLOW_PAUSE_SECONDS: Final = 0.2
RESET_SECONDS: Final = (60.0, 110.0)
RESET_INTERVAL: Final = timedelta(minutes=1)
JUPYTER_SECONDS: Final = (15.0, 40.0)
LIVE: Final = frozenset({"RUNNING", "REBOOT_FAILED"})


def list_pods(call: ApiCall) -> Reply:
    """List the pods the caller sees; at most so many times a minute."""
    _count_poll(call)
    wanted = call.query.get("api_key_id")
    pods = [
        pod
        for pod in call.world.pods.values()
        if call.sees(pod)
        and pod.removed_at is None
        and pod.status != "DELETING"
        and (pod.listed_from is None or call.world.now >= pod.listed_from)
        and (wanted is None or pod.api_key_id == wanted)
    ]
    # The API promises no order, so this is not the order of creation.
    return Reply([pod_row(call.world, pod) for pod in sorted(pods, key=lambda pod: pod.id)])


def _count_poll(call: ApiCall) -> None:
    # A minute has passed if it has in real time, so that a frozen clock locks nobody out for ever, or in sandbox time,
    # so that a test that turns the clock instead of waiting is not told that it polls too often.
    world = call.world
    real, polls = time.monotonic(), world.poll_times.setdefault(call.me.id, deque())
    while polls and max(real - polls[0][0], (world.now - polls[0][1]).total_seconds()) >= POLL_WINDOW_SECONDS:
        polls.popleft()
    if len(polls) >= world.pod_polls_per_minute:
        raise rate_limited(math.ceil(POLL_WINDOW_SECONDS - (real - polls[0][0])))
    polls.append((real, world.now))


def get_pod(call: ApiCall) -> Reply:
    """Read one pod."""
    pod = call.pod()
    if pod.readable_from is not None and call.world.now < pod.readable_from:
        raise missing("Pod")
    row = pod_row(call.world, pod)
    row["last_event"] = next((e.body for e in reversed(call.world.events) if e.body["pod_id"] == pod.id), None)
    return Reply(row)


def delete_pod(call: ApiCall) -> Reply:
    """Begin to remove a pod; one that still deploys is refused."""
    pod = call.pod(write=True)
    feedback = call.parse(FeedbackBody)
    if pod.status == "DELETING":
        return Reply({"success": True, "message": "Pod deletion already in progress"})
    if pod.status == "PENDING":
        raise refuse(400, "pod_pending", "The pod is still being deployed.", hint="Try again when it runs.")
    if call.world.faults.strike("delete_fails", pod_id=pod.id):
        raise refuse(500, "internal_error", "The pod could not be removed.")
    _keep_feedback(pod, feedback)
    lifecycle.delete(call.world, pod, reason="user_initiated", actor=call.actor)
    return Reply({"success": True, "message": "Pod deletion started"})


def send_feedback(call: ApiCall) -> Reply:
    """Rate a live pod's node; only the first rating counts."""
    pod = call.pod(write=True)
    feedback = call.parse(FeedbackBody)
    return Reply({"success": True, "recorded": _keep_feedback(pod, feedback)})


def _keep_feedback(pod: StoredPod, feedback: FeedbackBody) -> bool:
    if pod.feedback is not None or not feedback.model_fields_set:
        return False
    pod.feedback = feedback.model_dump()
    return True


def reboot_pod(call: ApiCall) -> Reply:
    """Replace the container, perhaps with another volume."""
    pod, body = call.pod(write=True), call.parse(RebootBody)
    _require_live(pod)
    volume_id = None if body.volume_id is None else str(body.volume_id)
    if volume_id is not None and volume_id != pod.volume_id:
        require_free_volume(call, volume_id)
    lifecycle.reboot(call.world, pod, actor=call.actor, volume_id=volume_id)
    return Reply(pod_row(call.world, pod))


def switch_template(call: ApiCall) -> Reply:
    """Run another template: a clone of it, under a new id, starts in the pod."""
    pod, body = call.pod(write=True), call.parse(SwitchTemplateBody)
    template = call.template(str(body.template_id))
    if template is None:
        raise missing("Template")
    if template.status in NOT_READY:
        raise refuse(400, "template_invalid", f"The template cannot be used: {template.status}.")
    _require_live(pod)
    clone = StoredTemplate(
        id=call.world.new_id("template"),
        user_id=pod.account_id,
        created_at=call.world.now,
        status=template.status,
        body=deepcopy(template.body) | {"is_private": True, "is_temporary": True, "one_time_template": True},
        size_bytes=template.size_bytes,
        supports_encryption=template.supports_encryption,
        supports_docker=template.supports_docker,
        hidden=True,
    )
    call.world.templates[clone.id] = clone
    lifecycle.switch_template(call.world, pod, clone, actor=call.actor)
    row = pod_row(call.world, pod)
    del row["executor"], row["template"]
    return Reply(row | {"template_id": clone.id})


def schedule_removal(call: ApiCall) -> Reply:
    """Set or replace the time at which the pod is removed."""
    pod, body = call.pod(write=True), call.parse(ScheduleBody)
    if pod.status == "DELETING":
        raise refuse(400, "pod_deleting", "The pod is being removed.")
    if body.removal_scheduled_at <= call.world.now:
        raise detailed(400, "removal_scheduled_at must be in the future")
    if pod.removal_scheduled_at is None or body.removal_scheduled_at > pod.removal_scheduled_at:
        require_budget(call.world, call.key, route="POST /pods/{pod_id}/schedule-removal", amount=None)
    lifecycle.schedule_removal(call.world, pod, body.removal_scheduled_at)
    return Reply({"message": "Removal scheduled"})


def cancel_removal(call: ApiCall) -> Reply:
    """Forget the scheduled removal."""
    pod = call.pod(write=True)
    pod.removal_scheduled_at = None
    return Reply({"message": "Schedule cancelled"})


def install_jupyter(call: ApiCall) -> Reply:
    """Install Jupyter on one of the pod's mapped ports."""
    pod, body = call.pod(write=True), call.parse(JupyterBody)
    world, port = call.world, body.jupyter_internal_port
    _require_running(pod)
    mapped = ports_mapping(pod, world.templates.get(pod.template_id)) or {}
    if str(port) not in mapped or str(port) == "22":
        raise refuse(400, "port_not_mapped", f"Port {port} of the pod is not open to the outside.")
    pod.jupyter_status, pod.jupyter_port = "IN_PROGRESS", port
    boot = pod.boot

    def finish() -> None:
        if pod.boot == boot and pod.is_open:
            failed = world.faults.strike("jupyter_fails", pod_id=pod.id)
            pod.jupyter_status = "FAILED" if failed else "SUCCESS"

    world.after(world.pick(*JUPYTER_SECONDS, "jupyter", pod.id, port), finish)
    return Reply({"message": "Installation started"})


def reset_gpu(call: ApiCall) -> Reply:
    """Reset GPUs; the caller polls for the outcome."""
    pod, body = call.pod(write=True), call.parse(GpuResetBody)
    world = call.world
    _require_running(pod)
    indices = list(range(pod.gpu_count)) if body.gpu_indices is None else body.gpu_indices
    if not indices or any(index >= pod.gpu_count for index in indices):
        raise refuse(400, "invalid_gpu_index", "The pod has no GPU with that index.")
    earlier = [reset for reset in world.resets.values() if reset.pod_id == pod.id]
    if any(reset.status == "running" for reset in earlier):
        message = "A reset of this pod is already running"
        raise refuse(409, "gpu_reset_unavailable", message, detail={"message": message, "gpus": []})
    if earlier and world.now - earlier[-1].started_at < RESET_INTERVAL:
        raise rate_limited(math.ceil((earlier[-1].started_at + RESET_INTERVAL - world.now).total_seconds()))
    reset = StoredGpuReset(world.new_id("reset"), pod.id, indices, world.now)
    world.resets[reset.id] = reset
    actor = call.actor

    def finish() -> None:
        failed = not pod.is_open or world.faults.strike("gpu_reset_fails", pod_id=pod.id) is not None
        reset.status = "failed" if failed else "done"
        world.log_event(pod, f"pod-gpu-reset.{'failed' if failed else 'success'}", actor=actor)
        if not failed:
            pod.started_at = world.now

    world.after(world.pick(*RESET_SECONDS, reset.id), finish)
    return Reply({"request_id": reset.id, "status": "running"}, status=202)


def get_gpu_reset(call: ApiCall) -> Reply:
    """Say how far a reset is."""
    pod, reset = call.pod(), call.world.resets.get(call.path_params["request_id"])
    if reset is None or reset.pod_id != pod.id:
        raise missing("Reset")
    if reset.status == "running":
        return Reply({"request_id": reset.id, "status": "running", "pod_id": pod.id})
    done, node = reset.status == "done", call.world.market.nodes[pod.node_id]
    gpus: list[JsonValue] = [
        {
            "index": index,
            "uuid": gpu_uuid(node, index),
            "result": "reset" if done else "failed",
            "detail": None if done else "the GPU did not come back",
        }
        for index in reset.indices
    ]
    error = None if done else {"code": "gpu_reset_failed", "message": "A GPU did not come back"}
    return Reply(
        {
            "request_id": reset.id,
            "status": reset.status,
            "pod_id": pod.id,
            "ok": done,
            "container_restarted": True,
            "gpus": gpus,
            "error": dict(error) if error else None,
        }
    )


def stream_logs(call: ApiCall) -> Reply:
    """Print what the main process printed; with follow, stay until the pod stops."""
    pod, query = call.pod(), call.arguments(LogsQuery)
    if pod.started_at is None:
        raise refuse(404, "not_found", "Pod container not deployed yet")
    return Reply(stream=_log_stream(call, pod, query))


async def _log_stream(call: ApiCall, pod: StoredPod, query: LogsQuery) -> AsyncIterator[bytes]:
    world, boot = call.world, pod.boot
    node, template = world.market.nodes[pod.node_id], world.templates.get(pod.template_id)
    sent = max(0, len(LogLines(pod, template, node, world.now)) - query.tail)
    while True:
        lines = LogLines(pod, template, node, world.now)
        for index in range(sent, len(lines)):
            yield lines.line(index)
        sent = max(sent, len(lines))
        if not query.follow:
            return
        await world.pause(FOLLOW_PAUSE_SECONDS)
        with world.lock:
            world.catch_up()
        if pod.boot != boot or not pod.is_open or world.is_closing:
            return


def list_pod_events(call: ApiCall) -> Reply:
    """List what happened to a pod, oldest first; also when it is gone."""
    pod = call.pod(gone_too=True)
    return Reply([event.body for event in call.world.events if event.body["pod_id"] == pod.id])


def get_pod_record(call: ApiCall) -> Reply:
    """Say what a run ran on and what it cost."""
    return Reply(record_row(call.world, call.pod(gone_too=True)))


def get_pod_statement(call: ApiCall) -> Reply:
    """Total what the ledger charged for a pod."""
    pod = call.pod(gone_too=True)
    return Reply(
        {
            "pod_id": pod.id,
            "pod_name": pod.name,
            "removed": pod.removed_at is not None,
            "created_at": iso_naive(pod.created_at),
            "removed_at": None if pod.removed_at is None else iso_naive(pod.removed_at),
            "billed_seconds": pod.billed_seconds,
            "total": float(pod.charged),
        }
    )


def _require_live(pod: StoredPod) -> None:
    if pod.status not in LIVE:
        raise refuse(400, "pod_not_running", f"The pod is {pod.status}.")


def _require_running(pod: StoredPod) -> None:
    if pod.status != "RUNNING":
        raise refuse(400, "pod_not_running", f"The pod is {pod.status}.")


OPERATIONS = (
    Operation("listPods", "GET", "/pods", Access.READ, list_pods),
    Operation("getPod", "GET", "/pods/{pod_id}", Access.READ, get_pod),
    Operation("deletePod", "DELETE", "/pods/{pod_id}", Access.POD, delete_pod, audit="pod.delete"),
    Operation("rebootPod", "POST", "/pods/{pod_id}/reboot", Access.POD, reboot_pod, audit="pod.reboot"),
    Operation("resetGpu", "POST", "/pods/{pod_id}/reset-gpu", Access.POD, reset_gpu, audit="pod.reset_gpu"),
    Operation("getGpuReset", "GET", "/pods/{pod_id}/reset-gpu/{request_id}", Access.READ, get_gpu_reset),
    Operation("streamPodLogs", "GET", "/pods/{pod_id}/logs", Access.READ, stream_logs),
    Operation("listPodEvents", "GET", "/pods/{pod_id}/events", Access.READ, list_pod_events, feature=RECENT),
    Operation("getPodRecord", "GET", "/pods/{pod_id}/record", Access.READ, get_pod_record, feature="run_record"),
    Operation("getPodStatement", "GET", "/pods/{pod_id}/statement", Access.READ, get_pod_statement),
    Operation("sendPodFeedback", "POST", "/pods/{pod_id}/feedback", Access.POD, send_feedback, audit="pod.feedback"),
    Operation(
        "switchPodTemplate",
        "PUT",
        "/pods/{pod_id}/switch-template",
        Access.POD,
        switch_template,
        audit="pod.switch_template",
    ),
    Operation(
        "scheduleRemoval",
        "POST",
        "/pods/{pod_id}/schedule-removal",
        Access.POD,
        schedule_removal,
        audit="pod.schedule_removal",
    ),
    Operation(
        "cancelScheduledRemoval",
        "DELETE",
        "/pods/{pod_id}/schedule-removal",
        Access.POD,
        cancel_removal,
        audit="pod.cancel_removal",
    ),
    Operation(
        "installJupyter",
        "POST",
        "/pods/{pod_id}/install-jupyter",
        Access.POD,
        install_jupyter,
        audit="pod.install_jupyter",
    ),
)
