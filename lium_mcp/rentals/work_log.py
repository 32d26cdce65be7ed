"""What servers do in pods while somebody waits for it: rows of the ledger, so that no other server removes such a pod.

A row counts until it is ended, or its time is over, or its server has surely ended. Importing this imports SQLAlchemy,
as with the ledger itself.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from lium_mcp.rentals.claimants import new_claim_id, read_claimant
from lium_mcp.rentals.database import Database
from lium_mcp.rentals.entries import BeingRemoved, PodWork, Work, WorkKind
from lium_mcp.rentals.tables import WORK

# Longer than a last backup takes: whoever takes one asks what began since.
_KEPT_FOR: Final = timedelta(days=2)
_NAMES: Final = tuple(field.name for field in fields(Work))
_CHANGES_NOTHING: Final[tuple[WorkKind, ...]] = ("download", "removal")


class WorkLog:
    """What is done in the pods of all accounts."""

    def __init__(self, database: Database) -> None:
        """Take the ledger's database."""
        self._database = database

    async def begin(self, pod_id: str, kind: WorkKind, *, now: datetime, until: datetime) -> Work:
        """Write that this server begins something in a pod, which is over by `until` at the latest.

        Raises:
            BeingRemoved: a server removes the pod in this moment.
            LedgerUnavailable: nothing was written.
        """

        def work(connection: Connection) -> Work:
            self._database.take_turn(connection, f"pod {pod_id}")
            if any(row.kind == "removal" for row in self._going_on(connection, pod_id, now)):
                raise BeingRemoved
            connection.execute(delete(WORK).where(WORK.c.until < now - _KEPT_FOR))
            return _write(connection, pod_id, kind, now, until)

        return await self._database.run(work)

    async def begin_removal(self, pod_id: str, *, now: datetime, until: datetime, since: int | None) -> Work | None:
        """Write that this server removes a pod, so that nothing begins in it; None where something works in it.

        Args:
            pod_id: The pod.
            now: The time.
            until: When it is over at the latest.
            since: The id of the last change that is known to be saved; None is returned too where one came after.
                None where the pod goes whatever works in it, since somebody was told of that.

        Raises:
            LedgerUnavailable: nothing was written.
        """

        def work(connection: Connection) -> Work | None:
            self._database.take_turn(connection, f"pod {pod_id}")
            found = self._of_pod(connection, pod_id, now)
            if since is not None and (found.going_on or found.newest_change > since):
                return None
            return _write(connection, pod_id, "removal", now, until)

        return await self._database.run(work)

    async def end(self, work: Work, *, now: datetime) -> None:
        """Write that something is over.

        Raises:
            LedgerUnavailable: nothing was written; it counts until its time is over.
        """
        change = update(WORK).where(WORK.c.id == work.id).values(ended_at=now)
        await self._database.run(lambda connection: connection.execute(change))

    async def of_pod(self, pod_id: str, *, now: datetime) -> PodWork:
        """What is done in a pod now, and what began there last.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        return await self._database.read(lambda connection: self._of_pod(connection, pod_id, now))

    def _of_pod(self, connection: Connection, pod_id: str, now: datetime) -> PodWork:
        begun = select(WORK.c.id, WORK.c.kind).where((WORK.c.pod_id == pod_id) & (WORK.c.kind != "removal"))
        rows = connection.execute(begun).all()
        return PodWork(
            tuple(self._going_on(connection, pod_id, now)),
            newest=max((row.id for row in rows), default=0),
            newest_change=max((row.id for row in rows if row.kind not in _CHANGES_NOTHING), default=0),
        )

    def _going_on(self, connection: Connection, pod_id: str, now: datetime) -> Sequence[Work]:
        is_open = (WORK.c.pod_id == pod_id) & WORK.c.ended_at.is_(None) & (WORK.c.until > now)
        found = [_work(row) for row in connection.execute(select(WORK).where(is_open).order_by(WORK.c.id))]
        # That a process has ended is certain only where the ledger is a file of its machine.
        return [one for one in found if not (self._database.is_file and read_claimant(one.owner).is_dead)]


def _write(connection: Connection, pod_id: str, kind: WorkKind, now: datetime, until: datetime) -> Work:
    work = Work(pod_id=pod_id, kind=kind, owner=new_claim_id(), began_at=now, until=until)
    row = {name: getattr(work, name) for name in _NAMES if name != "id"}
    written = connection.execute(insert(WORK).values(row)).inserted_primary_key
    return work if written is None else replace(work, id=written[0])


def _work(row: Row[Any]) -> Work:
    return Work(**{name: row._mapping[name] for name in _NAMES})  # noqa: SLF001 - SQLAlchemy's public name for it
