"""Who may rent what, where, and for how much."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lium_mcp.sandbox import OTHER_API_KEY, Sandbox
from tests.sandbox.wire import PUBLIC_KEY, Wire, wire_to

START = datetime(2026, 10, 6, 12, 0, 2, tzinfo=UTC)


async def test_a_rent_without_a_count_takes_and_bills_all_free_gpus(sandbox: Sandbox, wire: Wire) -> None:
    node = await wire.node(gpus=4)
    body = await wire.rent_body()
    del body["gpu_count"]
    answer = await wire.ok("rentExecutor", executor_id=node["id"], json=body)
    pod = await wire.pod(answer["pod_id"])
    assert int(pod["gpu_count"]) == node["available_gpu_count"]
    assert pod["price"] == pytest.approx(node["price_per_gpu"] * node["available_gpu_count"])
    await wire.refused("rentExecutor", 400, "node_unavailable", executor_id=node["id"], json=await wire.rent_body())


async def test_a_split_leaves_the_rest_to_others_and_a_whole_node_cannot_be_split(wire: Wire) -> None:
    node = await wire.node(gpus=4)
    await wire.rent(node, gpu_count=3)
    rows = {row["id"]: row for row in await wire.listing()}
    left = node["available_gpu_count"] - 3
    assert rows[node["id"]]["available_gpu_count"] == left
    body = await wire.rent_body(gpu_count=left + 1)
    await wire.refused("rentExecutor", 400, "gpu_count_invalid", executor_id=node["id"], json=body)
    whole = await wire.node("RTX 4090", splits=False, gpus=2)
    await wire.refused(
        "rentExecutor", 400, "gpu_split_not_allowed", executor_id=whole["id"], json=await wire.rent_body()
    )


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"pod_name": ""}, 422, None),
        ({"user_public_key": []}, 422, None),
        ({"user_public_key": PUBLIC_KEY}, 422, None),
        ({"user_public_key": ["not a key"]}, 422, None),
        ({"gpu_count": 0}, 422, None),
        ({"template_id": "pytorch"}, 422, None),
        ({"dockerfile_content": "FROM x"}, 422, None),
        ({"restore_path": "/root/x"}, 422, None),
        ({"template_id": None}, 400, "template_invalid"),
        ({"template_id": "00000000-0000-4000-8000-00000000dead"}, 404, "template_not_found"),
        ({"termination_hours": 721}, 400, "ttl_invalid"),
        ({"termination_hours": 0}, 400, "ttl_invalid"),
    ],
)
async def test_a_bad_rent_is_refused_before_anything_is_taken(
    sandbox: Sandbox, wire: Wire, change: dict[str, Any], status: int, code: str | None
) -> None:
    node = await wire.node()
    await wire.refused("rentExecutor", status, code, executor_id=node["id"], json=await wire.rent_body() | change)
    assert sandbox.state()["pods"] == []


async def test_an_unknown_node_is_a_404(wire: Wire) -> None:
    nowhere = "00000000-0000-4000-8000-00000000dead"
    await wire.refused("rentExecutor", 404, "node_not_found", executor_id=nowhere, json=await wire.rent_body())


async def test_the_balance_must_exceed_fifteen_minutes_of_everything_open() -> None:
    async with wire_to(Sandbox(seed=7, speed=0, start=START, balance_usd=0.30)) as wire:
        node = await wire.node(gpus=4)
        body = await wire.rent_body(gpu_count=1)
        floor = node["price_per_gpu"] / 4
        assert floor < 0.30 <= 2 * floor
        await wire.ok("rentExecutor", executor_id=node["id"], json=body)
        refusal = await wire.refused("rentExecutor", 403, "insufficient_balance", executor_id=node["id"], json=body)
        assert f"at least ${2 * floor:.2f} (15 minutes of runtime). Your balance is $0.30." in refusal["message"]
        query = {"hours": 1, "gpu_count": 1}
        quote = await wire.ok("quoteExecutor", executor_id=node["id"], query=query)
        assert quote["rent_balance_required_usd"] == pytest.approx(2 * floor)


async def test_the_cheapest_match_is_rented_and_the_runners_up_are_named(wire: Wire) -> None:
    body = await wire.rent_body(gpu_type="rtx 4090", template_id=None)
    dry = await wire.ok("rentBySpec", json=body | {"dry_run": True})
    assert dry["pod_id"] is None
    assert dry["attempts"] == 0
    assert await wire.ok("listPods") == []
    rented = await wire.ok("rentBySpec", json=body)
    assert rented["selected_executor"]["id"] == dry["selected_executor"]["id"]
    assert rented["attempts"] == 1
    prices = [rented["selected_executor"]["price_per_gpu"]]
    prices += [node["price_per_gpu"] for node in rented["alternatives_considered"]]
    assert prices == sorted(prices)
    pod = await wire.pod(rented["pod_id"])
    assert pod["price"] == rented["price_per_hour"]
    assert pod["template"]["id"] == rented["template_id"]


async def test_a_node_taken_meanwhile_makes_way_for_the_next(sandbox: Sandbox, wire: Wire) -> None:
    body = await wire.rent_body(gpu_type="RTX4090")
    dry = await wire.ok("rentBySpec", json=body | {"dry_run": True})
    sandbox.add_fault("node_taken", executor_id=dry["selected_executor"]["id"])
    rented = await wire.ok("rentBySpec", json=body)
    assert rented["attempts"] == 2
    assert rented["selected_executor"]["id"] == dry["alternatives_considered"][0]["id"]


CONSTRAINTS: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    ({"min_vram_gb": 60}, lambda node: node["specs"]["gpu"]["details"][0]["capacity"] >= 60 * 1024),
    ({"min_cpus": 200}, lambda node: node["specs"]["cpu"]["count"] >= 200),
    (
        {"min_ram_gb": 500},
        lambda node: node["specs"]["ram"]["total"] - node["specs"]["ram"]["pod_reserve"] >= 500 * 2**20,
    ),
    ({"min_disk_gb": 3000}, lambda node: node["specs"]["hard_disk"]["free"] >= 3000 * 2**20),
    ({"min_download_mbps": 1500}, lambda node: node["effective_download_speed_mbps"] >= 1500),
    ({"min_ports": 200}, lambda node: node["specs"]["available_port_count"] >= 200),
    ({"max_price_per_gpu_hour": 0.9}, lambda node: node["price_per_gpu"] <= 0.9),
    ({"country": "us"}, lambda node: node["location"]["country_code"] == "US"),
    ({"docker_in_docker": True}, lambda node: node["specs"]["sysbox_runtime"]),
    ({"gpu_count": 8}, lambda node: node["available_gpu_count"] == 8),
]


@pytest.mark.parametrize(
    ("constraint", "holds"), CONSTRAINTS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
async def test_every_constraint_is_kept(
    wire: Wire, constraint: dict[str, Any], holds: Callable[[dict[str, Any]], bool]
) -> None:
    body = await wire.rent_body(gpu_type="A100", dry_run=True, gpu_count=4)
    free = await wire.ok("rentBySpec", json=body)
    kept = await wire.ok("rentBySpec", json=body | constraint)
    assert holds(kept["selected_executor"])
    assert kept["candidates"] < free["candidates"]


async def test_what_fits_nowhere_names_the_constraint_and_the_best_on_offer(wire: Wire) -> None:
    body = await wire.rent_body(gpu_type="A100", min_vram_gb=30, min_cpus=1000)
    refusal = await wire.refused("rentBySpec", 409, "no_executor_matches_spec", json=body)
    assert refusal["constraint"] == "min_cpus"
    assert refusal["candidates_before"] > 0
    assert "best on offer is" in refusal["message"]
    for gpu_type in ("100", "A10", "H1000"):
        refusal = await wire.refused("rentBySpec", 409, json=body | {"gpu_type": gpu_type})
        assert refusal["constraint"] == "gpu_type"


async def test_unknown_constraints_are_dropped_without_a_word(wire: Wire) -> None:
    body = await wire.rent_body(gpu_type="RTX4090", dry_run=True)
    free = await wire.ok("rentBySpec", json=body)
    assert await wire.ok("rentBySpec", json=body | {"interconnect": "nvlink"}) == free


async def test_a_dockerfile_is_built_and_needs_its_context_to_be_there(sandbox: Sandbox, wire: Wire) -> None:
    digest = (await wire.ok("uploadBuildContext", content=gzip.compress(b"x" * 200_000)))["sha256"]
    built = {"dockerfile_content": "FROM python:3.12", "build_context_sha256": digest}
    pod_id = await wire.rent(**built)
    sandbox.clock.advance(seconds=60)
    assert (await wire.pod(pod_id))["status"] == "PENDING"
    sandbox.clock.advance(minutes=1)
    assert (await wire.pod(pod_id))["status"] == "RUNNING"
    sandbox.clock.advance(hours=1)
    node, body = await wire.node(), await wire.rent_body(**built)
    await wire.refused("rentExecutor", 400, "build_context_not_found", executor_id=node["id"], json=body)
    await wire.refused("uploadBuildContext", 400, content=b"plain")


async def test_a_volume_serves_one_pod_at_a_time_and_outlives_it(sandbox: Sandbox, wire: Wire) -> None:
    volume = (await wire.ok("createVolume", json={"name": "data (v1), ok?"}))["id"]
    pod_id = await wire.running(sandbox, volume_id=volume)
    assert (await wire.pod(pod_id))["volume"]["id"] == volume
    node = await wire.node()
    await wire.refused("rentExecutor", 400, executor_id=node["id"], json=await wire.rent_body(volume_id=volume))
    await wire.refused("deleteVolume", 409, volume_id=volume)
    await wire.ok("deletePod", pod_id=pod_id)
    sandbox.clock.advance(seconds=20)
    other = await wire.running(sandbox)
    await wire.ok("rebootPod", pod_id=other, json={"volume_id": volume})
    assert (await wire.pod(other))["volume"]["id"] == volume


@pytest.mark.parametrize("name", ["", "a" * 101, "no;semicolon", "smörgås", "new\nline"])
async def test_a_volume_name_outside_the_alphabet_is_refused(wire: Wire, name: str) -> None:
    await wire.refused("createVolume", 422, json={"name": name})


async def test_a_cluster_is_rented_whole_or_not_at_all(sandbox: Sandbox, wire: Wire) -> None:
    first, second = (await wire.ok("listClusterOffers"))[:2]
    body = {
        "pod_name": "dist",
        "template_id": await wire.template("daturaai/lium-cluster"),
        "user_public_key": [PUBLIC_KEY],
    }
    mixed = [first["nodes"][0]["id"], second["nodes"][0]["id"]]
    for nodes in (mixed, [mixed[0], mixed[0]]):
        refusal = await wire.ok("rentCluster", json=body | {"executor_uuids": nodes})
        assert refusal["success"] is False
        assert refusal["message"]
    await wire.refused("rentCluster", 422, json=body | {"executor_uuids": mixed[:1]})
    pair = [node["id"] for node in first["nodes"][:2]]
    plain = body | {"executor_uuids": pair, "template_id": await wire.template()}
    await wire.refused("rentCluster", 400, "template_invalid", json=plain)
    assert await wire.ok("listPods") == []
    pods = (await wire.ok("rentCluster", json=body | {"executor_uuids": pair}))["pod_ids"]
    rows = {row["id"]: row for row in await wire.ok("listPods")}
    assert [rows[pod]["cluster_overlay_ip"] for pod in pods] == ["10.42.0.1", "10.42.0.2"]
    sandbox.clock.advance(minutes=1)
    sandbox.add_fault("delete_fails", pod_id=pods[0])
    cluster_id = rows[pods[0]]["cluster_id"]
    outcome = await wire.ok("deleteCluster", cluster_id=cluster_id)
    assert [row["success"] for row in outcome["pods"]] == [False, True]
    assert [row["id"] for row in await wire.ok("listPods")] == pods[:1]
    assert (await wire.ok("deleteCluster", cluster_id=cluster_id))["success"] is True


async def test_another_account_sees_nothing_of_ours(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    volume = (await wire.ok("createVolume", json={"name": "ours"}))["id"]
    template = (await wire.ok("createTemplate", json={"name": "ours", "docker_image": "x"}))["id"]
    assert await wire.ok("listPods", key=OTHER_API_KEY) == []
    for name, call in (
        ("getPod", {"pod_id": pod_id}),
        ("listPodEvents", {"pod_id": pod_id}),
        ("deletePod", {"pod_id": pod_id}),
        ("getVolume", {"volume_id": volume}),
        ("getTemplate", {"template_id": template}),
    ):
        await wire.refused(name, 404, key=OTHER_API_KEY, **call)
    node, body = await wire.node(), await wire.rent_body(template_id=template)
    await wire.refused("rentExecutor", 404, "template_not_found", key=OTHER_API_KEY, executor_id=node["id"], json=body)
