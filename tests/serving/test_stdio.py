"""The server as hosts start it: a process that is spoken to in lines of JSON, in both eras of the protocol."""

import json
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.processes import Served, serving
from tests.wires import Wire, answering, served, silence

CURRENT = "2026-07-28"
LEGACY = "2025-06-18"
ERAS = [CURRENT, LEGACY]
# Of which an idle machine needs a tenth; what hangs does so for 30 s, or for ever.
EXIT_SECONDS = 25
LOGGED = re.compile(
    r"\S+ \S+ (INFO|ERROR) lium_mcp\.calls tool=\S+ outcome=\w+ seconds=\d+\.\d{3} request_id=(None|'[^']*')"
)
CLIENT = {"name": "by-hand", "version": "1"}

Ask = Callable[..., dict[str, Any]]


async def speaking(server: Served, era: str) -> Ask:
    """Begin as a client of that era does; return what makes its requests."""

    def request(number: int, method: str, **params: Any) -> dict[str, Any]:
        if era == CURRENT:
            prefix = "io.modelcontextprotocol"
            params["_meta"] = {
                f"{prefix}/protocolVersion": era,
                f"{prefix}/clientInfo": CLIENT,
                f"{prefix}/clientCapabilities": {},
            }
        return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}

    if era == CURRENT:
        hello = await server.ask(request(0, "server/discover"))
    else:
        params = {"protocolVersion": era, "capabilities": {}, "clientInfo": CLIENT}
        hello = await server.ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        await server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert hello["result"]["protocolVersion"] == era
    assert "instructions" in hello["result"]
    return request


def called(number: int, request: Ask, tool: str, **arguments: Any) -> dict[str, Any]:
    return request(number, "tools/call", name=tool, arguments=arguments)


def text(message: dict[str, Any]) -> str:
    return str(message["result"]["content"][0]["text"])


@pytest.mark.parametrize("era", ERAS)
async def test_without_a_key_or_network_it_starts_lists_and_says_what_is_missing(era: str) -> None:
    async with served(Wire(Sandbox(speed=0))) as lium, serving(LIUM_BASE_URL=lium.base_url) as server:
        request = await speaking(server, era)
        tools = (await server.ask(request(1, "tools/list")))["result"]["tools"]
        assert {"list_gpus", "rent_pod"} <= {tool["name"] for tool in tools}
        assert lium.requests == []
        refused = await server.ask(called(2, request, "list_pods"))
        assert refused["result"]["isError"] is True
        assert "LIUM_API_KEY" in text(refused)
        assert lium.requests == []
        assert await server.end() == 0
    assert [line for line in server.stderr.splitlines() if not LOGGED.fullmatch(line)] == []


@pytest.mark.parametrize("era", ERAS)
async def test_with_wrong_settings_it_starts_lists_and_says_at_each_call_what_is_wrong(era: str) -> None:
    wrong = {
        "LIUM_MCP_MAX_PODS": "many",
        "LIUM_MCP_MAX_POD": "3",
        "LIUM_MCP_ALLOW_TOOLS": "list_gpu",
        "LIUM_MCP_READ_ONLY": "true",
        "LIUM_API_KEY": "Bearer sk_s3cret",
        "ALL_PROXY": "socks5://user:s3cret@127.0.0.1:1080",
    }
    async with serving(**wrong) as server:
        request = await speaking(server, era)
        told = json.loads(server.lines[0])["result"]["instructions"].split("\n")[0]
        assert all(f"{setting}: " in told for setting in wrong.keys() - {"LIUM_MCP_READ_ONLY"})
        assert "s3cret" not in told
        tools = (await server.ask(request(1, "tools/list")))["result"]["tools"]
        names = {tool["name"] for tool in tools}
        assert "list_gpus" in names
        assert "rent_pod" not in names, "the other settings hold"
        for number, name in enumerate(("list_gpus", "list_pods", "get_pod"), start=2):
            refused = await server.ask(called(number, request, name))
            assert refused["result"]["isError"] is True
            assert refused["result"]["_meta"]["lium-mcp/error"]["code"] == "settings_wrong"
            for setting in wrong.keys() - {"LIUM_MCP_READ_ONLY"}:
                assert f"{setting}: " in text(refused)
            assert "s3cret" not in text(refused)
        unknown = await server.ask(called(9, request, "no_such_tool"))
        assert unknown["error"]["code"] == -32602
        assert await server.end() == 2
    assert "LIUM_MCP_MAX_PODS: " in server.stderr.splitlines()[0]
    assert "s3cret" not in server.stderr


