"""The rules every request follows: credentials, headers, repeats, redirects, addresses, time."""

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp import __version__
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK
from lium_mcp.api.errors import (
    ConnectionFailed,
    InvalidRequest,
    LiumError,
    MissingApiKey,
    NotFound,
    RateLimited,
    RequestTimedOut,
    ServerFailed,
    UnreadableResponse,
    UntrustedRedirect,
)
from lium_mcp.api.pool import MAX_CONNECTIONS
from lium_mcp.api.turns import PART_OF_FREE
from tests.api.fakes import KEY, NODE_ID, POD_ID, Reply, TurnedClock, client_on, ok, refusal, scripted
from tests.wires import Forward, Wire, eventually

POD = {"id": POD_ID, "pod_name": "a", "status": "RUNNING"}


def redirect(status: int, location: str) -> httpx2.Response:
    return httpx2.Response(status, headers={"Location": location})


async def test_every_request_says_who_sends_it() -> None:
    wire = scripted(ok([]))
    async with client_on(wire, source="cli") as client:
        await client.pods.list()
    headers = wire.requests[0].headers
    assert headers["X-API-KEY"] == KEY
    assert headers["X-Source"] == "cli"
    assert headers["X-Lium-Client-Version"] == __version__
    assert headers["User-Agent"].startswith("lium-mcp/")


async def test_key_never_shows_in_reprs() -> None:
    client = client_on(scripted())
    for text in (repr(client), repr(vars(client)), str(client)):
        assert KEY not in text


async def test_base_address_can_be_replaced_and_may_end_in_a_slash() -> None:
    wire = scripted(ok([]))
    async with client_on(wire, base_url="http://127.0.0.1:8123/api/") as client:
        await client.pods.list()
    assert str(wire.requests[0].url) == "http://127.0.0.1:8123/api/pods"


@pytest.mark.parametrize(
    "base_url",
    [
        "http://lium.io/api",
        "http://localhost.example.com/api",
        "http://10.0.0.1/api",
        "ftp://lium.io/api",
        "lium.io/api",
        "",
        "https://",
        "https://user:secret@lium.io/api",
        "https://lium.io/api?key=1",
        "https://lium.io/api#top",
        "https://lium.io:port/api",
        "https://lium.io:0/api",
        "https://lium.io:65536/api",
    ],
)
def test_address_that_the_key_must_not_go_to_is_refused(base_url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        LiumClient(api_key=KEY, base_url=base_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url", ["http://localhost:1/api", "http://127.0.0.9/api", "http://[::1]:80", "https://x.y"]
)
def test_https_or_this_machine_is_accepted(base_url: str) -> None:
    assert base_url.rstrip("/").startswith(repr(LiumClient(api_key=KEY, base_url=base_url)).split("'")[1][:12])


async def test_public_routes_work_without_a_key() -> None:
    wire = scripted(ok([]), ok([]), ok({"features": []}))
    async with client_on(wire, api_key=None) as client:
        await client.executors.list()
        await client.templates.list()
        await client.version()
    assert all("X-API-KEY" not in request.headers for request in wire.requests)


@pytest.mark.parametrize("api_key", [None, "", "   "])
async def test_nothing_is_sent_where_a_key_is_needed_and_missing(api_key: str | None) -> None:
    async with client_on(scripted(), api_key=api_key) as client:
        with pytest.raises(MissingApiKey) as caught:
            await client.pods.list()
    assert caught.value.effect == "none"


@pytest.mark.parametrize(("api_key", "expected"), [(KEY, True), (None, False), (" ", False)])
def test_client_says_whether_it_has_a_key(api_key: str | None, expected: bool) -> None:
    assert client_on(scripted(), api_key=api_key).has_api_key is expected


@pytest.mark.parametrize("credential", ["sk_a b", "sk_a\nX-Evil: 1", "sk_\u00e9", "sk_\x00"])
def test_credential_that_no_header_can_carry_is_refused_without_repeating_it(credential: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        LiumClient(api_key=credential)
    assert credential not in str(caught.value)


async def test_closed_client_sends_nothing() -> None:
    wire = scripted(ok([]))
    async with client_on(wire) as client:
        await client.pods.list()
    with pytest.raises(InvalidRequest):
        await client.pods.list()


# Repeats.

LOST: list[Reply] = [
    refusal(500),
    refusal(503),
    httpx2.ReadError("reset"),
    httpx2.ReadTimeout("slow"),
    httpx2.RemoteProtocolError("gone"),
    httpx2.ConnectError("refused"),
]


@pytest.mark.parametrize("fault", [*LOST, refusal(429)])
async def test_read_is_repeated_after_what_passes(fault: Reply) -> None:
    wire, clock = scripted(fault, fault, ok([POD])), TurnedClock()
    async with client_on(wire, clock=clock) as client:
        assert (await client.pods.list())[0].id == POD_ID
    assert len(wire.requests) == 3
    first, second = clock.pauses
    assert 1.0 <= first <= 1.5
    assert 2.0 <= second <= 2.5


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (refusal(502), ServerFailed),
        (httpx2.ReadError("x"), ConnectionFailed),
        (httpx2.ReadTimeout("x"), RequestTimedOut),
    ],
)
async def test_read_gives_up_after_three_attempts_and_changed_nothing(fault: Reply, expected: type[Exception]) -> None:
    wire = scripted(fault, fault, fault)
    async with client_on(wire) as client:
        with pytest.raises(expected) as caught:
            await client.pods.list()
    assert len(wire.requests) == 3
    assert getattr(caught.value, "effect", None) == "none"


