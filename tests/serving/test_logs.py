"""What goes to standard error: one line for each record, and in none of them what a call was about, at no level.

Contents are planted in all that a server reads, from its callers and from Lium, and then looked for in its log.
"""

import codecs
import html
import io
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.guard.redaction import Redactor
from lium_mcp.sandbox import Sandbox
from lium_mcp.serving.logs import Lines
from tests.http_server import ALL_TOOLS, WAYS, Way, calling
from tests.http_server import serving as serving_http
from tests.processes import ROOT, run, serving
from tests.wires import Act, Wire, answering, served

KEY = r"k\ey-Pl4nted"
"""As no key of Lium's looks: what finds it has to know it."""
ARGUMENT, VALUE, ANSWER, HEADER = "Arg9planted", "Env9planted", "Ans9planted", "Hdr9planted"
PLANTED = (ARGUMENT, VALUE, ANSWER, HEADER, "Pl4nted", "FORGED")
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+ \S.*")
FORGERY = "abc%0A2026-01-01 00:00:00,000 ERROR lium_mcp.calls FORGED"


def assert_holds_nothing(log: str) -> None:
    """None of what was planted, as it is or escaped, and each line is a record."""
    seen = [
        log,
        unquote(log),
        html.unescape(log),
        codecs.decode(log.encode("ascii", "backslashreplace"), "unicode_escape"),
    ]
    for planted in PLANTED:
        for text in seen:
            place = text.find(planted)
            assert place < 0, f"{planted}: {text[max(0, place - 300) : place + 100]}"
    for line in log.splitlines():
        if line.startswith("{"):
            assert set(json.loads(line)) >= {"at", "level", "logger"}
        else:
            assert TEXT_LINE.fullmatch(line), line
    assert log.removesuffix("\n").replace("\n", "").isprintable()


def escaped(text: str) -> list[str]:
    """As other programs repeat a text."""
    spelt = "".join(f"\\u{ord(char):04X}" for char in text)
    return [text, json.dumps(text), json.dumps(json.dumps(text)), quote(text), html.escape(text), spelt]


def echoes() -> list[Act]:
    """Lium's answers, each of which repeats what was sent, in another form."""
    said = [answering(200, [{"id": ANSWER, "name": ANSWER, "public_key": ANSWER}])]
    for form in escaped(KEY):
        error = {"code": "x", "message": f"{ANSWER} {VALUE} {form}", "hint": ANSWER, "request_id": f"r {form}"}
        said.append(answering(400, {"error": error}))
        said.append(answering(403, {"detail": f"{ANSWER} {form}"}, x_request_id=form))
        said.append(answering(200, f'{{"{ANSWER}'.encode(), x_request_id=form))
    return said


