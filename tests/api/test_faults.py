"""Faults of a real connection: cut, slow, too large, mangled, never there."""

import asyncio
import gzip
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import anyio
import httpx2
import pytest

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import (
    ConnectionFailed,
    LiumError,
    NotFound,
    RentOutcomeUnknown,
    RequestTimedOut,
    ResponseTooLarge,
    UnreadableResponse,
)
from lium_mcp.api.rent_requests import RentRequest
from tests.api.fakes import IDEMPOTENCY_KEY, KEY, NODE_ID, POD_ID, PUBLIC_KEY, TurnedClock, client_on
from tests.faults.virtual_time import run_virtually
from tests.wires import Act, Forward, Wire, answering, cut, drop, raw, reset, served, silence, streaming, trickle

RENT = RentRequest(pod_name="train", template_id=NODE_ID, user_public_key=[PUBLIC_KEY], gpu_count=1)

T = TypeVar("T")
BROKEN = httpx2.ReadError("the connection broke")


def serving(act: Act) -> AbstractAsyncContextManager[Wire]:
    wire = Wire()
    wire.on("*", "**", act)
    return served(wire)


def client_at(base_url: str, *, max_response_bytes: int = 2**20) -> LiumClient:
    return LiumClient(
        api_key=KEY,
        base_url=base_url,
        clock=TurnedClock(),
        timeout_seconds=30,
        max_response_bytes=max_response_bytes,
    )


def in_no_time(act: Act, use: Callable[[LiumClient], Awaitable[T]], **options: Any) -> T:
    """What a client does whose time limits pass at once, on a wire without a socket."""
    wire = Wire()
    wire.on("*", "**", act)

    async def main() -> T:
        async with client_on(wire, **options) as client:
            return await use(client)

    return run_virtually(main())


async def rent_error(act: Act) -> LiumError:
    """How a rent ends, which is sent once."""
    async with serving(act) as wire, client_at(wire.base_url) as client:
        with pytest.raises(LiumError) as caught:
            await client.executors.rent(NODE_ID, RENT, idempotency_key=IDEMPOTENCY_KEY)
    assert len(wire.requests) == 1
    return caught.value


async def test_answer_over_a_real_connection_is_read() -> None:
    async with serving(answering(200, [{"id": POD_ID}])) as wire, client_at(wire.base_url) as client:
        assert (await client.pods.list())[0].id == POD_ID


@pytest.mark.parametrize(
    "act", [drop, reset, raw(b"not http at all\r\n\r\n"), cut], ids=["closed", "reset", "garbage", "cut"]
)
async def test_broken_answer_is_repeated_for_a_read_and_then_said(act: Act) -> None:
    async with serving(act) as wire, client_at(wire.base_url) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.pods.list()
    assert len(wire.requests) == 3
    assert caught.value.effect == "none"


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        (drop, ConnectionFailed),
        (reset, ConnectionFailed),
        (streaming(b'{"pod_id":', BROKEN, content_length="500"), ConnectionFailed),
        (answering(200, b"{{{", content_type="application/json"), UnreadableResponse),
        (streaming(b"nope", content_encoding="gzip"), UnreadableResponse),
        (streaming(b" " * 2**21), ResponseTooLarge),
    ],
    ids=["closed", "reset", "cut", "not json", "not gzip", "too large"],
)
async def test_rent_that_left_and_lost_its_answer_is_unknown_and_was_sent_once(
    act: Act, cause: type[LiumError]
) -> None:
    error = await rent_error(act)
    assert isinstance(error, RentOutcomeUnknown)
    assert isinstance(error.cause, cause)
    assert error.effect == "unknown"
    assert (error.idempotency_key, error.pod_name) == (IDEMPOTENCY_KEY, "train")


def test_rent_without_an_answer_in_time_is_unknown() -> None:
    with pytest.raises(RentOutcomeUnknown) as caught:
        in_no_time(silence, lambda client: client.executors.rent(NODE_ID, RENT, idempotency_key=IDEMPOTENCY_KEY))
    assert isinstance(caught.value.cause, RequestTimedOut)


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
    async with serving(answering(200, [])) as proxy, serving(answering(200, [])) as wire:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/api"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with client_at(wire.base_url) as client:
            await client.pods.list()
    assert (len(wire.requests), len(proxy.requests)) == (1, 0)


async def test_log_that_unpacks_into_one_endless_line_is_read_to_its_end_in_little_room() -> None:
    packed = gzip.compress(b"x" * 2 * 10**7 + b"end")
    async with serving(streaming(packed, content_encoding="gzip")) as wire, client_at(wire.base_url) as client:
        tracemalloc.start()
        log = await client.pods.logs(POD_ID)
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert log.lines[-1].endswith("xend")
    assert log.is_cut
    assert most_bytes < 8 * 10**6


@pytest.mark.parametrize("came", [[], ["one", "two"]], ids=len)
def test_log_that_goes_quiet_is_what_came_by_the_end_of_the_time(came: list[str]) -> None:
    act = streaming("".join(f'data: {{"log": "{line}"}}\n\n' for line in came).encode(), None)
    assert in_no_time(act, lambda client: client.pods.logs(POD_ID)) == (came, False, False)


def test_log_without_end_is_left_at_the_end_of_the_time() -> None:
    async def flood() -> AsyncIterator[bytes]:
        while True:
            yield b'data: {"log": "more"}\n' * 1000
            await anyio.sleep(10)

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return httpx2.Response(200, content=flood())

    log = in_no_time(act, lambda client: client.pods.logs(POD_ID, tail=3), max_response_bytes=1000)
    assert log == (["more"] * 3, False, False)


def test_trickling_answer_ends_at_the_time_limit() -> None:
    with pytest.raises(RequestTimedOut):
        in_no_time(trickle, lambda client: client.volumes.create(name="data"))


async def test_answer_over_the_limit_is_cut_off() -> None:
    act = answering(200, b"[" + b" " * 5000 + b"]")
    async with serving(act) as wire, client_at(wire.base_url, max_response_bytes=4096) as client:
        with pytest.raises(ResponseTooLarge) as caught:
            await client.pods.list()
    assert len(wire.requests) == 1
    assert caught.value.effect == "none"


async def test_small_answer_that_unpacks_over_the_limit_is_cut_off() -> None:
    packed = gzip.compress(b" " * 10**6)
    act = streaming(packed, content_encoding="gzip")
    async with serving(act) as wire, client_at(wire.base_url, max_response_bytes=10**5) as client:
        with pytest.raises(ResponseTooLarge):
            await client.pods.list()


@pytest.mark.parametrize(
    "act",
    [streaming(b'{"message": "cut', BROKEN, status=404, content_length="500"), streaming(b"x" * 10**6, status=404)],
    ids=["cut", "endless"],
)
async def test_refusal_counts_even_if_its_body_is_cut_or_endless(act: Act) -> None:
    async with serving(act) as wire, client_at(wire.base_url) as client:
        with pytest.raises(NotFound) as caught:
            await client.volumes.delete(NODE_ID)
    assert caught.value.effect == "none"
    assert len(str(caught.value)) < 500


async def test_cancelled_call_stops_at_once_and_leaves_the_client_usable() -> None:
    async with serving(answering(200, [])) as wire, client_at(wire.base_url) as client:
        wire.on("*", "**", silence, times=1)
        listing = asyncio.create_task(client.pods.list())
        await wire.arrival("GET")
        listing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listing
        assert await client.pods.list() == []
