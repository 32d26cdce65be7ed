"""The audit trail: each act that spends or destroys is in it with its outcome, and nothing of what it was about."""

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import API_KEY, OTHER_API_KEY
from tests.compat.simulated import Simulated
from tests.harness import PUBLIC_KEY, text_of
from tests.http_server import WAYS, Served, Way, calling, serving
from tests.orders import CHEAP, account_of_two, look_at_once, order, prices
from tests.orders import until as until_turned
from tests.processes import serving as stdio_serving
from tests.replicas import answer, client_of, put
from tests.servers import Servers
from tests.serving.test_http import OTHER_PUBLIC_KEY, RENT, serve_and_fail, until
from tests.serving.test_logs import called, initialize
from tests.wires import living

MINE, THEIRS = {"X-API-Key": API_KEY}, {"X-API-Key": OTHER_API_KEY}
NOW = RENT | {"wait_seconds": 0}
SECRET = "Env9planted"
POD = "6b1f2c3d-0000-4000-8000-000000000001"


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audited(lium: Simulated, tmp_path: Path, trail: Path) -> Iterator[Served]:
    with serving(tmp_path / "home", LIUM_BASE_URL=lium.base_url, LIUM_MCP_AUDIT_FILE=str(trail)) as served:
        yield served


def records(trail: Path, event: str | None = None, by: str | None = None) -> list[dict[str, Any]]:
    kept = [json.loads(line) for line in trail.read_text().splitlines()]
    return [one for one in kept if event in (None, one["event"]) and by in (None, one["by"])]


@pytest.mark.parametrize("way", WAYS)
async def test_a_rent_and_a_removal_are_recorded_from_beginning_to_end(
    audited: Served, lium: Simulated, trail: Path, way: Way
) -> None:
    async with calling(audited.url, way, MINE) as caller:
        await caller.call("add_ssh_key", name=SECRET, public_key=PUBLIC_KEY)
        rented = await caller.call("rent_pod", **NOW)
        pod_id = rented["pod_id"]
        lium.turn(minutes=5)
        await caller.call("remove_pod", pod=pod_id, wait_seconds=0)
        await caller.call("list_pods")
    renting, removing = records(trail, by="rent_pod"), records(trail, by="remove_pod")
    assert [one["event"] for one in renting] == ["began", "sent", "rented", "ended"]
    assert len({one["act"] for one in renting}) == 1
    assert len({one["key_tag"] for one in renting + removing}) == 1
    sent, new, ended = renting[1:]
    assert (sent["route"], sent["outcome"]) == ("POST /executors/rent-by-spec", "200")
    assert new["ids"] == {"pod_id": [pod_id]}
    assert (ended["outcome"], ended["confirmed"], ended["ids"]["pod_id"]) == ("ok", False, [pod_id])
    assert ended["figures"]["price_per_hour_usd"] == [rented["pod"]["price_per_hour_usd"]]
    assert [one["event"] for one in removing] == ["began", "sent", "ended"]
    assert removing[0]["ids"] == {"pod": [pod_id]}
    assert (removing[1]["route"], removing[1]["ids"]) == ("DELETE /pods/{pod_id}", {"pod_id": [pod_id]})
    assert {one["account"] for one in [new, ended, *removing]} == {new["account"]}
    assert not records(trail, by="list_pods"), "what only reads is not recorded"


async def test_accounts_are_told_apart_and_their_keys_are_not_shown(
    audited: Served, lium: Simulated, trail: Path
) -> None:
    for headers in (MINE, THEIRS):
        async with calling(audited.url, "modern", headers) as caller:
            await caller.call(
                "add_ssh_key", name=SECRET, public_key=PUBLIC_KEY if headers is MINE else OTHER_PUBLIC_KEY
            )
            await caller.raw("rent_pod", **NOW)
            await caller.raw(
                "create_template", name="t", image="x/y:1", environment=[f"TOKEN={SECRET}"], wait_seconds=0
            )
            await caller.raw("remove_pod", pod=SECRET)
    assert audited.stop() == 0
    whole = json.dumps(records(trail)) + audited.stderr()
    for text in (API_KEY, OTHER_API_KEY, SECRET, NOW["name"], PUBLIC_KEY[-40:]):
        assert str(text) not in whole
    ended = records(trail, "ended", "rent_pod")
    assert len({one["key_tag"] for one in ended}) == 2
    refused = records(trail, "ended", "remove_pod")
    assert {one["outcome"] for one in refused} == {"pod_not_found"}
    assert stat.S_IMODE(os.stat(trail).st_mode) == 0o600  # noqa: PTH116 - in an async test


async def test_a_lost_answer_and_a_cancelled_call_are_not_recorded_as_done(
    audited: Served, lium: Simulated, trail: Path
) -> None:
    async with calling(audited.url, "modern", MINE) as caller:
        await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        rented = await caller.call("rent_pod", **NOW)
        lium.turn(minutes=5)
        lium.fault("slow", seconds=60, match={"method": "POST", "path": f"/pods/{rented['pod_id']}/reboot"})
        rebooting = asyncio.create_task(caller.raw("reboot_pod", pod=rented["pod_id"]))
        await until(lambda: lium.requests("POST", f"/pods/{rented['pod_id']}/reboot"))
        rebooting.cancel()
        await until(lambda: records(trail, "ended", "reboot_pod"))
        lium.fault("lost_answer", match={"method": "DELETE", "path": f"/pods/{rented['pod_id']}"}, times=9)
        await caller.raw("remove_pod", pod=rented["pod_id"], wait_seconds=0)
    assert [one["outcome"] for one in records(trail, by="reboot_pod")[1:]] == ["unknown", "cancelled"]
    assert {one["outcome"] for one in records(trail, "sent", "remove_pod")} == {"unknown"}