CREATE = {"name": ARGUMENT, "image": f"{ARGUMENT.lower()}/x:1", "environment": [f"TOKEN={VALUE}"], "wait_seconds": 0}
CALLS: list[tuple[str, Any]] = [
    ("list_ssh_keys", {}),
    ("create_template", CREATE),
    ("create_template", {"name": [ARGUMENT], "environment": f"TOKEN={VALUE}", ARGUMENT: VALUE}),
    ("get_pod", {"pod": ARGUMENT}),
    ("remove_pod", {"pod": ARGUMENT}),
    (ARGUMENT, {"environment": [VALUE]}),
]
# Messages that are none: over each way they reach another reader.
MALFORMED = (
    f'{{"{ARGUMENT}',
    json.dumps(ARGUMENT),
    json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": ARGUMENT}),
    json.dumps({"jsonrpc": "2.0", "id": {"x": ARGUMENT}, "method": "tools/call", "params": {"environment": [VALUE]}}),
    json.dumps({"jsonrpc": "1.0", "id": 8, "method": ARGUMENT, "params": {"arguments": CREATE}}),
    json.dumps({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": [ARGUMENT], "arguments": VALUE}}),
    json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": ARGUMENT}}),
    json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": ARGUMENT}}),
    json.dumps({"jsonrpc": "2.0", "id": 10, "result": {ARGUMENT: VALUE}}),
    json.dumps({"jsonrpc": "2.0", "id": 11, "method": f"\n2026 {ARGUMENT}\u2028\x1b[2J", "params": {}}),
)


def called(number: int, tool: str, arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def initialize() -> dict[str, Any]:
    client = {"name": ARGUMENT, "version": ARGUMENT}
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    return {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}


# --- real servers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_over_standard_input_nothing_of_a_call_is_logged(log_format: str) -> None:
    settings = {"LIUM_API_KEY": KEY, "LIUM_MCP_LOG_LEVEL": "DEBUG", "LIUM_MCP_LOG_FORMAT": log_format} | ALL_TOOLS
    async with (
        served(Wire(Sandbox(seed=7, speed=0))) as wire,
        serving(LIUM_BASE_URL=wire.base_url, **settings) as server,
    ):
        await server.ask(initialize())
        await server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        number = 100
        for echo in echoes():
            wire.on("*", "**", echo)
            for tool, arguments in CALLS:
                number += 1
                await server.send(called(number, tool, arguments))
                while (await server.receive()).get("id") != number:
                    pass
        for message in MALFORMED:
            await server.send(message)
        await server.send(called(200, "list_pods", {}))
        while (await server.receive()).get("id") != 200:
            pass
        assert await server.end() == 0
    assert server.stderr.count("lium_mcp.calls") > len(CALLS) * len(echoes())
    assert "DEBUG" in server.stderr
    assert_holds_nothing(server.stderr)
    assert "Pl4nted" not in unquote(codecs.decode("".join(server.lines), "unicode_escape"))


@pytest.mark.parametrize(("way", "log_format"), [*((way, "text") for way in WAYS), ("modern", "json")])
async def test_over_http_nothing_of_a_call_is_logged(tmp_path: Path, way: Way, log_format: str) -> None:
    headers = {"X-API-Key": KEY, "User-Agent": HEADER, "X-Other": HEADER, "X-Request-Id": HEADER}
    settings = {"LIUM_MCP_LOG_LEVEL": "DEBUG", "LIUM_MCP_LOG_FORMAT": log_format}
    async with served(Wire(Sandbox(seed=7, speed=0))) as wire:
        with serving_http(tmp_path, LIUM_BASE_URL=wire.base_url, **settings) as server:
            async with calling(server.url, way, headers) as caller:
                for echo in echoes():
                    wire.on("*", "**", echo)
                    for tool, arguments in CALLS[:-1]:
                        await caller.raw(tool, **arguments)
            assert server.stop() == 0
            log = server.stderr()
    assert log.count("lium_mcp.calls") >= 5 * len(echoes())
    assert "DEBUG" in log
    assert_holds_nothing(log)


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
async def test_over_http_nothing_of_what_is_no_call_is_logged(tmp_path: Path, level: str) -> None:
    with serving_http(tmp_path, "--sandbox", LIUM_MCP_LOG_LEVEL=level) as server:
        async with httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http:
            async with http.stream("GET", "/sse", headers={"User-Agent": HEADER}) as stream:
                lines = stream.aiter_lines()
                async for line in lines:
                    if line.startswith("data: "):
                        break
                path = line.removeprefix("data: ")
                for message in (json.dumps(initialize()), *MALFORMED):
                    await http.post(path, content=message, headers={"Content-Type": "application/json"})
            for session in (FORGERY, "0" * 32, ARGUMENT, "%1B[2J%E2%80%AE"):
                await http.post(f"{path.partition('?')[0]}?session_id={session}", json=called(1, ARGUMENT, CREATE))
            for message in MALFORMED:
                for more in (
                    {},
                    {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": HEADER},
                    {"Mcp-Session-Id": HEADER},
                ):
                    sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **more}
                    await http.post("/mcp", content=message, headers=sent)
            await http.get(f"/{ARGUMENT}%0A{FORGERY}?{ARGUMENT}", headers={"Host": HEADER, "Origin": HEADER})
        for junk in (f"{ARGUMENT}\r\n\r\n", f"GET /\x00{ARGUMENT} HTTP/1.1\r\n\r\n", f"POST /mcp HTTP/1.1\r\n{HEADER}"):
            with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=60) as raw:
                raw.sendall(junk.encode())
        assert server.stop() == 0
        log = server.stderr()
    assert "mcp.server.sse (said at sse:" in log, "what was wrong can be found in the source"
    assert_holds_nothing(log)


@pytest.mark.parametrize("way", WAYS)
async def test_each_line_of_a_request_carries_the_reference_of_its_answer(tmp_path: Path, way: Way) -> None:
    settings = {"LIUM_MCP_LOG_LEVEL": "DEBUG", "LIUM_MCP_LOG_FORMAT": "json", "LIUM_MCP_TRUSTED_PROXY": "127.0.0.1"}
    given = "0123456789abcdef-0123"
    async with served(Wire(Sandbox(seed=7, speed=0))) as wire:
        with serving_http(tmp_path, LIUM_BASE_URL=wire.base_url, **settings) as server:
            wire.on("GET", "/pods", answering(500, {"detail": "no"}, x_request_id="of-lium-1"))
            async with calling(server.url, way, {"X-API-Key": KEY, "X-Request-Id": given}) as caller:
                await caller.refused("list_pods")
            answer = httpx2.get(f"{server.url}/nowhere", headers={"X-Request-Id": f"{ARGUMENT}-0123456789"})
            assert server.stop() == 0
    lines = [json.loads(line) for line in server.stderr().splitlines() if line.startswith("{")]
    of_calls = [line for line in lines if line["logger"] in {"lium_mcp.calls", "lium_mcp.upstream"}]
    assert {line["logger"] for line in of_calls} == {"lium_mcp.calls", "lium_mcp.upstream"}
    assert {line["request"] for line in of_calls} == {given}
    assert {line["request_id"] for line in of_calls} == {"of-lium-1"}
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


async def test_over_standard_input_each_call_has_a_reference_of_its_own() -> None:
    async with serving("--sandbox", LIUM_MCP_LOG_FORMAT="json") as server:
        await server.ask(initialize())
        for number in (1, 2):
            await server.ask(called(number, "list_pods", {}))
        assert await server.end() == 0
    references = [json.loads(line)["request"] for line in server.stderr.splitlines()]
    assert len(set(references)) == len(references) == 2


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_a_process_dies_of_or_warns_of_is_a_line(log_format: str) -> None:
    """What would reach standard error past every log."""
    code = f"""
import logging, threading, warnings
from lium_mcp.guard.redaction import redact_text
from lium_mcp.serving.logs import log_to_stderr
log_to_stderr("DEBUG", redact_text, as_json={log_format == "json"})
class Stray:
    def __del__(self): raise RuntimeError("{VALUE}")
    def __repr__(self): return "{VALUE}"
def crash(value): raise ValueError(value)
Stray()
warnings.warn("{ARGUMENT}")
logging.getLogger("lium_mcp.x").warning("%d", "{ARGUMENT}")
logging.getLogger("other").warning("%s of %s {ARGUMENT}", "{VALUE}")
thread = threading.Thread(target=crash, args=("{ANSWER}",)); thread.start(); thread.join()
try: crash("{ARGUMENT}")
except ValueError as error: raise ExceptionGroup("{VALUE}", [KeyError("{VALUE}"), error])
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert process.returncode == 1
    assert_holds_nothing(process.stderr)
    for kind in ("RuntimeError at __main__:", "ValueError at __main__:", "ExceptionGroup at __main__:", "KeyError"):
        assert kind in process.stderr
    assert len(process.stderr.splitlines()) == 5


async def test_what_a_broken_ledger_says_is_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("a file where a folder should be")
    async with serving("--sandbox", LIUM_MCP_STATE_URL=f"sqlite:///{tmp_path}/no/such/folder.db") as server:
        await server.ask(initialize())
        refused = await server.ask(called(1, "rent_pod", {"name": ARGUMENT, "gpu_type": "A100"}))
        assert "ledger_unavailable" in json.dumps(refused)
        assert await server.end() == 0
    assert_holds_nothing(server.stderr)


# --- the lines themselves ---------------------------------------------------------------------------------------------


@contextmanager
def written(name: str, *, as_json: bool) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(Redactor([KEY]), as_json=as_json))
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.propagate, logger.level = False, logging.DEBUG
    try:
        yield logger, stream
    finally:
        logger.removeHandler(handler)
        logger.propagate, logger.level = True, logging.NOTSET


@given(words=st.text(max_size=40), as_json=st.booleans(), name=st.sampled_from(["lium_mcp.x", "other.x"]))
def test_each_record_is_one_printable_line(words: str, as_json: bool, name: str) -> None:
    with written(name, as_json=as_json) as (logger, stream):
        logger.info(
            "said %s",
            words + "\n2026-01-01 00:00:00,000 ERROR forged \x1b[2J\u202e\u2028\x85\x7f\ud800",
            stack_info=True,
        )
    [line] = stream.getvalue().splitlines()
    assert line.isprintable()
    if as_json:
        said = json.loads(line)["message"]
        assert ("forged" in said) == name.startswith("lium_mcp")
    else:
        assert TEXT_LINE.fullmatch(line)
        assert ("forged \\x1b[2J\\u202e\\u2028\\x85\\x7f\\ud800" in line) == name.startswith("lium_mcp")


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("form", escaped(KEY))
def test_a_secret_leaves_a_line_in_every_form(form: str, as_json: bool) -> None:
    with written("lium_mcp.x", as_json=as_json) as (logger, stream):
        logger.info("request_id=%r", form, extra={"fields": {"request_id": form}} if as_json else {})
    assert "[redacted]" in stream.getvalue()
    assert "Pl4nted" not in codecs.decode(unquote(stream.getvalue()), "unicode_escape")


def test_an_exception_among_the_words_is_named_and_not_quoted() -> None:
    with written("lium_mcp.x", as_json=False) as (logger, stream):
        logger.warning("It could not be done: %s", ValueError(VALUE))
        logger.error(ValueError(VALUE))
        logger.info("100% done")
    assert [line.split(" ", 4)[4] for line in stream.getvalue().splitlines()] == [
        "It could not be done: ValueError",
        "ValueError",
        "100% done",
    ]


async def test_libraries_are_silent_below_warnings_unless_all_is_asked_for() -> None:
    for level, heard in (("DEBUG", True), ("INFO", False), ("ERROR", False)):
        status, _, log = await run("tools", LIUM_MCP_LOG_LEVEL=level)
        assert status == 0
        assert log == "" or heard
        assert_holds_nothing(log)
        async with serving("--sandbox", LIUM_MCP_LOG_LEVEL=level) as server:
            await server.ask(initialize())
            await server.ask(called(1, "list_pods", {}))
            assert await server.end() == 0
        names = {line.split(" ")[3] for line in server.stderr.splitlines()}
        assert bool(names - {"lium_mcp.calls"}) == heard
        assert ("lium_mcp.calls" in names) == (level != "ERROR")