@pytest.mark.parametrize("fault", LOST)
async def test_change_is_not_repeated_after_a_lost_answer(fault: Reply) -> None:
    wire = scripted(fault)
    async with client_on(wire) as client:
        with pytest.raises((ServerFailed, ConnectionFailed, RequestTimedOut)) as caught:
            await client.volumes.create(name="data")
    expected = "none" if isinstance(fault, httpx2.ConnectError) else "unknown"
    assert caught.value.effect == expected


async def test_change_is_repeated_after_a_429_only() -> None:
    wire = scripted(refusal(429), refusal(429), ok({"id": NODE_ID, "name": "data"}))
    async with client_on(wire) as client:
        assert (await client.volumes.create(name="data")).id == NODE_ID
    assert [request.content for request in wire.requests] == [wire.requests[0].content] * 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 418])
async def test_refusal_is_final(status: int) -> None:
    wire, clock = scripted(refusal(status)), TurnedClock()
    async with client_on(wire, clock=clock) as client:
        with pytest.raises(Exception, match="no") as caught:
            await client.pods.list()
    assert getattr(caught.value, "status", None) == status
    assert clock.pauses == []


async def test_change_that_cannot_be_doubled_is_repeated() -> None:
    at = datetime(2026, 10, 6, 18, tzinfo=UTC)
    wire = scripted(*[refusal(502), ok()] * 3)
    async with client_on(wire) as client:
        await client.pods.schedule_removal(POD_ID, at=at)
        await client.backups.cancel(POD_ID)
        await client.restores.cancel(POD_ID)
    assert len(wire.requests) == 6


async def test_earlier_lost_attempt_keeps_the_effect_unknown() -> None:
    wire = scripted(httpx2.ReadError("lost"), refusal(400))
    async with client_on(wire) as client:
        with pytest.raises(Exception, match="no") as caught:
            await client.backups.cancel(POD_ID)
    assert getattr(caught.value, "effect", None) == "unknown"


@pytest.mark.parametrize(("header", "at_least"), [("7", 7.0), ("20", 20.0), ("0", 1.0), ("1.5", 1.5)])
async def test_retry_after_lengthens_the_pause(header: str, at_least: float) -> None:
    clock = TurnedClock()
    async with client_on(scripted(refusal(429, **{"Retry-After": header}), ok([])), clock=clock) as client:
        await client.pods.list()
    assert at_least <= clock.pauses[0] <= max(at_least, 1.5)


async def test_server_that_asks_for_a_long_pause_is_not_asked_again() -> None:
    clock = TurnedClock()
    async with client_on(scripted(refusal(429, **{"Retry-After": "21"})), clock=clock) as client:
        with pytest.raises(RateLimited) as caught:
            await client.pods.list()
    assert caught.value.retry_after_seconds == 21
    assert "21 seconds" in caught.value.advice
    assert clock.pauses == []


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2026 07:28:00 GMT", "-5", "nan", "inf", "soon", ""])
async def test_unreadable_retry_after_is_ignored(header: str) -> None:
    clock = TurnedClock()
    async with client_on(scripted(refusal(429, **{"Retry-After": header}), ok([])), clock=clock) as client:
        await client.pods.list()
    assert clock.pauses[0] <= 1.5


