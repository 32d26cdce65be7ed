"""Sessions of older clients where there are several replicas: found by their ids, or not kept at all."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from lium_mcp.sandbox import API_KEY
from tests.compat.simulated import Simulated, simulating
from tests.guard.test_confirm import staged
from tests.harness import Person, text_of
from tests.http_server import LEGACY_VERSION, WAYS, Served, calling, initialize, initialized, serving, tool_call
from tests.replicas import STATE_KEY, client_of

MINE = {"X-API-Key": API_KEY}
EVERY = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": LEGACY_VERSION} | MINE
HTTP_PAGE = Path(__file__).parents[2] / "docs" / "http.md"


@pytest.fixture
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(balance_usd=5000)
        yield simulated


@contextmanager
def two(home: Path, lium: Simulated, **settings: str) -> Iterator[list[Served]]:
    shared = {
        "LIUM_BASE_URL": lium.base_url,
        "LIUM_MCP_STATE_URL": f"sqlite:///{home / 'shared.db'}",
        "LIUM_MCP_STATE_KEYS": STATE_KEY,
    } | settings
    with (
        serving(home / "one", **shared, LIUM_MCP_REPLICA="gpu-1") as one,
        serving(home / "two", **shared, LIUM_MCP_REPLICA="gpu-2") as other,
    ):
        yield [one, other]


async def test_a_session_names_its_replica_and_is_unknown_at_another(lium: Simulated, tmp_path: Path) -> None:
    call = tool_call("list_pods", {}, modern=False)
    with two(tmp_path, lium) as (one, other):
        async with httpx2.AsyncClient(headers=EVERY, timeout=10, trust_env=False) as http:
            opening = await http.post(f"{one.url}/mcp", json=initialize())
            session = {"Mcp-Session-Id": opening.headers["mcp-session-id"]}
            assert re.fullmatch(r"gpu-1\.[0-9a-f]{32}", session["Mcp-Session-Id"])
            assert (await http.post(f"{one.url}/mcp", json=initialized(), headers=session)).status_code == 202
            assert '"total":0' in (await http.post(f"{one.url}/mcp", json=call, headers=session)).text
            bare = {"Mcp-Session-Id": session["Mcp-Session-Id"].removeprefix("gpu-1.")}
            for url, ids in ((other.url, session), (one.url, bare)):
                refused = await http.post(f"{url}/mcp", json=call, headers=ids)
                assert refused.status_code == 404
                assert "Begin a new session with initialize" in refused.json()["error"]["message"]
            assert (await http.delete(f"{one.url}/mcp", headers=session)).status_code == 200
            assert (await http.post(f"{one.url}/mcp", json=call, headers=session)).status_code == 404
            async with http.stream("GET", f"{one.url}/sse") as stream:
                lines = stream.aiter_lines()
                place = ""
                async for line in lines:
                    if line.startswith("data: "):
                        place = line.removeprefix("data: ")
                        break
                assert place.startswith("/messages/gpu-1/?session_id=")
                assert (await http.post(other.url + place, json=initialize())).status_code == 404
                assert (await http.post(one.url + place, json=initialize())).status_code == 202


async def test_without_sessions_any_replica_serves_an_older_client_and_asks_nobody(
    lium: Simulated, tmp_path: Path
) -> None:
    await staged(lium.playing, "remove_pod")
    with two(tmp_path, lium, LIUM_MCP_STATELESS="true") as servers:
        async with httpx2.AsyncClient(headers=EVERY, timeout=10, trust_env=False) as http:
            opening = await http.post(f"{servers[0].url}/mcp", json=initialize(asks=True))
            assert opening.status_code == 200
            assert "mcp-session-id" not in opening.headers
            for server in servers:
                assert '"total":1' in await said(http, server, "list_pods", {})
                refused = await said(http, server, "remove_pod", {"pod": "train"})
                assert "confirmation_unavailable" in refused
                assert "keeps no sessions (LIUM_MCP_STATELESS)" in refused
                assert (await http.get(f"{server.url}/mcp")).status_code == 405
                gone = await http.get(f"{server.url}/sse")
                assert (gone.status_code, "LIUM_MCP_STATELESS" in gone.text) == (404, True)
        assert [pod["status"] for pod in lium.state()["pods"]] == ["RUNNING"]
        lium.run_at(60)
        person = Person("yes")
        async with client_of(servers, person=person) as client:
            done = await client.call_tool("remove_pod", {"pod": "train"})
            assert not done.is_error, text_of(done)
        assert len(person.questions) == 1


async def said(http: httpx2.AsyncClient, server: Served, tool: str, arguments: dict[str, Any]) -> str:
    return (await http.post(f"{server.url}/mcp", json=tool_call(tool, arguments, modern=False))).text


@contextmanager
def nginx(home: Path, servers: list[Served]) -> Iterator[str]:
    """Run nginx with the rule of the page, at a free port, before these servers."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert program is not None, "nginx is missing: apt-get install nginx-light"
    [rule] = re.findall(r"^```nginx\n(.*?)^```", HTTP_PAGE.read_text(), re.DOTALL | re.MULTILINE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for number, server in enumerate(servers, 1):
        rule = rule.replace(f"10.0.0.{number}:8000", server.url.removeprefix("http://"))
    assert "10.0.0." not in rule
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n".join(f"{kind}_temp_path {home / kind};" for kind in kinds)
    config = home / "nginx.conf"
    config.write_text(
        f"daemon off; pid {home / 'pid'}; error_log {home / 'error.log'}; events {{}}\n"
        f"http {{ access_log off; {folders}\n{rule.replace('listen 80', f'listen 127.0.0.1:{port}')} }}\n"
    )
    with subprocess.Popen([program, "-p", str(home), "-c", str(config)]) as process:
        try:
            deadline = time.monotonic() + 10
            while not _is_open(port):
                assert process.poll() is None, (home / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _is_open(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.external
async def test_the_rule_of_the_page_leads_each_session_to_its_replica(lium: Simulated, tmp_path: Path) -> None:
    await staged(lium.playing, "reboot_pod")
    proxy = tmp_path / "proxy"
    proxy.mkdir()
    with two(tmp_path, lium) as servers, nginx(proxy, servers) as url:
        opened = set()
        for _ in range(2):
            person = Person("yes")
            async with (
                httpx2.AsyncClient(headers=MINE, timeout=60, trust_env=False) as http,
                Client(
                    streamable_http_client(f"{url}/mcp", http_client=http), mode="legacy", elicitation_callback=person
                ) as client,
            ):
                done = await client.call_tool("reboot_pod", {"pod": "train", "wait_seconds": 0})
                assert not done.is_error, text_of(done)
                lium.turn(minutes=5)
            assert len(person.questions) == 1
            async with httpx2.AsyncClient(headers=EVERY, timeout=10, trust_env=False) as http:
                for _ in servers:
                    opening = await http.post(f"{url}/mcp", json=initialize())
                    opened.add(opening.headers["mcp-session-id"].partition(".")[0])
        assert opened == {"gpu-1", "gpu-2"}, "sessions are shared out"
        for way in WAYS:
            for _ in range(3):
                async with calling(url, way, MINE) as caller:
                    assert (await caller.call("list_pods"))["total"] == 1
        servers[0].process.kill()
        servers[0].process.wait()
        for way in WAYS[:2]:
            for _ in range(3):
                async with calling(url, way, MINE) as caller:
                    assert (await caller.call("list_pods"))["total"] == 1
