"""The commands that show the page in a browser, as processes, and what such a page sends."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.http_server import LOG_SECONDS, MODERN_VERSION, STOP_SECONDS, variables

_WAY_IN: Final = re.compile(r"(http://127\.0\.0\.1:\d+)/#token=(\S+)")
_EVERY_ANSWER: Final = "application/json, text/event-stream"


class Shown:
    """A page that is served.

    Attributes:
        url: Where, without a slash at the end.
        token: What opens it once.
        out: What the command has printed.
        log: What it says on standard error.
    """

    def __init__(self, process: subprocess.Popen[str], out: Path, log: Path) -> None:
        self._process = process
        self._out, self._log = out, log
        while (found := _WAY_IN.search(self.out + self.log)) is None:
            try:
                status = process.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"the command ended with {status}: {self.log}")
        self.url, self.token = found.groups()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def says(self, words: str) -> str:
        """Wait until it has logged some words, which a thread of it writes; all that it has logged then."""
        deadline = time.monotonic() + LOG_SECONDS
        while words not in (log := self.log):
            assert time.monotonic() < deadline, f"{words!r} is not in the log: {log}"
            time.sleep(0.01)
        return log

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit status; taking longer than promised fails."""
        self._process.send_signal(number)
        return self._process.wait(timeout=STOP_SECONDS)

    def caller(self, **headers: str) -> httpx2.Client:
        """Somebody who knows the address without what is behind the #."""
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def session(self) -> str:
        """Use the address, as the page does when it is opened."""
        with self.caller() as http:
            return str(http.post("/token", json={"token": self.token}).json()["token"])


@contextmanager
def showing(home: Path, command: str, *options: str, **settings: str) -> Iterator[Shown]:
    """Run a command that shows the page until the end of the block."""
    home.mkdir(parents=True, exist_ok=True)
    out, log = home / "stdout", home / "stderr"
    with (
        out.open("w") as stdout,
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "lium_mcp", command, *options],
            stdout=stdout, stderr=stderr, text=True, env=variables(home, **settings),
        ) as process,
    ):  # fmt: skip
        try:
            yield Shown(process, out, log)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def said_by(session: str, origin: str) -> dict[str, str]:
    """The headers that the page sends with all that it asks for."""
    return {"Authorization": f"Bearer {session}", "Origin": origin}


def call(http: httpx2.Client, tool: str, **arguments: Any) -> httpx2.Response:
    """Call a tool as the page does."""
    capabilities: dict[str, Any] = {"elicitation": {"form": {}}}
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    }
    again = {name: arguments.pop(name) for name in ("inputResponses", "requestState") if name in arguments}
    params = {"name": tool, "arguments": arguments, "_meta": meta} | again
    return http.post(
        "/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        headers={
            "Accept": _EVERY_ANSWER,
            "MCP-Protocol-Version": MODERN_VERSION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        },
    )