async def test_a_server_with_wrong_settings_lists_what_the_others_offer() -> None:
    wrong = {"LIUM_MCP_MAX_PODS": "many", "LIUM_MCP_READ_ONLY": "true"}
    async with serving(**wrong) as server:
        request = await speaking(server, CURRENT)
        tools = (await server.ask(request(1, "tools/list")))["result"]["tools"]
    assert "list_gpus" in {tool["name"] for tool in tools}
    assert "rent_pod" not in {tool["name"] for tool in tools}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-podz", "3"], "--max-podz: there is no such option; --max-pods is one"),
        (["serve", "--api-key=sk_s3cret"], "--api-key: there is no such option"),
        (["--max-pods"], "--max-pods: expected one argument"),
    ],
)
async def test_an_option_that_a_host_misspells_is_said_at_each_call(arguments: list[str], said: str) -> None:
    async with serving(*arguments) as server:
        request = await speaking(server, CURRENT)
        refused = await server.ask(called(1, request, "list_gpus"))
        assert said in text(refused)
        assert await server.end() == 2
    assert said in server.stderr
    assert "s3cret" not in text(refused) + server.stderr


async def test_junk_between_messages_is_refused_and_never_repeated() -> None:
    secret = "argument-that-nobody-logs"
    async with serving("--sandbox", LIUM_MCP_LOG_LEVEL="DEBUG") as server:
        request = await speaking(server, LEGACY)
        for junk in (secret, "", "{", "[]", "null", '{"jsonrpc":"2.0"}', f'{{"jsonrpc":"1.0","{secret}":1}}', "\ud800"):
            await server.send(junk)
            if junk:
                assert (await server.receive())["error"]["code"] in {-32600, -32700}
        await server.send('{"jsonrpc":"2.0","method":"notifications/' + secret + '"}')
        assert '"pods":[]' in text(await server.ask(called(1, request, "list_pods")))
        unknown = await server.ask(called(2, request, secret, pod=secret))
        assert unknown["error"]["code"] == -32602
        wrong = await server.ask(request(3, "tools/call", name="get_pod", arguments=secret))
        assert wrong["error"]["code"] == -32602
        refused: list[dict[str, Any]] = [{"pod": secret}, {"pod": "x", secret: 1}, {"pod": [secret]}]
        for number, arguments in enumerate(refused, start=4):
            assert (await server.ask(called(number, request, "get_pod", **arguments)))["result"]["isError"]
        # JSON has no such number, but Python writes it.
        infinite = await server.ask(called(7, request, "list_gpus", min_vram_gb=float("inf"), limit=float("nan")))
        assert "min_vram_gb: " in text(infinite)
        assert "limit: " in text(infinite)
        assert await server.end() == 0
    assert not [line for line in server.lines if secret in line and '"error"' in line and '"id":null' in line]
    assert secret not in server.stderr
    lines = [line for line in server.stderr.splitlines() if "lium_mcp.calls" in line]
    assert all(LOGGED.fullmatch(line) for line in lines)
    assert len(lines) == 6, "one for each call whose request could be read"


