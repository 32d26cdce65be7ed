"""What one tool call works with: whose account, within which limits, on whose clock, and who is told how far it is."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from mcp.server.mcpserver import Context

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.guard.confirm import STATE_SECONDS, Person
from lium_mcp.guard.consent import ConfirmMode, Question
from lium_mcp.guard.policy import Policy
from lium_mcp.guard.redaction import redact_text
from lium_mcp.rentals import Renter
from lium_mcp.services.accounts import Account
from lium_mcp.services.backups.final_backup import FinalBackups
from lium_mcp.services.backups.restore_turns import RestoreTurns
from lium_mcp.services.pods.work_told import ToldWork
from lium_mcp.services.polling import Poller, Stop
from lium_mcp.services.prices.price_history import PriceHistory
from lium_mcp.text import clean, shortened

T = TypeVar("T")

_PROGRESS_CHARACTERS = 300
_MOST_OPEN_QUESTIONS = 100


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


class OpenQuestions:
    """Questions whose answers come with later calls, so that what was worked out for one is not worked out again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, tuple[float, Question]] = {}

    def keep(self, name: str, question: Question) -> None:
        """Remember a question by the call that it is about."""
        now = self._clock.monotonic()
        self._open = {kept: row for kept, row in self._open.items() if row[0] > now}
        self._open.pop(name, None)
        while len(self._open) >= _MOST_OPEN_QUESTIONS:
            del self._open[next(iter(self._open))]
        self._open[name] = now + STATE_SECONDS, question

    def take(self, name: str) -> Question | None:
        """Forget a question, and return it."""
        until, question = self._open.pop(name, (0.0, None))
        return question if until > self._clock.monotonic() else None


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all calls of one server share.

    Attributes:
        account: Gives the account of the call that asks: always the same over stdio, the caller's own over HTTP.
        policy: The limits on what calls may spend.
        confirm: When a person is asked.
        person: Whether there is one to be asked.
        prices: What the market cost before.
        redact: Takes the secrets of this server out of a text, and whatever looks like one.
        final_backups: The last backups that removals began, by pod.
        told_work: What models were told that it would end with a pod.
        restore_turns: Whose turn it is to begin a restore into a pod.
        stop: Ends all waits.
        background: What goes on between calls.
        questions: Which questions are open.
    """

    account: Callable[[], Account]
    clock: Clock
    policy: Policy
    person: Person
    prices: PriceHistory
    confirm: ConfirmMode = "auto"
    read_only: bool = False
    redact: Callable[[str], str] = redact_text
    final_backups: FinalBackups = field(default_factory=dict)
    told_work: ToldWork = field(default_factory=dict)
    restore_turns: RestoreTurns = field(default_factory=RestoreTurns)
    stop: Stop = field(default_factory=Stop)
    background: Background = field(default_factory=Background)
    questions: OpenQuestions = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", OpenQuestions(self.clock))


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, or one reading of a resource, which has no context.

    Attributes:
        agreed: The question that a person said yes to; None where nobody was asked.
        asked: The question to which the answer has come, where it is made anew; None where it is made first.
        began: When it began, by the runtime's clock: after a question, when the answer had come.
    """

    runtime: Runtime
    context: Context[Any, Any] | None = None
    agreed: Question | None = None
    asked: Question | None = None
    began: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "began", self.runtime.clock.monotonic())

    @property
    def account(self) -> Account:
        """The account that this call acts for."""
        return self.runtime.account()

    @property
    def lium(self) -> LiumClient:
        """The API client of the account that this call acts for."""
        return self.account.lium

    @property
    def renter(self) -> Renter:
        """What rents for that account."""
        return self.account.renter

    @property
    def clock(self) -> Clock:
        """What time it is, and what pauses."""
        return self.runtime.clock

    @property
    def policy(self) -> Policy:
        """The limits on what it may spend."""
        return self.runtime.policy

    @property
    def redact(self) -> Callable[[str], str]:
        """Takes secrets out of a text: those of this account and of this server, and whatever looks like one."""
        of_account, of_server = self.lium.redact, self.runtime.redact
        return lambda text: of_server(of_account(text))

    @property
    def poller(self) -> Poller:
        """What waits for this call, and says meanwhile how far things are."""
        context = self.context
        if context is None:
            return Poller(self.clock, self.runtime.stop, self.began)

        async def report(elapsed_seconds: float, total_seconds: float, message: str) -> None:
            # Names in it may be anybody's.
            plain = shortened(self.redact(clean(message[: 4 * _PROGRESS_CHARACTERS])), _PROGRESS_CHARACTERS)
            await context.report_progress(elapsed_seconds, total_seconds, plain)

        return Poller(self.clock, self.runtime.stop, self.began, report)

    def agreed_on(self, kind: type[T]) -> T | None:
        """What the agreed question was about, as it was read after the answer; None where nobody was asked."""
        subject = self.agreed.subject if self.agreed else None
        return subject if isinstance(subject, kind) else None
