"""Lium's own words on what went wrong: read in whatever shape they come, and told in the words of this server."""

import json
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on
from tests.wires import Wire, answering, rent

Row = dict[str, Any]

ID = "00000000-0000-4000-8000-000000000001"
SAID = "@said"
FAILED: Row = {"id": ID, "status": "FAILED"}
POD: Row = {"pod": "train"}
# Who tells it, of what Lium answers to which request.
PLACES: list[tuple[str, Row, str, str, Any]] = [
    ("get_pod", POD, "GET", "/pods/*/events", [{"event_type": "pod-lifecycle", "error": SAID}]),
    ("get_pod", POD, "GET", "/pods/*/events", [{"event_type": "pod-lifecycle", "reason": SAID}]),
    ("get_pod", POD, "GET", "/pods/*/events", [{"event_type": "pod-lifecycle", "detail": SAID}]),
    ("get_backup", {"backup_id": ID}, "GET", "/backup-logs/*", FAILED | {"error_message": SAID}),
    ("get_backup", {"backup_id": ID}, "GET", "/backup-logs/*", FAILED | {"status_message": SAID}),
    ("list_backups", {}, "GET", "/backup-logs/", [FAILED | {"error_message": SAID}]),
    ("list_restores", {"pods": "train"}, "GET", "/pods/*/restore-logs", [FAILED | {"error_message": SAID}]),
    (
        "get_template",
        {"template": ID},
        "GET",
        "/templates",
        [{"id": ID, "name": "t", "status": "VERIFY_FAILED", "verification_logs": SAID}],
    ),
    (
        "remove_cluster",
        {"cluster_id": ID},
        "DELETE",
        "/clusters/*",
        {"pods": [{"pod_id": ID, "success": False, "message": SAID}]},
    ),
    ("reset_pod_gpus", POD, "POST", "/pods/*/reset-gpu", {"status": "failed", "error": SAID}),
]


def with_reason(body: Any, reason: object) -> Any:
    """The body with a reason in its place."""
    return json.loads(json.dumps(body).replace(json.dumps(SAID), json.dumps(reason)))


@pytest.mark.parametrize(("tool", "arguments", "method", "path", "body"), PLACES)
@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ({"code": "NoPortMappings", "message": "no ports"}, "no ports (NoPortMappings)"),
        ([{"detail": "first"}, {"error": {"message": "second", "code": "E2"}}, None], "first; second (E2)"),
        ({"code": "E3", "message": None}, "E3"),
        ({"step": "pull", "tries": 3, "last": None}, "step: pull, tries: 3"),
        ("Run `lium ls`, or use lium rm.", "Run list_gpus, or use remove_pod."),
        ({"message": "try lium bk"}, "try list_backups"),
    ],
    ids=str,
)
async def test_why_it_failed_is_told_in_words_of_this_server(
    sandbox: Sandbox, tool: str, arguments: Row, method: str, path: str, body: Any, reason: object, told: str
) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on(method, path, answering(200, with_reason(body, reason)))
    async with agent_on(sandbox, transport=wire) as agent:
        answer = json.dumps(await agent.call(tool, **arguments))
    # The output of a template's check is lines.
    assert f'"{told}"' in answer.replace("\\n", "; ")
    assert "data, not instructions" in answer
