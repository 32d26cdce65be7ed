"""Every operation of the API has a tool that reaches it, or a line that says why not.

The map below is held against what really goes over the wire: each tool is called once, in a life of a few pods, and its
requests are matched with the contract. A tool that stops reaching its operation fails here, and so does a reason for an
operation that a tool does reach.
"""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from lium_mcp.sandbox import Sandbox
from lium_mcp.tools.catalog import TOOLSETS
from tests.harness import PUBLIC_KEY, Agent, agent_on, make_key_pair
from tests.wires import Wire, answering

CONTRACT = Path(__file__).parents[1] / "contract" / "openapi.yaml"
METHODS = {"get", "post", "put", "patch", "delete"}

REACHED_BY = {
    "getVersion": "rent_pod",
    "listExecutors": "list_gpus",
    "quoteExecutor": "quote_rental",
    "rentExecutor": "rent_pod",
    "rentBySpec": "rent_pod",
    "getDefaultDockerImages": "rent_pod",
    "listClusterOffers": "list_clusters",
    "rentCluster": "rent_cluster",
    "deleteCluster": "remove_cluster",
    "listMachines": "request_gpus",
    "requestMachine": "request_gpus",
    "createCheckoutSession": "create_top_up_link",
    "listPods": "list_pods",
    "getPod": "get_pod",
    "deletePod": "remove_pod",
    "rebootPod": "reboot_pod",
    "resetGpu": "reset_pod_gpus",
    "getGpuReset": "reset_pod_gpus",
    "streamPodLogs": "get_pod_logs",
    "listPodEvents": "get_pod",
    "getPodRecord": "get_pod",
    "sendPodFeedback": "rate_pod",
    "switchPodTemplate": "switch_pod_template",
    "scheduleRemoval": "schedule_pod_removal",
    "cancelScheduledRemoval": "cancel_pod_removal",
    "installJupyter": "install_jupyter",
    "backupPodNow": "create_backup",
    "restoreBackup": "restore_backup",
    "listRestoreLogs": "list_restores",
    "cancelRestore": "cancel_restore",
    "createBackupConfig": "set_backup_schedule",
    "getBackupConfigForPod": "list_backups",
    "updateBackupConfig": "set_backup_schedule",
    "deleteBackupConfig": "delete_backup_schedule",
    "listBackupConfigs": "list_backups",
    "listBackupLogs": "list_backups",
    "listBackupLogsForPod": "list_backups",
    "getBackupLog": "get_backup",
    "deleteBackupLog": "delete_backup",
    "cancelBackup": "cancel_backup",
    "listTemplates": "list_templates",
    "createTemplate": "create_template",
    "getTemplate": "get_template",
    "updateTemplate": "update_template",
    "deleteTemplate": "delete_template",
    "listDockerCredentials": "create_template",
    "createDockerCredential": "add_registry_credential",
    "listVolumes": "list_volumes",
    "createVolume": "create_volume",
    "getVolume": "list_volumes",
    "updateVolume": "update_volume",
    "deleteVolume": "delete_volume",
    "listSshKeys": "list_ssh_keys",
    "createSshKey": "add_ssh_key",
    "deleteSshKey": "delete_ssh_key",
    "getMe": "get_balance",
    "listAudit": "list_activity",
    "getBillingStatement": "get_spending",
}
_PASSWORD = "a registry password would pass through the model: logins are stored on lium.io"
_PERSON = "needs a person's login session, which an agent does not get"
_LOGIN = "`lium-mcp login` does it, and a call without a key offers it to the person: no tool of its own"
NOT_OFFERED = {
    "countExecutors": "list_gpus says the total",
    "totalExecutorCount": "list_gpus says the total",
    "getDeploymentEstimate": "get_pod shows the seconds that are left of a start",
    "listPublicNodes": "list_gpus reads the same nodes in more detail",
    "getPodStatement": "get_pod and get_spending say what a pod has cost",
    "updateDockerCredential": _PASSWORD,
    "deleteDockerCredential": "belongs to whoever may store one: a person on lium.io",
    "updateSshKey": "delete_ssh_key and add_ssh_key do it, and a key is not changed under a name that others know",
    "uploadBuildContext": "sends files of the machine; rent_pod starts from templates",
    "listAccountEvents": "list_activity reads the audit log, which says more; get_pod shows the events of a pod",
    "listKeys": _PERSON,
    "createKey": _PERSON,
    "listKeyScopes": "a refusal names the scope that is missing, and the scopes of a key cannot be changed",
    "getKey": _PERSON,
    "updateKey": _PERSON,
    "revokeKey": _PERSON,
    "listKeyRefusals": "needs the key's id, which a key does not know; a refusal is told when it happens",
    "listWorkspaces": "a key acts in one workspace, which it cannot change",
    "getWorkspace": "a key acts in one workspace, which it cannot change",
    "listWorkspaceMembers": "says nothing that bears on renting",
    "createWorkspace": _PERSON,
    "deleteWorkspace": _PERSON,
    "removeWorkspaceMember": _PERSON,
    "inviteWorkspaceMember": _PERSON,
    "transferBillingOwner": _PERSON,
    "login": "a person's password is nothing for an agent",
    "beginLogin": _LOGIN,
    "pollLogin": _LOGIN,
}


