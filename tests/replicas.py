"""Several server processes behind one address, which share a ledger and the secrets of questions and nothing else."""

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult

from lium_mcp.sandbox import API_KEY
from tests.harness import Person
from tests.http_server import Served, serving

STATE_KEY: Final = "the-first-secret-of-these-replicas-4711"
NEXT_STATE_KEY: Final = "the-secret-that-comes-after-it-0815-42"


@contextmanager
def replicas(home: Path, count: int, state_url: str, *, named: str = "gpu", **settings: str) -> Iterator[list[Served]]:
    """So many servers over HTTP on one ledger, each with a home and a name of its own: `gpu-1`, `gpu-2`."""
    shared = {"LIUM_MCP_STATE_URL": state_url, "LIUM_MCP_STATE_KEYS": STATE_KEY} | settings
    names = [f"{named}-{number}" for number in range(1, count + 1)]
    with ExitStack() as stack:
        yield [stack.enter_context(serving(home / name, **shared | {"LIUM_MCP_REPLICA": name})) for name in names]


class RoundRobin(httpx2.AsyncBaseTransport):
    """Sends each request to the next server, as a proxy does that knows no sessions."""

    def __init__(self, servers: Sequence[Served]) -> None:
        self._next = itertools.cycle([httpx2.URL(server.url) for server in servers])
        self._network = httpx2.AsyncHTTPTransport()
        self.sent: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        server = next(self._next)
        request.url = request.url.copy_with(host=server.host, port=server.port)
        request.headers["host"] = server.netloc.decode()
        self.sent.append(str(server))
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


@asynccontextmanager
async def client_of(
    servers: Sequence[Served], key: str = API_KEY, person: Person | None = None
) -> AsyncIterator[Client]:
    """A client whose every request goes to the next server; it can ask a person, who is there where one is given."""

    async with (
        httpx2.AsyncClient(
            transport=RoundRobin(servers), headers={"X-API-Key": key}, timeout=60, trust_env=False
        ) as http,
        Client(
            streamable_http_client("http://replicas.test/mcp", http_client=http),
            elicitation_callback=person or Person("no"),
        ) as client,
    ):
        yield client


async def put(client: Client, tool: str, arguments: dict[str, Any]) -> InputRequiredResult:
    """Call a tool that asks, and return its question unanswered."""
    asked = await client.session.call_tool(tool, arguments, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult), asked
    return asked


async def answer(client: Client, asked: InputRequiredResult, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    """Call it again with a yes, which ends the question; the result."""
    yes = ElicitResult(action="accept", content={"confirm": True})
    result = await client.session.call_tool(
        tool,
        arguments,
        input_responses=dict.fromkeys(asked.input_requests or {}, yes),
        request_state=asked.request_state,
        allow_input_required=True,
    )
    assert isinstance(result, CallToolResult), result
    return result
