"""Faults of a real connection: cut, slow, too large, mangled, never there."""

import asyncio
import gzip
import json
import socket
import tracemalloc

import anyio
import pytest

from lium_mcp.api import (
    ConnectionFailed,
    LiumClient,
    LiumError,
    NotFound,
    RentOutcomeUnknown,
    RentRequest,
    RequestTimedOut,
    ResponseTooLarge,
    UnreadableResponse,
)
from tests.api.fakes import IDEMPOTENCY_KEY, KEY, NODE_ID, POD_ID, PUBLIC_KEY, TurnedClock, local_server

RENT = RentRequest(pod_name="train", template_id=NODE_ID, user_public_key=[PUBLIC_KEY], gpu_count=1)


def head(status: str, *, length: int | None = None, extra: str = "") -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{size}{extra}Connection: close\r\n\r\n".encode()


class Server:
    """Writes the same bytes to each connection, counting them, and then closes or hangs."""

    def __init__(self, payload: bytes, *, hang: bool = False, reset: bool = False) -> None:
        self.payload = payload
        self.hang = hang
        self.reset = reset
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.reset:
            # Closing with unread data and no linger makes the kernel send a reset.
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            return
        writer.write(self.payload)
        await writer.drain()
        if self.hang:
            await reader.read()


def client_at(base_url: str, *, timeout_seconds: float = 5.0, max_response_bytes: int = 2**20) -> LiumClient:
    return LiumClient(
        api_key=KEY,
        base_url=base_url,
        clock=TurnedClock(),
        timeout_seconds=timeout_seconds,
        max_response_bytes=max_response_bytes,
    )


async def rent_error(server: Server, *, timeout_seconds: float = 5.0) -> LiumError:
    async with local_server(server) as url, client_at(url, timeout_seconds=timeout_seconds) as client:
        with pytest.raises(LiumError) as caught:
            await client.executors.rent(NODE_ID, RENT, idempotency_key=IDEMPOTENCY_KEY)
    return caught.value


async def test_answer_over_a_real_connection_is_read() -> None:
    body = json.dumps([{"id": POD_ID}]).encode()
    async with local_server(Server(head("200 OK", length=len(body)) + body)) as url, client_at(url) as client:
        assert (await client.pods.list())[0].id == POD_ID


@pytest.mark.parametrize(
    "server",
    [
        Server(b""),
        Server(b"", reset=True),
        Server(b"not http at all\r\n\r\n"),
        Server(head("200 OK", length=500) + b'[{"id":'),
    ],
    ids=["closed", "reset", "garbage", "cut"],
)
async def test_broken_answer_is_repeated_for_a_read_and_then_said(server: Server) -> None:
    async with local_server(server) as url, client_at(url) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.pods.list()
    assert server.connections == 3
    assert caught.value.effect == "none"


@pytest.mark.parametrize(
    ("server", "cause"),
    [
        (Server(b""), ConnectionFailed),
        (Server(b"", reset=True), ConnectionFailed),
        (Server(head("200 OK", length=500) + b'{"pod_id":'), ConnectionFailed),
        (Server(head("200 OK", length=3) + b"{{{"), UnreadableResponse),
        (Server(head("200 OK", length=4, extra="Content-Encoding: gzip\r\n") + b"nope"), UnreadableResponse),
        (Server(head("200 OK") + b" " * 2**21), ResponseTooLarge),
    ],
    ids=["closed", "reset", "cut", "not json", "not gzip", "too large"],
)
async def test_rent_that_left_and_lost_its_answer_is_unknown_and_was_sent_once(
    server: Server, cause: type[LiumError]
) -> None:
    error = await rent_error(server)
    assert isinstance(error, RentOutcomeUnknown)
    assert isinstance(error.cause, cause)
    assert error.effect == "unknown"
    assert (error.idempotency_key, error.pod_name) == (IDEMPOTENCY_KEY, "train")
    assert server.connections == 1


async def test_rent_without_an_answer_in_time_is_unknown() -> None:
    server = Server(b"", hang=True)
    error = await rent_error(server, timeout_seconds=0.2)
    assert isinstance(error, RentOutcomeUnknown)
    assert isinstance(error.cause, RequestTimedOut)


