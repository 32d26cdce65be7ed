"""The server over HTTP, as a real process: who may call, on whose money, and what is left when somebody leaves."""

import asyncio
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from lium_mcp import __version__
from lium_mcp.sandbox import API_KEY, OTHER_API_KEY
from lium_mcp.server import build_server
from lium_mcp.serving.http import bound_calls, build_app
from lium_mcp.serving.probes import Readiness
from lium_mcp.serving.sessions import SessionBounds, Sessions
from lium_mcp.settings import Settings
from lium_mcp.values import SettingsError
from tests.compat.simulated import Simulated, simulating
from tests.harness import PUBLIC_KEY, Person, text_of
from tests.http_server import (
    LEGACY_VERSION,
    MODERN_VERSION,
    STOP_SECONDS,
    WAYS,
    Served,
    Way,
    Wire,
    calling,
    envelope,
    initialize,
    initialized,
    serving,
    tool_call,
    until_progress,
    variables,
)

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - what is tested is that it is not open to all
TOKEN = "a-token-that-a-test-has-made-up-4711"
MINE, THEIRS = {"X-API-Key": API_KEY}, {"X-API-Key": OTHER_API_KEY}
OTHER_PUBLIC_KEY = f"{PUBLIC_KEY[:-4]}AAAA"
RENT = {"name": "train", "gpu_type": "A100", "wait_seconds": 60}
RENT_REQUEST = {"method": "POST", "path": "/executors/rent-by-spec"}
_begun = itertools.count()


@pytest.fixture(scope="module")
def _simulated() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def lium(_simulated: Simulated) -> Simulated:
    """A fresh sandbox with two accounts, whose clock stands still until it is turned.

    Each begins ten minutes after the last: for a server that lives on, the pods of the last are gone, not just hidden.
    """
    _simulated.begin(start=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10 * next(_begun)))
    return _simulated


