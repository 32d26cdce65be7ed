"""What Prometheus reads of a server over HTTP: what it did, and nothing of whom it did it for."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lium_mcp.sandbox import API_KEY
from lium_mcp.tools.catalog import TOOLSETS
from tests.compat.simulated import Simulated
from tests.http_server import MODERN_VERSION, WAYS, Served, Way, calling, serving, tool_call, variables
from tests.serving.test_http import RENT, RENT_REQUEST, serve_and_fail, until

HEADERS = {"X-API-Key": API_KEY}
POD = "6b1f2c3d-0000-4000-8000-000000000001"
TOOLS = {spec.name for toolset in TOOLSETS for spec in toolset.specs} | {"?"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def counted(lium: Simulated, tmp_path: Path) -> Iterator[Served]:
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_API_KEY": API_KEY, "LIUM_MCP_METRICS_PORT": "0"}
    with serving(tmp_path, **settings) as served:
        yield served


def address(served: Served) -> str:
    found = re.search(r"Serving (http://\S+/metrics)", served.says("/metrics"))
    assert found
    return found[1]


def read(served: Served, **headers: str) -> Samples:
    answer = httpx2.get(address(served), headers=headers, trust_env=False)
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(item.name, frozenset(item.labels.items())): item.value for family in families for item in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


@pytest.mark.parametrize("way", WAYS)
async def test_calls_requests_and_rents_are_counted(counted: Served, lium: Simulated, way: Way) -> None:
    async with calling(counted.url, way) as caller:
        await caller.call("list_pods")
        assert (await caller.refused("get_pod", pod=POD, wait_seconds=0))[0] == "pod_not_found"
        rented = await caller.call("rent_pod", **RENT | {"wait_seconds": 0})
        await caller.call("get_pod", pod=rented["pod_id"], wait_seconds=0)
        during = read(counted)
    assert value(during, "lium_mcp_calls_total", tool="list_pods", outcome="ok") == 1
    assert value(during, "lium_mcp_calls_total", tool="get_pod", outcome="pod_not_found") == 1
    assert value(during, "lium_mcp_call_seconds_count", tool="get_pod") == 2
    assert value(during, "lium_mcp_rents_total", order="spec", outcome="rented") == 1
    assert value(during, "lium_mcp_upstream_requests_total", route="GET /pods/{pod_id}", outcome="200") >= 1
    assert value(during, "lium_mcp_upstream_requests_total", route="GET /pods/{pod_id}", outcome="404") >= 1
    assert value(during, "lium_mcp_upstream_requests_total", route="POST /executors/rent-by-spec", outcome="200") >= 1
    assert value(during, "lium_mcp_ledger_transactions_total", access="write", outcome="ok") >= 2
    assert value(during, "lium_mcp_ledger_transaction_seconds_count", access="write") >= 2
    assert value(during, "lium_mcp_open_sessions") == (way != "modern")
    assert value(during, "lium_mcp_open_connections") >= (way != "modern")
    assert value(during, "lium_mcp_in_flight", kind="call") == 0
    assert value(during, "process_resident_memory_bytes") > 0


async def test_what_goes_on_now_and_what_was_cancelled_is_seen(counted: Served, lium: Simulated) -> None:
    lium.fault("slow", seconds=60, match={"method": "GET", "path": "/users/me"}, times=10)
    async with httpx2.AsyncClient(trust_env=False) as http:
        headers = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": "get_balance"}
        body = tool_call("get_balance", {}, modern=True)
        calling = asyncio.create_task(http.post(f"{counted.url}/mcp", json=body, headers=headers))
        await until(lambda: lium.requests("GET", "/users/me"))
        assert value(read(counted), "lium_mcp_in_flight", kind="call") == 1
        assert value(read(counted), "lium_mcp_in_flight", kind="request") >= 1
        calling.cancel()
    await until(lambda: value(read(counted), "lium_mcp_in_flight", kind="call") == 0)
    ended = read(counted)
    assert value(ended, "lium_mcp_calls_total", tool="get_balance", outcome="cancelled") == 1
    assert value(ended, "lium_mcp_upstream_requests_total", route="GET /users/me", outcome="cancelled") == 1


async def test_requests_that_wait_for_their_turn_are_told_from_those_that_lium_has(
    counted: Served, lium: Simulated
) -> None:
    lium.fault("slow", seconds=60, match={"method": "GET", "path": "/pods/*"}, times=100)
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        headers = HEADERS | {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": "get_pod"}
        bodies = [
            tool_call("get_pod", {"pod": f"{POD[:-2]}{number}", "wait_seconds": 0}, modern=True)
            for number in range(10, 50)
        ]
        calls = [asyncio.create_task(http.post(f"{counted.url}/mcp", json=body, headers=headers)) for body in bodies]
        await until(lambda: value(read(counted), "lium_mcp_in_flight", kind="wait") >= 10)
        during = read(counted)
        waiting = value(during, "lium_mcp_in_flight", kind="wait")
        under_way = value(during, "lium_mcp_in_flight", kind="request") - waiting
        assert 20 <= under_way <= 30, "a key alone has a quarter of the places"
        for call in calls:
            call.cancel()
    await until(lambda: value(read(counted), "lium_mcp_in_flight", kind="wait") == 0)
    ended = read(counted)
    assert sum(number for (name, _), number in ended.items() if name == "lium_mcp_upstream_waits_total") >= 10
    assert not any(name.endswith("_created") for name, _ in ended)


async def test_labels_are_from_short_lists_whatever_callers_and_lium_say(counted: Served, lium: Simulated) -> None:
    lium.fault("error", status=500, match=RENT_REQUEST, times=1)
    async with calling(counted.url, "legacy", {"User-Agent": "Hdr9planted"}) as caller:
        for tool in ("Tool9planted", "sk_Key9planted"):
            with pytest.raises(Exception, match="no tool of that name"):
                await caller.raw(tool, pod="Arg9planted")
        await caller.raw("get_pod", pod="Arg9planted")
        await caller.raw("remove_pod", pod=POD)
        await caller.raw("rent_pod", **RENT | {"wait_seconds": 0})
        samples = read(counted)
    text = repr(samples)
    assert "9planted" not in text
    assert API_KEY not in text
    assert POD not in text
    assert {dict(labels)["tool"] for name, labels in samples if name == "lium_mcp_calls_total"} <= TOOLS
    routes = {dict(labels)["route"] for name, labels in samples if name == "lium_mcp_upstream_requests_total"}
    assert all(re.fullmatch(r"[A-Z]+ (/[a-z{][a-z_{}-]*)+/?", route) for route in routes), routes


def test_metrics_are_at_a_port_of_their_own_and_under_no_name_of_a_page(counted: Served) -> None:
    assert httpx2.get(f"{counted.url}/metrics", trust_env=False).status_code == 404
    assert httpx2.get(address(counted), headers={"Host": "rebound.example.com"}, trust_env=False).status_code == 421
    for host in ("10.1.2.3:9464", "[::1]:9464", "localhost", "lium-mcp:9464"):
        assert read(counted, Host=host)
    assert counted.stop() == 0
    assert "Traceback" not in counted.stderr()


@pytest.mark.parametrize("options", [(), ("--transport", "http", "--port", "0")])
def test_nothing_is_imported_for_what_is_not_wanted(tmp_path: Path, options: tuple[str, ...]) -> None:
    environment = variables(tmp_path, PYTHONPROFILEIMPORTTIME="1") | {"LIUM_MCP_SANDBOX": "true"}
    command = [sys.executable, "-m", "lium_mcp", "serve", *options]
    call = json.dumps(tool_call("list_pods", {}, modern=True)) + "\n"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        assert process.stderr is not None
        said = []
        if options:
            for line in process.stderr:
                said.append(line)
                if "Serving http" in line:
                    break
            process.terminate()
        said += process.communicate(None if options else call)[1].splitlines()
    imported = {line.rsplit("|", 1)[-1].strip() for line in said if line.startswith("import time:")}
    assert "lium_mcp.server" in imported
    assert not {name for name in imported if name.startswith(("prometheus_client", "opentelemetry.sdk"))}
    over_http = {"lium_mcp.serving.http", "lium_mcp.serving.traced", "lium_mcp.serving.binding"}
    assert over_http <= imported if options else not over_http & imported


def test_all_that_keeps_a_server_from_being_reached_is_said_at_once(tmp_path: Path) -> None:
    said = serve_and_fail(
        tmp_path,
        *("--transport", "http", "--host", "0.0.0.0", "--port", "9464", "--metrics-port", "9464"),  # noqa: S104 - refused
        LIUM_MCP_STATE_URL="mysql://x",
        LIUM_MCP_SERVER_TOKEN="short",
    )
    for name in ("--host", "--metrics-port", "LIUM_MCP_STATE_URL", "LIUM_MCP_SERVER_TOKEN"):
        assert name in said, said


def test_what_depends_on_a_setting_that_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    said = serve_and_fail(tmp_path, "--transport", "http", "--port", "many", LIUM_MCP_ALLOWED_HOST="a b")
    assert "--port" in said
    assert "LIUM_MCP_ALLOWED_HOST" in said
    assert "cannot listen" not in said
