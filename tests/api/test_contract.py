"""Every operation of the contract has a call here, sends what the recorded example sends, and reads the answer."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from pydantic import BaseModel

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clusters import ClusterRentRequest
from lium_mcp.api.errors import (
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    Conflict,
    InsufficientBalance,
    LiumError,
    MissingScope,
    NoExecutorMatches,
    NotFound,
    RateLimited,
    RentOutcomeUnknown,
    ValidationFailed,
)
from lium_mcp.api.lines import Tail
from lium_mcp.api.pods.models import FeedbackRequest
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest
from lium_mcp.api.templates import TemplateChanges, TemplateCreate
from tests.api.fakes import IDEMPOTENCY_KEY, KEY, NODE_ID, POD_ID, client_on
from tests.tools.test_parity import NOT_OFFERED
from tests.wires import Wire, answering

CONTRACT = Path(__file__).parent.parent / "contract"
OPENAPI: dict[str, Any] = yaml.load((CONTRACT / "openapi.yaml").read_text(), Loader=yaml.CSafeLoader)
EXAMPLES: dict[str, Any] = yaml.load((CONTRACT / "examples.json").read_text(), Loader=yaml.CSafeLoader)

SSH_KEY = EXAMPLES["createSshKey"]["request"]["body"]["public_key"]
TEMPLATE_ID = "1c9e7b3a-0f42-4d8b-b6a5-7e8f90a1b2c3"
NODE2_ID = "fedcba98-7654-4321-8fed-cba987654321"
RUN_ID = "0a1b2c3d-4e5f-4061-8273-849506a7b8c9"
BACKUP_ID = "e1f2a3b4-c5d6-4e7f-8091-a2b3c4d5e6f7"
CONFIG_ID = "90ab12cd-34ef-4567-89ab-cdef01234567"
VOLUME_ID = "77aa11bb-22cc-43dd-84ee-55ff66007788"
SESSION_ID = "b1946ac9-2492-4d23-8f1e-6c6b7a3d9e01"
KEY_ID = "d4c3b2a1-9f8e-4d7c-8b6a-5f4e3d2c1b0a"

Call = Callable[[LiumClient], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "getVersion": lambda c: c.version(),
    "beginLogin": lambda c: c.logins.begin(),
    "pollLogin": lambda c: c.logins.poll(SESSION_ID),
    "listExecutors": lambda c: c.executors.list(),
    "quoteExecutor": lambda c: c.executors.quote(NODE_ID, hours=4, gpu_count=1),
    "rentExecutor": lambda c: c.executors.rent(
        NODE_ID,
        RentRequest(
            pod_name="train-a1",
            template_id=TEMPLATE_ID,
            user_public_key=[SSH_KEY],
            enable_volume_encryption=True,
            gpu_count=1,
            termination_hours=4,
        ),
        idempotency_key=IDEMPOTENCY_KEY,
    ),
    "rentBySpec": lambda c: c.executors.select_by_spec(
        RentBySpecRequest(
            pod_name="train-a1",
            user_public_key=[SSH_KEY],
            gpu_type="H100",
            max_price_per_gpu_hour=2.5,
            termination_hours=2,
        )
    ),
    "getDefaultDockerImages": lambda c: c.executors.default_images(gpu_model="NVIDIA H200", driver_version="580.95.05"),
    "listClusterOffers": lambda c: c.clusters.list_offers(),
    "rentCluster": lambda c: c.clusters.rent(
        ClusterRentRequest(
            pod_name="dist-1",
            template_id=TEMPLATE_ID,
            executor_uuids=[NODE_ID, NODE2_ID],
            user_public_key=[SSH_KEY],
        ),
        idempotency_key=IDEMPOTENCY_KEY,
    ),
    "deleteCluster": lambda c: c.clusters.remove(NODE2_ID),
    "listMachines": lambda c: c.machines.list(),
    "requestMachine": lambda c: c.machines.request("NVIDIA B300", gpu_count=8),
    "listPods": lambda c: c.pods.list(),
    "getPod": lambda c: c.pods.get(POD_ID),
    "deletePod": lambda c: c.pods.remove(POD_ID, feedback=FeedbackRequest(rating=5, reason="unrent")),
    "rebootPod": lambda c: c.pods.reboot(POD_ID),
    "resetGpu": lambda c: c.pods.reset_gpus(POD_ID, gpu_indices=[0]),
    "getGpuReset": lambda c: c.pods.get_gpu_reset(POD_ID, RUN_ID),
    "streamPodLogs": lambda c: c.pods.logs(POD_ID),
    "listPodEvents": lambda c: c.pods.events(POD_ID),
    "getPodRecord": lambda c: c.pods.record(POD_ID),
    "sendPodFeedback": lambda c: c.pods.send_feedback(POD_ID, FeedbackRequest(feedback_text="fine", rating=4)),
    "switchPodTemplate": lambda c: c.pods.switch_template(POD_ID, template_id=TEMPLATE_ID),
    "scheduleRemoval": lambda c: c.pods.schedule_removal(POD_ID, at=datetime(2026, 10, 6, 18, tzinfo=UTC)),
    "cancelScheduledRemoval": lambda c: c.pods.cancel_removal(POD_ID),
    "installJupyter": lambda c: c.pods.install_jupyter(POD_ID, port=8888),
    "backupPodNow": lambda c: c.backups.start(POD_ID, name="before-upgrade"),
    "restoreBackup": lambda c: c.restores.start(POD_ID, backup_id=BACKUP_ID, restore_path="/root/restored"),
    "listRestoreLogs": lambda c: c.restores.list(POD_ID),
    "cancelRestore": lambda c: c.restores.cancel(RUN_ID),
    "createBackupConfig": lambda c: c.backup_schedules.create(POD_ID, backup_path="/root/checkpoints"),
    "listBackupConfigs": lambda c: c.backup_schedules.list(),
    "getBackupConfigForPod": lambda c: c.backup_schedules.get_for_pod(POD_ID),
    "updateBackupConfig": lambda c: c.backup_schedules.update(
        CONFIG_ID, backup_path="/root/checkpoints", backup_frequency_hours=12, retention_days=14
    ),
    "deleteBackupConfig": lambda c: c.backup_schedules.delete(CONFIG_ID),
    "listBackupLogs": lambda c: c.backups.list(),
    "listBackupLogsForPod": lambda c: c.backups.list(pod_id=POD_ID),
    "getBackupLog": lambda c: c.backups.get(BACKUP_ID),
    "deleteBackupLog": lambda c: c.backups.delete(BACKUP_ID),
    "cancelBackup": lambda c: c.backups.cancel(BACKUP_ID),
    "listTemplates": lambda c: c.templates.list(),
    "getTemplate": lambda c: c.templates.get(TEMPLATE_ID),
    "createTemplate": lambda c: c.templates.create(
        TemplateCreate(name="my-env", docker_image="daturaai/pytorch", docker_image_tag="2.8.0-py3.12-cuda12.8")
    ),
    "updateTemplate": lambda c: c.templates.update(
        TEMPLATE_ID, TemplateChanges(startup_commands="python main.py", category="UBUNTU")
    ),
    "deleteTemplate": lambda c: c.templates.delete(TEMPLATE_ID),
    "listDockerCredentials": lambda c: c.docker_credentials.list(),
    "createDockerCredential": lambda c: c.docker_credentials.create(docker_username="u", docker_password="p4ssw0rd"),
    "listVolumes": lambda c: c.volumes.list(),
    "createVolume": lambda c: c.volumes.create(name="datasets"),
    "getVolume": lambda c: c.volumes.get(VOLUME_ID),
    "updateVolume": lambda c: c.volumes.update(VOLUME_ID, description="imagenet mirror"),
    "deleteVolume": lambda c: c.volumes.delete(VOLUME_ID),
    "listSshKeys": lambda c: c.ssh_keys.list(),
    "createSshKey": lambda c: c.ssh_keys.create(name="cli-demo", public_key=SSH_KEY),
    "deleteSshKey": lambda c: c.ssh_keys.delete(KEY_ID),
    "getMe": lambda c: c.account.me(),
    "listAudit": lambda c: c.account.audit(action="pod."),
    "createCheckoutSession": lambda c: c.account.create_checkout(amount_usd=25),
    "getBillingStatement": lambda c: c.account.billing_statement(
        start_day=date(2026, 10, 1), end_day=date(2026, 10, 6)
    ),
}

# What gets a key is sent without one, also by a client that has one.
WITHOUT_A_KEY = {"beginLogin", "pollLogin"}

# Answers for operations without a recorded example.
ANSWERS: dict[str, Any] = {
    "sendPodFeedback": {},
    "listDockerCredentials": [{"id": KEY_ID, "docker_username": "u"}],
    "createDockerCredential": {"id": KEY_ID, "docker_username": "u"},
    "deleteSshKey": {"success": True},
}

# Queries that are not those of the recorded example: it filters, and we read all nodes, for whatever is looked for.
QUERIES: dict[str, dict[str, str]] = {"listExecutors": {"view": "summary"}}

# Requests that a call makes before its own.
PRELUDES: dict[str, dict[str, Any]] = {
    "updateTemplate": {f"/templates/{TEMPLATE_ID}": EXAMPLES["getTemplate"]["response"]["body"]},
}


def operations() -> dict[str, tuple[str, str]]:
    return {
        operation["operationId"]: (method.upper(), path)
        for path, item in OPENAPI["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "operationId" in operation
    }


def answering_one(operation_id: str, status: int, body: Any, headers: dict[str, str] | None = None) -> Wire:
    """Answers preludes, each once, then the operation itself."""
    wire = Wire()
    is_text = isinstance(body, str)
    typed = {"Content-Type": "text/event-stream"} if is_text else {}
    wire.on("*", "**", answering(status, body.encode() if is_text else body, **typed, **headers or {}))
    for path, prelude in PRELUDES.get(operation_id, {}).items():
        wire.on("GET", path, answering(200, prelude), times=1)
    return wire


def test_every_operation_that_a_tool_reaches_has_a_call() -> None:
    assert CALLS.keys() == operations().keys() - NOT_OFFERED.keys() | WITHOUT_A_KEY


@pytest.mark.parametrize("operation_id", CALLS)
async def test_call_sends_what_the_contract_says_and_reads_the_answer(operation_id: str) -> None:
    example = EXAMPLES.get(operation_id)
    status, body = (example["response"]["status"], example["response"]["body"]) if example else (200, None)
    body = ANSWERS[operation_id] if example is None else body
    wire = answering_one(operation_id, status, body)
    async with client_on(wire) as client:
        result = await CALLS[operation_id](client)

    *preludes, request = wire.requests
    assert [prelude.url.path for prelude in preludes] == [f"/api{path}" for path in PRELUDES.get(operation_id, {})]
    assert request.headers.get("X-API-KEY") == (None if operation_id in WITHOUT_A_KEY else KEY)
    method, template = operations()[operation_id]
    path = request.url.raw_path.decode().partition("?")[0].removeprefix("/api")
    assert request.method == method
    assert re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path)
    if example:
        expected = example["request"]
        assert path == expected["path"]
        query = QUERIES.get(operation_id, expected.get("query", {}))
        assert dict(request.url.params) == {name: str(value) for name, value in query.items()}
        assert request.headers.get("Idempotency-Key") == expected["headers"].get("Idempotency-Key")
        assert_same_body(request, expected.get("body"))
    if result is not None:
        assert_carries(result, body)


def assert_same_body(request: httpx2.Request, expected: Any) -> None:
    if expected is None:
        assert request.content == b""
    else:
        assert httpx2.Response(200, content=request.content).json() == expected
        assert request.headers["Content-Type"] == "application/json"


def assert_carries(result: Any, body: Any) -> None:
    """Check that everything in the body is to be found in the result, under the contract's names."""
    if isinstance(result, Tail):
        assert result == (["server started on 0.0.0.0:8000", "ready"], False, True)
    elif isinstance(body, list):
        assert len(result) == len(body)
        for row, raw in zip(result, body, strict=True):
            assert_carries(row, raw)
    elif isinstance(body, dict) and isinstance(result, list | tuple):
        (rows,) = [value for value in body.values() if isinstance(value, list)]
        assert_carries(result, rows)
    elif isinstance(body, dict) and isinstance(result, BaseModel):
        read = body.keys() & type(result).model_fields
        assert read or not body.keys() - {"success", "message"}
        for name in read:
            assert_carries(getattr(result, name), body[name])
    elif isinstance(body, dict) and isinstance(result, dict):
        assert result.keys() == body.keys()
    elif isinstance(body, dict):
        assert result in body.values()
    elif isinstance(result, datetime):
        assert result.tzinfo is UTC
        assert result.isoformat().startswith(body[:16])  # a day stands for its beginning
    elif body is None:
        assert result in (None, ())
    else:
        assert str(result) == str(body) or float(result) == float(body)


