"""What this process does, counted: as Prometheus reads it, at a port of its own.

Labels are from short lists: the tools that there are, codes of outcomes, templates of paths, statuses. Nothing is of a
key, an account or a caller. Imported only where a port is set, since only then its library has to be there.
"""

import ipaddress
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lium_mcp import __version__
from lium_mcp.observing import Kind, Work
from lium_mcp.values import split_host

_SHORT_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
_LONG_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_KINDS: Final[dict[Kind, tuple[str, str, str, tuple[float, ...]]]] = {
    "call": ("calls", "Tool calls that ended.", "tool", _LONG_SECONDS),
    "request": ("upstream_requests", "Attempts of requests to Lium.", "route", _SHORT_SECONDS),
    "wait": ("upstream_waits", "Waits of requests to Lium, while others have all the places.", "of", _SHORT_SECONDS),
    "rent": ("rents", "Rents that were sent.", "order", _LONG_SECONDS),
    "transaction": ("ledger_transactions", "Transactions of the ledger.", "access", _SHORT_SECONDS),
}
_LABEL: Final = re.compile(r"[A-Za-z0-9_]{1,60}")
# Each outcome is a code of ours, or a status; should one ever not be, it does not fill the memory.
_MOST_OUTCOMES: Final = 300
_OTHER: Final = "other"


class Metrics:
    """Counts the work of this process.

    Args:
        sessions: How many sessions of callers are open.
        connections: How many of their connections are.
        repeats: How many calls were answered as one just before them was.
    """

    def __init__(self, sessions: Callable[[], int], connections: Callable[[], int], repeats: Callable[[], int]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the time since which each is counted would be half of all that is shown
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("lium_mcp", "This server.", registry=registry).info({"version": __version__})
        self._outcomes: set[str] = set()
        self._counts = {
            kind: Counter(f"lium_mcp_{name}", about, [label, "outcome"], registry=registry)
            for kind, (name, about, label, _) in _KINDS.items()
        }
        self._seconds = {
            kind: Histogram(
                f"lium_mcp_{name.removesuffix('s')}_seconds",
                f"How long they took. {about}",
                [label],
                buckets=buckets,
                registry=registry,
            )
            for kind, (name, about, label, buckets) in _KINDS.items()
        }
        self._in_flight = Gauge("lium_mcp_in_flight", "What goes on now.", ["kind"], registry=registry)
        for kind in _KINDS:
            self._in_flight.labels(kind)
        for name, about, count in (
            ("sessions", "Open sessions of callers.", sessions),
            ("connections", "Open connections of callers.", connections),
        ):
            Gauge(f"lium_mcp_open_{name}", about, registry=registry).set_function(count)
        registry.register(_Repeats(repeats))

    @contextmanager
    def observe(self, work: Work) -> Iterator[None]:
        """Count a piece of work when it ends."""
        in_flight = self._in_flight.labels(work.kind)
        in_flight.inc()
        started = time.perf_counter()
        try:
            yield
        finally:
            in_flight.dec()
            self._count(work, time.perf_counter() - started)

    def _count(self, work: Work, seconds: float) -> None:
        outcome = self._bounded(work.outcome)
        self._counts[work.kind].labels(work.name, outcome).inc()
        self._seconds[work.kind].labels(work.name).observe(seconds)

    def _bounded(self, outcome: str) -> str:
        if outcome not in self._outcomes and len(self._outcomes) < _MOST_OUTCOMES and _LABEL.fullmatch(outcome):
            self._outcomes.add(outcome)
        return outcome if outcome in self._outcomes else _OTHER

    def app(self, allowed_hosts: Collection[str]) -> Starlette:
        """The web application that shows them, to whoever reaches its port by an address or a name inside a network.

        A web page that a person visits comes under the name of its own site, which has a dot in it.
        """
        names = {split_host(name)[0].lower() for name in allowed_hosts}

        async def shown(request: Request) -> Response:
            host = re.sub(r":[0-9]*\Z", "", Headers(scope=request.scope).get("host", "")).lower()
            if "." in host and host not in names and not _is_address(host):
                return PlainTextResponse("Metrics are read by address, or under a name of LIUM_MCP_ALLOWED_HOST.", 421)
            return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

        return Starlette(routes=[Route("/metrics", shown)])


class _Repeats(Collector):
    """What is counted elsewhere, read when it is asked for."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterator[CounterMetricFamily]:
        about = "Tool calls that were answered as one just before them was."
        yield CounterMetricFamily("lium_mcp_repeated_answers", about, self._count())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
