"""Makes MCP tools of declared ones: strict arguments, plain schemas, rendered results, failures in words.

A toolset file makes one `Toolset` and declares its tools on it; the server picks which of them it offers.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Final, TypeVar, get_type_hints

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context, Resolve
from mcp.server.mcpserver.resolve import build_resolver_plans
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ToolAnnotations
from mcp.types import Tool as ListedTool
from pydantic import BaseModel, create_model

from lium_mcp.api.changes import noting_changes
from lium_mcp.auditing import Act, acting
from lium_mcp.guard.consent import NOTHING_TO_ASK, Question
from lium_mcp.rentals import RentSettled
from lium_mcp.results import Result, dated
from lium_mcp.services.failure_words import FAILURES, after_changes, as_failure
from lium_mcp.services.polling import READ_LIMIT_SECONDS, time_limit
from lium_mcp.toolkit.arguments import Arguments, Metadata, listed
from lium_mcp.toolkit.asking import Asks, agreed, make_resolver
from lium_mcp.toolkit.call import Call, Runtime
from lium_mcp.toolkit.rendering import META_KEY, render, render_failure
from lium_mcp.toolkit.schema import plain

ToolFunction = Callable[..., Awaitable[Result]]
F = TypeVar("F", bound=ToolFunction)

_ANSWER: Final = "answer"
# Claude Code's: it shows a model the names of tools, and the rest of those alone that it has searched for.
_ALWAYS_LOAD: Final = "anthropic/alwaysLoad"
_SEARCH_HINT: Final = "anthropic/searchHint"


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
    """A declared tool, not yet bound to a server.

    Attributes:
        function: What it does; its name, docstring and parameters are what agents read.
        title: For people.
        hints: Whether it reads, writes or destroys.
        asks: Finds what a person is asked before.
        search_hint: What people say who need it, for hosts that show a model most tools only when it searches for them;
            None for the few that most tasks begin with, which are shown at once.
    """

    function: ToolFunction
    title: str
    hints: ToolAnnotations
    asks: Asks | None = None
    search_hint: str | None = None

    @property
    def name(self) -> str:
        """The name agents call it by."""
        return self.function.__name__

    @property
    def models(self) -> dict[str, type[BaseModel]]:
        """Parameters of the function that are models: agents give their fields one by one."""
        return _models(self.function)

    def gathered(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the function takes them: those of a model are gathered into it."""
        taken = dict(arguments)
        for parameter, model in self.models.items():
            taken[parameter] = model(**{name: taken.pop(name) for name in model.model_fields})
        return taken

    async def question(self, call: Call, **arguments: Any) -> Question | None:  # noqa: ANN401 - those of the tool
        """What a person is asked before; None where there is nothing to ask."""
        return None if self.asks is None else await self.asks(call, **self.gathered(arguments))

    @property
    def read_only(self) -> bool:
        """Whether it changes nothing and spends nothing."""
        return bool(self.hints.read_only_hint)


