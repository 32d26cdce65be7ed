"""What goes on in this process, told to those who count or trace it: calls, requests to Lium, rents, transactions.

By itself nobody listens. No name or outcome holds anything of a caller, a key or an answer: each is from a short list.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Literal

Kind = Literal["call", "request", "wait", "rent", "transaction"]


@dataclass(slots=True)
class Work:
    """Something that goes on.

    Attributes:
        kind: A tool's call, one attempt of a request to Lium, its wait for a turn, a rent that is sent, or a
            transaction of the ledger.
        name: The tool; the method and the template of the path; `turn`; the kind of order; whether it reads or writes.
        outcome: What has come of it: a code, a status. What does not end by itself was cancelled.
        request_id: The id under which Lium's logs know the request.
    """

    kind: Kind
    name: str
    outcome: str = "cancelled"
    request_id: str | None = None


Observer = Callable[[Work], AbstractContextManager[object]]
"""Enters a context around each piece of work, at the end of which the outcome is known. It raises nothing."""

Capture = Callable[[], Callable[[], object]]
"""Takes what an observer keeps in the context, and returns what puts it into another one."""

_observers: list[Observer] = []
_captures: list[Capture] = []
_observers_here: ContextVar[tuple[Observer, ...]] = ContextVar("_observers_here", default=())
_reference: ContextVar[str | None] = ContextVar("_reference", default=None)


def observe(observer: Observer, capture: Capture | None = None) -> None:
    """Let somebody observe all work that begins from now on."""
    _observers.append(observer)
    if capture is not None:
        _captures.append(capture)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let somebody observe the work that belongs to the block alone."""
    token = _observers_here.set((*_observers_here.get(), observer))
    try:
        yield
    finally:
        _observers_here.reset(token)


def own_context() -> Context:
    """A context for work that acts for several requests: empty, but for what refers to the one that began it."""
    context = Context()
    context.run(_reference.set, reference())
    for capture in _captures:
        context.run(capture())
    return context


@contextmanager
def observed(work: Work) -> Iterator[Work]:
    """Tell those who observe of what goes on in the block."""
    with ExitStack() as stack:
        for observer in (*_observers, *_observers_here.get()):
            stack.enter_context(observer(work))
        yield work


@contextmanager
def in_request(reference: str) -> Iterator[None]:
    """Let all that is said in the block refer to a request."""
    token = _reference.set(reference)
    try:
        yield
    finally:
        _reference.reset(token)


def reference() -> str | None:
    """The reference of the request that this belongs to, if it belongs to one."""
    return _reference.get()
