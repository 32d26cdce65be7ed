"""The server as a whole: without a key, with a key that is repeated by others, and what it logs."""

import json
import logging
import re
from typing import Any

import pytest
from mcp.types import Tool

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.values import SettingsError
from tests.arguments import smallest
from tests.harness import Agent, Mode, agent_on, text_of
from tests.wires import Wire, answering, failing

MODES: list[Mode] = ["auto", "legacy"]
# What Lium shows to anybody.
KEYLESS = {"list_gpus", "get_gpu_prices", "quote_rental", "list_templates"}
KEY = "sk_live_51HsecretSecretSECRET"
LINE = re.compile(r"tool=(\S+) outcome=(\S+) seconds=\d+\.\d{3} request_id=(None|'[^']*')")


async def listed(agent: Agent) -> list[Tool]:
    return (await agent.client.list_tools()).tools


@pytest.mark.parametrize("mode", MODES)
async def test_every_tool_that_needs_a_key_says_how_to_get_and_set_one(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode, api_key=None) as agent:
        tools = await listed(agent)
        asked = 0
        for tool in tools:
            if tool.name in KEYLESS:
                continue
            failure = await agent.refused(tool.name, **smallest(tool))
            assert failure.code == "api_key_missing", (tool.name, failure.text)
            sentence, _, rest = failure.text.partition(". ")
            assert rest == "Nothing was changed. (code: api_key_missing)"
            for word in ("lium.io", "Settings, API keys", "LIUM_API_KEY", "restart"):
                assert word in sentence, tool.name
            asked += 1
        assert asked == len(tools) - len(KEYLESS)
    assert all(request["authenticated_by"] is None for request in requests(sandbox))
    assert not sandbox.state()["pods"]


@pytest.mark.parametrize("mode", MODES)
async def test_the_marketplace_can_be_read_without_a_key(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode, api_key=None) as agent:
        [offer, *_] = (await agent.call("list_gpus", limit=1))["offers"]
        assert (await agent.call("get_gpu_prices"))["total"] > 0
        quote = await agent.call("quote_rental", executor_id=offer["executor_id"], hours=2)
        assert quote["total_usd"] == pytest.approx(2 * quote["price_per_hour_usd"])
        assert "balance_usd" not in quote
        assert (await agent.call("list_templates"))["total"] > 0


def requests(sandbox: Sandbox) -> list[dict[str, Any]]:
    noted = sandbox.state()["requests"]
    assert isinstance(noted, list)
    return [note for note in noted if isinstance(note, dict)]


async def test_nothing_is_sent_before_a_tool_is_called() -> None:
    lium = Wire()
    async with agent_on(Sandbox(speed=0), transport=lium) as agent:
        assert await listed(agent)
    assert not lium.requests


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"base_url": "ftp://lium.io/api"}, "LIUM_BASE_URL"),
        ({"base_url": "http://lium.io/api"}, "LIUM_BASE_URL"),
        ({"base_url": "https://user:secret@lium.io/api"}, "LIUM_BASE_URL"),
        ({"base_url": "https:///api"}, "LIUM_BASE_URL"),
    ],
)
def test_an_address_that_cannot_be_one_stops_the_start(settings: dict[str, Any], variable: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}: ") as caught:
        build_server(Settings(**settings))
    for value in settings.values():
        assert value not in str(caught.value)


# A key that the API repeats, in every place an answer can hold a text.


async def test_a_key_that_lium_repeats_is_in_no_result(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    row = {
        "id": "0b0d2f14-6e35-4c19-8f7a-2a91c3d4e5f6",
        "name": f"name {KEY}",
        "public_key": f"ssh-ed25519 AAAA {KEY}",
    }
    lium = Wire()
    lium.on("*", "**", answering(200, [row]))
    async with agent_on(sandbox, transport=lium, api_key=KEY) as agent:
        result = await agent.raw("list_ssh_keys")
    assert not result.is_error
    assert "name [redacted]" in text_of(result)
    assert json.loads(text_of(result)) == result.structured_content
    assert KEY not in result.model_dump_json() + caplog.text


async def test_a_key_that_lium_repeats_is_in_no_error(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    bodies: list[Any] = [
        {"detail": f"bad key {KEY}"},
        {"error": {"code": KEY, "message": KEY, "hint": KEY, "request_id": KEY}},
        {"detail": [{"loc": ["header", KEY], "msg": KEY}]},
        {KEY: KEY},
        f"X-API-KEY: {KEY}".encode(),
    ]
    lium = Wire()
    headers = {"X-Request-Id": f"{KEY}\t<b>", "Location": f"/{KEY}"}
    async with agent_on(sandbox, transport=lium, api_key=KEY) as agent:
        for status in (200, 302, 400, 401, 402, 403, 404, 409, 422, 429, 500):
            for body in bodies:
                lium.on("*", "**", answering(status, body, **headers))
                for tool, arguments in (("list_pods", {}), ("delete_backup", {"backup_id": "b"})):
                    result = await agent.raw(tool, **arguments)
                    assert result.is_error or status == 200, tool
                    assert KEY not in result.model_dump_json()
    assert KEY not in caplog.text


# One record for each call.


async def test_each_call_leaves_one_line_with_outcome_time_and_request_id_but_no_argument(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lium_mcp")
    secret = "argument-that-nobody-logs"
    async with agent_on(sandbox) as agent:
        await agent.call("list_pods")
        await agent.refused("get_pod", pod=secret)
        await agent.refused("get_pod", pod=secret, unknown=secret)
        sandbox.add_fault("error", status=500, match={"path": "/users/me"}, times=None)
        failure = await agent.refused("get_balance")
        with pytest.raises(Exception, match="no tool of that name"):
            await agent.raw(secret)
    lines = [LINE.fullmatch(record.getMessage()) for record in caplog.records if record.name.startswith("lium_mcp")]
    assert all(lines)
    assert [line.groups() for line in lines if line] == [
        ("list_pods", "ok", "None"),
        ("get_pod", "pod_not_found", "None"),
        ("get_pod", "invalid_argument", "None"),
        ("get_balance", "lium_failed", f"'{failure.request_id}'"),
        ("?", "unknown_tool", "None"),
    ]
    assert secret not in caplog.text


@pytest.mark.parametrize("mode", MODES)
async def test_a_defect_of_ours_is_an_internal_error_and_its_cause_is_in_the_log_only(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, mode: Mode
) -> None:
    # What no HTTP library raises, nobody expects.
    lium = Wire()
    lium.on("*", "**", failing(ZeroDivisionError("a text that stays in the log")))
    async with agent_on(sandbox, mode=mode, transport=lium) as agent:
        failure = await agent.refused("list_pods")
        assert failure.code == "internal_error"
        assert "not known" in failure.text
        assert "stays in the log" not in failure.text
        lium.on("*", "**", answering(200, []))
        assert (await agent.call("list_pods"))["total"] == 0
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "tool=list_pods outcome=internal_error" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("mode", MODES)
async def test_an_unknown_tool_is_a_protocol_error(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        with pytest.raises(Exception, match="There is no tool of that name") as caught:
            await agent.raw("rent_pods")
        assert getattr(caught.value, "code", None) == -32602
        await agent.call("list_pods")