@pytest.fixture(scope="module")
def _hosted(_simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("hosted")
    with serving(home, LIUM_BASE_URL=_simulated.base_url, LIUM_MCP_LOG_LEVEL="DEBUG") as served:
        yield served


@pytest.fixture
def hosted(_hosted: Served, lium: Simulated) -> Served:
    """A server without a key of its own, at its most talkative."""
    return _hosted


@pytest.fixture(scope="module")
def _personal(_simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("personal")
    with serving(home, LIUM_BASE_URL=_simulated.base_url, LIUM_API_KEY=API_KEY) as served:
        yield served


@pytest.fixture
def personal(_personal: Served, lium: Simulated) -> Served:
    """A server on loopback with a key of its own."""
    return _personal


async def register_ssh_keys(url: str) -> None:
    """Give both accounts a key to put into pods: a caller elsewhere has no key file here."""
    for headers, public_key in ((MINE, PUBLIC_KEY), (THEIRS, OTHER_PUBLIC_KEY)):
        async with calling(url, "modern", headers) as caller:
            await caller.call("add_ssh_key", name="laptop", public_key=public_key)


@asynccontextmanager
async def call_under_way(url: str, way: Way, arguments: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
    """Rent by hand over HTTP, up to the first word of progress: the pod exists, and its caller does not know it."""
    async with Wire(url).calling(way, "rent_pod", arguments) as lines:
        await until_progress(lines)
        yield lines


async def rent_by_hand(url: str, way: Way) -> None:
    async with call_under_way(url, way, RENT):
        pass


async def until(holds: Callable[[], object]) -> None:
    """Look again and again at what another process does."""
    with anyio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - no event reaches us from there
            await anyio.sleep(0.02)


async def until_gone(lium: Simulated) -> None:
    """Let the sandbox's time pass: the pod that cannot be removed yet has got a removal time."""
    await until(lambda: [pod["removal_scheduled_at"] for pod in lium.state()["pods"]] not in ([], [None]))
    lium.turn(minutes=5)
    assert [pod["status"] for pod in lium.state()["pods"] if pod["removed_at"] is None] in ([], ["DELETING"])


# Who may call, and on whose money


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "headers", [MINE, {"Authorization": f"Bearer {API_KEY}"}, {"authorization": f"bEARER {API_KEY}"}]
)
async def test_a_key_in_a_header_is_the_callers_account(hosted: Served, way: Way, headers: dict[str, str]) -> None:
    async with calling(hosted.url, way, headers) as caller:
        assert len((await caller.client.list_tools()).tools) > 30
        assert (await caller.call("get_balance"))["balance_usd"] == 100


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("query", ["", f"?api_key={API_KEY}", f"?X-API-Key={API_KEY}&key={API_KEY}&token={API_KEY}"])
async def test_without_a_key_in_a_header_the_caller_is_told_how_to_send_one(
    hosted: Served, way: Way, query: str
) -> None:
    async with calling(hosted.url, way, query=query) as caller:
        code, text = await caller.refused("get_balance")
        assert code == "api_key_missing"
        assert "X-API-Key" in text
        assert (await caller.call("list_gpus"))["total"] > 0


async def test_a_caller_whose_key_is_not_kept_has_no_standing_orders(hosted: Served, lium: Simulated) -> None:
    await register_ssh_keys(hosted.url)
    async with calling(hosted.url, "modern", MINE) as caller:
        wish = {"name": "train", "gpu_type": "A100", "hours": 2, "max_usd_per_gpu_hour": 0.01}
        code, text = await caller.refused("rent_pod", **wish, keep_trying_hours=24)
        assert code == "not_for_callers"
        assert "for your requests only" in text
        assert "orders" not in await caller.call("list_pods")


async def test_two_callers_at_once_each_act_on_their_own_account(hosted: Served, lium: Simulated) -> None:
    await register_ssh_keys(hosted.url)

    async def live(way: Way, headers: dict[str, str], name: str) -> str:
        async with calling(hosted.url, way, headers) as caller:
            pod_id = str((await caller.call("rent_pod", **RENT | {"name": name, "wait_seconds": 0}))["pod_id"])
            reads = [caller.call("get_pod", pod=pod_id, wait_seconds=0) for _ in range(8)]
            assert {(await read)["pod"]["name"] for read in asyncio.as_completed(reads)} == {name}
            return pod_id

    async def trespass(way: Way, headers: dict[str, str], pod_id: str) -> str:
        async with calling(hosted.url, way, headers) as caller:
            return (await caller.refused("get_pod", pod=pod_id))[0]

    mine_and_theirs = await asyncio.gather(
        *(live(way, MINE, f"mine-{way}") for way in WAYS), *(live(way, THEIRS, f"theirs-{way}") for way in WAYS)
    )
    mine, theirs = mine_and_theirs[: len(WAYS)], mine_and_theirs[len(WAYS) :]
    codes = await asyncio.gather(
        *(trespass(way, THEIRS, pod_id) for way, pod_id in zip(WAYS, mine, strict=True)),
        *(trespass(way, MINE, pod_id) for way, pod_id in zip(WAYS, theirs, strict=True)),
    )
    assert set(codes) == {"pod_not_found"}
    owners = {rent["pod_name"].split("-")[0]: rent["account_id"] for rent in lium.state()["rents"]}
    assert len(lium.state()["rents"]) == 6
    assert len(set(owners.values())) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_two_rents_of_one_name_at_once_make_one_pod(personal: Served, lium: Simulated, way: Way) -> None:
    async with (
        calling(personal.url, way, MINE) as one,
        calling(personal.url, "modern", {"Authorization": f"Bearer {API_KEY}"}) as other,
        calling(personal.url, "modern") as own,
    ):
        await one.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        rents = [caller.raw("rent_pod", **RENT | {"wait_seconds": 0}) for caller in (one, other, one, own)]
        results = await asyncio.gather(*rents)
    assert not any(result.is_error for result in results)
    answers = [result.structured_content or {} for result in results]
    assert len({answer["pod_id"] for answer in answers}) == 1
    assert sorted("already_rented" in answer for answer in answers) == [False, True, True, True]
    assert len(lium.state()["rents"]) == 1


async def test_the_key_of_the_sandbox_serves_callers_without_one_on_this_machine(personal: Served) -> None:
    async with calling(personal.url, "modern") as caller:
        assert (await caller.call("get_balance"))["balance_usd"] == 100


async def test_the_ssh_key_of_this_machine_is_put_into_no_other_callers_pod(personal: Served, lium: Simulated) -> None:
    async with calling(personal.url, "legacy", THEIRS) as caller:
        code, said = await caller.refused("rent_pod", **RENT)
        assert code == "ssh_key_missing"
        assert "add_ssh_key" in said
        assert "ssh-keygen" not in said, "a key on the server's machine would not be theirs"
        await caller.call("add_ssh_key", name="laptop", public_key=OTHER_PUBLIC_KEY)
        await caller.call("rent_pod", **RENT | {"name": "theirs", "wait_seconds": 0})
    async with calling(personal.url, "legacy") as caller:
        await caller.call("rent_pod", **RENT | {"name": "mine", "wait_seconds": 0})
    keys = {
        request["body"]["pod_name"]: request["body"]["user_public_key"]
        for request in lium.requests("POST", "/executors/rent-by-spec")
    }
    assert keys == {"theirs": [OTHER_PUBLIC_KEY], "mine": [PUBLIC_KEY]}


@pytest.mark.parametrize(
    ("options", "host"), [(("--host", EVERY_ADDRESS), "gpu.example.com"), (("--host", "127.0.0.1"), "gpu.example.com")]
)
def test_callers_from_elsewhere_never_get_the_servers_own_key(
    lium: Simulated, tmp_path: Path, options: tuple[str, ...], host: str
) -> None:
    with serving(
        tmp_path,
        *options,
        "--allowed-host",
        f"{host},other.example.com",
        LIUM_BASE_URL=lium.base_url,
        LIUM_API_KEY=API_KEY,
    ) as served:
        url = re.sub("//.*:", "//127.0.0.1:", served.url)
        answer = post_call(url, "get_balance", {"Host": host})
        assert "api_key_missing" in answer.text
        assert "balance_usd" in post_call(url, "get_balance", {"Host": f"{host}:443", **MINE}).text
        assert post_call(url, "get_balance", {"Host": "evil.example.com", **MINE}).status_code == 421
        assert post_call(url, "get_balance", {"Host": host, "Origin": f"https://{host}", **MINE}).status_code == 200
        assert served.stop() == 0


def post_call(url: str, tool: str, headers: dict[str, str]) -> httpx2.Response:
    """Call a tool of the current protocol in one request."""
    every = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN_VERSION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    return httpx2.post(
        f"{url}/mcp", json=tool_call(tool, {}, modern=True), headers=every | headers, timeout=30, trust_env=False
    )


# Whose session it is

OLD_WAYS: tuple[Way, ...] = ("legacy", "sse")
INTRUDERS = {"another key": THEIRS, "no key": {}, "the token": {"X-Lium-MCP-Token": TOKEN}}
INTRUDER = pytest.mark.parametrize("intruder", INTRUDERS.values(), ids=INTRUDERS)


@pytest.fixture(scope="module")
def _guarded(_simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("guarded")
    settings = {"LIUM_API_KEY": OTHER_API_KEY, "LIUM_MCP_SERVER_TOKEN": TOKEN, "LIUM_MCP_LOG_LEVEL": "DEBUG"}
    with serving(home, LIUM_BASE_URL=_simulated.base_url, **settings) as served:
        yield served


@pytest.fixture
def guarded(_guarded: Served, lium: Simulated) -> Served:
    """A server whose own key is worth something."""
    return _guarded


async def say_all(url: str, session: tuple[str, dict[str, str]], headers: dict[str, str], messages: list[Any]) -> None:
    """Do in another's session whatever one can, and find none there."""
    path, in_session = session
    headers = headers | in_session | {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        for message in messages:
            assert (await http.post(path, json=message)).status_code == 404
        if path == "/mcp":
            async with http.stream("GET", path) as listening:
                assert listening.status_code == 404
            assert (await http.delete(path)).status_code == 404


def cancellation() -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2, "reason": "theirs"}}


def answer_to(question: dict[str, Any], action: str) -> dict[str, Any]:
    content = {"confirm": True} if action == "accept" else None
    return {"jsonrpc": "2.0", "id": question["id"], "result": {"action": action, "content": content}}


@INTRUDER
@pytest.mark.parametrize("way", OLD_WAYS)
async def test_only_who_opened_a_session_answers_its_questions(
    guarded: Served, lium: Simulated, way: Way, intruder: dict[str, str]
) -> None:
    await register_ssh_keys(guarded.url)
    wire = Wire(guarded.url, MINE, asks=True)
    async with wire.calling(way, "rent_pod", RENT | {"wait_seconds": 0}) as lines:
        async for question in messages_of(lines, "elicitation/create"):
            await say_all(
                guarded.url,
                wire.session,
                intruder,
                [answer_to(question, "accept"), cancellation(), tool_call("list_gpus", {}, modern=False)],
            )
            assert await wire.say(answer_to(question, "decline")) == 202
            break
        answer = await answer_in(lines)
    assert "not_confirmed" in answer
    assert lium.state()["rents"] == []


@pytest.mark.parametrize("result", [None, "accept", ["accept"]])
@pytest.mark.parametrize("way", OLD_WAYS)
async def test_an_answer_that_cannot_be_read_is_none(
    guarded: Served, lium: Simulated, way: Way, result: object
) -> None:
    await register_ssh_keys(guarded.url)
    wire = Wire(guarded.url, MINE, asks=True)
    async with wire.calling(way, "rent_pod", RENT | {"wait_seconds": 0}) as lines:
        async for question in messages_of(lines, "elicitation/create"):
            assert await wire.say({"jsonrpc": "2.0", "id": question["id"], "result": result}) == 202
            break
        with anyio.fail_after(60):
            answer = await answer_in(lines)
    assert "not_confirmed" in answer
    assert "LIUM_MCP_CONFIRM" in answer
    assert lium.state()["rents"] == []


async def answer_in(lines: AsyncIterator[str]) -> str:
    async for line in lines:
        if '"content"' in line:
            return line
    raise AssertionError("the stream ended without an answer")


async def messages_of(lines: AsyncIterator[str], method: str) -> AsyncIterator[dict[str, Any]]:
    async for line in lines:
        if line.startswith("data: {"):
            message = json.loads(line.removeprefix("data: "))
            if message.get("method") == method:
                yield message


@INTRUDER
@pytest.mark.parametrize("way", OLD_WAYS)
async def test_only_who_opened_a_session_cancels_and_ends_it(
    guarded: Served, lium: Simulated, way: Way, intruder: dict[str, str]
) -> None:
    await register_ssh_keys(guarded.url)
    wire = Wire(guarded.url, MINE)
    async with wire.calling(way, "rent_pod", RENT) as lines:
        await until_progress(lines)
        await say_all(guarded.url, wire.session, intruder, [cancellation()])
        lium.turn(minutes=2)
        answer = await answer_in(lines)
    assert "RUNNING" in answer
    assert len(lium.state()["rents"]) == 1


@pytest.mark.parametrize("headers", [{"Authorization": f"bEARER   {API_KEY}"}, {"x-api-KEY": API_KEY}])
async def test_a_key_is_the_same_owner_in_either_header(hosted: Served, headers: dict[str, str]) -> None:
    async with httpx2.AsyncClient(base_url=hosted.url, timeout=60, trust_env=False) as http:
        accept = {"Accept": "application/json, text/event-stream"}
        opening = await http.post("/mcp", json=initialize(), headers=MINE | accept)
        session = {"Mcp-Session-Id": opening.headers["mcp-session-id"]}
        assert (await http.post("/mcp", json=initialized(), headers=headers | session | accept)).status_code == 202
        assert (await http.post("/mcp", json=initialized(), headers=THEIRS | session | accept)).status_code == 404
        assert (await http.delete("/mcp", headers=headers | session | accept)).status_code == 200
        assert (await http.post("/mcp", json=initialized(), headers=MINE | session | accept)).status_code == 404


# The server's own key

THE_TOKEN = {"X-Lium-MCP-Token": TOKEN}


@pytest.mark.parametrize("way", WAYS)
async def test_the_servers_own_key_serves_callers_with_its_token(guarded: Served, way: Way) -> None:
    async with calling(guarded.url, way, THE_TOKEN) as caller:
        assert (await caller.call("list_ssh_keys"))["keys"] == []
        assert (await caller.call("get_balance"))["balance_usd"] > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Lium-MCP-Token": TOKEN[:-1]},
        {"X-Lium-MCP-Token": ""},
        {"Authorization": f"Bearer {TOKEN}"},
        {"X-API-Key": TOKEN},
    ],
    ids=["none", "wrong", "empty", "elsewhere", "as a key"],
)
async def test_without_the_token_a_caller_is_told_where_it_is(
    guarded: Served, lium: Simulated, way: Way, headers: dict[str, str]
) -> None:
    asked: list[int] = []
    async with calling(guarded.url, way, headers) as caller:
        assert (await caller.call("list_gpus"))["total"] > 0
        # The server itself may ask something with its key between two of these, but not each time.
        while len(asked) < 2 or (asked[-1] != asked[-2] and len(asked) < 4):
            asked.append(len(lium.state()["requests"]))
            for tool, arguments in {
                "get_balance": {},
                "list_pods": {},
                "run_command": {"pod": "x", "command": "id"},
            }.items():
                code, text = await caller.refused(tool, **arguments)
                assert code == "api_key_missing"
                assert "LIUM_MCP_SERVER_TOKEN" in text
                assert "X-Lium-MCP-Token" in text
                misplaced = next((name for name, value in headers.items() if TOKEN in value), None)
                mistake = f"The header {misplaced} holds the server token of this MCP server"
                assert (mistake in text) is (misplaced is not None)
                assert TOKEN not in text
        assert asked[-1] == asked[-2], "neither the key nor the token left"


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded", "X-Forwarded-For", "x-forwarded-HOST", "X-Forwarded-Proto", "X-Real-IP", "Via", "CF-Connecting-IP",
        "True-Client-IP", "Tailscale-User-Login", "X-Original-URI", "X-Client-IP", "Fly-Client-IP", "X-Envoy-Peer",
    ],
)  # fmt: skip
def test_what_a_proxy_forwards_never_spends_the_servers_own_key(guarded: Served, personal: Served, header: str) -> None:
    for served, token in ((guarded, TOKEN), (personal, "")):
        answer = post_call(served.url, "get_balance", {"X-Lium-MCP-Token": token, header: "x"})
        assert answer.json()["result"]["_meta"]["lium-mcp/error"]["code"] == "api_key_missing"
        assert header.lower() in answer.text
        assert "balance_usd" in post_call(served.url, "get_balance", {header: "x", **MINE}).text


