"""The MCP server as a process runs it: it calls tools, logs one record for each call, and ends calls when it stops."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import anyio
import anyio.lowlevel
from mcp import MCPError, UrlElicitationRequiredError
from mcp.server import MCPServer, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool as BoundTool
from mcp.types import INVALID_PARAMS, CallToolResult, GetPromptResult, InputRequiredResult, Resource, Tool
from pydantic import ValidationError

from lium_mcp.failures import Failure
from lium_mcp.guard.confirm import WaitingForPerson, check_answers, noting_wait, unusable_answer
from lium_mcp.observing import Work, observed
from lium_mcp.page import ADDRESS as PAGE_ADDRESS
from lium_mcp.services.failure_words import as_failure, crashed
from lium_mcp.services.polling import Stop
from lium_mcp.serving.front import Front
from lium_mcp.serving.login_offers import LoginOffers
from lium_mcp.serving.numbering import number
from lium_mcp.serving.person_answers import Answers
from lium_mcp.serving.request_ids import RequestIds
from lium_mcp.serving.stdio import Stdio
from lium_mcp.toolkit.argument_problems import from_validation
from lium_mcp.toolkit.listing import ListedTool
from lium_mcp.toolkit.rendering import META_KEY, render_failure

log = logging.getLogger("lium_mcp.calls")

_LISTS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})
CLEAN_UP_SECONDS: Final = 3.5
# What ignores TERM in a pod is killed a second later, and looked for once more.
_CANCEL_SECONDS: Final = 2.0
_LAST_WORDS_SECONDS: Final = 0.1
_PARENT_SECONDS: Final = 1.0
_STOPPING: Final = Failure("server_stopping", "This MCP server is stopping.", "Call again when it is back.")
_STOPPED: Final = Failure(
    "server_stopping",
    "This MCP server was stopped during the call.",
    "Look at the state, with list_pods first of all, before doing anything again.",
    effect="What it was to change may have been changed.",
)
_STOPPED_READING: Final = Failure("server_stopping", _STOPPED.happened, "Call again when it is back.")
_STOPPED_ASKING: Final = Failure(
    "server_stopping",
    "This MCP server was stopped before the person had answered its question, and sent nothing of what was asked for.",
    "Call again when it is back: the person is asked anew then.",
)

# What the official MCP server calls a parameter, where ours has another name: what works there works here.
_OFFICIAL_PARAMETERS: Final[dict[str, dict[str, str]]] = {
    "rent_pod": {"timeout_seconds": "wait_seconds", "template_id": "template"},
}


class LiumServer(MCPServer[None]):
    """An MCP server whose failures are sentences for the model, and whose log has one record for each call."""

    def __init__(
        self,
        *,
        offered: Sequence[ListedTool],
        bind: Callable[[str], BoundTool],
        stop: Stop,
        answers: Answers,
        first: Sequence[ServerMiddleware[None]] = (),
        logins: LoginOffers | None = None,
        check: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
        **options: Any,  # noqa: ANN401 - the SDK's own, which are many
    ) -> None:
        """`bind` makes a listed tool ready to be called, which it is asked to do when it is first called.

        It raises a Failure where the tool must not be called. `answers` says whose answers count, and `logins` finds a
        key for calls that need one. `first` is middleware that comes before the SDK opens the seal of a question, and
        `check` raises where what all calls need cannot be reached.
        """
        self.request_ids = RequestIds()
        self.check = check
        options["middleware"] = [number, self.request_ids.once_served, _on_one_page, *options.get("middleware", ())]
        super().__init__(**options)
        self.middleware[:0] = [check_answers, *first, answers.know_who_answers]
        self._listed = {item.name: item for item in offered}
        self.readers = frozenset(item.name for item in offered if item.read_only)
        """The offered tools that change nothing."""
        self._bind = cache(bind)
        self._stop = stop
        self._answers = answers
        self._logins = logins
        self._has_host = True
        self._is_cut_off = False
        self._calls: dict[anyio.CancelScope, tuple[str, asyncio.Task[Any] | None]] = {}
        self._idle: anyio.Event | None = None

    async def list_tools(self) -> list[Tool]:
        """List the offered tools."""
        return [item.tool for item in self._listed.values()]

    async def list_resources(self) -> list[Resource]:
        """List the resources, but for the page: hosts that show it hear of it from the tools that carry it."""
        return [item for item in await super().list_resources() if item.uri != PAGE_ADDRESS]

    async def run_over(self, stdio: Stdio) -> None:
        """Serve over standard input and output until the input ends."""
        async with stdio.messages(self._end_with_input) as (incoming, outgoing):
            options = self._lowlevel_server.create_initialization_options()
            await self._lowlevel_server.run(incoming, outgoing, options)

    async def _end_with_input(self) -> None:
        """Let calls that only read answer at once; cancel the others, whose results nobody may be there to hear."""
        self._has_host = False
        self._stop.ask()
        for call, (name, _) in tuple(self._calls.items()):
            if name in self._listed and name not in self.readers:
                call.cancel()

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; every failure but an unknown name comes back as a result with `is_error`.

        Raises:
            MCPError: there is no such tool.
        """
        if self._stop.asked and (self._has_host or name not in self.readers):
            return render_failure(_STOPPING)
        with anyio.CancelScope() as call, noting_wait() as waiting:
            self._calls[call] = name, asyncio.current_task()
            try:
                return await self._call_tool(name, arguments, context)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._is_cut_off or task is None:
                    raise
                task.uncancel()
                return render_failure(self._stopped(name, waiting))
            finally:
                del self._calls[call]
                if self._idle is not None and not self._calls:
                    self._idle.set()
        return render_failure(self._stopped(name, waiting))

    def _stopped(self, name: str, waiting: WaitingForPerson) -> Failure:
        """What to say of a call that ended with the server: only what was carried out may have changed anything."""
        return _STOPPED_ASKING if waiting.is_so else _STOPPED_READING if name in self.readers else _STOPPED

    async def _call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None
    ) -> CallToolResult | InputRequiredResult:
        # What the caller takes for a name may be anything: it is not repeated.
        with _recorded(name if name in self._listed else "?") as record:
            return await self._call_recorded(record, name, _in_our_names(name, arguments), context)

    async def _call_recorded(
        self, record: "_Record", name: str, arguments: dict[str, Any], context: Context[None, Any] | None
    ) -> CallToolResult | InputRequiredResult:
        work = record.work
        result: CallToolResult | InputRequiredResult
        if name not in self._listed:
            work.outcome = "unknown_tool"
            raise MCPError(INVALID_PARAMS, f"There is no tool of that name; tools/list names {self.name}'s")
        try:
            result = await self._answer(self._bind(name), arguments, context or Context(mcp_server=self))
        except Failure as failure:
            result = render_failure(failure)
        except UrlElicitationRequiredError:
            work.outcome = "asked"
            raise
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError) and not isinstance(error, UnexpectedToolError):
                result = render_failure(from_validation(name, cause, self._listed[name].tool.input_schema))
            elif isinstance(cause, ToolError) and not isinstance(error, UnexpectedToolError):
                # Tools raise none: the SDK could not read the answer to a question, before the tool ran.
                result = render_failure(as_failure(unusable_answer()))
            else:
                record.crash, result = error, render_failure(crashed(name))
        if isinstance(result, InputRequiredResult):
            work.outcome = "asked"
            return result
        details = (result.meta or {}).get(META_KEY, {})
        work.outcome, work.request_id = details.get("code", "ok"), details.get("request_id")
        return result

    @contextmanager
    def repeating(self, name: str) -> Iterator[None]:
        """Record a call of a tool that is answered as one before it was."""
        with _recorded(name) as record:
            record.work.outcome = "ok"
            yield

    async def _answer(
        self, tool: BoundTool, arguments: dict[str, Any], context: Context[None, Any]
    ) -> CallToolResult | InputRequiredResult:
        """Run a tool, and where it lacks a key, come to one first if there is a way."""
        await self._answers.use()
        result: CallToolResult | InputRequiredResult = await tool.run(arguments, context, convert_result=True)
        if isinstance(result, InputRequiredResult):
            await self._answers.bind(context)
        if self._logins is None or not _lacks_key(result):
            return result
        found = await self._logins.seek(context)
        if isinstance(found, InputRequiredResult):
            return found
        return await tool.run(arguments, context, convert_result=True) if found else result

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[None, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """Fill in a prompt.

        Raises:
            MCPError: there is no such prompt, or its arguments do not fit; the SDK would call that a defect.
        """
        prompt = next((prompt for prompt in await self.list_prompts() if prompt.name == name), None)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"There is no prompt of that name; prompts/list names {self.name}'s")
        wanted = [item.name for item in prompt.arguments or () if item.required]
        if missing := [item for item in wanted if item not in (arguments or {})]:
            raise MCPError(INVALID_PARAMS, f"Prompt {name} needs these arguments too: {', '.join(missing)}")
        try:
            return await super().get_prompt(name, arguments, context)
        except ValueError as error:
            cause = error.__cause__ and error.__cause__.__cause__
            if not isinstance(cause, ValidationError):
                raise
            raise MCPError(INVALID_PARAMS, from_validation(f"Prompt {name}", cause).happened) from None

    async def until_idle(self) -> None:
        """Wait until no tool runs."""
        while self._calls:
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()  # for all who wait
            await self._idle.wait()

    async def wind_down(self, seconds: float) -> bool:
        """Take no new call and let the running ones answer: waits end now, and whatever takes longer is cancelled.

        Returns:
            Whether all calls have ended.
        """
        self._stop.ask()
        for limit_seconds in (seconds - _CANCEL_SECONDS, _CANCEL_SECONDS):
            with anyio.move_on_after(limit_seconds):
                await self.until_idle()
            for call in tuple(self._calls):
                call.cancel()
        return await self.cut_off()

    async def cut_off(self) -> bool:
        """Interrupt the calls that do not end when they are cancelled, so that each can say what it leaves behind.

        Returns:
            Whether all calls have ended.
        """
        self._is_cut_off = True
        for name, task in self._calls.values():
            log.error("Stopped while %s was running: what it changed is not known", name)
            if task is not None:
                task.cancel()  # no shield holds against this
        if self._calls:
            await anyio.sleep(_LAST_WORDS_SECONDS)
        return not self._calls


