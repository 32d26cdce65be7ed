"""A wire with faults on it that the sandbox does not know, and a look behind the server's back.

Nothing here knows our client: answers are changed as bytes on their way, and the truth is read from the sandbox.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from lium_mcp.sandbox import API_KEY, Sandbox
from tests.harness import PUBLIC_KEY, Agent

Forward = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
Row = dict[str, Any]
Act = Callable[[httpx2.Request, Forward], Awaitable[httpx2.Response]]


@dataclass
class _Rule:
    method: str
    path: re.Pattern[str]
    act: Act
    times: int | None


class Wire(httpx2.AsyncBaseTransport):
    """The way to a sandbox: requests that a rule meets are in the rule's hands, all others pass."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._inner = sandbox.transport()
        self._rules: list[_Rule] = []
        self.requests: list[httpx2.Request] = []

    def on(self, method: str, path: str, act: Act, *, times: int | None = None) -> None:
        """Let `act` handle these requests, so many times; ``*`` in the path is one segment. The newest rule wins."""
        pattern = re.compile(re.escape(f"/api{path}").replace(r"\*", "[^/]+"))
        self._rules.insert(0, _Rule(method, pattern, act, times))

    def sent(self, method: str, path: str) -> list[httpx2.Request]:
        """The requests of this kind, so far."""
        pattern = re.escape(f"/api{path}").replace(r"\*", "[^/]+")
        return [item for item in self.requests if item.method == method and re.fullmatch(pattern, item.url.path)]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        for rule in self._rules:
            if rule.times != 0 and request.method == rule.method and rule.path.fullmatch(request.url.path):
                rule.times = None if rule.times is None else rule.times - 1
                return await rule.act(request, self._inner.handle_async_request)
        return await self._inner.handle_async_request(request)


def answering(status: int = 200, body: Any = None, *, content: bytes | None = None, **headers: str) -> Act:
    """The sandbox never sees the request; this is the answer."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        raw = json.dumps(body).encode() if content is None else content
        return httpx2.Response(status, content=raw, headers={"Content-Type": "application/json", **headers})

    return act


def answering_after_work(status: int = 200, content: bytes = b"", **headers: str) -> Act:
    """The sandbox does the work, but this is the answer that comes back."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        await (await forward(request)).aread()
        return httpx2.Response(status, content=content, headers=headers)

    return act


def failing(error: Exception) -> Act:
    """The request is lost before it arrives."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        raise error

    return act


def losing_the_answer(error: Exception | None = None) -> Act:
    """The sandbox does the work and the connection breaks."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        await (await forward(request)).aread()
        raise error or httpx2.ReadError("the connection broke")

    return act


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
    with anyio.fail_after(10):
        while not condition():
            for _ in range(50):
                await anyio.lowlevel.checkpoint()


async def rent(sandbox: Sandbox, name: str, *, boot: bool = True, **wanted: Any) -> str:
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
    pod_id = str((await ask(sandbox, "POST", f"/executors/{node['id']}/rent", body))["pod_id"])
    if boot:
        sandbox.clock.advance(seconds=60)
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


async def make_template(sandbox: Sandbox, name: str, **fields: Any) -> str:
    """Let the account have a template of its own that is verified."""
    body = {"name": name, "docker_image": "me/mine", "docker_image_tag": "1", "is_private": True, "category": "UBUNTU"}
    body |= {"internal_ports": [22], "volumes": ["/root"], "description": name, "readme": name}
    template_id = str((await ask(sandbox, "POST", "/templates", body | fields))["id"])
    sandbox.clock.advance(minutes=3)
    return template_id


def is_rent(request: httpx2.Request) -> bool:
    """Whether a request spends; a dry run has no idempotency key."""
    return request.method == "POST" and "Idempotency-Key" in request.headers


def sent_rents(wire: Wire) -> list[httpx2.Request]:
    """The rents that were sent, so far."""
    return [request for request in wire.requests if is_rent(request)]


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
