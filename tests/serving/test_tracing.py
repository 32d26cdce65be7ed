"""Traces of a server over HTTP, as a receiver of OTLP hears them, and that nothing of a caller is in them."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from lium_mcp.observing import Work
from lium_mcp.sandbox import API_KEY
from lium_mcp.serving.tracing import Tracing
from tests.compat.simulated import Simulated
from tests.http_server import WAYS, Way, calling, serving
from tests.ports import free_port
from tests.serving.test_http import RENT, until

POD = "6b1f2c3d-0000-4000-8000-000000000001"
PLANTED = "Arg9planted"


@contextmanager
def receiver(*, hangs: bool = False, port: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """A receiver of OTLP over HTTP: its address, and the spans that it was sent."""
    spans: list[Any] = []
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hangs:
                done.wait(20)
            sent = ExportTraceServiceRequest.FromString(body)
            for resource in sent.resource_spans:
                spans.extend((resource.resource, span) for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", spans
        done.set()
        server.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_is_one_trace_with_its_requests_to_lium(lium: Simulated, tmp_path: Path, way: Way) -> None:
    with (
        receiver() as (url, sent),
        serving(
            tmp_path,
            LIUM_BASE_URL=lium.base_url,
            LIUM_API_KEY=API_KEY,
            OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
            OTEL_BSP_SCHEDULE_DELAY="10",
        ) as served,
    ):
        async with calling(served.url, way) as caller:
            await caller.refused("get_pod", pod=POD, wait_seconds=0)
            await caller.call("list_pods")
            await caller.call("rent_pod", **RENT | {"wait_seconds": 0, "name": PLANTED.lower()})
            with pytest.raises(Exception, match="no tool of that name"):
                await caller.raw(PLANTED, pod=PLANTED)
        calls = {"tools/call get_pod", "tools/call list_pods", "tools/call rent_pod", "tools/call ?"}
        # At its end a server gives them a moment, which may be too short for a busy machine.
        await until(lambda: calls <= {span.name for _, span in sent})
        assert served.stop() == 0
    spans = [span for _, span in sent]
    about = {item.key: item.value.string_value for item in sent[0][0].attributes}
    assert (about["service.name"], about["deployment.environment.name"]) == ("lium-mcp", "test")
    [reading] = [span for span in spans if span.name == "tools/call get_pod"]
    assert attributes(reading)["lium_mcp.outcome"] == "pod_not_found"
    assert re.fullmatch("[0-9a-f]{16}", attributes(reading)["lium_mcp.request"])
    below = [span for span in spans if span.parent_span_id == reading.span_id]
    seen = {(span.name, attributes(span)["http.response.status_code"]) for span in below}
    assert ("GET /pods/{pod_id}", 404) in seen
    assert {span.trace_id for span in below} == {reading.trace_id}
    assert "GET /pods" in {span.name for span in below}, "what others may share belongs to who asked first"
    [rent] = [span for span in spans if span.name == "rent spec"]
    assert attributes(rent)["lium_mcp.outcome"] == "rented"
    assert "tools/call ?" in {span.name for span in spans}
    whole = repr(sent)
    for text in (API_KEY, POD, PLANTED, PLANTED.lower()):
        assert text not in whole


@pytest.mark.parametrize("way", WAYS)
async def test_a_message_is_below_the_span_of_its_header_where_it_names_none_itself(
    lium: Simulated, tmp_path: Path, way: Way
) -> None:
    of_header, of_meta = f"{1:032x}", f"{2:032x}"
    settings = {"OTEL_BSP_SCHEDULE_DELAY": "10", "LIUM_BASE_URL": lium.base_url, "LIUM_API_KEY": API_KEY}
    with receiver() as (url, sent), serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url, **settings) as served:
        async with calling(served.url, way, {"traceparent": f"00-{of_header}-{3:016x}-01"}) as caller:
            await caller.call("list_pods")
            meta = {"traceparent": f"00-{of_meta}-{4:016x}-01"}
            await caller.client.call_tool("list_ssh_keys", {}, meta=meta)  # type: ignore[arg-type]
        calls = {"tools/call list_pods", "tools/call list_ssh_keys"}
        await until(lambda: calls <= {span.name for _, span in sent})
        assert served.stop() == 0
    traces = {span.name: (span.trace_id.hex(), span.parent_span_id.hex()) for _, span in sent}
    assert traces["tools/call list_pods"] == (of_header, f"{3:016x}")
    assert traces["tools/call list_ssh_keys"] == (of_meta, f"{4:016x}")
    assert traces["GET /pods"][0] == of_header


def test_what_others_put_into_a_span_does_not_leave() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, ["get_pod"])
    theirs = tracing.provider.get_tracer("mcp-python-sdk")
    given = {"mcp.method.name": f"tools/call {PLANTED}", "gen_ai.tool.name": PLANTED, "jsonrpc.request.id": PLANTED}
    with theirs.start_as_current_span(PLANTED, attributes=given) as span:
        span.record_exception(ValueError(PLANTED))
        span.set_status(StatusCode.ERROR, PLANTED)
        with tracing.observe(Work("request", "GET /pods/{pod_id}")) as _:
            pass
    tracing.provider.force_flush()
    below, above = exporter.get_finished_spans()
    assert PLANTED not in above.to_json() + below.to_json()
    assert (above.name, above.status.status_code) == ("? ?", StatusCode.ERROR)
    assert below.parent == above.context
    assert (below.attributes or {})["error.type"] == "cancelled"


async def test_a_receiver_that_does_not_answer_holds_up_neither_a_call_nor_the_end(
    lium: Simulated, tmp_path: Path
) -> None:
    with receiver(hangs=True) as (url, _):
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "10"}
        with serving(tmp_path, LIUM_BASE_URL=lium.base_url, **settings) as served:
            async with calling(served.url, "modern", {"X-API-Key": API_KEY}) as caller:
                for _ in range(3):
                    await caller.call("list_pods")
            assert served.stop() == 0


@contextmanager
def refusing() -> Iterator[str]:
    """A receiver that knows no traces."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(404, explain="s3cret words")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://someone:s3cret@127.0.0.1:{server.server_address[1]}/otlp?key=s3cret"
        server.shutdown()


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_receiver_that_takes_nothing_is_named_once(lium: Simulated, tmp_path: Path, *, is_there: bool) -> None:
    with refusing() if is_there else nullcontext(f"http://someone:s3cret@127.0.0.1:{free_port()}") as url:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "10"}
        with serving(tmp_path, LIUM_BASE_URL=lium.base_url, **settings) as served:
            with anyio.fail_after(60):
                async with calling(served.url, "modern", {"X-API-Key": API_KEY}) as caller:
                    while "do not arrive" not in served.stderr():
                        await caller.call("list_pods")
                        await anyio.sleep(0.05)
                    for _ in range(5):
                        await caller.call("list_pods")
                        await anyio.sleep(0.05)
            assert served.stop() == 0
            said = served.stderr()
    [line] = [line for line in said.splitlines() if "trac" in line.lower() and "Sending traces" not in line]
    host = url.rpartition("@")[2].partition("/")[0]
    assert f"Traces do not arrive at http://{host}, as OTEL_EXPORTER_OTLP_ENDPOINT says" in line
    assert ("status 404" if is_there else "ConnectionError") in line
    assert "s3cret" not in said


async def test_a_receiver_that_comes_back_is_said_to_be_there(lium: Simulated, tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, **settings) as served, anyio.fail_after(60):
        async with calling(served.url, "modern", {"X-API-Key": API_KEY}) as caller:
            while "do not arrive" not in served.stderr():
                await caller.call("list_pods")
                await anyio.sleep(0.05)
            with receiver(port=port):
                while "again" not in served.stderr():
                    await caller.call("list_pods")
                    await anyio.sleep(0.05)


@pytest.mark.parametrize(
    "off", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "console"}]
)
async def test_nothing_is_sent_that_nobody_asked_for(lium: Simulated, tmp_path: Path, off: dict[str, str]) -> None:
    with receiver() as (url, sent):
        asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": url} | off if off else {}
        with serving(tmp_path, LIUM_BASE_URL=lium.base_url, **asked) as served:
            async with calling(served.url, "modern", {"X-API-Key": API_KEY}) as caller:
                await caller.call("list_pods")
            assert "Sending traces" not in served.stderr()
            assert served.stop() == 0
    assert sent == []
