"""What tests act through: a real MCP client, our real server, the sandbox, and a clock that is turned, not slept."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import asyncssh
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from mcp import Client
from mcp.types import (
    CallToolResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    TextContent,
)

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.toolkit.listing import read_listing
from lium_mcp.tools.catalog import TOOLSETS

Mode = Literal["auto", "legacy"]
ALL_TOOLSETS = frozenset(toolset.name for toolset in TOOLSETS)
# What everybody can read here opens nothing.
_SSH_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"lium-mcp test key, everybody's!!")
PRIVATE_KEY = _SSH_KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
PUBLIC_KEY = _SSH_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def write_ssh_key(home: Path) -> None:
    """Give a home the key pair that the tests rent with. Its comment is nobody's business."""
    folder = home / ".ssh"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "id_ed25519").write_text(PRIVATE_KEY)
    (folder / "id_ed25519.pub").write_text(f"{PUBLIC_KEY} jos\u00e9@laptop\n")


def make_key_pair(path: Path) -> None:
    """Write both halves of a key that pods of the sandbox accept once it was rented with."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="test")
    key.write_private_key(path)
    key.write_public_key(f"{path}.pub")


async def _threads_done() -> None:
    """Let what is done in threads, such as every transaction of a ledger, come to its end.

    That takes real time, of which a clock that is turned knows nothing: a wait for it would be over before it is done.
    """
    threads = anyio.to_thread.current_default_thread_limiter()
    while threads.borrowed_tokens:  # noqa: ASYNC110 - no event tells
        await anyio.sleep(0.001)


class TurnedClock:
    """Our server's time: every pause turns the sandbox's clock instead of passing."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.slept_seconds = 0.0

    def now(self) -> datetime:
        return self._sandbox.clock.now()

    def monotonic(self) -> float:
        return self.slept_seconds

    async def sleep(self, seconds: float) -> None:
        # Less than what a sum of seconds can tell would be a wait that never ends.
        seconds = max(seconds, 0.001) if seconds else 0.0
        await _threads_done()
        self.slept_seconds += seconds
        self._sandbox.clock.advance(seconds=seconds)
        await anyio.lowlevel.checkpoint()


class Agent:
    """An MCP client that calls tools and insists that text and structured content say the same."""

    def __init__(self, client: Client, sandbox: Sandbox, clock: TurnedClock) -> None:
        self.client = client
        self.sandbox = sandbox
        self.clock = clock
        self.progress: list[str] = []

    async def raw(self, tool: str, **arguments: Any) -> CallToolResult:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append(message or "")

        return await self.client.call_tool(tool, arguments, progress_callback=on_progress)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that should succeed. The client has checked the answer against the output schema."""
        result = await self.raw(tool, **arguments)
        text = text_of(result)
        assert not result.is_error, text
        assert result.structured_content is not None
        assert json.loads(text) == result.structured_content
        return dict(result.structured_content)

    async def refused(self, tool: str, **arguments: Any) -> "Failure":
        """Call a tool that should fail."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, f"{tool} succeeded: {text_of(result)}"
        assert result.structured_content is None
        return Failure(result)


class Failure:
    """A tool error as the model reads it."""

    def __init__(self, result: CallToolResult) -> None:
        self.text = text_of(result)
        details = (result.meta or {})["lium-mcp/error"]
        self.code: str = details["code"]
        self.request_id: str | None = details.get("request_id")
        assert f"code: {self.code}" in self.text
        assert "Traceback" not in self.text
        assert not re.search(r"\bsk_\w", self.text), "a key"


def text_of(result: CallToolResult) -> str:
    assert len(result.content) == 1
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text


Answer = str | dict[str, Any] | BaseException | None


class Person:
    """Who sits before a client: hears each question, and gives one answer after the other, the last one for ever.

    An answer is yes, no, cancel, the content of a form, an error of the client, or None where no answer ever comes.
    """

    def __init__(self, *answers: Answer, meanwhile: Callable[[], Awaitable[Any]] | None = None) -> None:
        self._answers = answers
        self._meanwhile = meanwhile
        self.questions: list[str] = []

    async def __call__(self, context: Any, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        assert isinstance(params, ElicitRequestFormParams)
        self.questions.append(params.message)
        if self._meanwhile is not None:
            await self._meanwhile()
        answer = self._answers[min(len(self.questions), len(self._answers)) - 1]
        match answer:
            case "yes":
                return ElicitResult(action="accept", content={"confirm": True})
            case "no":
                return ElicitResult(action="decline")
            case "cancel":
                return ElicitResult(action="cancel")
            case None:
                await anyio.sleep_forever()
            case BaseException():
                raise answer
            case dict():
                return ElicitResult(action="accept", content=answer or None)
        return ErrorData(code=-1, message=str(answer))


@cache
def _output_schemas() -> dict[str, dict[str, Any] | None]:
    return {item.name: item.tool.output_schema for item in read_listing()}


@asynccontextmanager
async def agent_on(
    sandbox: Sandbox, *, mode: Mode = "auto", transport: Any = None, person: Person | None = None, **settings: Any
) -> AsyncIterator[Agent]:
    """Connect a client in memory to a server over this sandbox with all tools on, which takes 6 ms.

    With a `person` the server can ask.
    """
    clock = TurnedClock(sandbox)
    # As long as a sandbox lives, so does its ledger, whichever server looks into it.
    ledger = Path.home() / f"ledger-{id(sandbox)}.db"
    defaults: dict[str, Any] = {
        "api_key": "sk_sandbox",
        "base_url": "http://127.0.0.1/api",
        "state_url": f"sqlite:///{ledger}",
        "toolsets": ALL_TOOLSETS,
    }
    settings = defaults | settings
    server = build_server(Settings(**settings), transport=transport or sandbox.transport(), clock=clock)
    async with Client(server, mode=mode, raise_exceptions=True, elicitation_callback=person) as client:
        # What a client would list before its first call, to hold the answers against it; it takes longer than the call.
        client.session._tool_output_schemas.update(_output_schemas())
        yield Agent(client, sandbox, clock)


@asynccontextmanager
async def hosted(context: AbstractAsyncContextManager[Agent]) -> AsyncIterator[Agent]:
    """Enter and leave a context in one task. A fixture's own two halves run in two, which cancel scopes do not bear."""
    connected: asyncio.Future[Agent] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def host() -> None:
        try:
            async with context as agent:
                connected.set_result(agent)
                await over.wait()
        except Exception as error:
            if connected.done():
                raise
            connected.set_exception(error)

    hosting = asyncio.create_task(host())
    yield await connected
    over.set()
    await hosting
