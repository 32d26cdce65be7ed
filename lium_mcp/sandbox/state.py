"""Everything the sandbox knows, as JSON, for tests to look at. No key, token or password is in it."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import JsonValue

from lium_mcp.sandbox.pod_rows import pod_row
from lium_mcp.sandbox.simulated_clock import iso_zulu
from lium_mcp.sandbox.world import World

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SECRETS = frozenset({"secret", "session_token", "session_id", "password"})


def snapshot(world: World, *parts: str) -> dict[str, Any]:
    """Return the whole state as of now, or the named parts of it, which takes less time.

    Raises:
        KeyError: there is no such part.
    """
    with world.lock:
        world.catch_up()
        return {name: _PARTS[name](world) for name in parts or _PARTS}


def _nodes(world: World) -> JsonValue:
    market, now = world.market, world.now
    return [
        {
            "id": node.id,
            "machine_name": node.gpu.name,
            "gpu_count": node.gpu_count,
            "available_gpu_count": market.free_gpus(node, now),
            "min_gpu_count_for_rental": node.min_gpu_count,
            "price_per_gpu": float(market.price(node, now)),
            "tier": node.tier,
            "country_code": node.place.code,
            "fabric_id": node.fabric_id,
            "rented_by_us": node.taken_by_us,
        }
        for node in market.nodes.values()
    ]


def _pods(world: World) -> JsonValue:
    return [
        pod_row(world, pod)
        | {
            "account_id": pod.account_id,
            "billed_seconds": pod.billed_seconds,
            "charged_usd": float(pod.charged),
            "removed_at": None if pod.removed_at is None else pod.removed_at.isoformat(),
            "close_reason": pod.close_reason,
            "feedback": pod.feedback,
        }
        for pod in world.pods.values()
    ]


def _transfers(world: World, kind: str) -> JsonValue:
    return [_plain(run) for run in world.transfers.values() if run.kind == kind]


def _files(world: World) -> JsonValue:
    if world.contents is None:
        return {}
    return {pod.id: dict[str, JsonValue](world.contents.small_files(pod)) for pod in world.pods.values()}


_PARTS: Final[dict[str, Callable[[World], JsonValue]]] = {
    "now": lambda world: world.now.isoformat(),
    "started_at": lambda world: iso_zulu(world.clock.start),
    "speed": lambda world: world.clock.speed,
    "balance": lambda world: float(next(iter(world.accounts.values())).balance),
    "accounts": lambda world: [_plain(account) for account in world.accounts.values()],
    "keys": lambda world: [_plain(key) for key in world.keys.values()],
    "logins": lambda world: [_plain(login) for login in world.logins.values()],
    "nodes": _nodes,
    "pods": _pods,
    "rents": lambda world: list[JsonValue](world.rents),
    "ledger": lambda world: [_plain(row) for row in world.ledger],
    "templates": lambda world: [_plain(template) for template in world.templates.values()],
    "volumes": lambda world: [_plain(volume) for volume in world.volumes.values()],
    "backup_configs": lambda world: [_plain(config) for config in world.configs.values()],
    "backups": lambda world: _transfers(world, "backup"),
    "restores": lambda world: _transfers(world, "restore"),
    "files": _files,
    "ssh_keys": lambda world: [_plain(key) for key in world.ssh_keys.values()],
    "events": lambda world: [event.body for event in world.events],
    "audit": lambda world: [row.body for row in world.audit],
    "faults": lambda world: cast("list[JsonValue]", world.faults.listed()),
    "requests": lambda world: list[JsonValue](world.requests),
}


def _plain(record: "DataclassInstance") -> JsonValue:
    return {name: _json(value) for name, value in asdict(record).items() if name not in SECRETS}


def _json(value: Any) -> JsonValue:  # noqa: ANN401 - whatever a record's field holds
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(item) for item in value]
    return cast("JsonValue", value)
