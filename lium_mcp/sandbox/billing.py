"""The billing run: every five minutes it debits what ran, and ends what can no longer be paid.

An account at zero loses all its pods; a key at its budget loses the pods it rented.
"""

from datetime import UTC, datetime
from typing import Final

from lium_mcp.sandbox import lifecycle, money
from lium_mcp.sandbox.records import StoredPod
from lium_mcp.sandbox.world import World

RUN_SECONDS: Final = 300
VOLUME_GROWTH_BYTES: Final = 256 * 2**20


def schedule(world: World) -> None:
    """Schedule the next billing run, on the five-minute grid, so that no debit spans two days."""
    due = (int(world.now.timestamp()) // RUN_SECONDS + 1) * RUN_SECONDS
    world.at(datetime.fromtimestamp(due, tz=UTC), lambda: _run(world))


def _run(world: World) -> None:
    for pod in world.pods.values():
        money.settle(world, pod)
    if world.now.minute == 0:
        _fill_volumes(world)
        money.charge_storage(world)
    for account in world.accounts.values():
        if account.balance <= 0:
            _end(world, world.open_pods(account.id), "insufficient_balance")
    for key in world.keys.values():
        if money.exhausted_budget(world, key) is not None:
            mine = [pod for pod in world.open_pods(key.account_id) if pod.api_key_id == key.id]
            _end(world, mine, "api_key_budget_exceeded")
    schedule(world)


def _end(world: World, pods: list[StoredPod], reason: str) -> None:
    for pod in pods:
        # A pod that still boots cannot be removed; a later run finds it again.
        if pod.status != "PENDING":
            lifecycle.delete(world, pod, reason=reason, actor=None)


def _fill_volumes(world: World) -> None:
    """Let running pods write into their mounted volumes: otherwise storage would always be free."""
    for pod in world.pods.values():
        if pod.volume_id is not None and pod.status == "RUNNING":
            volume = world.volumes[pod.volume_id]
            volume.size_bytes += VOLUME_GROWTH_BYTES
            volume.file_count += 4
            volume.metrics_at = world.now
