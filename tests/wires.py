"""The one double of Lium's wire, and a look behind the server's back.

A `Wire` is the transport of our client. It notes each request in `requests` and gives it to the newest rule that the
request meets. One that meets none goes to what is behind the wire: a sandbox, another wire, or nothing, which fails:

    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", answering(500), times=2)  # a `*` is one segment, `**` is any path; as a method, any
    wire.on("POST", "/volumes", after_work(drop))
    assert len(wire.sent("POST", "/volumes")) == 1

What a rule does is an act:

    the sandbox never sees the request   answering, page, streaming, failing, drop, reset, cut, silence, trickle, raw
    it does the work first               after_work(act), losing_the_answer
    it answers, with a difference        passing (with none), editing, first, then, Hold (by `wire.hold`), `lag`

`served` puts a wire on a real socket: for clients that are processes, and for what only a connection has, such as its
time limits. Nothing here knows our client: answers are changed as bytes on their way, and the truth is read from the
sandbox.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import anyio
import httpx2

from lium_mcp.sandbox import API_KEY, Sandbox
from tests.harness import PUBLIC_KEY, Agent

Forward = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
Row = dict[str, Any]
Act = Callable[[httpx2.Request, Forward], Awaitable[httpx2.Response]]
Moment = Literal["before the work", "after the work", "after the answer"]

_PATIENCE_SECONDS = 60
_HTML = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><script>x</script><h1>Sorry</h1></body></html>"


@dataclass
class _Rule:
    method: str
    path: str
    act: Act
    times: int | None


class Wire(httpx2.AsyncBaseTransport):
    """The way to a sandbox: requests that a rule meets are in the rule's hands, all others pass."""

    def __init__(self, behind: Sandbox | httpx2.AsyncBaseTransport | None = None) -> None:
        self._behind = behind.transport() if isinstance(behind, Sandbox) else behind
        self._rules: list[_Rule] = []
        self._arrived = asyncio.Event()
        self.requests: list[httpx2.Request] = []
        self.base_url = ""

    def on(self, method: str, path: str, act: Act, *, times: int | None = None) -> None:
        """Let `act` handle these requests, so many times. The newest rule wins."""
        self._rules.insert(0, _Rule(method, path, act, times))

    def hold(self, method: str, path: str, moment: Moment = "before the work") -> "Hold":
        """Hold the next such request at that moment."""
        held = Hold(moment)
        self.on(method, path, held, times=1)
        return held

    def behave(self) -> None:
        """Forget all rules."""
        self._rules.clear()

    def sent(self, method: str, path: str) -> list[httpx2.Request]:
        """The requests of this kind, so far."""
        return [request for request in self.requests if _meets(request, method, path)]

    def sent_json(self, index: int = -1) -> Any:
        """What the body of a request said."""
        return json.loads(self.requests[index].content)

    async def arrival(self, method: str, path: str = "**") -> None:
        """Wait for the first request of this kind."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not self.sent(method, path):
                self._arrived.clear()
                await self._arrived.wait()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        self._arrived.set()
        for rule in self._rules:
            if rule.times != 0 and _meets(request, rule.method, rule.path):
                rule.times = None if rule.times is None else rule.times - 1
                return await rule.act(request, self._forward)
        return await self._forward(request)

    async def _forward(self, request: httpx2.Request) -> httpx2.Response:
        if self._behind is None:
            raise AssertionError(f"unexpected {request.method} {request.url}")
        return await self._behind.handle_async_request(request)


def _meets(request: httpx2.Request, method: str, path: str) -> bool:
    pattern = re.escape(path).replace(r"\*\*", ".*").replace(r"\*", "[^/]+")
    return method in {request.method, "*"} and bool(re.fullmatch(pattern, request.url.path.removeprefix("/api")))


# --- acts: the sandbox never sees the request ------------------------------------------------------------------------


def answering(status: int = 200, body: Any = None, **headers: str) -> Act:
    """This is the answer: bytes as they are, anything else as JSON."""
    is_raw = isinstance(body, bytes)
    content = body if is_raw else json.dumps(body).encode()
    named = _named({} if is_raw else {"Content-Type": "application/json"}, headers)

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return httpx2.Response(status, content=content, headers=named)

    return act


def page(status: int) -> Act:
    """What a firewall or a gateway shows."""
    return answering(status, _HTML, content_type="text/html")


def streaming(*parts: bytes | Exception | None, status: int = 200, **headers: str) -> Act:
    """The answer comes in parts: bytes; an error, by which the connection breaks; None, after which nothing comes."""

    async def come() -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield b"" if part is None else part
            if part is None:
                await anyio.sleep_forever()

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        named = _named({"Content-Type": "application/json"}, headers)
        response = httpx2.Response(status, content=come(), headers=named)
        response.headers.pop("Transfer-Encoding", None)  # it ends with its connection
        return response

    return act


def failing(error: Exception) -> Act:
    """The request is lost before it arrives."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        raise error

    return act


