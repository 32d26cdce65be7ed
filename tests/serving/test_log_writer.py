"""Whoever reads the log may stall or go: no call waits for that, and what is missing in the log is counted there."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from lium_mcp.sandbox import API_KEY
from tests.harness import PUBLIC_KEY
from tests.http_server import STOP_SECONDS, calling, variables
from tests.ports import free_port
from tests.serving.test_logs import called, initialize

JSON: Final = {"LIUM_MCP_LOG_FORMAT": "json"}
# More than a pipe holds and than waits beside it.
MANY: Final = 3_500


@contextmanager
def logging_to(stderr: int, home: Path, *options: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server over the sandbox whose standard error is this descriptor, which is closed here."""
    command = [sys.executable, "-m", "lium_mcp", "serve", "--sandbox", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=variables(home, **JSON | settings)
    ) as process:
        os.close(stderr)
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def unread(home: Path, *options: str, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server whose standard error is a pipe that nobody reads, and the end at which somebody may."""
    reading, writing = os.pipe()
    with logging_to(writing, home, *options, **settings) as process:
        yield process, reading


def ask(process: subprocess.Popen[bytes], message: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


async def up(port: int) -> None:
    """Wait until a server says that it lives."""
    transport = httpx2.AsyncHTTPTransport(retries=8)
    async with httpx2.AsyncClient(transport=transport, trust_env=False, timeout=STOP_SECONDS) as http:
        assert (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200


def read_all(reading: int) -> list[dict[str, Any]]:
    """The lines of the log up to its end, each of which is whole."""
    with os.fdopen(reading, encoding="utf-8") as log:
        return [json.loads(line) for line in log]


def test_a_host_that_does_not_read_the_log_is_answered_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    with unread(tmp_path, LIUM_MCP_TOOLSETS="account,extras") as (process, reading):
        ask(process, initialize())
        for number in range(1, MANY):
            assert ask(process, called(number, "list_ssh_keys", {"bogus": number}))["id"] == number
        added = ask(process, called(MANY, "add_ssh_key", {"name": "laptop", "public_key": PUBLIC_KEY}))
        assert not added["result"].get("isError")
        lines: list[dict[str, Any]] = []
        reader = threading.Thread(target=lambda: lines.extend(read_all(reading)))
        reader.start()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(STOP_SECONDS) == 0
        reader.join()
    [gap] = [line for line in lines if "are missing here" in line.get("message", "")]
    missing = int(re.findall(r"\d+", gap["message"])[0])
    assert gap["message"].startswith(f"{missing} lines are missing here, 0 of them of the audit trail")
    assert missing > 0
    of_calls = [line for line in lines if line["logger"] == "lium_mcp.calls"]
    assert len(of_calls) + missing == MANY
    events = [line["event"] for line in lines if line["logger"] == "lium_mcp.audit"]
    assert events == ["began", "sent", "ended"], "the audit trail has more room"
    assert [line["at"] for line in lines[:-1]] == sorted(line["at"] for line in lines[:-1])


async def test_over_http_calls_and_probes_are_answered_while_nobody_reads_the_log(tmp_path: Path) -> None:
    port = free_port()
    settings = {"LIUM_MCP_LOG_LEVEL": "DEBUG"}
    with unread(tmp_path, "--transport", "http", "--port", str(port), **settings) as (process, reading):
        url = f"http://127.0.0.1:{port}"
        await up(port)
        async with calling(url, "modern", {"X-API-Key": API_KEY}) as caller:
            for _ in range(200):
                await caller.call("list_ssh_keys")
        await up(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
        os.close(reading)


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_log_whose_reader_has_gone_changes_neither_answers_nor_the_exit_status(
    tmp_path: Path, transport: str
) -> None:
    port = free_port()
    options = ("--transport", "http", "--port", str(port)) if transport == "http" else ()
    with unread(tmp_path, *options) as (process, reading):
        if transport == "http":
            await up(port)
            os.close(reading)
            async with calling(f"http://127.0.0.1:{port}", "modern", {"X-API-Key": API_KEY}) as caller:
                await caller.call("list_ssh_keys")
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_SECONDS) == 0
        else:
            os.close(reading)
            ask(process, initialize())
            assert "result" in ask(process, called(1, "list_ssh_keys", {}))
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(STOP_SECONDS) == 0


async def test_a_full_disk_under_the_log_stops_nothing_and_holds_up_the_end_for_a_moment(tmp_path: Path) -> None:
    port = free_port()
    full = os.open("/dev/full", os.O_WRONLY)
    with logging_to(full, tmp_path, "--transport", "http", "--port", str(port)) as process:
        await up(port)
        async with calling(f"http://127.0.0.1:{port}", "modern", {"X-API-Key": API_KEY}) as caller:
            await caller.call("list_ssh_keys")
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
