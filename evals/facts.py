"""What is so in a world, by short paths: `pods/train/gpus`, `volumes/data/mounted_on`, `spent_usd`.

Made of the sandbox's own state alone (`GET /_sandbox/state`), never of what the server under test says.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from evals.paths import picked

Facts = dict[str, Any]
_GONE: Final = frozenset({"DELETING", "CREATION_FAILED"})
_MOST_FILE_BYTES: Final = 20_000


def facts_of(state: Mapping[str, Any], before: Facts | None = None, work: Path | None = None) -> Facts:
    """The facts of a state of the sandbox.

    Args:
        state: What the sandbox says of itself.
        before: The facts when the task began: what was spent and rented is counted from there.
        work: The folder of the local files.
    """
    account = state["accounts"][0]
    now = _time(state["now"])
    nodes = {node["id"]: node for node in state["nodes"]}
    pods = [_pod(pod, nodes, now) for pod in state["pods"] if pod["account_id"] == account["id"]]
    living = [pod for pod in pods if pod["alive"]]
    names = {pod["id"]: pod["name"] for pod in pods}
    backups = [_backup(run, names) for run in state["backups"] if run["account_id"] == account["id"]]
    completed = [run for run in backups if run["status"] == "COMPLETED"]
    charged = float(sum(row["amount"] for row in state["ledger"] if row["account_id"] == account["id"]))
    to_come = [pod["price_usd"] * pod["hours_left"] for pod in living if pod["hours_left"] is not None]
    facts: Facts = {
        "now": state["now"],
        "alive": sorted(pod["name"] for pod in living),
        "alive_elsewhere": sorted(
            pod["pod_name"]
            for pod in state["pods"]
            if pod["account_id"] != account["id"] and pod["removed_at"] is None and pod["status"] not in _GONE
        ),
        "pods": {pod["name"]: pod for pod in pods},
        "by_id": {pod["id"]: pod for pod in pods},
        "named": _grouped(living, "name", "id"),
        "burn_usd": sum(pod["price_usd"] for pod in living),
        "balance_usd": account["balance"],
        "rents": [rent["pod_id"] for rent in state["rents"] if rent["pod_id"] in names],
        "charged_usd": charged,
        "charged": _charged(state["ledger"], names),
        "to_come_usd": sum(to_come) if len(to_come) == len(living) else None,
        "templates": {
            item["body"]["name"]: _template(item)
            for item in state["templates"]
            if item["user_id"] == account["user_id"] and not item["hidden"]
        },
        "public_templates": {item["id"]: item["body"]["name"] for item in state["templates"] if not item["hidden"]},
        "volumes": {
            item["name"]: {
                "id": item["id"],
                "mounted_on": next((pod["name"] for pod in living if pod["volume_id"] == item["id"]), None),
            }
            for item in state["volumes"]
            if item["account_id"] == account["id"]
        },
        "clusters": sorted({pod["cluster_id"] for pod in pods if pod["cluster_id"]}),
        "backups": backups,
        "completed": _grouped(completed, "pod", "id"),
        "newest_backup": completed[-1]["id"] if completed else None,
        "restores": [
            {"pod": names.get(run["pod_id"]), **{key: run[key] for key in ("backup_id", "path", "status")}}
            for run in state["restores"]
        ],
        "schedules": {
            names[item["pod_id"]]: {
                "every_hours": item["frequency_hours"],
                "keep_days": item["retention_days"],
                "path": item["path"],
            }
            for item in state["backup_configs"]
            if item["pod_id"] in names
        },
        "ssh_keys": sorted(key["name"] for key in state["ssh_keys"]),
        "pod_files": {names[pod_id]: _tree(files) for pod_id, files in state["files"].items() if pod_id in names},
        "cheapest": _cheapest(state["nodes"]),
        "requests": state["requests"],
        "files": _tree(_files(work)) if work is not None else {},
    }
    if before is not None:
        seen = {request["request_id"] for request in before["requests"]}
        facts["requests"] = [request for request in state["requests"] if request["request_id"] not in seen]
        facts["rents"] = [pod_id for pod_id in facts["rents"] if pod_id not in before["rents"]]
        facts["spent_usd"] = charged - before["charged_usd"]
        facts["before"] = before
    facts["rent_count"] = len(facts["rents"])
    return facts


def fact(facts: Facts, path: str) -> Any:  # noqa: ANN401 - whatever the fact is
    """The fact at a path; `requests DELETE /pods/*` counts requests, with `*` for one segment."""
    if not path.startswith("requests "):
        return picked(facts, path)
    _, method, pattern = path.split(" ")
    expression = re.compile(re.escape(pattern).replace(r"\*", "[^/]+"))
    return sum(
        request["method"] == method and expression.fullmatch(request["path"].removeprefix("/api")) is not None
        for request in facts["requests"]
    )


def _pod(pod: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    node, template = nodes[pod["executor_id"]], pod["template"] or {}
    removal = pod["removal_scheduled_at"]
    if removal is None and pod["termination_hours"] is not None:
        hours_left: float | None = pod["termination_hours"]
    else:
        hours_left = None if removal is None else (_time(removal) - now).total_seconds() / 3600
    return {
        "id": pod["id"],
        "name": pod["pod_name"],
        "alive": pod["removed_at"] is None and pod["status"] not in _GONE,
        "status": pod["status"],
        "gpu": pod["gpu_name"],
        "gpus": int(pod["gpu_count"]),
        "price_usd": pod["price"],
        "executor_id": pod["executor_id"],
        "country": node["country_code"],
        "tier": node["tier"],
        "template": template.get("name"),
        "template_id": template.get("id"),
        "image": f"{template.get('docker_image')}:{template.get('docker_image_tag')}",
        "volume": (pod["volume"] or {}).get("name"),
        "volume_id": (pod["volume"] or {}).get("id"),
        "hours_left": hours_left,
        "charged_usd": pod["charged_usd"],
        "billed_hours": pod["billed_seconds"] / 3600,
        "close_reason": pod["close_reason"],
        "cluster_id": pod["cluster_id"],
        "jupyter": pod["jupyter_installation_status"],
        "jupyter_url": pod["jupyter_url"],
        "rating": (pod["feedback"] or {}).get("rating"),
    }


def _backup(run: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    kept = ("id", "status", "path", "total_bytes", "total_files", "error", "quality")
    return {"pod": names.get(run["pod_id"]), **{name: run[name] for name in kept}}


def _template(item: Mapping[str, Any]) -> dict[str, Any]:
    body = item["body"]
    return {
        "id": item["id"],
        "image": f"{body['docker_image']}:{body['docker_image_tag']}",
        "ports": body["internal_ports"],
        "environment": body["environment"],
        "private": body["is_private"],
        "status": item["status"],
    }


def _charged(ledger: list[dict[str, Any]], names: Mapping[str, str]) -> dict[str, float]:
    """What was charged by pod, by name."""
    charged: dict[str, float] = {}
    for row in ledger:
        if row["pod_id"] in names:
            name = names[row["pod_id"]]
            charged[name] = charged.get(name, 0.0) + row["amount"]
    return charged


def _cheapest(nodes: list[dict[str, Any]]) -> dict[str, float]:
    """The least price per GPU-hour of each GPU type that is free."""
    cheapest: dict[str, float] = {}
    for node in nodes:
        if node["available_gpu_count"]:
            name = node["machine_name"]
            cheapest[name] = min(cheapest.get(name, node["price_per_gpu"]), node["price_per_gpu"])
    return cheapest


def _grouped(rows: list[dict[str, Any]], by: str, what: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(str(row[by]), []).append(row[what])
    return groups


def _files(work: Path) -> dict[str, str]:
    return {
        path.relative_to(work).as_posix(): path.read_bytes()[:_MOST_FILE_BYTES].decode(errors="replace")
        for path in sorted(work.rglob("*"))
        if path.is_file()
    }


def _tree(files: Mapping[str, str]) -> dict[str, Any]:
    """Files as folders within folders, so that a path of a file is one of a fact."""
    tree: dict[str, Any] = {}
    for path, content in files.items():
        *folders, name = path.strip("/").split("/")
        folder = tree
        for each in folders:
            folder = folder.setdefault(each, {})
        folder[name] = content
    return tree


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
