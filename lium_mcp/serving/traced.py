"""Whether traces are wanted, and that they are sent while a server serves: what is not wanted costs nothing."""

import logging
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

import anyio
from mcp.server.context import ServerMiddleware

from lium_mcp.observing import observe
from lium_mcp.package_extras import lacks

log = logging.getLogger(__name__)

_PLACES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_LAST_SPANS_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.02


@asynccontextmanager
async def traced(tools: Collection[str], middleware: list[ServerMiddleware[None]]) -> AsyncIterator[None]:
    """Send traces of the work in the block where the standard variables say.

    They may be meant for other programs: what is missing is said in the log, and stops nothing.

    Args:
        tools: The names of all tools that there are.
        middleware: What the server's messages go through.
    """
    if not _is_wanted(os.environ):
        yield
        return
    if find_spec("opentelemetry.exporter") is None or find_spec("opentelemetry.sdk") is None:
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces need a library, %s", lacks("otel"))
        yield
        return
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("Traces are sent as http/protobuf, whatever OTEL_EXPORTER_OTLP_PROTOCOL says")
    from opentelemetry import trace  # noqa: PLC0415 - only where traces are wanted
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above

    from lium_mcp.serving.tracing import Tracing, Watched, capture  # noqa: PLC0415 - as above

    tracing = Tracing(Watched(OTLPSpanExporter(), _whereto(os.environ)), tools)
    trace.set_tracer_provider(tracing.provider)
    observe(tracing.observe, capture)
    middleware.insert(0, tracing.below_header)
    log.info("Sending traces")
    try:
        yield
    finally:
        # A receiver that does not answer does not hold up the end: nobody waits for this thread.
        sending = Thread(target=tracing.provider.shutdown, daemon=True)
        sending.start()
        with anyio.move_on_after(_LAST_SPANS_SECONDS, shield=True):
            while sending.is_alive():  # noqa: ASYNC110 - it tells nobody
                await anyio.sleep(_LOOK_SECONDS)


def _whereto(environment: Mapping[str, str]) -> str:
    """Where traces go, and what says so, without what is secret in an address."""
    name = next(name for name in _PLACES if environment.get(name, "").strip())
    try:
        address = urlsplit(environment[name].strip())
    except ValueError:
        return f"the address of {name}"
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}, as {name} says"


def _is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables say where traces go, and that they are to be sent."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "otlp").lower().split(",")]
    return not is_off and "otlp" in exporters and any(environment.get(name, "").strip() for name in _PLACES)