@cache
def operations() -> dict[str, tuple[str, str]]:
    """Method and path of every operation of the contract."""
    with CONTRACT.open() as file:
        paths = yaml.load(file, Loader=yaml.CSafeLoader)["paths"]
    return {
        operation["operationId"]: (method.upper(), path)
        for path, item in paths.items()
        for method, operation in item.items()
        if method in METHODS
    }


def operation_of(method: str, path: str) -> str:
    """The operation that a request is; a fixed path wins over one with a variable."""
    matches = [
        (template.count("{"), name)
        for name, (verb, template) in operations().items()
        if verb == method and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path)
    ]
    assert matches, f"{method} {path} is no operation of the contract"
    return min(matches)[1]


class Recorder:
    """Calls tools, and notes which operations each of them reached."""

    def __init__(self, agent: Agent, wire: Wire) -> None:
        self._agent = agent
        self._wire = wire
        self.reached: dict[str, set[str]] = defaultdict(set)
        self.called: set[str] = set()

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        before = len(self._wire.requests)
        answer = await self._agent.call(tool, **arguments)
        self.called.add(tool)
        for request in self._wire.requests[before:]:
            self.reached[operation_of(request.method, request.url.path.removeprefix("/api"))].add(tool)
        return answer


async def live(call: Recorder, sandbox: Sandbox) -> None:
    """A life in which every tool is called, and succeeds."""
    pod = await _rent(call, sandbox)
    await _keep(call, pod)
    await _back_up(call, pod)
    await _end(call, sandbox, pod)


async def _rent(call: Recorder, sandbox: Sandbox) -> str:
    offers = (await call("list_gpus", limit=100))["offers"]
    await call("get_gpu_prices")
    node = offers[0]["executor_id"]
    await call("quote_rental", executor_id=node, hours=1)
    await call("create_volume", name="data")
    await call("update_volume", volume="data", description="text")
    await call("list_volumes")
    await call("list_volumes", volume="data")

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LIUM_MCP_REGISTRY_BOT", "p")
        await call("add_registry_credential", username="bot", password_variable="LIUM_MCP_REGISTRY_BOT")
    image = {"image": "ghcr.io/team/a:1", "registry_credential": "bot", "wait_seconds": 120}
    await call("create_template", name="mine", **image)
    await call("list_templates")
    await call("get_template", template="mine")
    checked = await call("create_template", name="checked", image="a:1", wait_seconds=0)
    await call("get_template", template=checked["template"]["template_id"], wait_seconds=120)
    await call("update_template", template="mine", description="text", wait_seconds=120)

    pod = (await call("rent_pod", name="one", executor_id=node, wait_seconds=120))["pod_id"]
    await call("rent_pod", name="two", gpu_type="RTX4090", hours=5, wait_seconds=120)
    return str(pod)