class Toolset:
    """A named group of tools, in the order in which they are listed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.specs: list[ToolSpec] = []

    def tool(
        self, *, title: str, hints: ToolAnnotations, asks: Asks | None = None, search_hint: str | None = None
    ) -> Callable[[F], F]:
        """Declare an async function as a tool, as `ToolSpec` says.

        What spends or destroys says with `asks` what a person is asked before: it takes the call and the arguments of
        the tool, and returns nothing where there is nothing to ask.
        """

        def declare(function: F) -> F:
            self.specs.append(ToolSpec(function, title, hints, asks, search_hint))
            return function

        return declare


def bind(spec: ToolSpec, runtime: Runtime) -> Tool:
    """Make an MCP tool that acts through `runtime`."""

    async def run(context: Context[Any, Any], **arguments: Any) -> CallToolResult:  # noqa: ANN401 - validated by the SDK
        call = Call(runtime, context)
        answer: ElicitationResult[Any] | None = arguments.pop(_ANSWER, None)
        with acting(spec.name) as act:
            if not spec.read_only:
                await call.renter.recall_account()
                act.begin(call.renter.key_tag, arguments)
            outcome, said = "cancelled", None
            try:
                result = await run_recorded(act, call, answer, arguments)
                outcome = str((result.meta or {}).get(META_KEY, {}).get("code", "ok"))
                said = result.structured_content
            except Exception:
                outcome = "internal_error"
                raise
            finally:
                if act.has_begun:
                    act.end(call.renter.key_tag, outcome, said)
            return result

    async def run_recorded(
        act: Act, call: Call, answer: ElicitationResult[Any] | None, arguments: dict[str, Any]
    ) -> CallToolResult:
        redact = runtime.redact
        changes: list[str] = []
        limit_seconds = READ_LIMIT_SECONDS + arguments.get("wait_seconds", 0) if spec.read_only else None
        try:
            redact = call.redact
            question = agreed(answer)
            act.confirmed = question not in (None, NOTHING_TO_ASK)
            if question is not None:
                call, arguments = replace(call, agreed=question), {**arguments, **question.pins}
            with time_limit(limit_seconds), noting_changes() as changes:
                result = await spec.function(call, **spec.gathered(arguments))
                return render(dated(_telling(result, changes), call.lium.now()), redact)
        except FAILURES as error:
            return render_failure(after_changes(as_failure(error, arguments), changes), redact)

    tool = publish(spec).model_copy(update={"fn": run})
    if spec.asks is None or runtime.confirm == "never":
        return tool
    names = [field.alias or name for name, field in tool.fn_metadata.arg_model.model_fields.items()]
    answers = {_ANSWER: (Resolve(make_resolver(spec.name, spec.question, runtime, names)), True)}
    plans = build_resolver_plans(answers, set(names))
    return tool.model_copy(update={"resolved_params": answers, "resolver_plans": plans})


def _telling(result: Result, changes: Iterable[str]) -> Result:
    """Let an answer warn of the pods that an earlier rent turned out to have meanwhile, unless it shows them."""
    if "warnings" not in type(result).model_fields:
        return result
    shown = result.model_dump_json()
    settled = [one for one in dict.fromkeys(changes) if isinstance(one, RentSettled) and not one.is_told_in(shown)]
    if not settled:
        return result
    return result.model_copy(update={"warnings": [*(getattr(result, "warnings", None) or ()), *settled]})


@cache
def publish(spec: ToolSpec) -> Tool:
    """Make what agents see of a tool, which does nothing yet. It is made once, since its schemas take long."""

    async def unbound(**_: Any) -> CallToolResult:  # noqa: ANN401 - as above
        raise NotImplementedError

    signature = inspect.signature(spec.function, eval_str=True)
    result_model = signature.return_annotation
    parameters = [item for listed in signature.parameters.values() for item in _flattened(listed, spec.models)]
    parameters.sort(key=lambda item: item.default is not inspect.Parameter.empty)  # what must be given comes first
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
        meta={_ALWAYS_LOAD: True} if spec.search_hint is None else {_SEARCH_HINT: spec.search_hint},
    )
    # The SDK's own schemas are not plain, and its arguments ignore unknown names in silence.
    metadata = tool.fn_metadata = Metadata.model_construct(**vars(tool.fn_metadata))
    metadata.arg_model = create_model(metadata.arg_model.__name__, __base__=(Arguments, metadata.arg_model))
    tool.parameters = listed(metadata.arg_model)
    if metadata.output_schema is not None:
        metadata.output_schema = plain(metadata.output_schema)
    return tool


@cache
def _models(function: ToolFunction) -> dict[str, type[BaseModel]]:
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    models = ((item.name, item.annotation) for item in parameters)
    return {name: kind for name, kind in models if isinstance(kind, type) and issubclass(kind, BaseModel)}


def _flattened(parameter: inspect.Parameter, models: Mapping[str, type[BaseModel]]) -> list[inspect.Parameter]:
    """A parameter of a function as agents see it: none for the call, one for each field of a model."""
    if parameter.annotation is Call:
        return []
    if parameter.name not in models:
        return [parameter]
    model = models[parameter.name]
    kinds = get_type_hints(model, include_extras=True)
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=kinds[name],
            default=inspect.Parameter.empty if field.is_required() else field.default,
        )
        for name, field in model.model_fields.items()
    ]


def as_listed(tool: Tool) -> ListedTool:
    """A tool as clients see it in the list."""
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.parameters,
        output_schema=tool.output_schema,
        annotations=tool.annotations,
        _meta=tool.meta,
    )
