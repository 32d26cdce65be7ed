"""Asking the person before money is spent or data destroyed, in both eras of the protocol.

A question names its target and its price, and the answer counts for these alone: in the current protocol the question
is made anew when the answer comes and must read the same; for older clients too, but for sums that did not rise.
Whatever is not a clear yes changes nothing. There is no way for the model to answer.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState, RequestStateCodec
from mcp.types import INVALID_PARAMS, InputResponseRequestParams
from pydantic import BaseModel, Field, ValidationError

from lium_mcp.figures import counted
from lium_mcp.guard.consent import NOTHING_TO_ASK, ConfirmMode, NotConfirmed, Question

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 300.0
STATE_SECONDS: Final = 600.0
"""How long an answer that comes with a later request may take."""
_ANSWER_COMES_LATER: Final = "2026-07-28"
_FIRST_WITH_PAGES: Final = "2025-11-25"
_READS_SECONDS: Final = 0.5  # nobody reads a question and says no to it in less
_HEAD_END: Final = b"\n"  # JSON has none in a line
_SEALED: Final = ("text", "pins", "price_per_hour_usd", "basis")
_UNSEEN: Final = (
    "Tell the person what was to be asked, and do not call again unless they ask for it. If their client shows no "
    "questions, whoever runs this MCP server can set LIUM_MCP_CONFIRM=never: its limits alone decide then."
)
_NO_ANSWERS: Final = (
    "The answers cannot be read, and nothing was changed. inputResponses is to be an object that has, under each key "
    'of inputRequests, what the person did: {"action": "accept", "content": {"confirm": true}}, {"action": "decline"} '
    'or {"action": "cancel"}; requestState is to be sent back as it came.'
)

_NOT_OURS: Final = "invalid_request_state"
"""What the SDK says of every seal that it does not take, whatever is wrong with it."""
_SEAL_REFUSED: Final = (
    "Nothing was changed. A question is open for ten minutes, to the account that was asked, for the same tool and "
    "arguments, and at servers that have the same secret and whose clocks agree within a minute. Call again without "
    "requestState to have the person asked anew."
)
_CLOCK_SECONDS: Final = 5.0

# How long ago the question was put to which this request brings the answer.
_asked_seconds_ago: ContextVar[float] = ContextVar("_asked_seconds_ago", default=math.inf)
# What its seal says, and the question that the next seal is for.
_opened: ContextVar["OpenedSeal | None"] = ContextVar("_opened", default=None)
_to_seal: ContextVar[Question] = ContextVar("_to_seal", default=NOTHING_TO_ASK)
_waiting: ContextVar["WaitingForPerson | None"] = ContextVar("_waiting", default=None)


@dataclass(slots=True)
class WaitingForPerson:
    """Whether a call waits for a person's answer, before which nothing of it is sent."""

    is_so: bool = False


@contextmanager
def noting_wait() -> Iterator[WaitingForPerson]:
    """Note whether what goes on in the block waits for a person, or did when it was cancelled."""
    waiting = WaitingForPerson()
    token = _waiting.set(waiting)
    try:
        yield waiting
    finally:
        _waiting.reset(token)


class Yes(BaseModel):
    """What a person fills in."""

    # What only looks like a truth, as "yes", may be a client's own filling-in.
    confirm: bool = Field(description="Do it", strict=True)