async def _on_one_page(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: every list is one page, and so no cursor is one of ours; the SDK would list the same again."""
    if ctx.method in _LISTS and (ctx.params or {}).get("cursor") not in (None, ""):
        raise MCPError(INVALID_PARAMS, f"There is no page of that cursor: {ctx.method} answers with one page")
    return await call_next(ctx)


@dataclass(slots=True)
class _Record:
    """What the log says of a call; `crash` is a defect of ours."""

    work: Work
    crash: ToolError | None = None


@contextmanager
def _recorded(name: str) -> Iterator[_Record]:
    """Tell those who observe of a call, and write one line of the log when it has ended."""
    started = time.perf_counter()
    with observed(Work("call", name)) as work:
        record = _Record(work)
        try:
            yield record
        finally:
            seconds = round(time.perf_counter() - started, 3)
            fields = {
                "tool": work.name, "outcome": work.outcome, "seconds": seconds, "request_id": work.request_id
            }  # fmt: skip
            log.log(
                logging.ERROR if record.crash else logging.INFO,
                "tool=%s outcome=%s seconds=%.3f request_id=%r",
                *fields.values(),
                exc_info=record.crash,
                # For logs that are read by programs.
                extra={"fields": fields},
            )


def _lacks_key(result: CallToolResult | InputRequiredResult) -> bool:
    """Whether a call failed since there is no key, so that it changed nothing."""
    details = (result.meta or {}).get(META_KEY, {}) if isinstance(result, CallToolResult) else {}
    return details.get("code") == "api_key_missing"


def _in_our_names(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments by our names for them, which count where a host fills in both."""
    official = _OFFICIAL_PARAMETERS.get(tool, {})
    renamed = {official[name]: value for name, value in arguments.items() if name in official}
    ours = {name: value for name, value in arguments.items() if name not in official}
    return renamed | {name: value for name, value in ours.items() if name not in renamed or value not in (None, "")}


async def serve_stdio(server: LiumServer, front: Front | None) -> None:
    """Serve over standard input and output until the input ends, a signal comes, or the host has died."""
    stdio = Stdio(front)
    async with anyio.create_task_group() as group:
        group.start_soon(_stop_on_signal, server, group.cancel_scope)
        group.start_soon(_stop_without_parent, server, group.cancel_scope, stdio.parent)
        await server.run_over(stdio)
        group.cancel_scope.cancel()


async def _stop_on_signal(server: LiumServer, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            await _stop_now(server, scope, 128 + number)


async def _stop_without_parent(server: LiumServer, scope: anyio.CancelScope, parent: int) -> None:
    # The input of an orphan does not end where another process holds the pipe too.
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody tells when it dies
        await anyio.sleep(_PARENT_SECONDS)
    await _stop_now(server, scope, 0)


async def _stop_now(server: LiumServer, scope: anyio.CancelScope, status: int) -> None:
    scope.cancel()
    # A call that rents removes its pod when it is cancelled, which takes a moment.
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(CLEAN_UP_SECONDS):
            await server.until_idle()
        await server.cut_off()
    # The thread that reads standard input cannot be interrupted: an orderly exit would wait for it for ever.
    logging.shutdown()
    os._exit(status)
