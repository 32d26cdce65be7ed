"""What a pod came out with is held against what it was rented with, and said where somebody waits for it."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Person, agent_on, make_key_pair
from tests.wires import Wire, answering, ask, editing, living, make_template, rows_of

Row = dict[str, Any]


async def volume_id(sandbox: Sandbox) -> str:
    return str((await ask(sandbox, "POST", "/volumes", {"name": "data", "description": ""}))["id"])


SHORT: list[tuple[Row, list[str]]] = [
    ({}, []),
    ({"encryption": "ENABLED"}, []),
    ({"ports": 2}, ["Ports 9000, 9001 of its template are not open"]),
    ({"encryption": "FAILED"}, ["is not encrypted, which was asked for (FAILED)"]),
    ({"encryption": "unsupported_image"}, ["(UNSUPPORTED_IMAGE)"]),
    ({"volume": "not shown"}, ["as attached to it. Look at /mnt"]),
    ({"volume": "only told", "ports": 3}, ["could not be attached. Look at /mnt", "Ports 9001 of"]),
]


@pytest.mark.parametrize(("short", "said"), SHORT)
async def test_what_is_missing_is_said_by_the_rent_and_by_the_wait(
    sandbox: Sandbox, short: Row, said: list[str]
) -> None:
    template = await make_template(sandbox, "mine", internal_ports=[22, 8000, 9000, 9001])
    volume = await volume_id(sandbox)
    if short:
        sandbox.add_fault("comes_out_short", pod_name="train", **short)
    async with agent_on(sandbox) as agent:
        wanted = {"name": "train", "gpu_type": "RTX4090", "template": template, "volume": volume, "hours": 2}
        begun = await agent.call("rent_pod", **wanted, wait_seconds=0)
        assert "warnings" not in begun["pod"], "nothing is missing before it runs"
        again = await agent.call("rent_pod", **wanted, wait_seconds=120)
        for answer in (again, await agent.call("get_pod", pod="train")):
            warnings = answer["pod"].get("warnings", [])
            assert len(warnings) == len(said)
            assert all(any(part in warning for warning in warnings) for part in said), warnings
            assert answer["outcome"] == "done"
        if "volume" in short:
            attached = await agent.call("reboot_pod", pod="train", volume=volume, wait_seconds=120)
            assert "/mnt" not in str(attached["pod"].get("warnings"))


async def test_what_lium_does_not_say_is_no_shortfall(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    unknown = {"ports_mapping": None, "template": None, "volume_encryption_status": "RESHAPING", "gpu_count": None}
    wire.on("GET", "/pods/*", editing(lambda row: row | unknown))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="RTX4090", hours=2, wait_seconds=120)
    assert "warnings" not in rented["pod"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [([22, 8000], "Ports 22, 8000 of its template are not open."), ([], "Lium shows no open port of it.")],
)
async def test_no_port_at_all_is_said(sandbox: Sandbox, asked: list[int], said: str) -> None:
    wire = Wire(sandbox)
    none_open = {"ports_mapping": {}, "template": {"id": "t", "internal_ports": asked}}
    wire.on("GET", "/pods/*", editing(lambda row: row | none_open))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="RTX4090", hours=2, wait_seconds=120)
    assert rented["pod"]["warnings"] == [said]


@pytest.mark.parametrize("visible", [1, 3, None])
async def test_gpus_that_are_billed_and_not_there_are_counted_in_the_pod(tmp_path: Path, visible: int | None) -> None:
    sandbox = Sandbox(seed=7, speed=0, ssh=True)
    make_key_pair(tmp_path / "key")
    if visible is not None:
        sandbox.add_fault("comes_out_short", gpus=visible)
    async with agent_on(sandbox, ssh_key_path=tmp_path / "key") as agent:
        wanted = {"name": "train", "gpu_type": "A100", "gpu_count": 2, "hours": 2, "wait_seconds": 300}
        rented, read = await agent.call("rent_pod", **wanted), await agent.call("get_pod", pod="train")
    await sandbox.aclose()
    assert rented["pod"].get("warnings") == read["pod"].get("warnings")
    if visible is None:
        assert "warnings" not in rented["pod"]
    else:
        (said,) = rented["pod"]["warnings"]
        assert f"2 GPUs are billed and {visible} can be seen in it." in said
        assert ("reboot_pod" in said, "CUDA_VISIBLE_DEVICES" in said) == (visible < 2, visible > 2)
    assert len(read["pod"]["gpus"]) == (visible or 2)
    assert "gpus" not in rented["pod"]


async def test_the_address_of_a_notebook_is_for_whoever_asks_for_its_pod(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "planted-s3cret-value"
    url = f"http://198.51.100.7:31001/lab?token={secret}"
    template = await make_template(sandbox, "mine", environment={"TOKEN": f"{secret}-2"})
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda row: row | {"jupyter_url": url}))
    wire.on("GET", "/pods", editing(lambda rows: [row | {"jupyter_url": url} for row in rows]))
    refusal = {"message": f"{url}&x=1 is taken, also as http:\\/\\/x\\u003ftoken={secret}", "status_code": 400}
    wire.on("POST", "/pods/*/reboot", answering(400, refusal))
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = {"name": "train", "gpu_type": "RTX4090", "template": template, "hours": 2, "wait_seconds": 120}
        rented = await agent.call("rent_pod", **wanted)
        listed = await agent.call("list_pods")
        refused = await agent.refused("reboot_pod", pod="train")
        read = await agent.call("get_pod", pod="train")
    assert rented["pod"].pop("jupyter_url") == read["pod"].pop("jupyter_url") == url
    assert "is taken" in refused.text
    assert secret not in json.dumps([rented, read, listed]) + refused.text + caplog.text


@pytest.mark.parametrize("fault", ["switch_keeps_volume", None, "switch_fails"])
async def test_a_switched_template_says_what_becomes_of_the_local_volume(tmp_path: Path, fault: Any) -> None:
    sandbox = Sandbox(seed=7, speed=0, ssh=True)
    make_key_pair(tmp_path / "key")
    first = await make_template(sandbox, "first", volumes=["/workspace"])
    await make_template(sandbox, "second", volumes=["/data"], docker_image="me/other")
    person = Person("yes")
    if fault:
        sandbox.add_fault(fault, times=None)
        sandbox.add_fault("host_key_stays", times=None)
    async with agent_on(sandbox, ssh_key_path=tmp_path / "key", person=person, confirm="auto") as agent:
        await agent.call("rent_pod", name="train", gpu_type="A100", template=first, hours=2, wait_seconds=300)
        await agent.call("run_command", pod="train", command="echo kept > /workspace/a; echo lost > /root/b")
        switched = await agent.call("switch_pod_template", pod="train", template="second", wait_seconds=300)
        path = switched["pod"]["local_volume_path"]
        found = await agent.call("run_command", pod="train", command=f"cat {path}/a /root/b")
    await sandbox.aclose()
    both = 'Newer nodes keep the local volume "/workspace" and mount it at "/data", older ones lose it.'
    assert both in person.questions[-1]
    warnings = " ".join(switched["warnings"])
    if fault == "switch_fails":
        assert "It runs me/mine:1 and not second" in warnings
        assert (path, "kept" in found["stdout"]) == ("/workspace", True)
    else:
        assert (path, both in warnings, "list_backups" in warnings) == ("/data", True, True)
        assert found["stdout"] == ("kept\n" if fault else "")


@pytest.mark.parametrize("nested", [False, True])
async def test_a_pod_on_another_node_than_the_one_that_was_asked_for_is_given_back(
    sandbox: Sandbox, nested: bool
) -> None:
    node = await splittable_node(sandbox)
    other = "00000000-0000-4000-8000-000000000000"
    wire = Wire(sandbox)

    def elsewhere(row: Row) -> Row:
        host = row.get("executor") or {}
        return row | {"executor_id": None if nested else other, "executor": host | {"id": other}}

    wire.on("GET", "/pods/*", editing(elsewhere))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", name="train", executor_id=node, hours=2, wait_seconds=60)
        for _ in range(4):  # one that still starts cannot be removed at once
            sandbox.clock.advance(minutes=1)
            await agent.call("list_pods")
    assert failure.code == "not_as_asked"
    assert f"it is on node {other}, not on {node}" in failure.text
    assert living(sandbox) == []


async def test_a_pod_on_another_node_than_the_one_that_was_found_stays(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda row: row | {"executor_id": "00000000-0000-4000-8000-000000000000"}))
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = {"name": "train", "gpu_type": "RTX4090", "min_disk_gb": 1, "hours": 2}
        rented = await agent.call("rent_pod", **wanted, wait_seconds=60)
    assert rented["outcome"] == "done"


async def splittable_node(sandbox: Sandbox) -> str:
    return str(next(row["id"] for row in await rows_of(sandbox) if row.get("min_gpu_count_for_rental") == 1))