def test_the_token_is_made_once_and_shown_once(lium: Simulated, tmp_path: Path) -> None:
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_API_KEY": OTHER_API_KEY, "LIUM_MCP_LOG_LEVEL": "DEBUG"}
    path = tmp_path / ".local/state/lium-mcp/server-token"
    with serving(tmp_path, **settings) as first, serving(tmp_path / "new", **settings) as elsewhere:
        token = path.read_text().strip()
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(token) > 40
        assert first.says(token).count(token) == 1
        assert str(path) in first.first_words
        assert token not in elsewhere.stderr()
        assert "balance_usd" in post_call(first.url, "get_balance", {"X-Lium-MCP-Token": token}).text
        said = post_call(first.url, "get_balance", {}).text
        assert "~/.local/state/lium-mcp/server-token" in said
        assert first.stderr().count(token) == 1, "the log hides it"
    with serving(tmp_path, **settings) as second:
        assert "balance_usd" in post_call(second.url, "get_balance", {"X-Lium-MCP-Token": token}).text
        assert token not in second.stderr()
        assert str(path) in second.first_words


@pytest.mark.parametrize(
    "settings", [{"LIUM_API_KEY": API_KEY}, {"LIUM_MCP_SANDBOX": "true"}, {}], ids=["sandbox's key", "sandbox", "none"]
)
def test_no_token_is_made_where_no_key_is_to_be_guarded(
    lium: Simulated, tmp_path: Path, settings: dict[str, str]
) -> None:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, **settings) as served:
        assert ("balance_usd" in post_call(served.url, "get_balance", {}).text) == bool(settings)
        assert not (tmp_path / ".local/state/lium-mcp/server-token").exists()


