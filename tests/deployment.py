"""Two replicas of the server behind a proxy of Debian's, on one ledger: stopped, killed and replaced.

Each replica keeps its name and its port, as behind a proxy that is not told anew.
"""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from lium_mcp.sandbox import API_KEY
from lium_mcp.serving.callers import OWN_KEY_HEADER
from tests.http_server import Served, serving_newer, serving_within
from tests.ports import free_port
from tests.proxies import NGINX, Proxy
from tests.replicas import STATE_KEY

_TOKEN: Final = "a-token-that-a-test-has-made-up-4711"
MINE: Final = {"X-API-Key": API_KEY}
"""What a caller sends who comes through the proxy."""
OWN: Final = {OWN_KEY_HEADER: _TOKEN}
"""What a caller sends who comes from this machine, and for whom servers also work after a call."""


class Deployment:
    """Two replicas and their proxy.

    Attributes:
        url: Where callers come in.
        replicas: The processes that serve now, by the number of the replica; a dead one stays until it is replaced.
        kills: How many were killed so far.
    """

    def __init__(self, home: Path, stack: ExitStack, settings: dict[str, str], haste: float, proxy: Proxy) -> None:
        self._names = tuple(f"{proxy.replicas}-{number}" for number in (1, 2))
        self._home, self._stack, self._haste = home, stack, haste
        self._settings = {"LIUM_MCP_STATE_KEYS": STATE_KEY} | settings
        self._ports = [free_port() for _ in self._names]
        self._starts = self.kills = 0
        self.replicas = [self._start(number) for number in range(len(self._names))]
        self.url = stack.enter_context(proxy.before(self.replicas, home / "proxy"))

    def kill(self, number: int) -> None:
        """End a replica without a word."""
        self.kills += 1
        self.replicas[number].process.kill()
        self.replicas[number].process.wait()

    def stop(self, number: int) -> int:
        """End a replica in order; its exit status."""
        return self.replicas[number].stop(signal.SIGTERM)

    def start(self, number: int, *, newer: bool = False) -> None:
        """Start a replica in place of one that has ended; `newer` is of a later version."""
        self.replicas[number] = self._start(number, newer=newer)

    def _start(self, number: int, *, newer: bool = False) -> Served:
        self._starts += 1
        home, port = self._home / f"{self._names[number]}-{self._starts}", self._ports[number]
        settings = {"LIUM_MCP_REPLICA": self._names[number]} | self._settings
        if newer:
            return self._stack.enter_context(serving_newer(home, settings, port=port))
        return self._stack.enter_context(serving_within(home, settings, haste=self._haste, port=port))


@contextmanager
def deployed(
    home: Path, *, lium_url: str, state_url: str, haste: float, proxy: Proxy = NGINX, **settings: str
) -> Iterator[Deployment]:
    """Run two replicas behind a proxy until the end of the block. They also have a key of their own."""
    own = {"LIUM_API_KEY": API_KEY, "LIUM_MCP_SERVER_TOKEN": _TOKEN}
    shared = {"LIUM_BASE_URL": lium_url, "LIUM_MCP_STATE_URL": state_url} | own | settings
    with ExitStack() as stack:
        yield Deployment(home, stack, shared, haste, proxy)
