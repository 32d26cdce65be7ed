"""Every operation of a renter client, once through, held against the contract."""

import gzip
from typing import Any

from lium_mcp.sandbox import SESSION_TOKEN, Sandbox
from tests.sandbox.wire import PUBLIC_KEY, Wire, operations

ADMINISTRATION = {
    "login",
    "createWorkspace",
    "deleteWorkspace",
    "removeWorkspaceMember",
    "inviteWorkspaceMember",
    "transferBillingOwner",
}
NOWHERE = "00000000-0000-4000-8000-00000000dead"


async def test_every_operation_answers_in_the_shape_of_its_contract(sandbox: Sandbox, wire: Wire) -> None:
    await _tour_market(wire)
    await _tour_account(wire)
    await _tour_checkout(wire)
    pod_id = await _tour_pod(sandbox, wire)
    await _tour_backups(sandbox, wire, pod_id)
    await _tour_templates(sandbox, wire, pod_id)
    await _tour_clusters(sandbox, wire)
    await _tour_keys(wire)
    await _tour_login(wire)
    await wire.ok("deletePod", pod_id=pod_id, json={"rating": 5, "reason": "unrent"})
    sandbox.clock.advance(minutes=1)
    for after_removal in ("listPodEvents", "getPodRecord", "getPodStatement", "listBackupLogsForPod"):
        await wire.ok(after_removal, pod_id=pod_id)
    await wire.ok("getBillingStatement", query={"start_day": "2026-10-01", "end_day": "2026-10-06"})
    await wire.ok("listAudit", query={"limit": 3, "action": "pod."})
    await wire.ok("listAccountEvents", query={"limit": 5, "pod_id": pod_id})
    assert set(operations()) - wire.exercised == ADMINISTRATION


async def _tour_market(wire: Wire) -> None:
    for view in ("summary", "full"):
        assert len(await wire.ok("listExecutors", key=None, query={"view": view})) > 100
    for name in ("getVersion", "countExecutors", "totalExecutorCount", "listPublicNodes", "listMachines"):
        await wire.ok(name, key=None)
    node, template = await wire.node(), await wire.template()
    await wire.ok("quoteExecutor", executor_id=node["id"], key=None, query={"hours": 2})
    await wire.ok("getDefaultDockerImages", query={"gpu_model": node["machine_name"], "driver_version": "580.95.05"})
    await wire.ok("getDeploymentEstimate", query={"executor_id": node["id"], "template_id": template})
    await wire.ok("requestMachine", json={"machine_name": "NVIDIA B300 SXM6 AC", "gpu_count": 8})
    await wire.ok("uploadBuildContext", content=gzip.compress(b"context"))
    spec = await wire.rent_body(gpu_type="H100", dry_run=True)
    await wire.ok("rentBySpec", json=spec)


async def _tour_account(wire: Wire) -> None:
    me = await wire.ok("getMe")
    await wire.ok("listWorkspaces")
    await wire.ok("getWorkspace", workspace_id=me["workspace"]["id"])
    await wire.ok("listWorkspaceMembers", workspace_id=me["workspace"]["id"])
    volume = await wire.ok("createVolume", json={"name": "datasets"})
    await wire.ok("getVolume", volume_id=volume["id"])
    await wire.ok("updateVolume", volume_id=volume["id"], json={"description": "mirror"})
    await wire.ok("listVolumes")
    await wire.ok("deleteVolume", volume_id=volume["id"])
    ssh_key = await wire.ok("createSshKey", json={"name": "laptop", "public_key": PUBLIC_KEY})
    await wire.ok("updateSshKey", key_id=ssh_key["id"], json={"name": "desk", "public_key": PUBLIC_KEY})
    assert [row["name"] for row in await wire.ok("listSshKeys")] == ["desk"]
    await wire.ok("deleteSshKey", key_id=ssh_key["id"])


async def _tour_checkout(wire: Wire) -> None:
    key = await wire.ok("createKey", session=SESSION_TOKEN, json={"name": "till", "scopes": ["billing"]})
    page = {"amount": 10, "success_url": "https://a.b", "cancel_url": "https://a.b", "mode": "payment"}
    await wire.ok("createCheckoutSession", json=page, key=key["key"])
    await wire.refused("createCheckoutSession", 403, json=page)
    await wire.refused("createCheckoutSession", 422, json=page | {"amount": 9}, key=key["key"])