def test_without_a_token_nothing_is_guarded_by_none() -> None:
    settings = Settings(transport="http", api_key=OTHER_API_KEY)
    server = build_server(settings)
    with pytest.raises(SettingsError, match="there is no token"):
        build_app(server, settings, Sessions(SessionBounds()), Readiness(server.check), bound_calls(server, settings))


def test_a_token_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / ".local/state/lium-mcp/server-token"
    path.parent.mkdir(parents=True)
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o644)
    done = serve_and_fail(tmp_path, "--transport", "http", LIUM_API_KEY=OTHER_API_KEY)
    assert f"{path}: others may read it" in done
    assert TOKEN not in done


@pytest.mark.parametrize("token", ["short", "${LIUM_MCP_SERVER_TOKEN}", "x" * 31, "two words" * 9, "ä" * 40])
def test_a_token_that_is_none_stops_the_start(tmp_path: Path, token: str) -> None:
    done = serve_and_fail(tmp_path, "--transport", "http", LIUM_API_KEY=OTHER_API_KEY, LIUM_MCP_SERVER_TOKEN=token)
    assert "LIUM_MCP_SERVER_TOKEN: " in done
    assert token not in done.replace("LIUM_MCP_SERVER_TOKEN", "")


# What is refused at the door


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages/", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_a_foreign_host_or_origin_gets_nowhere(hosted: Served, path: str, method: str) -> None:
    for headers, status in (
        ({"Host": "evil.example.com"}, 421),
        ({"Host": "127.0.0.1.evil.example.com:8000"}, 421),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example.com"}, 403),
    ):
        answer = httpx2.request(method, hosted.url + path, headers=MINE | headers, trust_env=False)
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers


def test_a_page_of_this_machine_may_call(hosted: Served) -> None:
    assert "balance_usd" in post_call(hosted.url, "get_balance", MINE | {"Origin": "http://localhost:6274"}).text


