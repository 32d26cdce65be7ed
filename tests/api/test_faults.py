"""Faults of a real connection: cut, slow, too large, mangled, never there."""

import gzip
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

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
from tests.api.fakes import IDEMPOTENCY_KEY, KEY, NODE_ID, POD_ID, PUBLIC_KEY, TurnedClock
from tests.wires import Act, Forward, Wire, answering, cut, drop, raw, reset, served, silence, streaming, trickle

RENT = RentRequest(pod_name="train", template_id=NODE_ID, user_public_key=[PUBLIC_KEY], gpu_count=1)


BROKEN = httpx2.ReadError("the connection broke")


def serving(act: Act) -> AbstractAsyncContextManager[Wire]:
    wire = Wire()
    wire.on("*", "**", act)
    return served(wire)


def client_at(base_url: str, *, timeout_seconds: float = 5.0, max_response_bytes: int = 2**20) -> LiumClient:
    return LiumClient(
        api_key=KEY,
        base_url=base_url,
        clock=TurnedClock(),
        timeout_seconds=timeout_seconds,
        max_response_bytes=max_response_bytes,
    )


async def rent_error(act: Act, *, timeout_seconds: float = 5.0) -> LiumError:
    """How a rent ends, which is sent once."""
    async with serving(act) as wire, client_at(wire.base_url, timeout_seconds=timeout_seconds) as client:
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


async def test_rent_without_an_answer_in_time_is_unknown() -> None:
    error = await rent_error(silence, timeout_seconds=0.2)
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
async def test_log_that_goes_quiet_is_what_came_by_the_end_of_the_time(came: list[str]) -> None:
    act = streaming("".join(f'data: {{"log": "{line}"}}\n\n' for line in came).encode(), None)
    async with serving(act) as wire, client_at(wire.base_url, timeout_seconds=0.3) as client:
        assert await client.pods.logs(POD_ID) == (came, False, False)


async def test_log_without_end_is_left_at_the_end_of_the_time() -> None:
    async def flood() -> AsyncIterator[bytes]:
        while True:
            yield b'data: {"log": "more"}\n' * 1000

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return httpx2.Response(200, content=flood())

    async with (
        serving(act) as wire,
        client_at(wire.base_url, timeout_seconds=0.3, max_response_bytes=1000) as client,
    ):
        with anyio.fail_after(5):
            assert await client.pods.logs(POD_ID, tail=3) == (["more"] * 3, False, False)


async def test_trickling_answer_ends_at_the_time_limit() -> None:
    async with serving(trickle) as wire, client_at(wire.base_url, timeout_seconds=0.3) as client:
        with pytest.raises(RequestTimedOut):
            await client.volumes.create(name="data")


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
        with anyio.move_on_after(0.1) as scope:
            await client.pods.list()
        assert scope.cancelled_caught
        assert await client.pods.list() == []
