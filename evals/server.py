"""Our server as an agent of a task meets it: with the pauses of its clock turning the sandbox's, instead of passing.

`python -m evals.server` serves over standard input and output, with the settings of the environment.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch

import anyio
import httpx2

from lium_mcp.api.clock import Clock
from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server, read_settings
from lium_mcp.serving.lium_server import LiumServer, serve_stdio
from lium_mcp.values import SettingsError

# What is done between calls is done in real time, and should keep up.
_REAL_SECONDS = 0.01


class TurningClock:
    """Time of the server: every pause turns the sandbox's clock."""

    def __init__(self) -> None:
        self.slept_seconds = 0.0

    def monotonic(self) -> float:
        """Seconds that were slept."""
        return self.slept_seconds

    async def sleep(self, seconds: float) -> None:
        """Turn the clock."""
        # What is done in threads, such as the ledger's work, takes real time, of which a turned clock knows nothing.
        threads = anyio.to_thread.current_default_thread_limiter()
        while threads.borrowed_tokens:  # noqa: ASYNC110 - no event tells
            await anyio.sleep(0.001)
        seconds = max(seconds, 0.001) if seconds else 0.0
        self.slept_seconds += seconds
        self.turn(seconds)
        await anyio.sleep(_REAL_SECONDS)

    def now(self) -> datetime:
        """The sandbox's time."""
        raise NotImplementedError

    def turn(self, seconds: float) -> None:
        """Turn the sandbox's clock."""
        raise NotImplementedError


class NearClock(TurningClock):
    """Turns the clock of a sandbox in this process."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__()
        self._clock = sandbox.clock

    def now(self) -> datetime:
        """The sandbox's time."""
        return self._clock.now()

    def turn(self, seconds: float) -> None:
        """Turn the sandbox's clock."""
        self._clock.advance(seconds=seconds)


class FarClock(TurningClock):
    """Turns the clock of a sandbox at an address."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._url = f"{base_url.removesuffix('/api')}/_sandbox/clock"

    def now(self) -> datetime:
        """The sandbox's time."""
        return datetime.fromisoformat(self._send(None)["now"])

    def turn(self, seconds: float) -> None:
        """Turn the sandbox's clock."""
        self._send(json.dumps({"advance_seconds": seconds}).encode())

    def _send(self, body: bytes | None) -> dict[str, Any]:
        with urllib.request.urlopen(self._url, body, timeout=10) as answer:  # noqa: S310 - of this machine
            return dict(json.load(answer))


@contextmanager
def hastened() -> Iterator[None]:
    """Let what is done between calls be done soon: its pauses are of real time."""
    soon = {
        "lium_mcp.rentals.worker._FIRST_LOOK_SECONDS": 0.0,
        "lium_mcp.rentals.worker._LOOK_SECONDS": 0.1,
        "lium_mcp.rentals.worker._FIRST_PAUSE_SECONDS": 0.02,
        "lium_mcp.rentals.worker._LONGEST_PAUSE_SECONDS": 0.1,
        "lium_mcp.between_calls._FIRST_ATTENTION_SECONDS": 0.5,
        "lium_mcp.between_calls._ATTENTION_SECONDS": 0.5,
    }
    patches = [patch(name, seconds) for name, seconds in soon.items()]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def make_server(clock: Clock, transport: httpx2.AsyncBaseTransport | None = None) -> LiumServer:
    """The server that the environment describes.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings, problems = read_settings({})
    if problems:
        raise SettingsError(*problems)
    return build_server(settings, transport=transport, clock=clock)


def main() -> int:
    """Serve."""
    settings, _ = read_settings({})
    with hastened():
        anyio.run(serve_stdio, make_server(FarClock(settings.base_url)), None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