async def _keep(call: Recorder, pod: str) -> None:
    await call("list_pods")
    await call("get_pod", pod=pod)
    await call("get_pod_logs", pod=pod)
    await call("run_command", pod=pod, command="echo hello")
    await call("upload_files", pod=pod, content="hello", pod_path="greeting")
    await call("download_files", pod=pod, pod_path="greeting")
    await call("start_job", pod=pod, name="job", command="sleep 60")
    await call("get_job", pod=pod, name="job", wait_seconds=0)
    await call("stop_job", pod=pod, name="job")
    await call("schedule_pod_removal", pod=pod, hours_from_now=9)
    await call("cancel_pod_removal", pod=pod)
    await call("reboot_pod", pod=pod, wait_seconds=120)
    await call("switch_pod_template", pod=pod, template="mine", wait_seconds=120)
    await call("install_jupyter", pod=pod, port=8000, wait_seconds=120)
    await call("reset_pod_gpus", pod=pod, wait_seconds=180)
    await call("rate_pod", pod=pod, rating=5)


async def _back_up(call: Recorder, pod: str) -> None:
    await call("set_backup_schedule", pod=pod)
    await call("set_backup_schedule", pod=pod, every_hours=9)
    await call("list_backups", pod=pod)
    backup = (await call("create_backup", pod=pod, wait_seconds=300))["backup"]["backup_id"]
    await call("list_backups")
    await call("list_backups", pod=pod)
    await call("get_backup", backup_id=backup)
    restore = await call("restore_backup", backup_id=backup, pods=["one"], wait_seconds=0)
    await call("list_restores", pods=[pod])
    await call("cancel_restore", restore_id=restore["pods"][0]["restore"]["restore_id"])
    await call("delete_backup", backup_id=backup)
    running = (await call("create_backup", pod=pod, wait_seconds=0))["backup"]["backup_id"]
    await call("cancel_backup", backup_id=running)
    await call("delete_backup_schedule", pod=pod)


async def _end(call: Recorder, sandbox: Sandbox, pod: str) -> None:
    await call("remove_pod", pod=pod, wait_seconds=60)

    fabric = (await call("list_clusters"))["offers"][0]["nodes"]
    cluster = await call("rent_cluster", name="many", executor_ids=[node["executor_id"] for node in fabric[:2]])
    sandbox.clock.advance(minutes=1)
    await call("remove_cluster", cluster_id=cluster["cluster_id"])
    await call("run_job", name="run", command="true", gpu_type="A100", max_total_usd=20, wait_seconds=120)

    await call("delete_template", template="mine")
    await call("delete_volume", volume="data")
    await call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
    for key in (await call("list_ssh_keys"))["keys"]:
        await call("delete_ssh_key", key_id=key["key_id"])
    await call("request_gpus", gpu_type="B300")
    await call("list_activity")
    await call("get_balance")
    await call("create_top_up_link", amount_usd=10)
    await call("get_spending")


def test_every_operation_has_a_tool_or_a_reason_and_not_both() -> None:
    assert set(REACHED_BY) | set(NOT_OFFERED) == set(operations())
    assert set(REACHED_BY) & set(NOT_OFFERED) == set()
    assert all(NOT_OFFERED.values())


async def test_what_the_tools_send_is_what_the_map_says(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "key")
    sandbox = Sandbox(seed=7, speed=0, balance_usd=5000, ssh=True)
    wire = Wire(sandbox)
    # A key that may do this may do nothing else.
    wire.on("POST", "/stripe/create-checkout-session", answering(200, {"url": "https://checkout.stripe.com/c/pay/cs"}))
    settings: dict[str, Any] = {"ssh_key_path": tmp_path / "key"}
    async with agent_on(sandbox, transport=wire, **settings) as agent:
        call = Recorder(agent, wire)
        await live(call, sandbox)
    assert {name: tool for name, tool in REACHED_BY.items() if tool not in call.reached.get(name, ())} == {}
    assert set(call.reached) == set(REACHED_BY), "an operation that is not offered was reached"
    assert call.called == {spec.name for toolset in TOOLSETS for spec in toolset.specs}, "a tool was never called"
