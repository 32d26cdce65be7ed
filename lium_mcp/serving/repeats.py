"""What a caller asks over HTTP in the same words as just before is answered by the same bytes, if nothing is new.

The agents of a team, and whatever watches, ask for the same lists again and again. Their answer is kept for as long as
each reading that it was made of is the newest there is and as many whole seconds old as the answer says: for a second
at most. An answer that is made of what is open to all is for all; any other one is for the caller that it was made for,
until that caller calls a tool that may change something. Of a crowd that asks at once for what was kept before, one is
answered anew, and the others have that answer too. Bounds, the log and the metrics count each call all the same.
Knows HTTP and MCP, but neither tools nor Lium.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lium_mcp.api.shared_readings import NOBODY, Sources, noting_sources
from lium_mcp.serving.call_bounds import CallBounds, TooManyCalls
from lium_mcp.serving.callers import CALLER, Caller
from lium_mcp.serving.messages import request_id_in
from lium_mcp.serving.sessions import MESSAGE, SESSION

_MOST_KEPT: Final = 256
_MOST_BYTES: Final = 32 * 1024
_MOST_CALLERS: Final = 1000
_CROWD_SECONDS: Final = 1.0
_OK: Final = 200
# What of a request's head has a say in its answer, or in whether it is answered at all.
_HEARD: Final = frozenset({b"accept", b"content-type", b"mcp-protocol-version", b"mcp-method", b"mcp-name"})
_HEARD_PREFIX: Final = b"mcp-param-"
_JSON: Final = b"application/json"
_HAS_DONE: Final = "lium_mcp.has_done"
"""Where the scope of a request has whether the tool that it calls has done it."""

_Whose = object
_Question = tuple[tuple[tuple[bytes, bytes], ...], bytes]


@dataclass(frozen=True, slots=True)
class _Answer:
    result: bytes
    sources: Sources


class Repeats:
    """The answers that are kept, and whose they are.

    Args:
        readers: The tools that change nothing.
        bounds: How many calls a caller may make.
        recorded: Records a call of a tool, as it is done for those that run.
    """

    def __init__(
        self, readers: Collection[str], bounds: CallBounds, recorded: Callable[[str], AbstractContextManager[object]]
    ) -> None:
        self._readers = frozenset(readers)
        self._bounds = bounds
        self._recorded = recorded
        self._kept: dict[tuple[_Whose, _Question], _Answer] = {}
        # What stands for a caller until it may have changed something.
        self._whose: dict[str, _Whose] = {}
        self._being_made: dict[tuple[_Whose, _Question], anyio.Event] = {}
        self.count = 0
        """How many calls were answered so."""

    async def note_call(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware: note what may be kept, and let nobody be answered by what is of before a change, or of it."""
        scope: Scope = getattr(ctx.request, "scope", {})
        caller: Caller | None = scope.get(CALLER)
        if caller is None or ctx.method != "tools/call":
            return await call_next(ctx)
        if self._reader_in(ctx.params) is not None:
            result = await call_next(ctx)
            scope[_HAS_DONE] = _has_done(result)
            return result
        owner = caller.owner or NOBODY
        self._whose.pop(owner, None)
        try:
            return await call_next(ctx)
        finally:
            self._whose.pop(owner, None)

    def answering(self, app: ASGIApp) -> ASGIApp:
        """Answer what was just asked, and let the application answer the rest."""

        async def answered(scope: Scope, receive: Receive, send: Send) -> None:
            message = scope.get(MESSAGE, {})
            request_id = request_id_in(message)
            is_posted = scope["method"] == "POST"  # whatever else holds a message is refused
            if request_id is None or not is_posted or SESSION in scope or message["method"] != "tools/call":
                await app(scope, receive, send)
                return
            name = self._reader_in(message.get("params"))
            if name is None:
                await app(scope, receive, send)
                return
            own = self._whose_are(scope[CALLER].owner)
            question = _question(scope, message)
            answer = self._find(own, question) or await self._await_crowd(own, question)
            if answer is not None:
                try:
                    with self._bounds.running(scope), self._recorded(name):
                        self.count += 1
                        await _send(answer, request_id, send)
                except TooManyCalls:
                    pass  # which the application says in the form that it has
                else:
                    return
            with self._making(own, question), noting_sources() as sources:
                heard = await _hear(app, scope, receive, send)
                if scope.get(_HAS_DONE) and sources.still_hold() and (result := _result_in(heard, request_id)):
                    self._keep(NOBODY if sources.owners == {NOBODY} else own, question, _Answer(result, sources))

        return answered

    def _reader_in(self, params: object) -> str | None:
        """The tool that a call names, if that changes nothing. Nobody has looked at what the call holds."""
        name = params.get("name") if isinstance(params, Mapping) else None
        return name if isinstance(name, str) and name in self._readers else None

    def _whose_are(self, owner: str | None) -> _Whose:
        whose = self._whose.pop(owner or NOBODY, None) or object()
        if len(self._whose) >= _MOST_CALLERS:
            del self._whose[next(iter(self._whose))]
        self._whose[owner or NOBODY] = whose
        return whose

    def _find(self, own: _Whose, question: _Question) -> _Answer | None:
        """The answer to a question, if one holds."""
        answers = (self._kept.get((whose, question)) for whose in (NOBODY, own))
        return next((answer for answer in answers if answer is not None and answer.sources.still_hold()), None)

    def _kept_as(self, own: _Whose, question: _Question) -> tuple[_Whose, _Question] | None:
        """Whose the answer to a question was when it was kept last; None where it was not."""
        return next((name for name in ((NOBODY, question), (own, question)) if name in self._kept), None)

    async def _await_crowd(self, own: _Whose, question: _Question) -> _Answer | None:
        """Wait for whoever is being answered the same, but not for one who takes long, and look once more."""
        name = self._kept_as(own, question)
        made = self._being_made.get(name) if name is not None else None
        if made is None:
            return None
        with anyio.move_on_after(_CROWD_SECONDS):
            await made.wait()
        return self._find(own, question)

    @contextmanager
    def _making(self, own: _Whose, question: _Question) -> Iterator[None]:
        """Let a crowd know that one of it is being answered, where such an answer was kept before."""
        name = self._kept_as(own, question)
        if name is None or name in self._being_made:
            yield
            return
        made = self._being_made[name] = anyio.Event()
        try:
            yield
        finally:
            del self._being_made[name]
            made.set()

    def _keep(self, whose: _Whose, question: _Question, answer: _Answer) -> None:
        if len(answer.result) > _MOST_BYTES:
            return
        self._kept.pop((whose, question), None)  # the newest come last
        while len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[whose, question] = answer


