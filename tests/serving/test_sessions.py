"""What callers over HTTP can make a server hold: attacked over real sockets, within bounds that a test can reach."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import API_KEY, OTHER_API_KEY
from lium_mcp.serving.sessions import SessionBounds, address_of
from tests.compat.simulated import Simulated, simulating
from tests.http_server import MODERN_VERSION, Served, calling, initialize, initialized, serving_within, tool_call
from tests.serving.test_metrics import read, value

EVERY_ANSWER = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
MINE = {"X-API-Key": API_KEY}
FEW: dict[str, float] = {"total": 6, "per_address": 4}
UNUSED_SECONDS = 2.0
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin()
        yield simulated


@pytest.fixture
def crowded(lium: Simulated, tmp_path: Path) -> Iterator[Served]:
    """A server with few sessions, which believes its one proxy about addresses."""
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_TRUSTED_PROXY": "127.0.0.1"}
    with serving_within(tmp_path, settings, sessions=FEW) as served:
        yield served


def client(served: Served, address: str = "192.0.2.1", **headers: str) -> httpx2.Client:
    every = EVERY_ANSWER | {"X-Forwarded-For": address} | headers
    return httpx2.Client(base_url=served.url, headers=every, timeout=PATIENCE_SECONDS, trust_env=False)


def open_session(http: httpx2.Client) -> httpx2.Response:
    return http.post("/mcp", json=initialize())


def test_the_bounds_are_as_documented() -> None:
    bounds = SessionBounds()
    assert (bounds.total, bounds.per_address) == (1000, 20)
    assert (bounds.unused_seconds, bounds.idle_seconds) == (300, 1800)
    assert (bounds.body_bytes, bounds.call_bytes) == (65_536, 1_048_576)


def test_one_address_takes_its_share_and_all_take_the_whole(crowded: Served) -> None:
    with (
        client(crowded, **MINE) as one,
        client(crowded, "192.0.2.2", **MINE) as other,
        client(crowded, "192.0.2.3", **MINE) as third,
    ):
        sessions = [open_session(one) for _ in range(4)]
        assert {answer.status_code for answer in sessions} == {200}
        for _ in range(50):
            refused = open_session(one)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "mcp-session-id" not in refused.headers
        assert [open_session(other).status_code for _ in range(3)] == [200, 200, 503], "six in all"
        assert open_session(third).status_code == 503
        # Those that are open are served, and so is the protocol that needs none.
        in_session = {"Mcp-Session-Id": sessions[0].headers["mcp-session-id"]}
        assert one.post("/mcp", json=initialized(), headers=in_session).status_code == 202
        assert call_modern(third).status_code == 200
        assert one.delete("/mcp", headers=in_session).status_code == 200
        assert open_session(third).status_code == 200, "one that ends makes room"
    once = "No more sessions are opened"
    assert crowded.says(once).count(once) == 1, "the log says a thing once"


def test_callers_that_show_nothing_lock_out_nobody_who_shows_a_key(crowded: Served) -> None:
    with client(crowded) as stranger, client(crowded, **MINE) as mine:
        assert [open_session(stranger).status_code for _ in range(4)] == [200, 200, 503, 503], "half of four"
        assert [open_session(mine).status_code for _ in range(3)] == [200, 200, 503]


def call_modern(http: httpx2.Client) -> httpx2.Response:
    headers = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": "list_gpus"}
    return http.post("/mcp", json=tool_call("list_gpus", {}, modern=True), headers=headers)


def test_sessions_of_sse_are_of_the_same_table(crowded: Served) -> None:
    with client(crowded, **MINE) as http, client(crowded, **MINE) as streamable, ExitStack() as streams:
        listening = [streams.enter_context(http.stream("GET", "/sse")) for _ in range(3)]
        assert [answer.status_code for answer in listening] == [200] * 3
        assert open_session(streamable).status_code == 200
        with http.stream("GET", "/sse") as refused:
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
        assert open_session(streamable).status_code == 503
        listening[0].close()
        until_status(streamable, 200)


def until_status(http: httpx2.Client, status: int) -> None:
    """The server learns of a lost connection when its socket says so."""
    until(lambda: open_session(http).status_code == status)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("junk", [b"{}", b"[", json.dumps(tool_call("list_gpus", {}, modern=False)).encode()])
def test_what_opens_no_session_takes_no_place(crowded: Served, junk: bytes) -> None:
    with client(crowded) as http:
        for _ in range(20):
            assert http.post("/mcp", content=junk).status_code == 400
        assert open_session(http).status_code == 200


@pytest.mark.parametrize("params", [{}, initialize()["params"] | {"protocolVersion": 5}], ids=["nothing", "number"])
def test_an_opening_that_is_refused_opens_nothing(crowded: Served, params: dict[str, Any]) -> None:
    with client(crowded, **MINE) as http:
        for _ in range(20):
            refused = http.post("/mcp", json=initialize() | {"params": params})
            assert '"error":{"code":-32602' in refused.text
            assert "mcp-session-id" not in refused.headers
        assert [open_session(http).status_code for _ in range(5)] == [200, 200, 200, 200, 503]


@pytest.mark.parametrize(
    ("method", "message", "accept", "status"),
    [
        ("POST", {"jsonrpc": "2.0", "id": "q", "method": "tools/list"}, "*/*", 400),
        ("POST", initialized(), "*/*", 400),
        ("POST", initialize(), "text/event-stream", 406),
        ("GET", None, "text/event-stream", 400),
        ("GET", initialize(), "text/event-stream", 400),
        ("DELETE", None, "*/*", 400),
        ("PUT", initialize(), "*/*", 405),
    ],
)
def test_who_is_refused_hears_of_no_session(
    crowded: Served, method: str, message: dict[str, Any] | None, accept: str, status: int
) -> None:
    with client(crowded, **MINE, Accept=accept) as http:
        refused = http.request(method, "/mcp", json=message)
        assert refused.status_code == status
        assert "mcp-session-id" not in refused.headers
        if "initialize opens a session" in refused.text:
            assert refused.json()["id"] == (message or {}).get("id")
        if status == 405:
            assert refused.headers["allow"] == "GET, POST, DELETE"
        assert [open_session_as_usual(http).status_code for _ in range(4)] == [200] * 4, "none takes a place"


def open_session_as_usual(http: httpx2.Client) -> httpx2.Response:
    return http.post("/mcp", json=initialize(), headers=EVERY_ANSWER)


def test_who_needs_no_session_is_served_where_there_is_no_more_room(crowded: Served) -> None:
    with client(crowded, **MINE) as http:
        assert [open_session(http).status_code for _ in range(5)] == [200, 200, 200, 200, 503]
        for message in (initialize(), tool_call("list_gpus", {}, modern=False)):
            answer = http.post("/mcp", json=message, headers={"Accept": "application/json"})
            assert "result" in answer.json()
            assert "mcp-session-id" not in answer.headers


@pytest.mark.parametrize("headers", [{}, MINE, {"X-API-Key": "made-up"}], ids=["no key", "key", "made up"])
def test_nothing_but_a_tool_call_is_long(crowded: Served, headers: dict[str, str]) -> None:
    def sized(size: int) -> bytes:
        return json.dumps(initialize("x" * size)).encode()

    with client(crowded, **headers) as http:
        assert http.post("/mcp", content=sized(70_000)).status_code == 413
        assert http.post("/mcp", content=iter([sized(70_000)])).status_code == 413, "whatever length it admits to"
        opening = http.post("/mcp", content=sized(60_000))
        assert opening.status_code == 200
        in_session = {"Mcp-Session-Id": opening.headers["mcp-session-id"]}
        assert http.post("/mcp", content=sized(70_000), headers=in_session).status_code == 413, "nor once it is open"
        long_call = tool_call("list_gpus", {"gpu_type": "x" * 70_000}, modern=False)
        assert http.post("/mcp", json=long_call, headers=in_session).status_code == (200 if headers else 413)
        with http.stream("GET", "/sse") as stream:
            lines = stream.iter_lines()  # whoever drops it hangs up
            path = next(line for line in lines if line.startswith("data: ")).removeprefix("data: ")
            with client(crowded, **headers) as beside:
                assert beside.post(path, content=sized(70_000)).status_code == 413
                assert beside.post(path, json=long_call).status_code == (202 if headers else 413)


@pytest.fixture
def impatient(lium: Simulated, tmp_path: Path) -> Iterator[Served]:
    sessions = {"unused_seconds": UNUSED_SECONDS, "idle_seconds": 600.0, "total": 20}
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_METRICS_PORT": "0"}
    with serving_within(tmp_path, settings, sessions=sessions) as served:
        yield served


def is_open(http: httpx2.Client, in_session: dict[str, str]) -> bool:
    return http.post("/mcp", json=initialized(), headers=in_session).status_code == 202


def until_one_was_closed(served: Served, http: httpx2.Client) -> None:
    """Open a session that nobody uses, and wait until it is closed: one that was opened before had longer for that."""

    def count() -> float:
        return value(read(served), "lium_mcp_open_sessions")

    before = count()
    in_session = {"Mcp-Session-Id": open_session(http).headers["mcp-session-id"]}
    until(lambda: count() <= before)
    assert not is_open(http, in_session)


def test_a_session_that_nobody_uses_is_closed_and_others_are_not(impatient: Served) -> None:
    with client(impatient, **MINE) as http, client(impatient, **MINE) as listener:
        called, listened = [{"Mcp-Session-Id": open_session(http).headers["mcp-session-id"]} for _ in range(2)]
        with listener.stream("GET", "/mcp", headers=listened) as stream:
            assert stream.status_code == 200
            assert is_open(http, called)
            http.post("/mcp", json=tool_call("list_gpus", {}, modern=False), headers=called)
            until_one_was_closed(impatient, http)
            assert is_open(http, called)
            assert is_open(http, listened)


async def test_a_client_of_the_sdk_listens_and_so_keeps_its_session(impatient: Served) -> None:
    async with calling(impatient.url, "legacy", MINE) as caller:
        with client(impatient, **MINE) as http:
            await asyncio.to_thread(until_one_was_closed, impatient, http)
        assert (await caller.call("list_gpus"))["total"] > 0


def test_another_callers_requests_keep_no_session_open(impatient: Served) -> None:
    with client(impatient, **MINE) as http:
        in_session = {"Mcp-Session-Id": open_session(http).headers["mcp-session-id"]}
        theirs = in_session | {"X-API-Key": OTHER_API_KEY}

        def is_closed() -> bool:
            assert not is_open(http, theirs)
            return value(read(impatient), "lium_mcp_open_sessions") == 0

        until(is_closed)
        assert not is_open(http, in_session)


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9", 1), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("a socket", 0), "a socket"),
        (None, ""),
    ],
)
def test_what_counts_as_one_address(client: Any, address: str) -> None:
    assert address_of(client) == address