async def test_pod_events_and_gpu_resets_are_sent_once() -> None:
    wire = scripted(*[refusal(429)] * 3)
    async with client_on(wire) as client:
        for call in (
            client.pods.events(POD_ID),
            client.pods.reset_gpus(POD_ID),
            client.pods.get_gpu_reset(POD_ID, NODE_ID),
        ):
            with pytest.raises(RateLimited):
                await call
    assert len(wire.requests) == 3


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_inside_the_origin_is_followed_with_the_key(status: int) -> None:
    wire = scripted(redirect(status, "/api/pods/?page=2"), ok([POD]))
    async with client_on(wire) as client:
        assert len(await client.pods.list()) == 1
    assert str(wire.requests[1].url) == "https://lium.io/api/pods/?page=2"
    assert wire.requests[1].headers["X-API-KEY"] == KEY


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/api/pods",
        "http://lium.io/api/pods",
        "https://lium.io:8443/api/pods",
        "//evil.example/pods",
        "https://user:pw@lium.io/api/pods",
        "https://lium.io.evil.example/",
        "https://lium.io:port/api",
        "javascript:alert(1)",
    ],
)
async def test_redirect_to_another_address_is_refused_and_the_key_stays(location: str) -> None:
    wire = scripted(redirect(307, location))
    async with client_on(wire) as client:
        with pytest.raises(UntrustedRedirect) as caught:
            await client.pods.list()
    assert len(wire.requests) == 1
    assert caught.value.effect == "none"


async def test_redirect_loop_ends() -> None:
    wire = scripted(*[redirect(302, "/api/pods")] * 6)
    async with client_on(wire) as client:
        with pytest.raises(UntrustedRedirect):
            await client.pods.list()
    assert len(wire.requests) == 6


async def test_redirect_without_a_target_is_not_an_answer() -> None:
    async with client_on(scripted(httpx2.Response(302))) as client:
        with pytest.raises(UnreadableResponse):
            await client.pods.list()


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
async def test_redirected_post_keeps_or_drops_its_body_by_status(status: int, method: str) -> None:
    wire = scripted(redirect(status, "/api/volumes/"), ok({"id": NODE_ID}))
    async with client_on(wire) as client:
        await client.volumes.create(name="data")
    second = wire.requests[1]
    assert second.method == method
    assert second.content == (wire.requests[0].content if method == "POST" else b"")
    assert ("Content-Type" in second.headers) is (method == "POST")


async def test_redirected_delete_keeps_its_method_on_301() -> None:
    wire = scripted(redirect(301, "/api/volumes/x/"), ok())
    async with client_on(wire) as client:
        await client.volumes.delete(NODE_ID)
    assert wire.requests[1].method == "DELETE"


@pytest.mark.parametrize(
    ("replies", "effect"),
    [
        ([redirect(303, "/api/x"), refusal(404)], "unknown"),
        ([redirect(303, "/api/x"), httpx2.ConnectError("down")], "unknown"),
        ([redirect(303, "https://evil.example/")], "unknown"),
        ([redirect(307, "https://evil.example/")], "none"),
        ([redirect(307, "/api/x"), refusal(404)], "none"),
        ([redirect(307, "/api/x"), httpx2.ConnectError("down")], "none"),
    ],
)
async def test_change_lost_in_a_redirect_says_whether_it_may_have_happened(replies: list[Reply], effect: str) -> None:
    async with client_on(scripted(*replies)) as client:
        with pytest.raises((NotFound, ConnectionFailed, UntrustedRedirect)) as caught:
            await client.volumes.create(name="data")
    assert caught.value.effect == effect


# Ids.

IDS = st.text(max_size=200) | st.text("abcXYZ012._-/%", max_size=140)


@given(pod_id=IDS)
async def test_id_reaches_the_path_unchanged_or_not_at_all(pod_id: str) -> None:
    wire = scripted(ok(POD | {"id": pod_id}))
    async with client_on(wire) as client:
        with suppress(InvalidRequest):
            await client.pods.get(pod_id)
            assert wire.requests[0].url.raw_path == f"/api/pods/{pod_id}".encode()
            return
    assert wire.requests == []


@pytest.mark.parametrize("pod_id", ["", ".", "..", "../volumes", "a/b", "a?b=c", "a b", "a\n", "\u0661", "a" * 129])
async def test_what_is_not_an_id_is_refused_by_name(pod_id: str) -> None:
    async with client_on(scripted()) as client:
        with pytest.raises(InvalidRequest, match="pod_id"):
            await client.pods.remove(pod_id)


# Who shares the connections.