@pytest.mark.parametrize("path", ["/mcp", "/messages/?session_id=6f1d2c3b4a5946879abcdef012345678"])
@pytest.mark.parametrize("version", [MODERN_VERSION, LEGACY_VERSION])
def test_a_body_over_a_mebibyte_is_refused(hosted: Served, path: str, version: str) -> None:
    headers = {"Content-Type": "application/json", "Accept": "*/*", "MCP-Protocol-Version": version}
    body = json.dumps({"padding": "x" * 2**20}).encode()

    def pieces() -> Iterator[bytes]:  # without a length in the header
        yield body

    for content in (body, pieces()):
        answer = httpx2.post(hosted.url + path, content=content, headers=headers, trust_env=False)
        assert answer.status_code == 413


@pytest.mark.parametrize(
    "value",
    [b"sk_\x00sandbox", b"sk_\x1b[31m", b"sk_\rX-Other: 1", b"x" * 2**20],
    ids=["nul", "escape", "return", "long"],
)
def test_a_header_that_no_client_sends_is_refused_and_the_server_lives(hosted: Served, value: bytes) -> None:
    host, port = hosted.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        head = f"POST /mcp HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 2\r\n".encode()
        try:
            raw.sendall(head + b"X-API-Key: " + value + b"\r\n\r\n{}")
            answer = raw.recv(100)
        except ConnectionError:  # it does not read a mebibyte before it answers
            answer = b"HTTP/1.1 400"
    assert re.match(rb"HTTP/1.1 4\d\d", answer)
    assert httpx2.get(f"{hosted.url}/healthz", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("sk_nobody", "api_key_refused"),
        ("ключ".encode(), "api_key_missing"),
        ("two words", "api_key_missing"),
        ("${LIUM_API_KEY}", "api_key_missing"),
        ("k" * 20_000, "api_key_refused"),
    ],
    ids=["unknown", "cyrillic", "space", "placeholder", "long"],
)
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(
    hosted: Served, lium: Simulated, key: str | bytes, code: str
) -> None:
    answer = post_call(hosted.url, "get_balance", {"X-API-Key": key})  # type: ignore[dict-item]  # bytes go as they are
    result = answer.json()["result"]
    assert result["_meta"]["lium-mcp/error"]["code"] == code
    assert result["isError"]
    assert str(key)[:12] not in answer.text
    assert "X-API-Key" in answer.text
    assert "lium.io (Settings, API keys)" in answer.text
    assert len(lium.state()["requests"]) == (code == "api_key_refused")


def test_anybody_may_ask_whether_the_server_lives(hosted: Served) -> None:
    answer = httpx2.get(f"{hosted.url}/healthz", headers={"Host": "10.1.2.3:8000"}, trust_env=False)
    assert answer.json() == {"status": "ok", "version": __version__}


async def test_no_key_is_in_the_log(lium: Simulated, tmp_path: Path) -> None:
    # None of these begins like a key of Lium's, which the log's own filter would find.
    keys = ["first-caller-secret", "second-caller-secret", "secret-in-a-url", TOKEN]
    senders = ({"X-API-Key": keys[0]}, {"Authorization": f"Bearer {keys[1]}"}, {"X-Lium-MCP-Token": TOKEN})
    settings = {"LIUM_MCP_LOG_LEVEL": "DEBUG", "LIUM_API_KEY": "own-secret", "LIUM_MCP_SERVER_TOKEN": TOKEN}
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, **settings) as served:
        for way, headers in itertools.product(WAYS, senders):
            async with calling(served.url, way, headers, query=f"?api_key={keys[2]}") as caller:
                assert (await caller.refused("get_balance"))[0] == "api_key_refused"
        assert served.stop() == 0
        log = served.stderr()
    assert log.count("tool=get_balance") == len(WAYS) * len(senders)
    assert "DEBUG" in log
    assert [key for key in [*keys, "own-secret", "Traceback"] if key in log] == []


# Progress, cancellation, and callers who leave


@pytest.mark.parametrize("way", WAYS)
async def test_a_long_call_reports_progress(personal: Served, lium: Simulated, way: Way) -> None:
    async with calling(personal.url, way) as caller:
        renting = asyncio.create_task(caller.call("rent_pod", **RENT))
        await until(lambda: caller.progress)
        lium.turn(minutes=2)
        assert (await renting)["pod"]["status"] == "RUNNING"
    assert "train is PENDING" in caller.progress[0]


SAME_ID = tool_call("list_gpus", {}, modern=False)
"""Has the id of the call that `Wire` makes."""


@pytest.mark.parametrize("way", OLD_WAYS)
async def test_a_second_request_of_one_id_is_refused_and_the_first_is_answered(
    personal: Served, lium: Simulated, way: Way
) -> None:
    wire = Wire(personal.url)
    async with wire.calling(way, "rent_pod", RENT) as lines:
        await until_progress(lines)
        refused = await wire.post(SAME_ID | {"id": "2"})
        error = refused.json()
        assert refused.status_code == 400
        assert (error["id"], error["error"]["code"]) == ("2", -32600)
        assert "id of its own" in error["error"]["message"]
        lium.turn(minutes=2)
        assert "RUNNING" in await answer_in(lines)
        again = await wire.post(SAME_ID)
        assert "total" in (again.text if way == "legacy" else await answer_in(lines))
    assert len(lium.state()["rents"]) == 1


@pytest.mark.parametrize("way", OLD_WAYS)
async def test_a_call_can_be_cancelled_after_another_one_came_with_its_id(
    personal: Served, lium: Simulated, way: Way
) -> None:
    wire = Wire(personal.url)
    async with wire.calling(way, "rent_pod", RENT) as lines:
        await until_progress(lines)
        assert (await wire.post(SAME_ID)).status_code == 400
        assert await wire.say(cancellation()) == 202
        await until_gone(lium)


