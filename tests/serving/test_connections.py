"""Connections that bring no request, or half of one, and too many of them: over real sockets to a real process."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from lium_mcp.serving.open_connections import ConnectionBounds
from tests.http_server import Served, serving_within

HALF_A_HEAD = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
HALF_A_BODY = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
NOBODY = {"LIUM_BASE_URL": "http://127.0.0.1:9/api"}
QUICK = {"head_seconds": 0.5, "body_seconds": 1.0}
PATIENCE_SECONDS = 30


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(served: Served, sockets: ExitStack, words: bytes = b"") -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    made = sockets.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS))
    made.sendall(words)
    return made


def until_closed(waiting: socket.socket, drip: bytes = b"") -> None:
    waiting.settimeout(0.05)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if drip:
                waiting.sendall(drip)
            if not waiting.recv(10_000):
                return
        except TimeoutError:
            continue
        except OSError:
            return
    pytest.fail("it is not closed")


def is_open(waiting: socket.socket) -> bool:
    waiting.settimeout(0.01)
    try:
        return bool(waiting.recv(10_000))
    except TimeoutError:
        return True
    except OSError:
        return False


def lives(served: Served) -> bool:
    return httpx2.get(f"{served.url}/healthz", timeout=PATIENCE_SECONDS, trust_env=False).status_code == 200


def test_the_bounds_are_as_documented() -> None:
    bounds = ConnectionBounds()
    assert (bounds.head_seconds, bounds.body_seconds, bounds.per_address) == (10, 30, 100)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_within(tmp_path_factory.mktemp("quick"), connections=QUICK, settings=NOBODY) as served:
        yield served


@pytest.mark.parametrize("words", [b"", HALF_A_HEAD, b"POST"], ids=["nothing", "half a head", "a word"])
@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "dripping"])
def test_a_head_has_its_time_however_it_comes(quick: Served, sockets: ExitStack, words: bytes, drip: bytes) -> None:
    started = time.monotonic()  # before the server begins to count
    until_closed(connect(quick, sockets, words), drip)
    assert time.monotonic() - started >= QUICK["head_seconds"]
    assert lives(quick)


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "dripping"])
def test_a_body_has_its_time_however_it_comes(quick: Served, sockets: ExitStack, drip: bytes) -> None:
    started = time.monotonic()
    until_closed(connect(quick, sockets, HALF_A_BODY), drip)
    assert time.monotonic() - started >= QUICK["body_seconds"]
    assert "Traceback" not in quick.stderr()


def test_the_next_request_has_its_time_too(quick: Served, sockets: ExitStack) -> None:
    started = time.monotonic()
    waiting = connect(quick, sockets, HEALTH + HEALTH + HALF_A_HEAD)
    heard = b""
    while piece := waiting.recv(10_000):
        heard += piece
    assert heard.count(b"200 OK") == 2
    assert time.monotonic() - started >= QUICK["head_seconds"]


def test_a_stream_is_not_timed(quick: Served) -> None:
    with httpx2.stream("GET", f"{quick.url}/sse", timeout=PATIENCE_SECONDS, trust_env=False) as stream:
        lines = stream.iter_lines()  # whoever drops it hangs up
        assert next(lines) == "event: endpoint"
        path = next(lines).removeprefix("data: ")
        time.sleep(1.5)  # longer than any part of a request may take
        message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert httpx2.post(f"{quick.url}{path}", json=message, trust_env=False).status_code == 202
        assert next(line for line in lines if line.startswith("data: {"))


def test_half_requests_keep_nobody_out_and_are_bounded(tmp_path: Path, sockets: ExitStack) -> None:
    bounds = {"per_address": 20, "head_seconds": 60.0}
    with serving_within(tmp_path, connections=bounds, settings=NOBODY) as served:
        slow = [connect(served, sockets, HALF_A_HEAD) for _ in range(200)]
        assert lives(served), "the oldest made way"
        for made_way in slow[:-20]:
            until_closed(made_way)
        assert served.stop() == 0
        assert served.stderr().count("\n") < 10


@pytest.mark.parametrize("bounds", [{"per_address": 5}, {"total": 10}], ids=["an address", "in all"])
def test_a_full_table_is_said_and_ends_with_its_streams(
    tmp_path: Path, sockets: ExitStack, bounds: dict[str, float]
) -> None:
    with (
        serving_within(tmp_path, connections=bounds, settings=NOBODY) as served,
        httpx2.Client(trust_env=False) as http,
    ):
        with ExitStack() as streams:
            for _ in range(5):
                stream = http.stream("GET", f"{served.url}/sse", timeout=PATIENCE_SECONDS)
                assert streams.enter_context(stream).status_code == 200
            for _ in range(30):
                answer = connect(served, sockets, HEALTH).recv(10_000)
                assert re.match(rb"HTTP/1.1 503 ", answer)
                assert b"Retry-After: " in answer
        deadline = time.monotonic() + PATIENCE_SECONDS
        while httpx2.get(f"{served.url}/healthz", trust_env=False).status_code != 200:
            assert time.monotonic() < deadline, "no room although all have left"
            time.sleep(0.02)
        once = "A connection was refused"
        assert served.says(once).count(once) == 1, "the log says a thing once"


def test_a_proxy_that_is_named_is_more_than_one_address(tmp_path: Path, sockets: ExitStack) -> None:
    bounds = {"per_address": 3, "head_seconds": 60.0}
    with serving_within(
        tmp_path, connections=bounds, settings=NOBODY | {"LIUM_MCP_TRUSTED_PROXY": "127.0.0.0/8"}
    ) as served:
        waiting = [connect(served, sockets, HALF_A_HEAD) for _ in range(12)]
        assert lives(served)
        assert all(map(is_open, waiting))


def test_few_descriptors_shut_nobody_out_and_fill_no_log(tmp_path: Path, sockets: ExitStack) -> None:
    with serving_within(tmp_path, descriptors=64, settings=NOBODY) as served:
        for _ in range(200):
            connect(served, sockets, HALF_A_HEAD)
        for _ in range(5):
            assert lives(served)
        assert served.log.stat().st_size < 2000


def test_what_anybody_can_cause_is_logged_once(quick: Served, sockets: ExitStack) -> None:
    before = quick.log.stat().st_size
    for number in range(100):
        connect(quick, sockets, b"\x00no request\r\n\r\n").recv(100)
        host = {"Host": f"evil-{number}.example.com"}
        assert httpx2.get(f"{quick.url}/mcp", headers=host, trust_env=False).status_code == 421
    assert quick.log.stat().st_size - before < 1000