@pytest.mark.parametrize(("keys", "each"), [(1, 50), (4, 50), (8, 30), (40, 10)])
async def test_keys_for_which_the_server_is_slow_leave_connections_to_the_others(keys: int, each: int) -> None:
    wire, released, under_way, answered = Wire(), anyio.Event(), Counter[str](), 0

    async def slow(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal answered
        key = request.headers["X-API-KEY"]
        if key == "sk_another":
            return ok([])
        under_way[key] += 1
        await released.wait()
        answered += 1
        return ok([])

    def none_begins() -> bool:
        free = MAX_CONNECTIONS - under_way.total()
        return len(under_way) == keys and all(count * PART_OF_FREE >= free for count in under_way.values())

    wire.on("GET", "/volumes", slow)
    async with client_on(wire, timeout_seconds=3600) as client, anyio.create_task_group() as group:
        for _ in range(each):
            for number in range(keys):
                group.start_soon(client.for_key(f"sk_slow_{number}").volumes.list)
        await eventually(none_begins)
        assert max(under_way.values()) - min(under_way.values()) <= MAX_CONNECTIONS / PART_OF_FREE
        for _ in range(3):
            assert await client.for_key("sk_another").volumes.list() == []
        released.set()
    assert answered == each * keys


async def test_who_leaves_while_waiting_for_a_turn_takes_nobodys_place() -> None:
    wire, released, under_way = Wire(), anyio.Event(), 0

    async def slow(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal under_way
        under_way += 1
        await released.wait()
        return ok([])

    wire.on("GET", "/volumes", slow)
    alone = MAX_CONNECTIONS // (PART_OF_FREE + 1)

    def fill() -> bool:
        return under_way == alone

    async with client_on(wire, timeout_seconds=3600) as client:
        for _ in range(3):
            async with anyio.create_task_group() as group:
                for _ in range(2 * alone):
                    group.start_soon(client.volumes.list)
                await eventually(fill)
                group.cancel_scope.cancel()
            assert under_way == alone
            under_way = 0
        released.set()
        assert await client.volumes.list() == []


async def test_what_was_not_its_turn_in_time_was_not_sent() -> None:
    wire = Wire()

    async def never(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        await anyio.sleep_forever()
        raise AssertionError

    wire.on("POST", "/volumes", never)
    errors: list[LiumError] = []
    async with client_on(wire, timeout_seconds=1) as client, anyio.create_task_group() as group:

        async def create() -> None:
            with pytest.raises(LiumError) as refused:
                await client.volumes.create(name="data", description="")
            errors.append(refused.value)

        alone = MAX_CONNECTIONS // (PART_OF_FREE + 1)
        for _ in range(alone + 1):
            group.start_soon(create)
    assert len(wire.requests) == alone
    assert isinstance(errors[0], ConnectionFailed), "a quarter of the time is for a connection"
    assert errors[0].effect == "none"
    assert "Too many requests to Lium are under way" in str(errors[0])
    assert {error.effect for error in errors[1:]} == {"unknown"}


# Features and time.


async def test_pause_of_the_real_clock_passes() -> None:
    before = SYSTEM_CLOCK.monotonic()
    await SYSTEM_CLOCK.sleep(0)
    assert SYSTEM_CLOCK.monotonic() >= before


async def test_features_are_asked_once_for_all_keys_and_not_remembered_from_a_failure_or_for_ever() -> None:
    clock = TurnedClock()
    later = {"features": ["rent_idempotency"]}
    wire = scripted(refusal(401), ok({"features": ["rent_by_spec", 7, None]}), ok(later))
    async with client_on(wire, clock=clock) as client:
        assert not await client.for_key("sk_one").supports("rent_by_spec")
        assert await client.for_key("sk_two").supports("rent_by_spec")
        assert await client.for_key("sk_three").supports("rent_by_spec")
        assert not await client.supports("rent_idempotency")
        assert len(wire.requests) == 2
        await clock.sleep(600)
        assert await client.supports("rent_idempotency")
        assert len(wire.requests) == 3


async def test_now_follows_the_servers_clock() -> None:
    theirs = datetime.now(UTC) + timedelta(hours=5)
    async with client_on(scripted(ok([], Date=format_datetime(theirs, usegmt=True)))) as client:
        before = client.now()
        await client.pods.list()
        assert abs(client.now() - theirs) < timedelta(seconds=30)
    assert abs(before - datetime.now(UTC)) < timedelta(seconds=30)


@pytest.mark.parametrize("header", ["garbage", "", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"])
async def test_senseless_server_time_is_ignored(header: str) -> None:
    async with client_on(scripted(ok([], Date=header))) as client:
        await client.pods.list()
        assert abs(client.now() - datetime.now(UTC)) < timedelta(seconds=30)


async def test_number_that_json_cannot_carry_is_not_sent() -> None:
    async with client_on(scripted()) as client:
        with pytest.raises(InvalidRequest):
            await client.executors.quote(NODE_ID, hours=float("nan"))
        with pytest.raises(InvalidRequest):
            await client.volumes.create(name="a", description="\ud800")
