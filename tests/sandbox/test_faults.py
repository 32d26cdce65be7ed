"""Failures on demand, in process and over a real socket."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest
from anyio.abc import TaskStatus
from pydantic import ValidationError

from lium_mcp.sandbox import API_KEY, Sandbox, serve_sandbox
from tests.sandbox.wire import Wire, wire_to
from tests.wires import eventually

HEADERS = {"User-Agent": "test/1.0", "X-API-KEY": API_KEY}
_PATIENCE_SECONDS = 30
_LONG_SECONDS = 100


@asynccontextmanager
async def served(sandbox: Sandbox) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve over a real socket."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve_sandbox(sandbox, on_ready=ready.set_result))
    base_url = await asyncio.wait_for(ready, _PATIENCE_SECONDS)
    try:
        async with httpx2.AsyncClient(base_url=base_url, headers=HEADERS, timeout=_PATIENCE_SECONDS) as client:
            yield client
    finally:
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server


async def test_a_lost_answer_over_a_socket_is_a_closed_connection_after_the_work(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_fault("lost_answer", match={"method": "POST", "path": "/volumes"})
    async with served(sandbox) as client:
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            await client.post("/volumes", json={"name": "data"})
        assert [row["name"] for row in (await client.get("/volumes")).json()] == ["data"]
    assert capfd.readouterr().err == ""


async def test_a_lost_request_over_a_socket_leaves_no_trace(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_fault("lost_request")
    async with served(sandbox) as client:
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            await client.post("/volumes", json={"name": "data"})
        response = await client.get("/volumes")
        assert response.json() == []
        assert len(response.headers.get_list("date")) == 1
        assert response.headers["date"] == sandbox.clock.now().strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert capfd.readouterr().err == ""


async def test_the_controls_are_called_under_the_names_of_this_machine_alone(sandbox: Sandbox) -> None:
    async with served(sandbox) as client:
        port = client.base_url.port
        state = f"http://127.0.0.1:{port}/_sandbox/state"
        for host in ("evil.com", f"evil.com:{port}", "127.0.0.1.evil.com", "localhost@evil.com", ""):
            refused = await client.get(state, headers={"Host": host})
            assert refused.status_code == 421, host
            assert "pods" not in refused.text
        for host in ("127.0.0.1", f"LOCALHOST:{port}", f"[::1]:{port}"):
            assert (await client.get(state, headers={"Host": host})).status_code == 200, host


async def test_the_server_works_on_when_its_client_has_given_up(sandbox: Sandbox) -> None:
    sandbox.add_fault("slow", seconds=_LONG_SECONDS, match={"method": "POST"})
    async with served(sandbox) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/volumes", json={"name": "data"}, timeout=httpx2.Timeout(_PATIENCE_SECONDS, read=0.05))
        await eventually(lambda: not sandbox.state("faults")["faults"])  # the request has come
        assert (await client.get("/volumes")).json() == []
        sandbox.clear_faults()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not (await client.get("/volumes")).json():  # noqa: ASYNC110 - the server's doing
                await asyncio.sleep(0.01)


async def test_in_process_the_work_goes_on_too_and_a_second_request_meets_the_lock(sandbox: Sandbox) -> None:
    sandbox.add_fault("slow", seconds=_LONG_SECONDS, stage="working", match={"path": "/executors/*/rent"})
    async with wire_to(sandbox) as wire:
        node, body = await wire.node(), await wire.rent_body()
        order = {"executor_id": node["id"], "json": body, "headers": {"Idempotency-Key": "k"}}
        given_up = asyncio.create_task(wire.send("rentExecutor", **order))
        await eventually(lambda: not sandbox.state("faults")["faults"])
        given_up.cancel()
        await wire.refused("rentExecutor", 409, "idempotency_in_progress", **order)
        sandbox.clear_faults()
        await eventually(lambda: bool(sandbox.state("rents")["rents"]))
        again = await wire.send("rentExecutor", **order)
        assert again.headers["idempotent-replayed"] == "true"
    assert len(sandbox.state()["rents"]) == 1


async def test_each_wire_fault_looks_as_it_is_called(sandbox: Sandbox, wire: Wire) -> None:
    async def spoiled(kind: str, **options: object) -> httpx2.Response:
        sandbox.add_fault(kind, match={"path": "/users/me"}, **options)
        wire.checks = False
        return await wire.send("getMe")

    limited = await spoiled("rate_limit", retry_after_seconds=7)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    assert "retry-after" not in (await spoiled("rate_limit")).headers
    assert (await spoiled("unauthorized")).status_code == 401
    page = await spoiled("error", status=502, html=True)
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (502, "text/html")
    assert (await spoiled("error", status=503, body='{"detail": "down"}')).json() == {"detail": "down"}
    moved = await spoiled("redirect", location="http://elsewhere.example/api")
    assert (moved.status_code, moved.headers["location"]) == (307, "http://elsewhere.example/api")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        (await spoiled("truncated_json")).json()
    assert len((await spoiled("oversize", bytes=300_000)).content) == 300_000
    assert (await spoiled("slow", seconds=0)).is_success
    assert sandbox.state()["faults"] == []


async def test_a_fault_strikes_as_often_as_asked_and_only_what_it_matches(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("rate_limit", times=2, match={"method": "get", "path": "/pods/*/events"})
    pod_id = await wire.rent()
    assert [(await wire.send("listPodEvents", pod_id=pod_id)).status_code for _ in range(3)] == [429, 429, 200]
    sandbox.add_fault("error", times=None, match={"path": "/pods/**"})
    await wire.ok("listPods")
    for _ in range(3):
        await wire.refused("getPod", 500, pod_id=pod_id)
    sandbox.clear_faults()
    await wire.ok("getPod", pod_id=pod_id)


async def test_a_paused_provider_refuses_and_leaves_the_listing(sandbox: Sandbox, wire: Wire) -> None:
    node = await wire.node()
    sandbox.add_fault("provider_pause", executor_id=node["id"])
    await wire.refused(
        "rentExecutor", 409, "node_paused_by_provider", executor_id=node["id"], json=await wire.rent_body()
    )
    assert node["id"] not in {row["id"] for row in await wire.listing()}
    sandbox.clock.advance(hours=1)
    assert node["id"] in {row["id"] for row in await wire.listing()}


async def test_an_old_server_lacks_what_came_later(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    sandbox.add_fault("old_server", times=None)
    assert "features" not in await wire.ok("getVersion", key=None)
    for name, call in (("listAudit", {}), ("listPodEvents", {"pod_id": pod_id}), ("getPodRecord", {"pod_id": pod_id})):
        await wire.refused(name, 404, **call)
    await wire.refused("listKeyScopes", 401, key=None)
    assert isinstance(await wire.ok("listRestoreLogs", pod_id=pod_id), list)


async def test_a_slow_boot_runs_past_its_estimate(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("boot_slow", seconds=600)
    pod_id = await wire.rent()
    sandbox.clock.advance(minutes=5)
    pod = await wire.pod(pod_id)
    assert (pod["status"], pod["estimated_ready_seconds"]) == ("PENDING", 0)
    sandbox.clock.advance(minutes=6)
    assert (await wire.pod(pod_id))["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("volcano", {}),
        ("slow", {"status": 500}),
        ("boot_fails", {"match": {"path": "/pods"}}),
        ("error", {"status": 99}),
        ("rate_limit", {"times": 0}),
        ("empty_list", {"share": 0.5}),
        ("short_list", {"share": 0}),
        ("late", {"times": 2, "lasting_seconds": 60}),
        ("missing_fields", {"fields": []}),
        ("spot_reclaim", {"pod_id": "nobody"}),
    ],
)
def test_a_fault_that_would_do_nothing_is_refused(sandbox: Sandbox, kind: str, options: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        sandbox.add_fault(kind, **options)
    assert sandbox.state()["faults"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "description": "see http://192.0.2.7/x"},
        {"name": "x", "description": "../../etc/passwd"},
        {"name": "x", "description": "y" * 65_536},
    ],
)
async def test_the_edge_takes_some_bodies_for_an_attack(wire: Wire, body: dict[str, str]) -> None:
    wire.checks = False
    response = await wire.send("createVolume", json=body)
    assert response.status_code == 403
    assert response.text.startswith("<html>")


async def test_the_edge_wants_a_user_agent(sandbox: Sandbox) -> None:
    async with httpx2.AsyncClient(transport=sandbox.transport()) as client:
        request = client.build_request("GET", "http://sandbox/api/version")
        del request.headers["user-agent"]
        assert (await client.send(request)).status_code == 403


async def test_a_server_that_stops_does_not_wait_for_those_who_follow(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wire_to(sandbox) as wire:
        pod_id = await wire.running(sandbox)
    sandbox.add_fault("slow", seconds=_LONG_SECONDS, match={"path": "/version"})
    async with httpx2.AsyncClient(headers=HEADERS, timeout=_PATIENCE_SECONDS) as client:
        async with served(sandbox) as other:
            base_url = str(other.base_url).rstrip("/")
            slow = asyncio.create_task(client.get(f"{base_url}/version"))
            follow = client.build_request("GET", f"{base_url}/pods/{pod_id}/logs?follow=true")
            lines = (await client.send(follow, stream=True)).aiter_lines()
            await anext(lines)
            stopped = time.monotonic()
        assert time.monotonic() - stopped < _PATIENCE_SECONDS
        assert (await slow).is_success
        # Ends as a whole answer; a connection that was cut would raise here.
        assert all([line.startswith("data: ") async for line in lines])
    assert capfd.readouterr().err == ""


async def test_a_server_that_is_cancelled_again_and_again_still_closes_its_connections(sandbox: Sandbox) -> None:
    async def serve(*, task_status: TaskStatus[str]) -> None:
        await serve_sandbox(sandbox, on_ready=task_status.started)

    async with anyio.create_task_group() as group:
        base_url = httpx2.URL(await group.start(serve))
        reader, writer = await asyncio.open_connection(base_url.host, base_url.port)
        writer.write(b"GET /api/version HTTP/1.1\r\nHost: sandbox\r\nUser-Agent: test/1.0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        group.cancel_scope.cancel()
    async with asyncio.timeout(_PATIENCE_SECONDS):
        assert (await reader.read()).endswith(b"}")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_signal_ends_the_server_cleanly(number: signal.Signals) -> None:
    script = (
        "import asyncio; from lium_mcp.sandbox import serve; "
        "asyncio.run(serve(on_ready=lambda url: print(url, flush=True)))"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert httpx2.get(f"{url}/version", headers=HEADERS, timeout=_PATIENCE_SECONDS).is_success
        server.send_signal(number)
        _, errors = server.communicate(timeout=_PATIENCE_SECONDS)
    assert (server.returncode, errors) == (0, "")
