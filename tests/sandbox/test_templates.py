"""Templates: public ones by strangers, private ones that are verified, edits that reboot."""

from typing import Any

from lium_mcp.sandbox import Sandbox
from tests.sandbox.wire import Wire

BODY: dict[str, Any] = {
    "name": "mine",
    "docker_image": "nvidia/cuda",
    "docker_image_tag": "12.4.1",
    "volumes": ["/work"],
}


async def test_a_private_template_is_verified_before_it_can_be_rented(sandbox: Sandbox, wire: Wire) -> None:
    template = await wire.ok("createTemplate", json=BODY)
    assert template["status"] == "VERIFY_PENDING"
    node, body = await wire.node(), await wire.rent_body(template_id=template["id"])
    await wire.refused("rentExecutor", 400, "template_invalid", executor_id=node["id"], json=body)
    sandbox.clock.advance(seconds=90)
    assert (await wire.ok("getTemplate", template_id=template["id"]))["status"] == "VERIFY_SUCCESS"
    pod_id = await wire.running(sandbox, template_id=template["id"])
    assert (await wire.pod(pod_id))["local_volume_path"] == "/work"
    await wire.refused("deleteTemplate", 400, template_id=template["id"])


async def test_a_verification_can_fail(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("template_verify_fails", message="no such image")
    template = await wire.ok("createTemplate", json=BODY)
    sandbox.clock.advance(seconds=90)
    row = await wire.ok("getTemplate", template_id=template["id"])
    assert (row["status"], row["verification_logs"]) == ("VERIFY_FAILED", "no such image")


async def test_public_and_one_time_templates_are_not_verified(sandbox: Sandbox, wire: Wire) -> None:
    public = await wire.ok("createTemplate", json={**BODY, "is_private": False})
    once = await wire.ok("createTemplate", json={**BODY, "one_time_template": True})
    assert {public["status"], once["status"]} == {"CREATED"}
    pod_id = await wire.running(sandbox, template_id=once["id"])
    await wire.ok("deletePod", pod_id=pod_id)
    sandbox.clock.advance(minutes=1)
    await wire.refused("getTemplate", 404, template_id=once["id"])
    assert (await wire.ok("getPodRecord", pod_id=pod_id))["image"] == "nvidia/cuda:12.4.1"


async def test_an_edit_reboots_the_pods_that_run_on_it(sandbox: Sandbox, wire: Wire) -> None:
    template = await wire.ok("createTemplate", json={**BODY, "one_time_template": True})
    pod_id, other = await wire.running(sandbox, template_id=template["id"]), await wire.running(sandbox)
    edited = await wire.ok("updateTemplate", template_id=template["id"], json={**BODY, "startup_commands": "serve"})
    assert edited["status"] == "UPDATED"
    assert (await wire.pod(pod_id))["status"] == "REBOOT_PENDING"
    assert (await wire.pod(other))["status"] == "RUNNING"
    sandbox.clock.advance(minutes=1)
    assert "serve" in await wire.ok("streamPodLogs", pod_id=pod_id)


async def test_nulls_are_refused_where_the_api_refuses_them(wire: Wire) -> None:
    template = await wire.ok("createTemplate", json=BODY)
    for field in ("volumes", "environment", "entrypoint"):
        await wire.refused("updateTemplate", 422, template_id=template["id"], json={**BODY, field: None})
    await wire.refused("createTemplate", 422, json={**BODY, "is_temporary": True, "is_private": False})


async def test_an_empty_tag_splits_a_full_reference(wire: Wire) -> None:
    digest = "sha256:" + "ab" * 32
    body = {**BODY, "docker_image": f"registry.example:5000/team/image:v2@{digest}", "docker_image_tag": ""}
    row = await wire.ok("createTemplate", json=body)
    parts = (row["docker_image"], row["docker_image_tag"], row["docker_image_digest"])
    assert parts == ("registry.example:5000/team/image", "v2", digest)


async def test_a_strangers_template_carries_a_trusted_name_and_cannot_be_changed(wire: Wire) -> None:
    rows = [row for row in await wire.ok("listTemplates") if row["name"] == "PyTorch 2.8"]
    assert len({row["user_id"] for row in rows}) == 2
    await wire.refused("updateTemplate", 403, template_id=rows[0]["id"], json=BODY)
    await wire.refused("deleteTemplate", 403, template_id=rows[0]["id"])