async def test_who_names_anothers_session_in_its_own_address_takes_no_id_from_it(
    hosted: Served, lium: Simulated
) -> None:
    wire = Wire(hosted.url, MINE)
    watching = tool_call("list_gpus", {"max_usd_per_gpu_hour": 0.0001, "wait_seconds": 60}, modern=True)
    form = {"Accept": "text/event-stream, application/json", "MCP-Protocol-Version": MODERN_VERSION}
    form |= {"Mcp-Method": "tools/call", "Mcp-Name": "list_gpus"} | THEIRS
    async with wire.calling("sse", "list_pods", {}) as lines:
        await answer_in(lines)
        query = wire.session[0].partition("?")[2]
        async with (
            httpx2.AsyncClient(base_url=hosted.url, timeout=60, trust_env=False) as http,
            http.stream("POST", f"/mcp?{query}", json=watching, headers=form) as answer,
        ):
            watched = answer.aiter_lines()  # which ends with whoever forgets it
            await until_progress(watched)
            await wire.post(SAME_ID)
            assert '"id":2,"result"' in await next_data(lines)


async def test_the_id_of_the_opening_request_is_free_once_that_is_answered(personal: Served) -> None:
    async with httpx2.AsyncClient(base_url=personal.url, timeout=60, trust_env=False) as http:
        every = {"Accept": "application/json, text/event-stream"}
        opening = await http.post("/mcp", json=initialize(), headers=every)
        every |= {"Mcp-Session-Id": opening.headers["mcp-session-id"]}
        again = await http.post("/mcp", json=SAME_ID | {"id": initialize()["id"]}, headers=every)
        await http.delete("/mcp", headers=every)
    assert "total" in again.text


