"""Whether a server over HTTP takes calls: as a probe asks it, and as callers find it once it is told to stop."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from lium_mcp.sandbox import API_KEY
from tests.compat.simulated import Simulated
from tests.harness import PUBLIC_KEY
from tests.http_server import WAYS, Served, Wire, calling, initialize, serving, tool_call
from tests.ports import free_port
from tests.postgres import Postgres
from tests.serving.test_http import RENT, RENT_REQUEST, until
from tests.serving.test_metrics import read, value

HEADERS = {"X-API-Key": API_KEY}
KUBELET = {"Host": "10.1.2.3:8000"}
# Longer than a test takes, since what is held is let go.
HELD_SECONDS = 60
PATIENCE_SECONDS = 30


@pytest.fixture
def draining(lium: Simulated, tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_API_KEY=API_KEY, LIUM_MCP_DRAIN_SECONDS="100") as served:
        yield served


def probe(url: str, path: str = "/readyz") -> httpx2.Response:
    return httpx2.get(f"{url}{path}", headers=KUBELET, trust_env=False, timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("path", ["/readyz", "/lium/readyz"])
def test_a_server_that_takes_calls_is_ready_to_whoever_asks(lium: Simulated, tmp_path: Path, path: str) -> None:
    with serving(tmp_path, "--path-prefix", "/lium", LIUM_BASE_URL=lium.base_url) as served:
        answer = probe(served.url, path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    assert lium.state()["requests"] == []


async def test_a_rent_under_way_is_answered_while_new_calls_are_sent_elsewhere(
    draining: Served, lium: Simulated
) -> None:
    lium.fault("slow", seconds=HELD_SECONDS, stage="answer", match=RENT_REQUEST)
    async with calling(draining.url, "modern") as caller:
        renting = asyncio.create_task(caller.call("rent_pod", **RENT))
        await until(lambda: lium.state()["rents"])
        draining.process.terminate()
        await until(lambda: probe(draining.url).status_code == 503)
        assert probe(draining.url).json() == {"status": "draining"}
        assert probe(draining.url, "/healthz").status_code == 200
        refused = httpx2.post(
            f"{draining.url}/mcp",
            json=tool_call("list_volumes", {}, modern=True),
            headers={"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28"},
            trust_env=False,
        )
        assert refused.status_code == 503
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        assert (refused.json()["id"], "send it again" in refused.json()["error"]["message"]) == (2, True)
        assert httpx2.get(f"{draining.url}/sse", trust_env=False).status_code == 503
        assert lium.requests("GET", "/volumes") == [], "the refused call reached Lium"
        lium.calm()
        rented = await renting
    [pod] = lium.state()["pods"]
    assert (rented["outcome"], rented["pod_id"]) == ("pending", pod["id"])
    assert draining.process.wait(timeout=PATIENCE_SECONDS) == 0
    assert "Traceback" not in draining.stderr()


async def test_who_still_comes_while_a_proxy_learns_of_the_end_is_served_until_a_second_signal(
    lium: Simulated, tmp_path: Path
) -> None:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_SHUTDOWN_DELAY_SECONDS="600") as leaving:
        leaving.process.terminate()
        await until(lambda: probe(leaving.url).status_code == 503)
        assert probe(leaving.url).json() == {"status": "draining"}
        async with calling(leaving.url, "modern", HEADERS) as caller:
            await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        for way in WAYS:
            async with calling(leaving.url, way, HEADERS) as caller:
                assert (await caller.call("rent_pod", **RENT | {"name": way, "wait_seconds": 0}))[
                    "outcome"
                ] == "pending"
        leaving.process.terminate()
        assert leaving.process.wait(timeout=PATIENCE_SECONDS) == 0
    assert len(lium.state()["rents"]) == len(WAYS)


@pytest.mark.parametrize("way", ["legacy", "sse"])
async def test_in_a_session_only_what_was_begun_goes_on(draining: Served, lium: Simulated, way: str) -> None:
    lium.fault("slow", seconds=HELD_SECONDS, stage="answer", match=RENT_REQUEST)
    wire = Wire(draining.url)
    async with wire.calling(way, "rent_pod", RENT) as lines:  # type: ignore[arg-type]
        await until(lambda: lium.state()["rents"])
        draining.process.terminate()
        await until(lambda: probe(draining.url).status_code == 503)
        assert await wire.say({**tool_call("list_pods", {}, modern=False), "id": 9}) == 503
        assert await wire.say(initialize()) == 503
        assert await wire.say({"jsonrpc": "2.0", "id": 77, "result": {}}) == 202, "an answer to a question of ours"
        lium.calm()
        [answer] = [line async for line in lines if '"structuredContent"' in line]
    result = json.loads(answer.removeprefix("data: "))["result"]["structuredContent"]
    assert result["pod_id"] == lium.state()["pods"][0]["id"]
    assert draining.process.wait(timeout=PATIENCE_SECONDS) == 0


def test_without_the_database_that_replicas_share_it_is_not_ready_and_lives(lium: Simulated, tmp_path: Path) -> None:
    url = f"postgresql://somebody:hidden-password@127.0.0.1:{free_port()}/x"
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_STATE_URL=url) as served:
        answer = probe(served.url)
        assert (answer.status_code, answer.json()) == (503, {"status": "ledger_unreachable"})
        assert probe(served.url, "/healthz").status_code == 200
        assert served.stop() == 0
    assert "not ready" in served.stderr()
    assert "hidden-password" not in served.stderr()
    assert lium.state()["requests"] == []


async def test_that_the_database_does_not_answer_is_in_the_log_before_anybody_asks(
    lium: Simulated, tmp_path: Path
) -> None:
    url = f"postgresql://somebody:hidden-password@127.0.0.1:{free_port()}/x"
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_STATE_URL=url) as served:
        await until(lambda: "not ready" in served.stderr())
        assert served.stop() == 0


def test_a_database_that_hangs_holds_up_neither_the_probe_nor_the_end(lium: Simulated, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://somebody:x@127.0.0.1:{silent.getsockname()[1]}/x"
        with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_STATE_URL=url) as served:
            assert probe(served.url).json() == {"status": "ledger_unreachable"}
            assert served.stop() == 0


@pytest.mark.parametrize("tool", ["list_pods", "rent_pod"])
async def test_a_database_that_is_frozen_holds_up_neither_a_call_nor_the_end(
    lium: Simulated, postgres: Postgres, tmp_path: Path, tool: str
) -> None:
    arguments = RENT if tool == "rent_pod" else {}
    with (
        postgres.database() as url,
        serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_STATE_URL=url, LIUM_MCP_METRICS_PORT="0") as served,
    ):
        async with calling(served.url, "modern", HEADERS) as caller:
            await caller.call("list_pods")
            with postgres.frozen():
                running = asyncio.create_task(caller.refused(tool, **arguments))
                await until(lambda: value(read(served), "lium_mcp_in_flight", kind="transaction"))
                served.process.terminate()
                code, _ = await running
                assert code in ("server_stopping", "ledger_unavailable")
                assert await asyncio.to_thread(served.process.wait, PATIENCE_SECONDS) == 0
    assert "Traceback" not in served.stderr()