drop = failing(httpx2.ReadError("the connection broke"))
"""The connection is closed without a byte."""

reset = failing(ConnectionResetError())
"""On a socket: the connection is not closed in order."""

cut = streaming(b'[{"id": "', httpx2.ReadError("the connection broke"), content_length="1000")
"""More is promised than comes."""


def raw(content: bytes) -> Act:
    """On a socket: these bytes, and the end."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return httpx2.Response(200, extensions={"raw": content})

    return act


async def silence(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    """There is never an answer."""
    await anyio.sleep_forever()
    raise AssertionError("unreachable")


async def trickle(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    """The answer has no end, and comes a byte at a time: each before any time limit on silence."""

    async def come() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    return httpx2.Response(200, content=come(), headers={"Content-Type": "application/json"})


# --- acts: the sandbox does the work ---------------------------------------------------------------------------------


async def passing(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    """All is well again."""
    return await forward(request)


def after_work(act: Act) -> Act:
    """The sandbox does the work, and what comes back is up to the act."""

    async def acted(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        await (await forward(request)).aread()
        return await act(request, forward)

    return acted


def losing_the_answer(error: Exception | None = None) -> Act:
    """The sandbox does the work and the connection breaks."""
    return after_work(failing(error) if error else drop)


def editing(change: Callable[[Any], Any]) -> Act:
    """The sandbox answers, and its JSON is changed on the way back."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        response = await forward(request)
        body = json.loads(await response.aread())
        # By hand: a hostile answer may hold NaN, which an HTTP library would refuse to write.
        content = json.dumps(change(body)).encode()
        kept = {name: response.headers[name] for name in ("Date", "X-Request-Id") if name in response.headers}
        return httpx2.Response(response.status_code, content=content, headers=kept)

    return act


def first(happens: Callable[[], Any]) -> Act:
    """Something happens elsewhere before the request arrives."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        happens()
        return await forward(request)

    return act


def then(happens: Callable[[], Any]) -> Act:
    """Something happens elsewhere once the work is done and before the answer comes back."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        response = await forward(request)
        await response.aread()
        happens()
        return response

    return act