async def test_calls_run_side_by_side() -> None:
    async with served(Wire(Sandbox(seed=7, speed=0, balance_usd=5))) as lium:
        held = lium.hold("GET", "/users/me")
        async with serving(LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox") as server:
            request = await speaking(server, CURRENT)
            await server.send(called(1, request, "get_balance"))
            await server.send(called(2, request, "list_pods"))
            assert (await server.receive())["id"] == 2
            held.let_go()
            assert '"balance_usd":5' in text(await server.receive())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once_with_the_status_of_that_signal(number: signal.Signals) -> None:
    async with serving("--sandbox") as server:
        await speaking(server, CURRENT)
        started = time.monotonic()
        server.interrupt(number)
        assert await server.exited() == 128 + number
        assert time.monotonic() - started < EXIT_SECONDS
    assert "Traceback" not in server.stderr


async def test_a_signal_during_a_rent_leaves_no_pod_behind() -> None:
    sandbox = Sandbox(seed=7, speed=1000)
    sandbox.add_fault("slow", seconds=0.5, stage="answer", match={"method": "POST", "path": "/executors/**"})
    async with (
        served(Wire(sandbox)) as lium,
        serving(LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox") as server,
    ):
        request = await speaking(server, CURRENT)
        await server.send(called(1, request, "rent_pod", name="p", gpu_type="A100"))
        await lium.arrival("POST")
        started = time.monotonic()
        server.interrupt(signal.SIGTERM)
        assert await server.exited() == 128 + signal.SIGTERM
        assert time.monotonic() - started < EXIT_SECONDS
    pods = sandbox.state()["pods"]
    assert isinstance(pods, list)
    [status] = [pod["status"] for pod in pods if isinstance(pod, dict)]
    assert status in {"DELETING", "DELETED"}


async def test_a_host_that_hangs_up_during_a_change_ends_it() -> None:
    async with served(Wire(Sandbox(seed=7, speed=0))) as lium:
        lium.on("GET", "/pods", silence)
        async with serving(LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox") as server:
            request = await speaking(server, CURRENT)
            await server.send(called(1, request, "remove_pod", pod="train"))
            await lium.arrival("GET")
            started = time.monotonic()
            assert await server.end() == 0
            assert time.monotonic() - started < EXIT_SECONDS
    assert "outcome=cancelled" in server.stderr
    assert json.loads(server.lines[-1])["result"]["isError"] is True


async def test_what_was_asked_before_the_input_ended_is_answered_but_nothing_is_changed() -> None:
    async with served(Wire(Sandbox(seed=7, speed=0, balance_usd=5))) as lium:
        held = lium.hold("GET", "/users/me")
        async with serving(LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox") as server:
            request = await speaking(server, CURRENT)
            await server.send(called(1, request, "get_balance"))
            await server.send(
                called(2, request, "list_gpus", gpu_type="A100", max_usd_per_gpu_hour=0.01, wait_seconds=600)
            )
            await held.reached()
            await server.send(called(3, request, "rent_pod", name="p", gpu_type="A100"))
            server.close_input()
            assert {(await server.receive())["id"] for _ in range(2)} == {2, 3}, "what waits or changes is ended"
            held.let_go()
            assert await server.end() == 0
        assert not lium.sent("POST", "/**")
    answers = {answer["id"]: answer["result"] for answer in map(json.loads, server.lines) if "result" in answer}
    assert answers.keys() == {0, 1, 2, 3}
    assert '"balance_usd":5' in answers[1]["content"][0]["text"]
    assert "isError" not in answers[2] or not answers[2]["isError"]
    assert answers[3]["isError"] is True


async def test_a_key_that_lium_repeats_reaches_neither_standard_output_nor_standard_error() -> None:
    key = "sk_live_51HsecretSecretSECRET"
    async with served(Wire(Sandbox(speed=0))) as lium:
        echoes = [
            answering(200, [{"id": key, "name": key, "public_key": key}], x_request_id=key),
            answering(200, f"{{{key}".encode(), x_request_id=key),
            answering(400, {"error": {"code": key, "message": key, "request_id": key}}),
            answering(307, location=f"/api/{key}"),
        ]
        settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_LOG_LEVEL": "DEBUG"}
        async with serving(**settings, LIUM_API_KEY=key, LIUM_MCP_TOOLSETS="backups,extras") as server:
            request = await speaking(server, CURRENT)
            for number, echo in enumerate(echoes):
                lium.on("*", "**", echo)
                for offset, tool in enumerate(("list_ssh_keys", "delete_backup")):
                    arguments = {"backup_id": "b"} if tool == "delete_backup" else {}
                    await server.ask(called(1 + 2 * number + offset, request, tool, **arguments))
            assert await server.end() == 0
    assert any(seen.headers.get("x-api-key") == key for seen in lium.requests)
    assert key not in "".join(server.lines)
    assert key not in server.stderr


async def test_the_log_can_be_read_by_programs_and_holds_no_argument() -> None:
    async with (
        served(Wire(Sandbox(speed=0))) as lium,
        serving(LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox", LIUM_MCP_LOG_FORMAT="json") as server,
    ):
        request = await speaking(server, CURRENT)
        await server.ask(called(1, request, "list_pods"))
        await server.ask(called(2, request, "get_pod", pod="a-name-that-nobody-else-should-read"))
        assert await server.end() == 0
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    assert [(line["tool"], line["outcome"]) for line in lines] == [("list_pods", "ok"), ("get_pod", "pod_not_found")]
    assert {frozenset(line) for line in lines} == {
        frozenset({"at", "level", "logger", "request", "tool", "outcome", "seconds", "request_id"})
    }
    assert "a-name" not in server.stderr


@pytest.mark.parametrize(
    ("line", "request_id", "code"),
    [
        ('{"jsonrpc": "2.0", "id": 5, "method": "ping", "params": {"note": "\\ud83d"}}', 5, -32600),
        ('{"jsonrpc": "2.0", "id": "six", "params": {}}', "six", -32600),
        ('{"id": 7, "method": "ping"}', 7, -32600),
        ('{"jsonrpc": "2.0", "id": 8, "method": "ping", "params": []}', 8, -32600),
        ('[{"jsonrpc": "2.0", "id": 9, "method": "ping"}]', None, -32600),
        ('{"jsonrpc": "2.0", "id": 9, "method": "ping"', None, -32700),
        ("[" * 20_000 + "]" * 20_000, None, -32700),
        ("[" * 100_000, None, -32700),
        ("sk_not_a_message", None, -32700),
        ('\ufeff{"jsonrpc": "2.0", "id": 9, "method": "ping"}', 9, -32600),
        ('{"jsonrpc": "2.0", "id": 9, "method": "ping", "params": {"note": "\ud83d"}}', 9, -32600),
        ('{"jsonrpc": "2.0", "id": null, "method": "ping"}', None, -32600),
        ('{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', None, -32600),
        ('{"jsonrpc": "2.0", "id": true, "method": "ping"}', None, -32600),
        ('{"jsonrpc": "2.0", "id": [1], "method": "tools/list"}', None, -32600),
        ('{"jsonrpc": "2.0", "id": "s\\ud83d", "method": "ping"}', None, -32600),
        ('{"jsonrpc": "2.0", "id": "s\ud83d", "method": "ping"}', None, -32600),
        ('{"jsonrpc": "2.0", "id": "x", "method": "tools/list", "error": {"code": 1, "message": "m"}}', "x", -32600),
        ("{}", None, -32600),
        ("[]", None, -32600),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_line_that_is_no_message_is_answered(line: str, request_id: Any, code: int, is_first: bool) -> None:
    async with serving("--sandbox") as server:
        request = None if is_first else await speaking(server, CURRENT)
        await server.send(line)
        answer = await server.receive()
        assert (answer["id"], answer["error"]["code"]) == (request_id, code)
        assert "sk_" not in server.lines[-1]
        request = request or await speaking(server, CURRENT)
        assert "tools" in (await server.ask(request(3, "tools/list")))["result"]
        assert await server.end() == 0
    assert [line for line in server.stderr.splitlines() if f"refused with {code}" in line] == server.stderr.splitlines()
    assert len(server.stderr.splitlines()) == 1


async def test_half_a_line_at_the_end_is_refused_and_a_whole_one_without_its_line_break_is_served() -> None:
    for last, code in (
        ('{"jsonrpc": "2.0", "id": 3, "me', -32700),
        ('{"jsonrpc": "2.0", "id": 3, "method": "x"}', -32602),
    ):
        async with serving() as server:
            await speaking(server, CURRENT)
            await server.send_without_end(last)
            assert await server.end() == 0
        assert [json.loads(line)["error"]["code"] for line in server.lines[1:]] == [code]
