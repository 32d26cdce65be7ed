"""Resetting the GPUs of a pod: ordered once, and waited for by the id that Lium gives."""

from collections.abc import Sequence
from typing import Final

from lium_mcp.api.pods.models import GpuResetOutcome, GpuResetState, Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import counted
from lium_mcp.results import Result, note_on
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.services.polling import Poller

_OVER: Final = ("done", "failed", "timeout")
_POLL_SECONDS: Final = 3.0


class GpuReset(Result):
    """What came of a GPU reset, GPU by GPU."""

    outcome: Outcome
    pod_id: str
    reset_id: str | None = None
    gpus: list[str]
    problem: str | None = None
    note: str | None = None
    next: str | None = None


def refuse_absent_gpus(pod: Pod, gpu_indices: Sequence[int] | None) -> None:
    """Refuse a reset of GPUs that a pod has not.

    Raises:
        Failure: it is one.
    """
    if gpu_indices is None:
        return
    count = pod.gpu_count
    if not gpu_indices or min(gpu_indices) < 0 or (count is not None and max(gpu_indices) >= count):
        has = f" It has {counted(count, 'GPU')}, counted from 0." if count is not None else ""
        raise Failure(
            "invalid_argument",
            f"gpu_indices names {'no GPU' if not gpu_indices else 'a GPU that there is not'}.{has}",
            "Leave gpu_indices out for all, or name some as nvidia-smi counts them.",
        )


async def reset(
    account: Account,
    poller: Poller,
    target: Pod,
    *,
    gpu_indices: Sequence[int] | None,
    reset_id: str,
    wait_seconds: float,
) -> GpuReset:
    """Reset GPUs of a pod and wait; with a `reset_id`, only wait for that reset.

    Raises:
        Failure: as `refuse_absent_gpus`.
        LiumError: Lium refused.
    """
    if reset_id:
        state = await account.lium.pods.get_gpu_reset(target.id, reset_id)
    else:
        refuse_absent_gpus(target, gpu_indices)
        state = await account.lium.pods.reset_gpus(target.id, gpu_indices=gpu_indices)
    request_id = state.request_id or reset_id

    async def read() -> GpuResetState:
        return await account.lium.pods.get_gpu_reset(target.id, request_id)

    newest = await poller.until(
        state,
        read,
        lambda now: now.state in _OVER or not request_id,
        wait_seconds=wait_seconds,
        describe=lambda now: f"GPU reset is {now.state}",
        every_seconds=_POLL_SECONDS,
    )
    outcome: Outcome = "pending" if newest.state not in _OVER else "done" if newest.state == "done" else "failed"
    problem = newest.error if outcome == "failed" else None
    return GpuReset(
        outcome=outcome,
        pod_id=target.id,
        reset_id=request_id or None,
        gpus=[_gpu(gpu) for gpu in newest.gpus],
        problem=problem,
        note=note_on(problem),
        next=_next(request_id) if outcome == "pending" else None,
    )


def _next(request_id: str) -> str:
    if request_id:
        return "Call reset_pod_gpus with this reset_id to wait on."
    return "Lium named no id to wait by: look with get_pod what the GPUs do. Another call would reset them again."


def _gpu(gpu: GpuResetOutcome) -> str:
    index = "A GPU" if gpu.index is None else str(gpu.index)
    return f"{index}: {gpu.result or 'Lium does not say'}"