def lag(wire: Wire, sandbox: Sandbox, method: str, order: str, read: str, *, seconds: float) -> None:
    """Let what is read at a path be, for so long after an order, what was read there before it."""
    until: datetime | None = None
    old = b""

    async def ordered(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal until, old
        url = request.url.copy_with(path=f"/api{read}")
        who = {name: request.headers[name] for name in ("X-API-KEY", "User-Agent")}
        old = await (await forward(httpx2.Request("GET", url, headers=who))).aread()
        until = sandbox.clock.now() + timedelta(seconds=seconds)
        return await forward(request)

    async def looked_at(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if until is None or sandbox.clock.now() >= until:
            return await forward(request)
        return httpx2.Response(200, content=old, headers={"Content-Type": "application/json"})

    wire.on(method, order, ordered)
    wire.on("GET", read, looked_at)


class Hold:
    """A request comes so far on its way, and goes no further before it is let go."""

    def __init__(self, moment: Moment = "before the work") -> None:
        self._moment = moment
        self._reached = asyncio.Event()
        self._let_go = asyncio.Event()

    async def __call__(self, request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if self._moment == "before the work":
            await self._hold()
        response = await forward(request)
        content = await response.aread()
        if self._moment == "after the work":
            await self._hold()
        if self._moment == "after the answer":
            return httpx2.Response(response.status_code, headers=response.headers, content=self._answer(content))
        return response

    async def reached(self) -> None:
        """Wait until a request is held."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._reached.wait()

    def let_go(self) -> None:
        self._let_go.set()

    async def _hold(self) -> None:
        self._reached.set()
        await self._let_go.wait()

    async def _answer(self, content: bytes) -> AsyncIterator[bytes]:
        yield content
        await self._hold()


def _named(known: dict[str, str], headers: dict[str, str]) -> dict[str, str]:
    return known | {name.replace("_", "-"): value for name, value in headers.items()}


# --- a wire on a real socket -----------------------------------------------------------------------------------------


@asynccontextmanager
async def served(wire: Wire) -> AsyncIterator[Wire]:
    """Serve a wire at its `base_url`, one connection a request, and leave nothing of it behind."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _serve_one(wire, reader, writer)
        except ConnectionResetError:
            # Without time to linger in, the kernel sends a reset.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, httpx2.TransportError):
            pass  # an act breaks the connection, or the client has had enough, or the test
        finally:
            writer.close()
            connections.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api"
    try:
        yield wire
    finally:
        listening.close()
        hanging = list(connections)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def _serve_one(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, target, _ = start.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    request = httpx2.Request(method, f"http://127.0.0.1{target}", headers=headers, content=body)
    response = await wire.handle_async_request(request)
    if "raw" in response.extensions:
        writer.write(response.extensions["raw"])
        await writer.drain()
        return
    if response.is_stream_consumed:
        response.headers["content-length"] = str(len(response.content))
    named = {**response.headers, "connection": "close"}
    head = [f"HTTP/1.1 {response.status_code} X", *(f"{name}: {value}" for name, value in named.items())]
    writer.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n")

    async def leave() -> None:
        await reader.read()
        writing.cancel_scope.cancel()

    async with anyio.create_task_group() as writing:
        writing.start_soon(leave)
        with suppress(ConnectionError, httpx2.TransportError):
            await _write_body(response, writer)
        writing.cancel_scope.cancel()


async def _write_body(response: httpx2.Response, writer: asyncio.StreamWriter) -> None:
    if response.is_stream_consumed:
        writer.write(response.content)
        await writer.drain()
        return
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    is_chunked = response.headers.get("transfer-encoding") == "chunked"
    async for part in response.stream:
        if part:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
        await writer.drain()
    if is_chunked:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


# --- behind the server's back ----------------------------------------------------------------------------------------


async def ask(sandbox: Sandbox, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """What somebody else does or sees, straight at the API."""
    async with httpx2.AsyncClient(transport=sandbox.transport()) as http:
        response = await http.request(
            method,
            f"http://127.0.0.1/api{path}",
            json=body,
            headers={"User-Agent": "somebody-else", "X-API-KEY": API_KEY, **headers},
        )
        assert response.is_success, response.text
        return response.json()


async def ask_as_person(sandbox: Sandbox, method: str, path: str, body: Any = None) -> Any:
    """What the account's owner does on the web site, for what no API key may do."""
    async with httpx2.AsyncClient(transport=sandbox.transport()) as http:
        headers = {"User-Agent": "somebody-else", "Authorization": "Bearer sandbox-session"}
        response = await http.request(method, f"http://127.0.0.1/api{path}", json=body, headers=headers)
        assert response.is_success, response.text
        return response.json()


def truth(sandbox: Sandbox, part: str) -> Any:
    """A part of the sandbox's own record."""
    return sandbox.state(part)[part]


def rents(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The rents that the sandbox accepted."""
    return list(truth(sandbox, "rents"))


def living(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The pods that are there and are not being removed."""
    return [pod for pod in truth(sandbox, "pods") if pod["removed_at"] is None and pod["status"] != "DELETING"]


async def eventually(condition: Callable[[], bool]) -> None:
    """Let everybody else go on until the condition holds."""
    with anyio.fail_after(_PATIENCE_SECONDS):
        while not condition():
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.001)  # a thread that works for one of them waits for this one otherwise


async def rent(sandbox: Sandbox, name: str, *, boot: bool = True, key: str = API_KEY, **wanted: Any) -> str:
    """Let somebody rent one GPU of the cheapest node, past our server; the pod's id."""
    nodes = [
        node
        for node in await ask(sandbox, "GET", "/executors?view=summary")
        if node.get("min_gpu_count_for_rental") == 1
    ]
    node = min(nodes, key=lambda node: float(node["price_per_gpu"]))
    templates = await ask(sandbox, "GET", "/templates")
    body = {
        "pod_name": name,
        "template_id": templates[0]["id"],
        "user_public_key": [PUBLIC_KEY],
        "gpu_count": 1,
        **wanted,
    }
    path = f"/executors/{node['id']}/rent"
    pod_id = str((await ask(sandbox, "POST", path, body, **{"X-API-KEY": key}))["pod_id"])
    if boot:
        sandbox.clock.advance(seconds=60)
    return pod_id


async def rent_scheduled(sandbox: Sandbox, name: str, **said: Any) -> str:
    """A pod that somebody rents and gives a backup schedule, past our server, so that nobody is asked; its id."""
    pod_id = await rent(sandbox, name)
    usual = {"pod_id": pod_id, "backup_frequency_hours": 6, "retention_days": 7, "backup_path": "/root"}
    await ask(sandbox, "POST", "/backup-configs", usual | said)
    return pod_id


async def rows_of(sandbox: Sandbox, view: str = "summary") -> list[Row]:
    """The market as the API itself shows it."""
    return list(await ask(sandbox, "GET", f"/executors?view={view}"))


def smallest_count(row: Row) -> int:
    """The fewest GPUs that a row of the market rents."""
    if "min_gpu_count_for_rental" not in row:
        return 1
    least = row["min_gpu_count_for_rental"]
    return int(row["gpu_count"] if least is None else least)


async def all_offers(agent: Agent, **filters: Any) -> list[Row]:
    """Every offer, page by page."""
    offers: list[Row] = []
    cursor = ""
    while True:
        page = await agent.call("list_gpus", limit=100, cursor=cursor, **filters)
        offers += page["offers"]
        assert page["total"] >= len(offers)
        if "next_cursor" not in page:
            assert page["total"] == len(offers)
            return offers
        cursor = page["next_cursor"]


async def offers(sandbox: Sandbox, name: str = "") -> list[Row]:
    """Free nodes, cheapest first."""
    rows = await ask(sandbox, "GET", "/executors?view=summary")
    return sorted((row for row in rows if name in row["machine_name"]), key=lambda row: float(row["price_per_gpu"]))


async def make_template(sandbox: Sandbox, name: str, *, key: str = API_KEY, **fields: Any) -> str:
    """Let the account have a template of its own that is verified."""
    body = {"name": name, "docker_image": "me/mine", "docker_image_tag": "1", "is_private": True, "category": "UBUNTU"}
    body |= {"internal_ports": [22], "volumes": ["/root"], "description": name, "readme": name}
    template_id = str((await ask(sandbox, "POST", "/templates", body | fields, **{"X-API-KEY": key}))["id"])
    sandbox.clock.advance(minutes=3)
    return template_id


def is_rent(request: httpx2.Request) -> bool:
    """Whether a request spends; a dry run has no idempotency key."""
    return request.method == "POST" and "Idempotency-Key" in request.headers


def sent_rents(wire: Wire) -> list[httpx2.Request]:
    """The rents that were sent, so far."""
    return [request for request in wire.requests if is_rent(request)]


def list_late(wire: Wire, *, sends: int) -> None:
    """Let Lium list no pod until so many rents were sent."""
    wire.on("GET", "/pods", editing(lambda pods: pods if len(sent_rents(wire)) >= sends else []))


def on_rents(wire: Wire, act: Act, *, times: int | None = None) -> None:
    """Let the act handle rents, whichever way they go; a dry run is none."""
    left = times

    async def counted(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal left
        if left == 0 or not is_rent(request):
            return await forward(request)
        left = None if left is None else left - 1
        return await act(request, forward)

    wire.on("POST", "/executors/rent-by-spec", counted)
    wire.on("POST", "/executors/*/rent", counted)
