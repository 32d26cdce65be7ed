"""Sessions of older clients where there are several replicas: found by their ids, or not kept at all."""

import asyncio
import re
from collections.abc import Iterator
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
from tests.http_server import LEGACY_VERSION, MODERN_VERSION, WAYS, Served, calling, initialize, initialized, tool_call
from tests.proxies import CADDY, HAPROXY, NGINX, Proxy
from tests.replicas import client_of, replicas
from tests.serving.test_http import until

MINE = {"X-API-Key": API_KEY}
TRIES = 15
EVERY = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": LEGACY_VERSION} | MINE


@pytest.fixture
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(balance_usd=5000)
        yield simulated


async def test_a_session_names_its_replica_and_is_unknown_at_another(
    lium: Simulated, tmp_path: Path, shared_ledger: str
) -> None:
    call = tool_call("list_pods", {}, modern=False)
    with replicas(tmp_path, 2, shared_ledger, LIUM_BASE_URL=lium.base_url) as (one, other):
        async with httpx2.AsyncClient(headers=EVERY, timeout=60, trust_env=False) as http:
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
    lium: Simulated, tmp_path: Path, shared_ledger: str
) -> None:
    await staged(lium.playing, "remove_pod")
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_STATELESS": "true"}
    with replicas(tmp_path, 2, shared_ledger, **settings) as servers:
        async with httpx2.AsyncClient(headers=EVERY, timeout=60, trust_env=False) as http:
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
                assert "/sse" not in server.first_words
        assert [pod["status"] for pod in lium.state()["pods"]] == ["RUNNING"]
        lium.run_at(60)
        person = Person("yes")
        async with client_of(servers, person=person) as client:
            done = await client.call_tool("remove_pod", {"pod": "train"})
            assert not done.is_error, text_of(done)
        assert len(person.questions) == 1


async def said(http: httpx2.AsyncClient, server: Served, tool: str, arguments: dict[str, Any]) -> str:
    return (await http.post(f"{server.url}/mcp", json=tool_call(tool, arguments, modern=False))).text


@pytest.mark.external
@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY], ids=lambda proxy: proxy.program)
async def test_whose_request_dies_with_its_replica_is_told_so_in_json(
    lium: Simulated, tmp_path: Path, shared_ledger: str, proxy: Proxy
) -> None:
    lium.fault("slow", seconds=60, match={"method": "GET", "path": "/users/me"}, times=10)
    with (
        replicas(tmp_path, 2, shared_ledger, named=proxy.replicas, LIUM_BASE_URL=lium.base_url) as servers,
        proxy.before(servers, tmp_path / "proxy") as url,
    ):
        async with client_calling("get_balance") as http:
            calling_it = asyncio.create_task(http.post(f"{url}/mcp", json=without_progress("get_balance", {})))
            await until(lambda: lium.requests("GET", "/users/me"))
            for server in servers:
                server.process.kill()
                server.process.wait()
            answer = await calling_it
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/json")
    assert answer.json()["error"]["message"].startswith("No answer came: the server that had this request has ended.")


@pytest.mark.external
@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY], ids=lambda proxy: proxy.program)
async def test_who_calls_while_a_replica_is_dead_is_answered_what_he_asked(
    lium: Simulated, tmp_path: Path, shared_ledger: str, proxy: Proxy
) -> None:
    async def asks(http: httpx2.AsyncClient, url: str, caller: int) -> None:
        for number in range(6):
            name = f"pod-{caller}-{number}"
            answer = await http.post(f"{url}/mcp", json=tool_call("get_pod", {"pod": name}, modern=True))
            assert answer.status_code == 200, answer.text
            assert set(re.findall(r"pod-\d-\d", answer.text)) == {name}, answer.text

    with (
        replicas(tmp_path, 2, shared_ledger, named=proxy.replicas, LIUM_BASE_URL=lium.base_url) as servers,
        proxy.before(servers, tmp_path / "proxy") as url,
    ):
        servers[0].process.kill()
        servers[0].process.wait()
        # What a proxy sends a second time it may have kept where another's body is by then, of the same length.
        async with client_calling("get_pod") as http:
            await asyncio.gather(*(asks(http, url, caller) for caller in range(8)))


