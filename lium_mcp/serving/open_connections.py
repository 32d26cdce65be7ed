"""How many connections callers can hold, and how long one may take to send its request.

uvicorn has no timer before a response and no bound per address, and no other server for ASGI has both. This is its own
protocol with a table above it and one timer in it. When there is no more room, the connection that has waited longest
for its request makes way: half a request keeps nobody out.
"""

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from lium_mcp.serving.sessions import address_of

log = logging.getLogger(__name__)

# So many descriptors are left to files, pods, the database and Lium; where there are few, half of them.
_OTHER_DESCRIPTORS: Final = 128
_REFUSAL_SECONDS: Final = 1.0
_REFUSAL_TEXT: Final = b"Too many connections, in all or from this address.\n"
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (len(_REFUSAL_TEXT), _REFUSAL_TEXT)
)


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """How many connections there are, and how long they wait.

    Attributes:
        total: Open connections; fewer where the process has few file descriptors.
        per_address: Those of one address, or of one /64 network of IPv6; at most half of all.
        head_seconds: How long the head of a request may take, from the connection or the last answer on.
        body_seconds: How long the body may take after that.
    """

    total: int = 2000
    per_address: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 30.0


class OpenConnections:
    """The open connections of one server.

    Args:
        bounds: How many there may be.
        trusted: Addresses and networks of proxies, behind each of which are many callers.
    """

    def __init__(self, bounds: ConnectionBounds, trusted: Collection[str] = ()) -> None:
        self.bounds = bounds
        descriptors = _descriptors()
        self._total = min(bounds.total, max(descriptors // 2, descriptors - _OTHER_DESCRIPTORS))
        self._per_address = min(bounds.per_address, max(self._total // 2, 1))
        self._trusted = [ipaddress.ip_network(network) for network in trusted]
        self._open: dict[BoundedProtocol, str] = {}
        self._at: Counter[str] = Counter()
        # In the order in which they began to wait.
        self._waiting: dict[BoundedProtocol, None] = {}

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def enter(self, protocol: "BoundedProtocol", client: tuple[str, int] | None) -> bool:
        """Take a connection in, if need be in the place of one that waits; tell whether there is room for it."""
        address = address_of(client)
        if not self._is_trusted(client):
            while self._at[address] >= self._per_address and self._make_way(address):
                pass
        while len(self._open) >= self._total and self._make_way(None):
            pass
        has_room = len(self._open) < self._total
        fits = has_room and (self._at[address] < self._per_address or self._is_trusted(client))
        self._open[protocol] = address
        self._at[address] += 1
        if not has_room:
            protocol.drop()
        if not fits:
            log.warning(
                "A connection was refused: %d are open, %d from its address", len(self._open), self._at[address]
            )
        return fits

    def waits(self, protocol: "BoundedProtocol", *, waiting: bool) -> None:
        """Note whether a connection waits for a request."""
        self._waiting.pop(protocol, None)
        if waiting and protocol in self._open:
            self._waiting[protocol] = None

    def leave(self, protocol: "BoundedProtocol") -> None:
        """Forget a connection."""
        self._waiting.pop(protocol, None)
        address = self._open.pop(protocol, None)
        if address is not None:
            self._at[address] -= 1
            if not self._at[address]:
                del self._at[address]

    def _make_way(self, address: str | None) -> bool:
        oldest = next((item for item in self._waiting if address is None or self._open[item] == address), None)
        if oldest is not None:
            oldest.drop()
        return oldest is not None

    def _is_trusted(self, client: tuple[str, int] | None) -> bool:
        with suppress(ValueError):
            host = ipaddress.ip_address(client[0] if client else "")
            return any(host in network for network in self._trusted)
        return False


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 whose requests come within their time, on a connection for which there is room."""

    def __init__(self, connections: OpenConnections, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(**options)
        self._table = connections
        self._has_room = True
        self._awaited: Literal["head", "body"] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._has_room = self._table.enter(self, self.client)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if self._has_room:
            super().data_received(data)
            self._watch()
        elif not self.transport.is_closing():
            # Not before something has come: what is unread when a connection closes takes the answer with it.
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._table.leave(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """End the connection now."""
        self._table.leave(self)
        self.transport.abort()

    def _watch(self) -> None:
        state = self.conn.their_state
        awaited: Literal["head", "body"] | None = None
        if state is h11.IDLE:
            awaited = "head"
        elif state is h11.SEND_BODY:
            awaited = "body"
        if awaited == self._awaited and self._timer is not None:
            return
        self._stop_timer()
        self._awaited = awaited
        self._table.waits(self, waiting=awaited == "head")
        if awaited is not None and not self.transport.is_closing():
            bounds = self._table.bounds
            seconds = bounds.head_seconds if awaited == "head" else bounds.body_seconds
            self._timer = self.loop.call_later(seconds if self._has_room else _REFUSAL_SECONDS, self.drop)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _descriptors() -> int:
    try:
        import resource  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return 2**20
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if limit == resource.RLIM_INFINITY else limit