async def _tour_pod(sandbox: Sandbox, wire: Wire) -> str:
    pod_id = await wire.rent(gpu_count=1, initial_port_count=2)
    sandbox.clock.advance(seconds=3)
    await wire.ok("listPods")
    sandbox.clock.advance(minutes=6)
    await wire.ok("listPods")
    await wire.ok("getPod", pod_id=pod_id)
    assert "data: " in await wire.ok("streamPodLogs", pod_id=pod_id, query={"tail": 5, "follow": "false"})
    await wire.ok("scheduleRemoval", pod_id=pod_id, json={"removal_scheduled_at": "2026-10-07T12:00:00Z"})
    await wire.ok("cancelScheduledRemoval", pod_id=pod_id)
    await wire.ok("installJupyter", pod_id=pod_id, json={"jupyter_internal_port": 8888})
    reset = await wire.ok("resetGpu", pod_id=pod_id, json={"gpu_indices": None})
    await wire.ok("getGpuReset", pod_id=pod_id, request_id=reset["request_id"])
    sandbox.clock.advance(minutes=2)
    done = await wire.ok("getGpuReset", pod_id=pod_id, request_id=reset["request_id"])
    assert done["ok"] is True
    await wire.ok("sendPodFeedback", pod_id=pod_id, json={"rating": 4})
    await wire.ok("rebootPod", pod_id=pod_id, json={})
    sandbox.clock.advance(minutes=1)
    await wire.ok("switchPodTemplate", pod_id=pod_id, json={"template_id": await wire.template("daturaai/ubuntu")})
    sandbox.clock.advance(minutes=1)
    return pod_id


async def _tour_backups(sandbox: Sandbox, wire: Wire, pod_id: str) -> None:
    config = await wire.ok(
        "createBackupConfig",
        json={"pod_id": pod_id, "backup_frequency_hours": 6, "retention_days": 7, "backup_path": "/root/data"},
    )
    await wire.ok("listBackupConfigs")
    await wire.ok("getBackupConfigForPod", pod_id=pod_id)
    await wire.ok("updateBackupConfig", config_id=config["id"], json={"retention_days": 3})
    first = (await wire.ok("backupPodNow", pod_id=pod_id, json={"name": "first"}))["backup_log_id"]
    await wire.ok("getBackupLog", backup_id=first)
    sandbox.clock.advance(minutes=4)
    restore = await wire.ok("restoreBackup", pod_id=pod_id, json={"backup_id": first, "restore_path": "/root/back"})
    sandbox.clock.advance(seconds=30)
    await wire.ok("listRestoreLogs", pod_id=pod_id)
    await wire.ok("cancelRestore", restore_id=restore["restore_log_id"])
    second = (await wire.ok("backupPodNow", pod_id=pod_id, json={"name": "second"}))["backup_log_id"]
    sandbox.clock.advance(seconds=20)
    await wire.ok("listBackupLogs", query={"page": 1, "limit": 100})
    await wire.ok("cancelBackup", backup_id=second)
    await wire.ok("deleteBackupLog", backup_id=first)
    await wire.ok("listBackupLogsForPod", pod_id=pod_id, query={"page": 2, "limit": 1})
    await wire.ok("deleteBackupConfig", config_id=config["id"])


async def _tour_templates(sandbox: Sandbox, wire: Wire, pod_id: str) -> None:
    body: dict[str, Any] = {"name": "mine", "docker_image": "nvidia/cuda", "docker_image_tag": "12.4.1"}
    template = await wire.ok("createTemplate", json=body)
    await wire.ok("getTemplate", template_id=template["id"])
    await wire.ok("updateTemplate", template_id=template["id"], json={**body, "startup_commands": "sleep inf"})
    await wire.ok("listTemplates", key=None)
    await wire.ok("deleteTemplate", template_id=template["id"])
    login = await wire.ok("createDockerCredential", json={"docker_username": "u", "docker_password": "p"})
    change = {"docker_username": "v", "docker_password": "q"}
    await wire.ok("updateDockerCredential", credential_id=login["id"], json=change)
    assert await wire.ok("listDockerCredentials") == [{"id": login["id"], "docker_username": "v"}]
    await wire.ok("deleteDockerCredential", credential_id=login["id"])


