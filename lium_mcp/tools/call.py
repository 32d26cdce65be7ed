"""What one tool call works with: the API client, time, progress, and waiting for what runs asynchronously."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio
from mcp.server.mcpserver import Context

from lium_mcp.api import Clock, LiumClient, LiumError
from lium_mcp.guard.confirm import Mode as ConfirmMode
from lium_mcp.guard.confirm import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.guard.redaction import redact_text
from lium_mcp.remote import PodAccess
from lium_mcp.remote.keys import KeySource
from lium_mcp.rentals import Renter, Worker
from lium_mcp.text import clean, shortened
from lium_mcp.tools.failures import ToolFailure, from_api

T = TypeVar("T")

# GET /pods allows about 60 reads a minute for the whole account: a wait may take half of that.
_POLL_SECONDS = 2.0
_SLOW_POLL_SECONDS = 5.0
_SLOW_AFTER_SECONDS = 90.0
# All requests of a body that only reads, together: nobody waits longer for a figure, and many hosts cut a call at 60 s.
READ_LIMIT_SECONDS: Final = 30.0
# A wait ends with a look at what has become of the thing, however little of its time is left.
_LAST_READ_SECONDS = 5.0
_PROGRESS_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Account:
    """Whose money a call spends: an API client with a key, and the renter of that account.

    Attributes:
        ssh_keys: The caller's own SSH key on this machine; None for callers elsewhere.
        registry_password: Reads a registry password from this server's environment; None for callers elsewhere.
        pod_access: Logs in to pods with this machine's SSH key; None for callers elsewhere.
        worker: Does what is to be done between calls; None for callers elsewhere, and where nothing may be done.
    """

    lium: LiumClient
    renter: Renter
    ssh_keys: KeySource | None
    registry_password: Callable[[str], str | None] | None = None
    pod_access: PodAccess | None = None
    worker: Worker | None = None


class Stop:
    """Ends the waits of all calls, so that a server that is asked to stop still answers them."""

    def __init__(self) -> None:
        self.asked = False
        self._pauses: set[anyio.CancelScope] = set()

    def ask(self) -> None:
        """End every wait, also those that begin later."""
        self.asked = True
        for pause in tuple(self._pauses):
            pause.cancel()

    async def pause(self, clock: Clock, seconds: float) -> None:
        """Let time pass, unless the server is to stop."""
        with anyio.CancelScope() as pause:
            self._pauses.add(pause)
            try:
                await clock.sleep(seconds)
            finally:
                self._pauses.discard(pause)


class Background:
    """Work that goes on between calls, each under a name of its own, until it is done or the server stops."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, tuple[asyncio.Task[None], anyio.CancelScope]] = {}

    def start(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin it, unless work of that name goes on already. It acts for the server, not for the call that asks."""
        if name in self._tasks:
            return
        # Cancelled by its scope, it still waits for its threads: the ledger is not closed under them.
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await work()

        task = asyncio.get_running_loop().create_task(run(), context=contextvars.Context())
        self._tasks[name] = task, scope
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def aclose(self) -> None:
        """End all of it."""
        running = tuple(self._tasks.values())
        for _, scope in running:
            scope.cancel()
        await asyncio.gather(*(task for task, _ in running), return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all calls of one server share.

    Attributes:
        account: Gives the account of the call that asks: always the same over stdio, the caller's own over HTTP.
        policy: The limits on what calls may spend.
        confirm: When a person is asked.
        redact: Takes the secrets of this server out of a text, and whatever looks like one.
        final_backups: The last backups that removals began, by pod: the backup, and when it began.
        stop: Ends all waits.
        background: What goes on between calls.
    """

    account: Callable[[], Account]
    clock: Clock
    policy: Policy
    confirm: ConfirmMode = "auto"
    read_only: bool = False
    redact: Callable[[str], str] = redact_text
    final_backups: dict[str, tuple[str, float]] = field(default_factory=dict)
    stop: Stop = field(default_factory=Stop)
    background: Background = field(default_factory=Background)


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, or one reading of a resource, which has no context.

    Attributes:
        agreed: The question that a person said yes to; None where nobody was asked.
    """

    runtime: Runtime
    context: Context[Any, Any] | None = None
    agreed: Question | None = None

    @property
    def lium(self) -> LiumClient:
        """The API client of the account that this call acts for."""
        return self.runtime.account().lium

    @property
    def renter(self) -> Renter:
        """What rents for that account."""
        return self.runtime.account().renter

    @property
    def policy(self) -> Policy:
        """The limits on what it may spend."""
        return self.runtime.policy

    @property
    def redact(self) -> Callable[[str], str]:
        """Takes secrets out of a text: those of this account and of this server, and whatever looks like one."""
        of_account, of_server = self.lium.redact, self.runtime.redact
        return lambda text: of_server(of_account(text))

    def _plain(self, message: str) -> str:
        """A progress message fit to be shown: names in it may be anybody's."""
        return shortened(self.redact(clean(message[: 4 * _PROGRESS_CHARACTERS])), _PROGRESS_CHARACTERS)

    async def wait_until(
        self,
        state: T,
        read: Callable[[], Awaitable[T]],
        done: Callable[[T], bool],
        *,
        wait_seconds: float,
        describe: Callable[[T], str],
        every_seconds: float = _POLL_SECONDS,
    ) -> T:
        """Read again until `done` says so or the time is over, reporting progress; return the newest state.

        A read that fails does not end the wait, since what is waited for may be billing already: the newest state that
        was read stands.
        """
        clock, stop = self.runtime.clock, self.runtime.stop
        started = clock.monotonic()
        while not done(state) and not stop.asked:
            elapsed = clock.monotonic() - started
            left = wait_seconds - elapsed
            if left <= 0:
                break
            if self.context is not None:
                await self.context.report_progress(elapsed, wait_seconds, self._plain(describe(state)))
            await stop.pause(clock, min(left, every_seconds if elapsed < _SLOW_AFTER_SECONDS else _SLOW_POLL_SECONDS))
            if stop.asked:
                break
            left = wait_seconds - (clock.monotonic() - started)
            with suppress(LiumError), anyio.move_on_after(max(left, _LAST_READ_SECONDS)):
                state = await read()
        return state


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Bound the time of a body that only reads.

    Raises:
        ToolFailure: the time is over.
    """
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise ToolFailure(
            "timed_out", "Lium did not answer all requests of this call in time.", "Try again in a minute."
        ) from error


@contextmanager
def after_change(done: str) -> Iterator[None]:
    """Let what fails in the body say that a change was made before it.

    Raises:
        ToolFailure: the body failed; `done` is its word on what was changed.
    """
    try:
        yield
    except LiumError as error:
        failure = from_api(error)
        raise ToolFailure(
            failure.code, failure.happened, failure.advice, effect=done, request_id=failure.request_id
        ) from error