@pytest.mark.external
@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY], ids=lambda proxy: proxy.program)
async def test_a_session_of_a_dead_replica_is_unknown_behind_a_proxy(
    lium: Simulated, tmp_path: Path, shared_ledger: str, proxy: Proxy
) -> None:
    with (
        replicas(tmp_path, 2, shared_ledger, named=proxy.replicas, LIUM_BASE_URL=lium.base_url) as servers,
        proxy.before(servers, tmp_path / "proxy") as url,
    ):
        async with httpx2.AsyncClient(headers=EVERY, timeout=60, trust_env=False) as http:
            opening = await http.post(f"{url}/mcp", json=initialize())
            session = {"Mcp-Session-Id": opening.headers["mcp-session-id"]}
            [its_own] = [server for server in servers if session["Mcp-Session-Id"].startswith(name_of(server))]
            its_own.process.kill()
            its_own.process.wait()
            call = tool_call("list_pods", {}, modern=False)
            answers = [await http.post(f"{url}/mcp", json=call, headers=session) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert "Begin a new session with initialize" in answers[0].json()["error"]["message"]


def name_of(server: Served) -> str:
    """The name of a replica, which its home has too."""
    return f"{server.log.parent.name}."


@pytest.mark.external
@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY], ids=lambda proxy: proxy.program)
async def test_who_leaves_ends_his_call_behind_a_proxy(
    lium: Simulated, tmp_path: Path, shared_ledger: str, proxy: Proxy
) -> None:
    waiting = without_progress("list_gpus", {"max_usd_per_gpu_hour": 0.001, "wait_seconds": 60})
    with (
        replicas(tmp_path, 2, shared_ledger, named=proxy.replicas, LIUM_BASE_URL=lium.base_url) as servers,
        proxy.before(servers, tmp_path / "proxy") as url,
    ):
        async with client_calling("list_gpus") as http:
            leaving = asyncio.create_task(http.post(f"{url}/mcp", json=waiting))
            await until(lambda: lium.requests("GET", "/executors"))
            leaving.cancel()
        # A proxy that does not tell of it has the server notice when it next has something to say, after half a minute.
        async with asyncio.timeout(20):
            await until(lambda: any("tool=list_gpus outcome=cancelled" in server.stderr() for server in servers))


def client_calling(tool: str) -> httpx2.AsyncClient:
    """A client of the current protocol that calls one tool."""
    headers = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": tool}
    return httpx2.AsyncClient(headers=EVERY | headers, timeout=60, trust_env=False)


def without_progress(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call that wants no progress, so that nothing of its answer comes before all of it."""
    message = tool_call(tool, arguments, modern=True)
    del message["params"]["_meta"]["progressToken"]
    return message


@pytest.mark.external
@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY], ids=lambda proxy: proxy.program)
async def test_the_rule_of_a_proxy_leads_each_session_to_its_replica(
    lium: Simulated, tmp_path: Path, shared_ledger: str, proxy: Proxy
) -> None:
    await staged(lium.playing, "reboot_pod")
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_TRUSTED_PROXY": "127.0.0.1"}
    with (
        replicas(tmp_path, 2, shared_ledger, named=proxy.replicas, **settings) as servers,
        proxy.before(servers, tmp_path / "proxy") as url,
    ):
        opened: set[str] = set()
        both = {f"{proxy.replicas}-1", f"{proxy.replicas}-2"}
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
            async with httpx2.AsyncClient(headers=EVERY, timeout=60, trust_env=False) as http:
                for _ in range(TRIES):
                    # One that is shared out by lot may meet the same replica again and again.
                    if opened == both:
                        break
                    opening = await http.post(f"{url}/mcp", json=initialize())
                    opened.add(opening.headers["mcp-session-id"].partition(".")[0])
        assert opened == both, "sessions are shared out"
        for way in WAYS:
            for _ in range(3):
                async with calling(url, way, MINE) as caller:
                    assert (await caller.call("list_pods"))["total"] == 1
        for server in servers:
            server.process.kill()
            server.process.wait()
            for way in WAYS[:2] if server is servers[0] else ():
                for _ in range(3):
                    async with calling(url, way, MINE) as caller:
                        assert (await caller.call("list_pods"))["total"] == 1
        async with httpx2.AsyncClient(headers=MINE, timeout=60, trust_env=False) as http:
            assert (await http.get(f"{url}/mcp")).status_code in (502, 503)
    assert API_KEY not in proxy.log(tmp_path / "proxy")