async def _tour_clusters(sandbox: Sandbox, wire: Wire) -> None:
    offer = (await wire.ok("listClusterOffers"))[0]
    body = {
        "pod_name": "dist",
        "template_id": await wire.template("daturaai/lium-cluster"),
        "executor_uuids": [node["id"] for node in offer["nodes"][:2]],
        "user_public_key": [PUBLIC_KEY],
    }
    rented = await wire.ok("rentCluster", json=body)
    cluster_id = (await wire.pod(rented["pod_ids"][1]))["cluster_id"]
    await wire.refused("deleteCluster", 409, cluster_id=cluster_id)
    sandbox.clock.advance(minutes=1)
    removed = await wire.ok("deleteCluster", cluster_id=cluster_id)
    assert [row["success"] for row in removed["pods"]] == [True, True]


async def _tour_keys(wire: Wire) -> None:
    await wire.ok("listKeyScopes", key=None)
    key = await wire.ok("createKey", session=SESSION_TOKEN, json={"name": "ci", "scopes": ["read"]})
    for name in ("getKey", "listKeyRefusals"):
        await wire.ok(name, session=SESSION_TOKEN, key_id=key["id"])
    await wire.ok("updateKey", session=SESSION_TOKEN, key_id=key["id"], json={"daily_budget_usd": 5})
    assert all("key" not in row for row in await wire.ok("listKeys", session=SESSION_TOKEN))
    await wire.ok("revokeKey", session=SESSION_TOKEN, key_id=key["id"])


async def _tour_login(wire: Wire) -> None:
    login = await wire.ok("beginLogin", key=None)
    await wire.ok("pollLogin", key=None, session_id=login["session_id"])
    await wire.http.post(login["browser_url"], data={"answer": "agree"})
    await wire.ok("pollLogin", key=None, session_id=login["session_id"])


async def test_an_unknown_thing_is_a_404_in_the_contracts_shape(wire: Wire) -> None:
    for operation_id, (method, path, _) in operations().items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        session = SESSION_TOKEN if path.startswith("/keys") else None
        if not names or operation_id in ADMINISTRATION or method in {"PUT", "POST", "PATCH"}:
            continue
        query = {"hours": 1} if operation_id == "quoteExecutor" else None
        call = dict.fromkeys(names, NOWHERE)
        await wire.refused(operation_id, 404, session=session, query=query, **call)


async def test_an_id_that_is_no_uuid_is_a_422_that_names_the_field(wire: Wire) -> None:
    for operation_id, name in (("getPod", "pod_id"), ("getTemplate", "template_id"), ("getVolume", "volume_id")):
        body = await wire.refused(operation_id, 422, **{name: "cosmic-hawk-f2"})
        assert body["validation_errors"] == [{"field": name, "message": "must be a UUID"}]


async def test_a_missing_and_a_wrong_key_are_told_apart_and_both_401(wire: Wire) -> None:
    assert await wire.refused("listPods", 401, key="sk_wrong") == {"detail": "API key not found"}
    assert await wire.refused("listPods", 401, key=None) == {"detail": "Not authenticated"}


async def test_a_422_names_the_field_and_never_repeats_its_value(wire: Wire) -> None:
    body = await wire.refused(
        "createDockerCredential", 422, json={"docker_username": "u", "docker_password": ["hunter2"]}
    )
    assert body["validation_errors"][0]["field"] == "docker_password"
    assert "hunter2" not in str(body)


async def test_routes_and_slashes_are_exact(wire: Wire) -> None:
    headers = {"X-API-KEY": "sk_sandbox"}
    for method, path, status in (("GET", "/pods/", 404), ("GET", "/backup-logs", 404), ("PUT", "/pods", 405)):
        response = await wire.http.request(method, f"http://sandbox/api{path}", headers=headers)
        assert response.status_code == status
        assert set(response.json()) == {"detail"}
