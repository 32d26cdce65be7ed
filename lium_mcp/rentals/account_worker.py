"""What calls of one account have done between calls: they write it down, and tell the worker.

Some server does it that has a key for it, most likely this one.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio

from lium_mcp.rentals.entries import Entry, Task, TaskKind
from lium_mcp.rentals.identity import Identity
from lium_mcp.rentals.worker import Worker


class AccountWorker:
    """Writes down the tasks of the account that a key acts for."""

    def __init__(self, worker: Worker, identity: Identity, now: Callable[[], datetime]) -> None:
        """Take what does them on this server, the key and its account, and Lium's clock."""
        self._worker = worker
        self._identity = identity
        self._now = now

    @property
    def is_login(self) -> bool:
        """Whether it is done for as long as somebody is logged in for the account."""
        return self._identity.is_login

    @property
    def changed(self) -> anyio.Event:
        """As `Worker.changed`."""
        return self._worker.changed

    def made(self, task: Task) -> bool:
        """Whether this key made a task, or a login did and this is the key of one: others may not be shown it."""
        return task.by_login if self.is_login else task.key_tag == self._identity.key_tag

    async def add(
        self,
        kind: TaskKind,
        subject: str,
        name: str,
        payload: Mapping[str, Any],
        *,
        progress: Mapping[str, Any] | None = None,
        delay: timedelta = timedelta(),
        check: Callable[[Sequence[Entry]], None] = lambda _: None,
    ) -> tuple[Task, bool]:
        """Write down a task, unless one of its name is open; return the one that is open, and whether it is new.

        Some server of the account does it once the delay is over, most likely this one. It is not written where
        `check` raises when it sees the account's open rents.

        Raises:
            AccountUnknown: nothing was written.
            LoginEnded: nothing was written.
            LiumError: nothing was written.
            LedgerUnavailable: nothing was written.
        """
        now = self._now()
        task = Task(
            account=await self._identity.learn(),
            key_tag=self._identity.key_tag,
            kind=kind,
            subject=subject,
            name=name,
            payload=dict(payload),
            progress=dict(progress or {}),
            created_at=now,
            next_at=now + delay,
            by_login=self._identity.is_login,
        )
        written, is_new = await self._worker.ledger.tasks().add(task, check, login_id=self._identity.login_id)
        self._worker.look()
        return written, is_new

    async def begin(self, task: Task) -> None:
        """End the delay of a task, unless some server does it already.

        Raises:
            LedgerUnavailable: its delay stands.
        """
        await self._worker.ledger.tasks().put_off(task, self._now())
        self._worker.look()

    async def withdraw(self, task: Task, note: str) -> None:
        """Close a task that nobody has claimed yet, since there turned out to be nothing to do.

        Raises:
            LedgerUnavailable: it stays open.
        """
        await self._worker.ledger.tasks().finish(task, "gone", now=self._now(), note=note)

    async def stop(self, task: Task) -> None:
        """Ask whoever does a task to stop it.

        Raises:
            LedgerUnavailable: nobody was asked.
        """
        await self._worker.ledger.tasks().ask_to_stop(task)
        self._worker.look(task.id)