async def test_a_question_is_no_record_and_its_answer_is_one(audited: Served, lium: Simulated, trail: Path) -> None:
    async with client_of([audited]) as client:
        await client.call_tool("add_ssh_key", {"name": "laptop", "public_key": PUBLIC_KEY})
        asked = await put(client, "rent_pod", NOW)
        assert not records(trail, by="rent_pod"), "nothing was sent"
        assert not (await answer(client, asked, "rent_pod", NOW)).is_error
        renting = records(trail, by="rent_pod")
        assert [one["event"] for one in renting] == ["began", "sent", "rented", "ended"]
        assert renting[-1]["confirmed"]
        assert "code: answer_used" in text_of(await answer(client, asked, "rent_pod", NOW))
        assert records(trail, by="rent_pod") == renting
        refused = await client.call_tool("remove_pod", {"pod": NOW["name"]})  # the person says no
        assert "code: not_confirmed" in text_of(refused)
    assert [(one["event"], one.get("outcome")) for one in records(trail, by="remove_pod")] == [
        ("began", None), ("ended", "not_confirmed")
    ]  # fmt: skip


async def test_what_is_done_between_calls_is_recorded_by_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look_at_once(monkeypatch)
    monkeypatch.setattr("lium_mcp.auditing._kept", True)
    caplog.set_level("INFO", "lium_mcp.audit")
    sandbox = account_of_two()
    at = Servers(sandbox, f"sqlite:///{tmp_path}/ledger.db", {})
    async with at() as agent:
        await order(agent)
        prices(sandbox, CHEAP)
        await until_turned(lambda: living(sandbox), sandbox)
        await until_turned(lambda: living(sandbox)[0]["status"] == "RUNNING", sandbox)
        [pod] = living(sandbox)
    kept = [record.fields for record in caplog.records if record.name == "lium_mcp.audit"]  # type: ignore[attr-defined]
    of_order = [one for one in kept if one["by"] == "standing_order"]
    assert [one["event"] for one in of_order][:2] == ["began", "sent"]
    assert len({one["task_id"] for one in of_order}) == 1
    [rented] = [one for one in of_order if one["event"] == "rented"]
    assert rented["ids"] == {"pod_id": [pod["id"]]}
    assert rented["figures"] == {"price_per_hour_usd": pytest.approx(pod["price"]), "hours": 2}
    assert rented["account"]


async def test_a_file_that_cannot_be_written_fails_no_call_and_loses_no_record(
    audited: Served, lium: Simulated, trail: Path
) -> None:
    async with calling(audited.url, "modern", MINE) as caller:
        await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        os.rename(trail, f"{trail}.1")  # noqa: PTH104 - in an async test; log rotation does the same
        await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        assert records(trail, "ended")
        os.unlink(trail)  # noqa: PTH108 - as above
        os.mkdir(trail)  # noqa: PTH102 - as above
        await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
    assert audited.stop() == 0
    log = audited.stderr()
    assert "ERROR lium_mcp.serving.audit_file LIUM_MCP_AUDIT_FILE cannot be written" in log
    assert 'event="ended"' in log
    assert "Traceback" not in log


async def test_without_a_file_the_trail_is_in_the_log_at_every_level() -> None:
    settings = {"LIUM_MCP_LOG_LEVEL": "ERROR", "LIUM_MCP_LOG_FORMAT": "json", "LIUM_MCP_TOOLSETS": "extras"}
    async with stdio_serving("--sandbox", **settings) as server:
        await server.ask(initialize())
        await server.ask(called(1, "add_ssh_key", {"name": "laptop", "public_key": PUBLIC_KEY}))
        assert await server.end() == 0
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["began", "sent", "ended"]
    assert {line["logger"] for line in lines} == {"lium_mcp.audit"}
    assert len({line["request"] for line in lines}) == 1


@pytest.mark.parametrize("place", ["", "no/such/folder/audit.jsonl"])
def test_a_place_where_no_trail_can_be_stops_the_start(tmp_path: Path, place: str) -> None:
    said = serve_and_fail(
        tmp_path / "home", "--transport", "http", "--port", "0", "--audit-file", str(tmp_path / place)
    )
    assert "--audit-file:" in said
    assert "cannot be written" in said
    assert not os.path.lexists(tmp_path / "no")


async def test_every_tool_that_changes_anything_is_recorded_by_its_declaration(
    lium: Simulated, tmp_path: Path, trail: Path
) -> None:
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_API_KEY": API_KEY, "LIUM_MCP_AUDIT_FILE": str(trail)}
    begun: set[str] = set()
    unread: set[str] = set()
    with serving(tmp_path / "home", **settings) as served:
        async with calling(served.url, "modern") as caller:
            tools = (await caller.client.list_tools()).tools
            for tool in tools:
                assert tool.annotations is not None
                result = await caller.raw(tool.name, **any_arguments(tool.input_schema))
                code = (result.meta or {}).get("lium-mcp/error", {}).get("code")
                (unread if code == "invalid_argument" or tool.annotations.read_only_hint else begun).add(tool.name)
    assert {one["by"] for one in records(trail, "began")} - unread == begun
    assert {one["by"] for one in records(trail, "ended")} - unread == begun
    assert len(begun) > 20


def any_arguments(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments that a tool reads: an id for each text that it needs."""
    kinds = {"string": POD, "integer": 1, "number": 1, "boolean": True, "array": [POD]}
    needed = {name: schema["properties"][name] for name in schema.get("required", ())}
    given = {name: part["enum"][0] if "enum" in part else kinds[part["type"]] for name, part in needed.items()}
    return given | ({"wait_seconds": 0} if "wait_seconds" in schema["properties"] else {})