def _question(scope: Scope, message: dict[str, Any]) -> _Question:
    heard = tuple((name, text) for name, text in scope["headers"] if name in _HEARD or name.startswith(_HEARD_PREFIX))
    return heard, to_json({name: value for name, value in message.items() if name != "id"})


async def _hear(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> bytes:
    """Let an application answer, and return its answer if that is whole, is JSON, and is no error of HTTP."""
    is_json = False
    body = b""

    async def heard(message: Message) -> None:
        nonlocal is_json, body
        if message["type"] == "http.response.start":
            is_json = message["status"] == _OK and (b"content-type", _JSON) in message["headers"]
        elif message["type"] == "http.response.body" and is_json:
            is_json = not message.get("more_body", False)
            body = message.get("body", b"")
        await send(message)

    await app(scope, receive, heard)
    return body if is_json else b""


def _has_done(result: HandlerResult) -> bool:
    """Whether a tool has done what it was called for: it has not failed, and has not asked."""
    if not isinstance(result, dict) or "content" not in result:
        return False
    return result.get("resultType", "complete") == "complete" and not result.get("isError")


def _result_in(body: bytes, request_id: str | int) -> bytes | None:
    """The result in an answer, which is all of it but for the id; None where there is none."""
    before = _before(request_id)
    return body.removeprefix(before) if body.startswith(before) else None


def _before(request_id: str | int) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + to_json(request_id) + b',"result":'


async def _send(answer: _Answer, request_id: str | int, send: Send) -> None:
    body = _before(request_id) + answer.result
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", _JSON)]
    await send({"type": "http.response.start", "status": _OK, "headers": headers})
    await send({"type": "http.response.body", "body": body})