async def test_rent_that_could_not_connect_rented_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with client_at(f"http://127.0.0.1:{port}/api") as client:
            with pytest.raises(ConnectionFailed) as caught:
                await client.executors.rent(NODE_ID, RENT, idempotency_key=IDEMPOTENCY_KEY)
    assert caught.value.effect == "none"


async def test_proxy_of_the_environment_never_sees_what_is_meant_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = Server(head("200 OK", length=2) + b"[]")
    server = Server(head("200 OK", length=2) + b"[]")
    async with local_server(proxy) as proxy_url, local_server(server) as url:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy_url.removesuffix("/api"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with client_at(url) as client:
            await client.pods.list()
    assert (server.connections, proxy.connections) == (1, 0)


async def test_log_that_unpacks_into_one_endless_line_is_read_to_its_end_in_little_room() -> None:
    packed = gzip.compress(b"x" * 2 * 10**7 + b"end")
    payload = head("200 OK", length=len(packed), extra="Content-Encoding: gzip\r\n") + packed
    async with local_server(Server(payload)) as url, client_at(url) as client:
        tracemalloc.start()
        log = await client.pods.logs(POD_ID)
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert log.lines[-1].endswith("xend")
    assert log.is_cut
    assert most_bytes < 8 * 10**6


@pytest.mark.parametrize("came", [[], ["one", "two"]], ids=len)
async def test_log_that_goes_quiet_is_what_came_by_the_end_of_the_time(came: list[str]) -> None:
    server = Server(head("200 OK") + "".join(f'data: {{"log": "{line}"}}\n\n' for line in came).encode(), hang=True)
    async with local_server(server) as url, client_at(url, timeout_seconds=0.3) as client:
        assert await client.pods.logs(POD_ID) == (came, False, False)


async def test_log_without_end_is_left_at_the_end_of_the_time() -> None:
    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK"))
        while not writer.is_closing():
            writer.write(b'data: {"log": "more"}\n' * 1000)
            await writer.drain()

    async with local_server(flood) as url, client_at(url, timeout_seconds=0.3, max_response_bytes=1000) as client:
        with anyio.fail_after(5):
            assert await client.pods.logs(POD_ID, tail=3) == (["more"] * 3, False, False)


async def test_trickling_answer_ends_at_the_time_limit() -> None:
    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK"))
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with local_server(trickle) as url, client_at(url, timeout_seconds=0.3) as client:
        with pytest.raises(RequestTimedOut):
            await client.volumes.create(name="data")


async def test_answer_over_the_limit_is_cut_off() -> None:
    body = b"[" + b" " * 5000 + b"]"
    server = Server(head("200 OK", length=len(body)) + body)
    async with local_server(server) as url, client_at(url, max_response_bytes=4096) as client:
        with pytest.raises(ResponseTooLarge) as caught:
            await client.pods.list()
    assert server.connections == 1
    assert caught.value.effect == "none"


async def test_small_answer_that_unpacks_over_the_limit_is_cut_off() -> None:
    packed = gzip.compress(b" " * 10**6)
    payload = head("200 OK", length=len(packed), extra="Content-Encoding: gzip\r\n") + packed
    async with local_server(Server(payload)) as url, client_at(url, max_response_bytes=10**5) as client:
        with pytest.raises(ResponseTooLarge):
            await client.pods.list()


@pytest.mark.parametrize(
    "payload", [head("404 Not Found", length=500) + b'{"message": "cut', head("404 Gone") + b"x" * 10**6]
)
async def test_refusal_counts_even_if_its_body_is_cut_or_endless(payload: bytes) -> None:
    async with local_server(Server(payload)) as url, client_at(url) as client:
        with pytest.raises(NotFound) as caught:
            await client.volumes.delete(NODE_ID)
    assert caught.value.effect == "none"
    assert len(str(caught.value)) < 500


async def test_cancelled_call_stops_at_once_and_leaves_the_client_usable() -> None:
    answers = [Server(b"", hang=True), Server(head("200 OK", length=2) + b"[]")]

    async def first_hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(reader, writer)

    async with local_server(first_hangs) as url, client_at(url) as client:
        with anyio.move_on_after(0.1) as scope:
            await client.pods.list()
        assert scope.cancelled_caught
        assert await client.pods.list() == []
