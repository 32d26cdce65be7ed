"""The worker does tasks of the ledger: it claims what is due, has each kind's own code do it, keeps the lease.

Whose tasks, and with which key, it is told by `Whose`. Only the code that is registered for a kind, see `Worker.on`,
knows what its tasks are about.
"""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskGroup

from lium_mcp.api.errors import LiumError
from lium_mcp.auditing import acting
from lium_mcp.rentals.entries import LedgerUnavailable, Task, TaskKind, TaskOutcome
from lium_mcp.rentals.identity import AccountUnknown, Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger

log = logging.getLogger(__name__)

LEASE: Final = timedelta(seconds=90)
"""How long a claim holds after what was written last under it."""
# Start-up comes first: to open a database takes half as long as all of start-up.
_FIRST_LOOK_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 15.0
_SHORTEST_PAUSE_SECONDS: Final = 0.1
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 20.0
_MOST_AT_ONCE: Final = 100
_RELEASE_SECONDS: Final = 2.0
OTHERS_SECONDS: Final = 600.0
"""How long a server leaves a task alone that only another one can do."""
_HOLD_SECONDS: Final = 30.0


class LeaseLost(Exception):
    """Another server has claimed the task meanwhile, or it was cancelled: this one does no more of it."""


class NotNow(Exception):
    """This server cannot do a task now: it leaves the task alone for some seconds, and any other may do it."""

    def __init__(self, reason: str, *, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = _LONGEST_PAUSE_SECONDS if seconds is None else seconds


class Claim:
    """A task that this server does. A step calls `keep` right before it destroys or spends anything.

    Attributes:
        task: The task as it was written last.
        is_own: Whether the key that it is done with may be shown its subject.
        is_over: Whether this server is done with it: it was finished, or left for later.
    """

    def __init__(self, worker: "Worker", task: Task, *, is_own: bool) -> None:
        self._worker = worker
        self.task = task
        self.is_own = is_own
        self.is_over = False

    async def keep(self, *, progress: Mapping[str, Any] | None = None, attempts: int | None = None) -> None:
        """Make sure that the task stays this server's for the length of a lease, and write what was done.

        Raises:
            LeaseLost: it is not.
            LedgerUnavailable: nobody can tell.
        """
        kept = await self._worker.ledger.tasks().keep(
            self.task, now=self._worker.now(), lease=LEASE, progress=progress, attempts=attempts
        )
        if kept is None:
            raise LeaseLost
        self.task = kept
        if progress is not None:
            self._worker.tell()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the task this server's while the body takes its time; the body is cut off where that fails.

        Raises:
            LeaseLost, LedgerUnavailable: as `keep`.
        """
        problems: list[Exception] = []

        async def keep() -> None:
            try:
                while True:
                    await anyio.sleep(_HOLD_SECONDS)
                    await self.keep()
            except (LeaseLost, LedgerUnavailable) as error:
                problems.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(keep)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised below as it is, and not in a group
                problems.append(error)
            group.cancel_scope.cancel()
        if problems:
            raise problems[0]

    async def leave_until(self, moment: datetime) -> None:
        """Give the claim back: no server claims the task before that moment.

        Raises:
            LeaseLost: another server has claimed it.
            LedgerUnavailable: the claim holds until its lease is over.
        """
        if not await self._worker.ledger.tasks().put_off(self.task, moment):
            raise LeaseLost
        self.is_over = True

    async def finish(self, outcome: TaskOutcome, note: str = "", *, progress: Mapping[str, Any] | None = None) -> None:
        """Close the task, with a word on what became of it, and write what was done.

        Raises:
            LeaseLost: another server has claimed it.
            LedgerUnavailable: it could not be closed.
        """
        now, tasks = self._worker.now(), self._worker.ledger.tasks()
        if not await tasks.finish(self.task, outcome, now=now, note=note, progress=progress):
            raise LeaseLost
        self.is_over = True
        self._worker.tell()
        level = logging.INFO if outcome == "done" else logging.WARNING
        log.log(level, "%s is %s: %s", _title(self.task), outcome, note or "nothing to add")


Step = Callable[[Claim], Awaitable[None]]
"""Does of a task what can be done now. It is called again, after a pause, until it has finished the task."""


class Whose(Protocol):
    """Whose tasks a worker does, and with which key."""

    async def is_any_due(self, kinds: Collection[TaskKind], *, now: datetime) -> bool:
        """Whether there may be something to claim."""

    async def claim(
        self, kinds: Collection[TaskKind], *, now: datetime, lease: timedelta, without: Collection[str]
    ) -> Task | None:
        """Claim the task that was due first, see `Tasks.claim`."""

    def is_own(self, task: Task) -> bool:
        """Whether the key may be shown what a task is about."""

    def acting(self, claim: Claim) -> AbstractAsyncContextManager[None]:
        """Let what is done in the block be done with the key.

        Raises:
            NotNow: there is none now, or none any more, and then the task is finished.
        """


class OwnKey:
    """The tasks of the account that a server's own key acts for, done with that key."""

    def __init__(self, ledger: LazyLedger, identity: Identity) -> None:
        """Take the ledger, and the key and its account."""
        self._ledger = ledger
        self._identity = identity

    async def is_any_due(self, kinds: Collection[TaskKind], *, now: datetime) -> bool:
        """As `Whose.is_any_due`."""
        return await self._ledger.tasks().is_any_due(kinds, now=now)

    async def claim(
        self, kinds: Collection[TaskKind], *, now: datetime, lease: timedelta, without: Collection[str]
    ) -> Task | None:
        """As `Whose.claim`."""
        account = await self._identity.learn()
        return await self._ledger.tasks().claim(account, kinds, now=now, lease=lease, without=without)

    def is_own(self, task: Task) -> bool:
        """As `Whose.is_own`: another key of the account may see less, or more."""
        return task.key_tag == self._identity.key_tag

    @asynccontextmanager
    async def acting(self, claim: Claim) -> AsyncIterator[None]:  # noqa: ARG002 - the protocol's
        """As `Whose.acting`: what nobody asks for by a request is done with this key."""
        yield


class Worker:
    """Does tasks between calls.

    Attributes:
        changed: Is set when this server has written what it did of a task; from then on there is another event.
    """

    def __init__(self, ledger: LazyLedger, whose: Whose, now: Callable[[], datetime]) -> None:
        """Take the ledger, whose tasks of it are done, and the clock that all servers of the account share."""
        self.ledger = ledger
        self.now = now
        self._whose = whose
        self._steps: dict[TaskKind, Step] = {}
        self._at_work: set[str] = set()
        self._left_until: dict[str, float] = {}
        self._wake = anyio.Event()
        self.changed = anyio.Event()

    def on(self, kind: TaskKind, step: Step) -> None:
        """Register the step that does tasks of a kind."""
        self._steps[kind] = step

    def look(self, task_id: str | None = None) -> None:
        """Look at once what is due; also at a task that this server has left alone for a while."""
        self._left_until.pop(task_id or "", None)
        self._wake.set()

    def tell(self) -> None:
        """Wake whoever waits for `changed`: this server has written what it did of a task."""
        self.changed.set()
        self.changed = anyio.Event()

    async def run(self) -> None:
        """Do what is due until this is cancelled, and give back what is under way then."""
        pause_seconds = _FIRST_LOOK_SECONDS
        async with anyio.create_task_group() as group:
            while True:
                with anyio.move_on_after(pause_seconds):
                    await self._wake.wait()
                self._wake = anyio.Event()
                try:
                    await self._claim_due(group)
                except (LedgerUnavailable, AccountUnknown, LiumError) as error:
                    log.warning("What is to be done between calls could not be looked at for now: %s", error)
                pause_seconds = self._pause_seconds()

    def _pause_seconds(self) -> float:
        # Servers that looked at the same moments would leave a task to one another, time and again.
        usual = _LOOK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        left = (until - anyio.current_time() for until in self._left_until.values())
        return max(min([usual, *left]), _SHORTEST_PAUSE_SECONDS)

    async def _claim_due(self, group: TaskGroup) -> None:
        now = anyio.current_time()
        self._left_until = {name: until for name, until in self._left_until.items() if until > now}
        if self.ledger.is_empty:
            return
        kinds = tuple(self._steps)
        await self.ledger.tasks().free_of_the_dead()
        if not await self._whose.is_any_due(kinds, now=self.now()):
            return
        while len(self._at_work) < _MOST_AT_ONCE:
            left = (*self._at_work, *self._left_until)
            task = await self._whose.claim(kinds, now=self.now(), lease=LEASE, without=left)
            if task is None:
                return
            self._at_work.add(task.id)
            group.start_soon(self._do, Claim(self, task, is_own=self._whose.is_own(task)))

    async def _do(self, claim: Claim) -> None:
        left_seconds = _LONGEST_PAUSE_SECONDS
        title = _title(claim.task)
        try:
            await self._take_steps(claim)
        except LeaseLost:
            log.warning("%s: another server has taken it over, or it was cancelled", title)
        except LedgerUnavailable as error:
            log.warning("%s: the ledger cannot be used for now: %s", title, error)
        except NotNow as reason:
            log.info("%s: not now: %s", title, reason)
            left_seconds = reason.seconds
        except Exception:
            log.exception("%s: this server failed", title)  # a defect in one must not end the others
        finally:
            self._at_work.discard(claim.task.id)
            if not claim.is_over:
                self._left_until[claim.task.id] = anyio.current_time() + left_seconds
                with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
                    await self._give_back(claim)
            self._wake.set()

    async def _take_steps(self, claim: Claim) -> None:
        step, pause_seconds = self._steps[claim.task.kind], _FIRST_PAUSE_SECONDS
        while True:
            with acting(claim.task.kind, claim.task.id):
                async with self._whose.acting(claim):
                    await step(claim)
            if claim.is_over:
                return
            await claim.keep()
            await anyio.sleep(pause_seconds)
            pause_seconds = min(1.5 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    async def _give_back(self, claim: Claim) -> None:
        try:
            await self.ledger.tasks().put_off(claim.task, self.now())
        except LedgerUnavailable as error:
            log.info("%s: another server goes on when the lease is over: %s", _title(claim.task), error)


def _title(task: Task) -> str:
    return f"Task {task.kind} {task.name} on {task.subject}"
