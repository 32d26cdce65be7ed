"""Traces of what callers ask for and of the requests to Lium that it takes, sent where the `OTEL_*` variables say.

The SDK makes a span of each message, and each request to Lium is one below it. What leaves here holds names and codes
from short lists: no key, argument, id, query or text of an exception. Imported only where traces are wanted.
"""

import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from opentelemetry import context, trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode

from lium_mcp import __version__
from lium_mcp.observing import Work, reference

log = logging.getLogger(__name__)

_METHOD: Final = re.compile(r"[a-z]{1,20}(/[a-zA-Z_]{1,20}){0,2}")
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_ERROR_STATUS: Final = 400
# What else the SDK says of a message is chosen by its client.
_CODES: Final = ("mcp.protocol.version", "error.type", "rpc.response.status_code", "gen_ai.operation.name")
_OURS: Final = "lium_mcp"


def capture() -> Callable[[], object]:
    """Take the span that is current, and return what makes it so in another context."""
    return partial(context.attach, context.get_current())


class Tracing:
    """Makes spans of the work of this process.

    Args:
        exporter: Sends them.
        tools: The names of all tools that there are.
    """

    def __init__(self, exporter: SpanExporter, tools: Collection[str]) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        about = {"service.version": __version__} | ({} if named else {"service.name": "lium-mcp"})
        # At the end it is given a moment, and not all the time that a receiver takes that does not answer.
        self.provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(_PlainExporter(exporter, tools)))
        self._tracer = self.provider.get_tracer(_OURS, __version__)

    async def below_header(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware, outside the SDK's: a message whose `_meta` names no span is below that of `traceparent`."""
        headers = getattr(ctx.request, "headers", None)
        given = extract(dict(headers), context.Context()) if headers else context.Context()
        if not trace.get_current_span(given).get_span_context().is_valid:
            return await call_next(ctx)
        token = context.attach(given)
        try:
            return await call_next(ctx)
        finally:
            context.detach(token)

    @contextmanager
    def observe(self, work: Work) -> Iterator[None]:
        """Make a span of a piece of work; of a call the SDK has made one, which is told what came of it."""
        if work.kind == "call":
            try:
                yield
            finally:
                trace.get_current_span().set_attributes(_outcome(work))
            return
        kind = SpanKind.CLIENT if work.kind == "request" else SpanKind.INTERNAL
        name = work.name if work.kind == "request" else f"{work.kind} {work.name}"
        with self._tracer.start_as_current_span(
            name, kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            finally:
                span.set_attributes(_outcome(work))
                if work.kind == "request":
                    span.set_attributes(_http(work))
                    if not work.outcome.isdigit() or int(work.outcome) >= _ERROR_STATUS:
                        span.set_status(StatusCode.ERROR)


def _outcome(work: Work) -> dict[str, str]:
    known = {"outcome": work.outcome, "request": reference(), "lium_request_id": work.request_id}
    return {f"{_OURS}.{name}": value for name, value in known.items() if value is not None}


def _http(work: Work) -> dict[str, str | int]:
    method, _, template = work.name.partition(" ")
    answered: dict[str, str | int] = (
        {"http.response.status_code": int(work.outcome)} if work.outcome.isdigit() else {"error.type": work.outcome}
    )
    return {"http.request.method": method, "url.template": template, **answered}


class _PlainExporter(SpanExporter):
    """Sends spans without what others have put into them."""

    def __init__(self, exporter: SpanExporter, tools: Collection[str]) -> None:
        self._exporter = exporter
        self._tools = tools

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([self._plain(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _plain(self, span: ReadableSpan) -> ReadableSpan:
        scope = span.instrumentation_scope
        given = span.attributes or {}
        is_ours = scope is not None and scope.name == _OURS
        attributes = dict(given) if is_ours else self._known(given)
        words = (attributes.get("mcp.method.name", "?"), attributes.get("gen_ai.tool.name"))
        return ReadableSpan(
            span.name if is_ours else " ".join(str(word) for word in words if word),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            kind=span.kind,
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=scope,
        )

    def _known(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What of the attributes of a message is from a list, or a code."""
        method, tool = str(given.get("mcp.method.name", "")), str(given.get("gen_ai.tool.name", ""))
        known: dict[str, Any] = {name: given[name] for name in _CODES if _CODE.fullmatch(str(given.get(name, "")))}
        known |= {name: value for name, value in given.items() if name.startswith(f"{_OURS}.")}
        known["mcp.method.name"] = method if _METHOD.fullmatch(method) else "?"
        if tool:
            known["gen_ai.tool.name"] = tool if tool in self._tools else "?"
        return known


class Watched(SpanExporter):
    """Sends spans, and says once that they do not arrive, and once that they do again.

    Args:
        exporter: Sends them; what it says of failures, again and again, is not logged.
        where: Where to, for a person.
    """

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._arrives = True
        logging.getLogger(type(exporter).__module__).addFilter(self._note_failure)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS and not self._arrives:
            self._arrives = True
            log.info("Traces arrive at %s again", self._where)
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits."""
        return self._exporter.force_flush(timeout_millis)

    def _note_failure(self, record: logging.LogRecord) -> bool:
        if self._arrives:
            self._arrives = False
            log.warning(
                "Traces do not arrive at %s (%s). Calls go on, and what they leave is lost until it answers; this is "
                "said once",
                self._where,
                _why(record),
            )
        return False


def _why(record: logging.LogRecord) -> str:
    """Why spans did not arrive, in a word: the text of a failure may hold anything."""
    for item in record.args if isinstance(record.args, tuple) else ():
        if isinstance(item, Exception):
            return type(item).__name__
        if isinstance(item, int):
            return f"status {item}"
    return "they were refused"