UNREADABLE: dict[str, tuple[bytes, Any, int]] = {
    "no JSON": (b"sk_not_a_message", None, -32700),
    "cut off": (b'{"jsonrpc": "2.0", "id": 9, "method": "sk_', None, -32700),
    "nothing": (b"", None, -32700),
    "too deep": (b"[" * 20_000, None, -32700),
    "half a character": (b'{"jsonrpc": "2.0", "id": 5, "method": "ping", "params": {"sk_": "\\ud83d"}}', 5, -32600),
    "two": (json.dumps([SAME_ID]).encode(), None, -32600),
    "no method": (b'{"jsonrpc": "2.0", "id": "six", "params": {"sk_": 1}}', "six", -32600),
    "no version": (b'{"id": 7, "method": "ping"}', 7, -32600),
    "parameters in a list": (b'{"jsonrpc": "2.0", "id": 8, "method": "ping", "params": ["sk_"]}', 8, -32600),
    "null as an id": (json.dumps(SAME_ID | {"id": None}).encode(), None, -32600),
    "a fraction as an id": (json.dumps(SAME_ID | {"id": 1.5}).encode(), None, -32600),
    "a boolean as an id": (json.dumps(SAME_ID | {"id": True}).encode(), None, -32600),
    "an object as an id": (json.dumps(SAME_ID | {"id": {}}).encode(), None, -32600),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_body_that_is_no_message_is_answered_and_not_repeated(personal: Served, way: Way) -> None:
    wire = Wire(personal.url)
    async with wire.calling(way, "list_pods", {}):
        path, headers = wire.session if way != "modern" else ("/mcp", {"MCP-Protocol-Version": MODERN_VERSION})
        headers = headers | {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        async with httpx2.AsyncClient(base_url=personal.url, timeout=60, trust_env=False) as http:
            answers = {
                case: await http.post(path, content=content, headers=headers)
                for case, (content, _, _) in UNREADABLE.items()
            }
    assert {case: answer.status_code for case, answer in answers.items()} == dict.fromkeys(UNREADABLE, 400)
    errors = {case: answer.json() for case, answer in answers.items()}
    assert {case: (error["id"], error["error"]["code"]) for case, error in errors.items()} == {
        case: (request_id, code) for case, (_, request_id, code) in UNREADABLE.items()
    }
    for case, error in errors.items():
        assert error["error"]["message"].endswith(" is expected."), case
        assert "sk_" not in str(error), case
        assert "list_gpus" not in str(error), case


@pytest.mark.parametrize("way", OLD_WAYS)
async def test_a_notification_may_have_an_id_that_is_null(personal: Served, way: Way) -> None:
    wire = Wire(personal.url)
    async with wire.calling(way, "list_pods", {}):
        assert await wire.say(initialized() | {"id": None}) == 202


async def next_data(lines: AsyncIterator[str]) -> str:
    async for line in lines:
        if line.startswith("data: ") and "notifications/progress" not in line:
            return line.removeprefix("data: ")
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_rent_leaves_no_pod(personal: Served, lium: Simulated, way: Way) -> None:
    async with calling(personal.url, way) as caller:
        renting = asyncio.create_task(caller.call("rent_pod", **RENT))
        await until(lambda: caller.progress)
        renting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renting
        await until_gone(lium)
        assert (await caller.call("list_pods"))["total"] == 0
    assert len(lium.state()["rents"]) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_who_leaves_without_a_word_leaves_no_pod(personal: Served, lium: Simulated, way: Way) -> None:
    async with call_under_way(personal.url, way, RENT):
        pass
    await until_gone(lium)
    assert len(lium.state()["rents"]) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_who_leaves_during_the_request_leaves_no_pod(
    personal: Served, lium: Simulated, way: Way
) -> None:
    lium.fault("slow", seconds=0.5, stage="answer", match=RENT_REQUEST)
    renting = asyncio.create_task(rent_by_hand(personal.url, way))
    await until(lambda: lium.state()["rents"])
    renting.cancel()
    await until_gone(lium)


@pytest.mark.parametrize("way", ["modern", "legacy"])
async def test_a_caller_who_is_answered_in_json_and_leaves_leaves_no_pod(
    personal: Served, lium: Simulated, way: Way
) -> None:
    headers = {"Accept": "application/json"}
    if way == "modern":
        headers |= {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": "rent_pod"}
    body = tool_call("rent_pod", RENT, modern=way == "modern")
    async with httpx2.AsyncClient(base_url=personal.url, timeout=60, trust_env=False) as http:
        renting = asyncio.create_task(http.post("/mcp", json=body, headers=headers))
        await until(lambda: lium.state()["rents"])
        renting.cancel()
        await until_gone(lium)


async def test_who_comes_again_with_the_id_of_a_lost_call_hears_nothing_of_that_one(
    personal: Served, lium: Simulated
) -> None:
    lium.fault("slow", seconds=0.5, stage="answer", match=RENT_REQUEST)
    async with httpx2.AsyncClient(base_url=personal.url, timeout=60, trust_env=False) as http:
        every = {"Accept": "application/json, text/event-stream"}
        opening = await http.post("/mcp", json=initialize(), headers=every)
        every |= {"Mcp-Session-Id": opening.headers["mcp-session-id"]}
        rent = tool_call("rent_pod", RENT, modern=False)
        renting = asyncio.create_task(http.post("/mcp", json=rent, headers=every))
        await until(lambda: lium.state()["rents"])
        renting.cancel()
        await asyncio.gather(renting, return_exceptions=True)
        assert (await http.post("/mcp", json=SAME_ID, headers=every)).status_code == 400
        await until_gone(lium)


@pytest.mark.parametrize("way", ["modern", "legacy"])
async def test_who_takes_json_alone_is_asked_in_the_answer_or_told_why_not(
    lium: Simulated, tmp_path: Path, way: Way
) -> None:
    body = tool_call("rent_pod", RENT, modern=way == "modern")
    headers = {"Accept": "application/json"}
    if way == "modern":
        headers |= {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": "rent_pod"}
        body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = {"elicitation": {}}
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_API_KEY": API_KEY, "LIUM_MCP_CONFIRM": "always"}
    with serving(tmp_path, **settings) as served:
        async with httpx2.AsyncClient(base_url=served.url, timeout=60, trust_env=False) as http:
            result = (await http.post("/mcp", json=body, headers=headers)).json()["result"]
    if way == "modern":
        [question] = result["inputRequests"].values()
        assert 'Rent pod "train"' in question["params"]["message"]
    else:
        assert result["_meta"]["lium-mcp/error"]["code"] == "confirmation_unavailable"
        assert "Accept: application/json, text/event-stream" in result["content"][0]["text"]
    assert lium.state()["rents"] == []


# The end


@pytest.fixture
def stoppable(lium: Simulated, tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_API_KEY=API_KEY) as served:
        yield served


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_an_idle_server(stoppable: Served, number: int) -> None:
    async with calling(stoppable.url, "modern") as caller:
        await caller.client.list_tools()
        assert await asyncio.to_thread(stoppable.stop, number) == 0
    assert "Traceback" not in stoppable.stderr()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_open_streams_do_not_hold_up_the_end(stoppable: Served, number: int) -> None:
    async with httpx2.AsyncClient(base_url=stoppable.url, timeout=60, trust_env=False) as http:
        opening = await http.post(
            "/mcp",
            headers={"Accept": "application/json, text/event-stream"},
            json={
                "jsonrpc": "2.0",
                "id": 1,
                "method": "initialize",
                "params": {
                    "protocolVersion": LEGACY_VERSION,
                    "capabilities": {},
                    "clientInfo": {"name": "t", "version": "1"},
                },
            },
        )
        session = {"Mcp-Session-Id": opening.headers["mcp-session-id"], "Accept": "text/event-stream"}
        async with http.stream("GET", "/mcp", headers=session) as events, http.stream("GET", "/sse") as sse:
            assert (events.status_code, sse.status_code) == (200, 200)
            assert await asyncio.to_thread(stoppable.stop, number) == 0
            # Both streams end in order: reading on is not an error.
            assert "endpoint" in "".join([line async for line in sse.aiter_lines()])
            assert [line async for line in events.aiter_lines() if line.startswith("data")] == []
    assert "Traceback" not in stoppable.stderr()


async def test_no_stream_of_changes_is_opened_since_none_is_announced(stoppable: Served) -> None:
    async with httpx2.AsyncClient(base_url=stoppable.url, timeout=60, trust_env=False) as http:
        listening = await http.post(
            "/mcp",
            headers={
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": MODERN_VERSION,
                "Mcp-Method": "subscriptions/listen",
            },
            json={
                "jsonrpc": "2.0",
                "id": 1,
                "method": "subscriptions/listen",
                "params": {"notifications": {"toolsListChanged": True}, "_meta": envelope()},
            },
        )
        assert listening.json()["error"]["code"] == -32601
        assert await asyncio.to_thread(stoppable.stop) == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_rent_under_way_answers_with_its_pod_before_the_end(
    stoppable: Served, lium: Simulated, way: Way
) -> None:
    async with call_under_way(stoppable.url, way, RENT) as lines:
        stopping = asyncio.create_task(asyncio.to_thread(stoppable.stop))
        answers = [line async for line in lines if '"structuredContent"' in line]
        assert await stopping == 0
    [pod] = lium.state()["pods"]
    [answer] = answers
    result = json.loads(answer.removeprefix("data: "))["result"]["structuredContent"]
    assert (result["outcome"], result["pod_id"]) == ("pending", pod["id"])
    assert "get_pod" in result["next"]
    assert "Traceback" not in stoppable.stderr()


async def test_calls_that_lium_does_not_answer_are_told_of_the_end(stoppable: Served, lium: Simulated) -> None:
    lium.fault("slow", seconds=60, match={"method": "GET", "path": "/users/me"}, times=10)
    async with calling(stoppable.url, "modern") as caller:
        reading = asyncio.create_task(caller.refused("get_balance"))
        await until(lambda: lium.requests("GET", "/users/me"))
        stopping = asyncio.create_task(asyncio.to_thread(stoppable.stop))
        code, said = await reading
        assert code == "server_stopping"
        assert "Nothing was changed." in said, "it only reads"
        assert await stopping == 0


async def test_what_waits_for_a_person_is_told_that_nothing_was_sent(stoppable: Served, lium: Simulated) -> None:
    person = Person(None)
    async with (
        httpx2.AsyncClient(headers=MINE, timeout=60, trust_env=False) as http,
        Client(
            streamable_http_client(f"{stoppable.url}/mcp", http_client=http), mode="legacy", elicitation_callback=person
        ) as client,
    ):
        await client.call_tool("add_ssh_key", {"name": "laptop", "public_key": PUBLIC_KEY})
        renting = asyncio.create_task(client.call_tool("rent_pod", RENT))
        await until(lambda: bool(person.questions))
        stopping = asyncio.create_task(asyncio.to_thread(stoppable.stop))
        said = text_of(await renting)
        assert await stopping == 0
    assert "sent nothing of what was asked for" in said
    assert "Nothing was changed." in said
    assert not lium.state()["rents"]


async def test_a_rent_that_lium_does_not_answer_is_named_in_the_log(stoppable: Served, lium: Simulated) -> None:
    lium.fault("slow", seconds=60, stage="answer", match=RENT_REQUEST)
    renting = asyncio.create_task(rent_by_hand(stoppable.url, "modern"))
    await until(lambda: lium.state()["rents"])
    await asyncio.to_thread(stoppable.stop)
    await asyncio.gather(renting, return_exceptions=True)
    assert "'train'" in stoppable.stderr()
    assert "may exist and bill" in stoppable.stderr()


# Over standard input and output


@pytest.fixture
def stdio(lium: Simulated, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = variables(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_API_KEY=API_KEY)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "lium_mcp"], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
    ) as process:
        yield process
        if process.poll() is None:
            process.kill()


def say(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_whose_input_stays_open(stdio: subprocess.Popen[str], number: int) -> None:
    say(stdio, {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": envelope()}})
    assert "result" in hear(stdio)
    stdio.send_signal(number)
    assert stdio.wait(timeout=STOP_SECONDS) == 128 + number


def test_of_two_requests_with_one_id_the_second_is_refused(stdio: subprocess.Popen[str], lium: Simulated) -> None:
    lium.fault("slow", seconds=60, match={"method": "GET", "path": "/users/me"})
    for _ in range(2):
        say(stdio, tool_call("get_balance", {}, modern=True))
    assert hear(stdio)["error"]["code"] == -32600
    lium.calm()
    second = hear(stdio)
    assert second["result"]["structuredContent"]["balance_usd"] == 100


async def test_the_first_of_two_requests_with_one_id_can_be_cancelled(
    stdio: subprocess.Popen[str], lium: Simulated
) -> None:
    say(stdio, tool_call("rent_pod", RENT, modern=True))
    assert hear(stdio)["method"] == "notifications/progress"
    say(stdio, tool_call("get_balance", {}, modern=True))
    while "method" in (refused := hear(stdio)):
        pass  # more progress
    assert refused["error"]["code"] == -32600
    say(stdio, cancellation())
    await until_gone(lium)


def test_the_first_of_two_requests_with_one_id_is_answered_after_the_input_has_ended(
    stdio: subprocess.Popen[str], lium: Simulated
) -> None:
    lium.fault("slow", seconds=60, match={"method": "GET", "path": "/users/me"})
    for _ in range(2):
        say(stdio, tool_call("get_balance", {}, modern=True))
    assert hear(stdio)["error"]["code"] == -32600
    assert stdio.stdin is not None
    stdio.stdin.close()
    lium.calm()
    assert hear(stdio)["result"]["structuredContent"]["balance_usd"] == 100


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None], ids=["SIGINT", "SIGTERM", "closed"])
async def test_a_host_that_leaves_leaves_no_pod(stdio: subprocess.Popen[str], lium: Simulated, end: int | None) -> None:
    say(stdio, tool_call("rent_pod", RENT, modern=True))
    assert hear(stdio)["method"] == "notifications/progress"
    if end is None:
        assert stdio.stdin is not None
        stdio.stdin.close()
    else:
        stdio.send_signal(end)
        assert await asyncio.to_thread(stdio.wait, STOP_SECONDS) == 128 + end
    await until_gone(lium)


# The start


@pytest.mark.parametrize(
    ("transport", "host"), [("http", EVERY_ADDRESS), ("sse", "::"), ("http", "192.0.2.1"), ("http", "gpu.example.com")]
)
def test_other_machines_are_not_served_under_unknown_names(tmp_path: Path, host: str, transport: str) -> None:
    done = serve_and_fail(tmp_path, "--transport", transport, "--host", host, "--port", "0")
    assert "--allowed-host" in done
    assert host in done


def test_a_port_in_use_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve_and_fail(tmp_path, "--transport", "http", "--port", str(port))
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in done


def serve_and_fail(home: Path, *options: str, **settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lium_mcp", "serve", *options],
        env=variables(home, **settings),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr
