"""From a declared tool to an MCP tool: strict arguments, plain schemas, rendered results, failures in words.

A toolset file makes one `Toolset` and declares its tools on it; the server picks which of them it offers.
"""

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Final, TypeVar

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit, Resolve
from mcp.server.mcpserver.resolve import build_resolver_plans
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ToolAnnotations
from mcp.types import Tool as ListedTool

from lium_mcp.api import LiumError
from lium_mcp.api.wire import noting_changes
from lium_mcp.guard.confirm import NotConfirmed, Question, Yes, ask, can_ask, later, refuse_unless_yes
from lium_mcp.guard.redaction import redact_text
from lium_mcp.tools.call import READ_LIMIT_SECONDS, Call, Runtime, time_limit
from lium_mcp.tools.failures import (
    CHANGED_BEFORE,
    GUARD_ERRORS,
    NOTHING_CHANGED,
    ToolFailure,
    from_api,
    from_guard,
    render_failure,
)
from lium_mcp.tools.results import Result, clean, render
from lium_mcp.tools.schema import plain

ToolFunction = Callable[..., Awaitable[Result]]
Asks = Callable[..., Awaitable[Question | None]]
F = TypeVar("F", bound=ToolFunction)

_ANSWER: Final = "answer"
_FAILURES: Final = (ToolFailure, LiumError, *GUARD_ERRORS)
# The SDK tells a tool the answer to a question that came with a later request, but not the question.
_question: ContextVar[Question | None] = ContextVar("_question", default=None)


def _hints(*, read_only: bool, destructive: bool, idempotent: bool) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=read_only, destructive_hint=destructive, idempotent_hint=idempotent, open_world_hint=True
    )


READS: Final = _hints(read_only=True, destructive=False, idempotent=True)
WRITES: Final = _hints(read_only=False, destructive=False, idempotent=True)
WRITES_EACH_TIME: Final = _hints(read_only=False, destructive=False, idempotent=False)
DESTROYS: Final = _hints(read_only=False, destructive=True, idempotent=True)
DESTROYS_EACH_TIME: Final = _hints(read_only=False, destructive=True, idempotent=False)


@dataclass(frozen=True, slots=True, eq=False)
class ToolSpec:
    """A declared tool, not yet bound to a server."""

    function: ToolFunction
    title: str
    hints: ToolAnnotations
    asks: Asks | None = None

    @property
    def name(self) -> str:
        """The name agents call it by."""
        return self.function.__name__

    @property
    def read_only(self) -> bool:
        """Whether it changes nothing and spends nothing."""
        return bool(self.hints.read_only_hint)


@dataclass(frozen=True, slots=True)
class _Before:
    """What came of a call before its tool ran: a yes to a question, nothing to ask, or why it must not run."""

    question: Question | None = None
    failure: Exception | None = None


class Toolset:
    """A named group of tools, in the order in which they are listed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.specs: list[ToolSpec] = []

    def tool(self, *, title: str, hints: ToolAnnotations, asks: Asks | None = None) -> Callable[[F], F]:
        """Declare an async function as a tool: its name, docstring and parameters are what agents read.

        What spends or destroys says with `asks` what a person is asked before: it takes the call and the arguments of
        the tool, and returns nothing where there is nothing to ask.
        """

        def declare(function: F) -> F:
            self.specs.append(ToolSpec(function, title, hints, asks))
            return function

        return declare


def bind(spec: ToolSpec, runtime: Runtime) -> Tool:
    """Make an MCP tool that acts through `runtime`."""

    async def run(context: Context[Any, Any], **arguments: Any) -> CallToolResult:  # noqa: ANN401 - validated by the SDK
        call = Call(runtime, context)
        answer: ElicitationResult[Any] | None = arguments.pop(_ANSWER, None)
        redact: Callable[[str], str] = redact_text
        changes: list[str] = []
        limit_seconds = READ_LIMIT_SECONDS + arguments.get("wait_seconds", 0) if spec.read_only else None
        try:
            redact = call.redact
            question = _agreed(answer)
            if question is not None:
                call, arguments = replace(call, agreed=question), {**arguments, **question.pins}
            with time_limit(limit_seconds), noting_changes() as changes:
                return render(await spec.function(call, **arguments), redact)
        except _FAILURES as error:
            failure = as_failure(error)
            if changes and failure.effect == NOTHING_CHANGED:
                failure.effect = CHANGED_BEFORE
            return render_failure(failure, redact)

    tool = publish(spec).model_copy(update={"fn": run})
    if spec.asks is None or runtime.confirm == "never":
        return tool
    names = [field.alias or name for name, field in tool.fn_metadata.arg_model.model_fields.items()]
    answers = {_ANSWER: (Resolve(_resolver(spec, spec.asks, runtime, names)), True)}
    plans = build_resolver_plans(answers, set(names))
    return tool.model_copy(update={"resolved_params": answers, "resolver_plans": plans})


def as_failure(error: Exception) -> ToolFailure:
    """What went wrong, in the words of a tool."""
    if isinstance(error, ToolFailure):
        return error
    return from_api(error) if isinstance(error, LiumError) else from_guard(error)  # type: ignore[arg-type]


def _resolver(spec: ToolSpec, asks: Asks, runtime: Runtime, names: list[str]) -> Callable[..., Awaitable[Any]]:
    """What the SDK runs before a tool: it asks the person, or returns why the tool must not run."""

    async def resolve(context: Context[Any, Any], **arguments: Any) -> Elicit[Yes] | _Before:  # noqa: ANN401 - validated by the SDK
        call = Call(runtime, context)
        try:
            if not can_ask(context):
                if runtime.confirm == "always":
                    raise NotConfirmed(
                        "confirmation_unavailable",
                        f"{spec.name} needs a person's yes here, and this MCP client cannot ask one.",
                        "Use a client that supports elicitation, or have the person do it on lium.io.",
                    )
                return _Before()

            async def question() -> Question | None:
                with time_limit(READ_LIMIT_SECONDS):
                    return await asks(call, **arguments)

            asked = await question()
            if asked is None:
                return _Before()
            asked = replace(asked, text=call.redact(clean(asked.text)))
            _question.set(asked)
            marker = later(context, asked)
            if marker is not None:
                return marker
            await ask(context, asked, question)
            return _Before(question=asked)
        except _FAILURES as error:
            return _Before(failure=error)

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context[Any, Any])
    resolve.__signature__ = inspect.Signature([context_parameter, *parameters])  # type: ignore[attr-defined]
    resolve.__annotations__ = {"context": Context[Any, Any]}
    return resolve


def _agreed(answer: ElicitationResult[Any] | None) -> Question | None:
    """The question that a person said yes to; None where nobody was asked.

    Raises:
        NotConfirmed: the person did not say yes.
        ToolFailure, LiumError: why nobody could be asked.
    """
    outcome = answer.data if isinstance(answer, AcceptedElicitation) else answer
    if answer is None:
        return None
    if isinstance(outcome, _Before):
        if outcome.failure is not None:
            raise outcome.failure
        return outcome.question
    refuse_unless_yes(answer)
    return _question.get()


@cache
def publish(spec: ToolSpec) -> Tool:
    """What agents see of a tool, which does nothing yet. Its schemas take long to make, and only once."""

    async def unbound(**_: Any) -> CallToolResult:  # noqa: ANN401 - as above
        raise NotImplementedError

    signature = inspect.signature(spec.function, eval_str=True)
    result_model = signature.return_annotation
    parameters = [item for item in signature.parameters.values() if item.annotation is not Call]
    context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context[Any, Any])
    published = signature.replace(
        parameters=[context_parameter, *(item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters)],
        return_annotation=Annotated[CallToolResult, result_model],
    )
    unbound.__name__ = spec.name
    unbound.__signature__ = published  # type: ignore[attr-defined]
    unbound.__annotations__ = {item.name: item.annotation for item in published.parameters.values()}
    tool = Tool.from_function(
        unbound,
        name=spec.name,
        title=spec.title,
        description=inspect.cleandoc(spec.function.__doc__ or "").replace("\n", " "),
        annotations=spec.hints,
    )
    _tighten(tool)
    return tool


def as_listed(tool: Tool) -> ListedTool:
    """A tool as clients see it in the list."""
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.parameters,
        output_schema=tool.output_schema,
        annotations=tool.annotations,
    )


def _tighten(tool: Tool) -> None:
    """Refuse unknown arguments, which the SDK would ignore in silence, and publish plain schemas."""
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_config["allow_inf_nan"] = False
    arguments.model_rebuild(force=True)
    tool.parameters = plain(arguments.model_json_schema(by_alias=True), closed=True)
    if tool.fn_metadata.output_schema is not None:
        tool.fn_metadata.output_schema = plain(tool.fn_metadata.output_schema)