class Person:
    """Whether a person would be asked now about what spends: by the settings, and by what the client can do."""

    def __init__(self, mode: ConfirmMode) -> None:
        self._mode = mode
        self._is_askable: ContextVar[bool | None] = ContextVar("_is_askable", default=None)
        # Behind any client so far; None before the first request.
        self._was_askable: bool | None = None

    async def note(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware: note whether the client that a request came from can ask."""
        is_askable = can_ask(ctx)
        if ctx.session.client_capabilities is not None:
            self._was_askable = bool(self._was_askable) or is_askable
        token = self._is_askable.set(is_askable)
        try:
            return await call_next(ctx)
        finally:
            self._is_askable.reset(token)

    def is_asked(self) -> bool:
        """Whether one would be asked: behind the request at hand, or between requests, where one might be there."""
        if self._mode != "auto":
            return self._mode == "always"
        is_askable = self._is_askable.get()
        return self._was_askable is not False if is_askable is None else is_askable


def can_ask(context: Context[Any, Any] | ServerRequestContext[Any, Any]) -> bool:
    """Whether the person behind the client can be asked."""
    capabilities = context.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return answers_later(context) or context.session.can_send_request


def can_show_pages(context: Context[Any, Any]) -> bool:
    """Whether the client says that it shows a person the page of an address, where its protocol has a way for it."""
    capabilities = context.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    has_url = elicitation is not None and elicitation.url is not None
    return has_url and (context.protocol_version or "") >= _FIRST_WITH_PAGES


def unavailable(context: Context[Any, Any], tool: str) -> NotConfirmed:
    """Say that a person's yes is needed and why nobody can be asked for it."""
    because, advice = "this MCP client cannot ask one", "Use a client that supports elicitation"
    if not (answers_later(context) or context.session.can_send_request):
        because = (
            "an MCP client of an older protocol cannot be asked over HTTP where it takes JSON alone, or where this "
            "server keeps no sessions (LIUM_MCP_STATELESS)"
        )
        advice = (
            "Use one of the current protocol or, where there are sessions, one that sends "
            "Accept: application/json, text/event-stream"
        )
    return NotConfirmed(
        "confirmation_unavailable",
        f"{tool} needs a person's yes here, and {because}.",
        f"{advice}, or have the person do it on lium.io.",
    )


async def ask(
    context: Context[Any, Any], question: Question, again: Callable[[], Awaitable[Question | None]]
) -> Question:
    """Ask a client of an older protocol, and wait for a yes.

    Args:
        context: Of the call.
        question: What to ask.
        again: Makes the question anew after the answer.

    Returns:
        The question that was agreed to, about its subject as it is after the answer.

    Raises:
        NotConfirmed: no yes came in time, or the target changed meanwhile.
    """
    asked_at = anyio.current_time()
    waiting = _waiting.get() or WaitingForPerson()
    waiting.is_so = True
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            answer = await context.elicit(question.text, Yes)
        waiting.is_so = False
    except TimeoutError:
        minutes = ANSWER_SECONDS / 60
        raise NotConfirmed(
            "not_confirmed", f"Nobody answered the question within {counted(minutes, 'minute')}.", _UNSEEN
        ) from None
    except (MCPError, ValueError):
        raise unusable_answer() from None
    _asked_seconds_ago.set(anyio.current_time() - asked_at)
    refuse_unless_yes(answer)
    now = await again()
    if now is None or not question.binds_as(now):
        is_dearer = now is not None and question.is_cheaper_than(now)
        raise changed_meanwhile("price_changed" if is_dearer else "changed_meanwhile")
    return replace(question, subject=now.subject)


async def check_answers(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: refuse answers that come with a request and cannot be read, and say what is expected.

    Raises:
        MCPError: they cannot be read.
    """
    given = {name: value for name, value in (ctx.params or {}).items() if name in ("inputResponses", "requestState")}
    try:
        InputResponseRequestParams.model_validate(given, by_name=False)
    except ValidationError:
        raise MCPError(INVALID_PARAMS, _NO_ANSWERS) from None
    # A request may be served in the context of the one before.
    _opened.set(None)
    _asked_seconds_ago.set(math.inf)
    try:
        return await call_next(ctx)
    except MCPError as error:
        if isinstance(error.data, dict) and error.data.get("reason") == _NOT_OURS:
            raise MCPError(error.code, f"{error.message}. {_SEAL_REFUSED}", error.data) from None
        raise


def unusable_answer() -> NotConfirmed:
    """Say that what came back for a question is no answer."""
    return NotConfirmed(
        "not_confirmed",
        "The MCP client answered the question to the person with an error, or with nothing that is an answer, which is "
        "true or false in `confirm`: the person may not have seen it.",
        _UNSEEN,
    )


def refuse_unless_yes(answer: ElicitationResult[Yes]) -> None:
    """Let only a clear yes pass.

    Raises:
        NotConfirmed: it is none.
    """
    if isinstance(answer, AcceptedElicitation) and answer.data.confirm:
        return
    if _asked_seconds_ago.get() < _READS_SECONDS:
        raise NotConfirmed(
            "not_confirmed",
            "The question to the person was answered with no, or was closed, faster than anybody reads: the MCP client "
            "may have answered by itself, and the person may not have seen it.",
            _UNSEEN,
        )
    raise NotConfirmed(
        "not_confirmed",
        "The question to the person was answered with no, or was closed.",
        "Do not call again unless the person asks for it.",
    )


@dataclass(frozen=True, slots=True)
class OpenedSeal:
    """What the seal of a question says that a request has brought back with its answer.

    Attributes:
        name: Tells it from all others.
        question: The question, without its subject.
    """

    name: str
    question: Question


class QuestionSeals(RequestStateCodec):
    """Seals the state of a question, which a client sends back with the answer to any server that has the secret.

    The question itself is in it: so a server that never saw it holds the answer to it.

    Args:
        secrets: The first one seals, each opens; 32 bytes at least. Without any, a seal is for this process alone.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._sealing = AESGCMRequestStateCodec(secrets or [os.urandom(32)])
        self._process = os.urandom(8).hex()

    def seal(self, payload: bytes) -> str:
        """Return a token for the client."""
        question = _to_seal.get()
        head = {
            "process": self._process,
            "steady": anyio.current_time(),
            "wall": time.time(),
            "question": {name: getattr(question, name) for name in _SEALED},
        }
        return self._sealing.seal(json.dumps(head, default=dict).encode() + _HEAD_END + payload)

    def unseal(self, token: str) -> bytes:
        """Open a token, and note for the request at hand what it says.

        Raises:
            InvalidRequestState: it is none of ours.
        """
        text, _, payload = self._sealing.unseal(token).partition(_HEAD_END)
        try:
            head = json.loads(text)
            question = Question(**head["question"])
            # Another server's clock may be another: what it says cannot be less than nothing.
            is_own = head["process"] == self._process
            seconds = anyio.current_time() - head["steady"] if is_own else time.time() - head["wall"]
        except (ValueError, KeyError, TypeError):
            raise InvalidRequestState("of another version") from None
        if seconds < -_CLOCK_SECONDS:
            log.warning(
                "The answer to a question has come %.0f seconds before it was put, by the clock of the server that put "
                "it: one of the two clocks is wrong, and beyond a minute answers are refused",
                -seconds,
            )
        _asked_seconds_ago.set(seconds if seconds >= 0 else math.inf)
        _opened.set(OpenedSeal(hashlib.sha256(token.encode()).hexdigest(), question))
        return payload


def opened_seal() -> OpenedSeal | None:
    """The seal that the request at hand has brought back; None where it brought none that is ours."""
    return _opened.get()


def held_to_seal(question: Question) -> Question:
    """Hold a question that was made anew to that of which the answer has come, if one has.

    Returns:
        The question to put: in the words of the earlier one where a yes to that is a yes to this.

    Raises:
        NotConfirmed: it reads the same, and is about something else.
    """
    opened = _opened.get()
    if opened is not None:
        was = opened.question
        if was.binds_as(question) and was.basis == question.basis:
            question = replace(question, text=was.text, price_per_hour_usd=was.price_per_hour_usd)
        elif was.text == question.text:
            raise changed_meanwhile()
    _to_seal.set(question)
    return question


def changed_meanwhile(code: str = "changed_meanwhile") -> NotConfirmed:
    """Say that a yes is to something that is not so any more."""
    return NotConfirmed(
        code, "What was to be confirmed changed before the answer came.", "Look again, then call again."
    )


def answers_later(context: Context[Any, Any] | ServerRequestContext[Any, Any]) -> bool:
    """Whether the client answers a question with a later request, as in the current protocol."""
    return (context.protocol_version or "") >= _ANSWER_COMES_LATER