STATUS_ERRORS: dict[int, type[LiumError]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    402: BudgetExceeded,
    404: NotFound,
    409: Conflict,
    422: ValidationFailed,
    429: RateLimited,
}
CODE_ERRORS: dict[str, type[LiumError]] = {
    "insufficient_balance": InsufficientBalance,
    "missing_scope": MissingScope,
    "idempotency_in_progress": RentOutcomeUnknown,
    "idempotency_outcome_unknown": RentOutcomeUnknown,
    "no_executor_matches_spec": NoExecutorMatches,
}
RECORDED_ERRORS = [
    (operation_id, index)
    for operation_id, example in EXAMPLES.items()
    if operation_id in CALLS
    for index, _ in enumerate(example.get("errors", []))
    if operation_id != "getBackupConfigForPod"  # its 404 means "none"
]


@pytest.mark.parametrize(("operation_id", "index"), RECORDED_ERRORS)
async def test_recorded_refusal_becomes_the_error_a_caller_can_act_on(operation_id: str, index: int) -> None:
    recorded = EXAMPLES[operation_id]["errors"][index]
    body = recorded["body"]
    code = body.get("code") or (body.get("error") or {}).get("code")
    expected = CODE_ERRORS.get(code or "") or STATUS_ERRORS.get(recorded["status"], Conflict)
    wire = answering_one(operation_id, recorded["status"], body, recorded.get("headers"))
    async with client_on(wire) as client:
        with pytest.raises(expected) as caught:
            await CALLS[operation_id](client)
    error = caught.value
    assert type(error) is expected
    assert error.code == code
    assert error.status == recorded["status"]
    assert error.effect == ("unknown" if expected is RentOutcomeUnknown else "none")
    assert error.request_id == (body.get("error") or {}).get("request_id")
    assert error.advice


async def test_pod_without_a_schedule_has_none() -> None:
    recorded = EXAMPLES["getBackupConfigForPod"]["errors"][0]
    wire = answering_one("getBackupConfigForPod", recorded["status"], recorded["body"])
    async with client_on(wire) as client:
        assert await client.backup_schedules.get_for_pod(POD_ID) is None
