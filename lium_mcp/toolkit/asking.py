"""Makes the resolver that asks a person before a tool runs that spends or destroys.

The questions are in `services/`, above all in `questions.py`; what counts as a yes is in `guard/confirm.py`. This joins
the two to the SDK, which runs the resolver, puts its question where the protocol has its place for it, and hands the
tool the answer.
"""

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit

from lium_mcp.api.changes import noting_changes
from lium_mcp.auditing import acting
from lium_mcp.guard.confirm import Yes, answers_later, ask, can_ask, held_to_seal, refuse_unless_yes, unavailable
from lium_mcp.guard.consent import NOTHING_TO_ASK, NotConfirmed, Question
from lium_mcp.rentals import digest
from lium_mcp.services.failure_words import FAILURES, after_changes, as_failure
from lium_mcp.services.polling import READ_LIMIT_SECONDS, time_limit
from lium_mcp.text import clean
from lium_mcp.toolkit.call import Call, Runtime

Asks = Callable[..., Awaitable[Question | None]]

_KEY_PREFIX: Final = "confirm"
# The SDK tells a tool the answer to a question that came with a later request, but not the question.
_question: ContextVar[Question | None] = ContextVar("_question", default=None)


@dataclass(frozen=True, slots=True)
class _Before:
    """What came of a call before its tool ran: a yes to a question, nothing to ask, or why it must not run."""

    question: Question | None = None
    failure: Exception | None = None


def make_resolver(tool: str, asks: Asks, runtime: Runtime, names: Collection[str]) -> Callable[..., Awaitable[Any]]:
    """Make what the SDK runs before a tool: it asks the person, or returns why the tool must not run."""

    async def resolve(context: Context[Any, Any], **arguments: Any) -> Elicit[Yes] | _Before:  # noqa: ANN401 - validated by the SDK
        call = Call(runtime, context)
        changes: list[str] = []
        try:
            if not can_ask(context):
                if runtime.confirm == "always":
                    raise unavailable(context, tool)
                return _Before()

            async def question(asked: Question | None) -> Question | None:
                nonlocal changes
                with acting(tool), time_limit(READ_LIMIT_SECONDS), noting_changes() as changes:
                    made = await asks(replace(call, asked=asked), **arguments)
                return made and replace(made, text=call.redact(clean(made.text)))

            name = _name(call, tool, arguments)
            asked = await question(runtime.questions.take(name) if context.input_responses else None)
            if asked is None:
                return _Before(question=NOTHING_TO_ASK)
            if answers_later(context):
                asked = held_to_seal(asked)
                runtime.questions.keep(name, asked)
                _question.set(asked)
                return Elicit(asked.text, Yes)
            return _Before(question=await ask(context, asked, lambda: question(asked)))
        except FAILURES as error:
            return _Before(failure=after_changes(as_failure(error, arguments), changes))

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context[Any, Any])
    resolve.__signature__ = inspect.Signature([context_parameter, *parameters])  # type: ignore[attr-defined]
    resolve.__annotations__ = {"context": Context[Any, Any]}
    # The SDK makes of these the key of the question, which clients see and servers of other versions are to know.
    resolve.__module__, resolve.__qualname__ = _KEY_PREFIX, tool
    return resolve


def _name(call: Call, tool: str, arguments: Mapping[str, Any]) -> str:
    """A name for what a call is about: another account, tool or arguments give another one."""
    return digest([call.renter.key_tag, tool, {name: repr(value) for name, value in arguments.items()}])


def agreed(answer: ElicitationResult[Any] | None) -> Question | None:
    """The question that a person said yes to, or that there was nothing to ask; None where nobody could be asked.

    Raises:
        NotConfirmed: the person did not say yes.
        Failure, LiumError: why nobody could be asked.
    """
    outcome = answer.data if isinstance(answer, AcceptedElicitation) else answer
    if answer is None:
        return None
    if isinstance(outcome, _Before):
        if outcome.failure is not None:
            raise outcome.failure
        return outcome.question
    refuse_unless_yes(answer)
    question = _question.get()
    if question is None:
        raise NotConfirmed("not_confirmed", "The answer belongs to no question.", "Call again.")
    return question
