"""All that an account has and does at a moment: pods, money, limits, rents that are open, and work between calls.

Only reading: nothing is settled, claimed or changed by a look.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.errors import LiumError
from lium_mcp.guard.policy import Policy
from lium_mcp.rentals import LedgerUnavailable, Task, TaskKind
from lium_mcp.results import Result, UtcTime
from lium_mcp.services.accounts import Account, named
from lium_mcp.services.backups.backup_details import find_origins
from lium_mcp.services.balance import Balance, read_balance
from lium_mcp.services.jobs.runs import read_order, read_progress
from lium_mcp.services.open_rents import UnsettledRent, list_with_rents
from lium_mcp.services.orders.standing_orders import list_orders
from lium_mcp.services.pods.pod_details import ListedPod, pod_rows
from lium_mcp.services.policy_view import InWords
from lium_mcp.services.rents.order_view import StandingOrder

log = logging.getLogger(__name__)

_SHOWN_FOR: Final = timedelta(days=1)


class PodGlance(ListedPod):
    """A pod, when its last backup was complete, and, until it runs, how long it will live from then on."""

    last_backup_at: UtcTime | None = None


class WorkGlance(Result):
    """A run, or what is to follow a job: what it is about, and how far it is."""

    kind: str
    name: str
    pod: str | None = None
    status: str
    since: UtcTime
    note: str | None = None


class Overview(Result):
    """What an account has and does. What could not be read is told in `unread`, and absent."""

    now: UtcTime
    account: str
    account_id: str
    workspace_id: str | None = None
    balance: Balance
    pods: list[PodGlance]
    open_rents: list[UnsettledRent]
    orders: list[StandingOrder]
    work: list[WorkGlance]
    unread: list[str]


async def read_overview(account: Account, policy: Policy, *, in_words: InWords) -> Overview:
    """Read all of it; `in_words` says why a part could not be read.

    Raises:
        LiumError: the account or its pods cannot be read.
    """
    me = await account.lium.account.me()
    pods, open_rents = await list_with_rents(account, read_only=True)
    balance = await read_balance(account, policy, me, pods, in_words=in_words)
    unread: list[str] = []
    last_backups = await _last_backups(account, unread, in_words) if pods else {}
    now = account.lium.now()
    shown = sorted(pods, key=lambda pod: (pod.pod_name or "", pod.id))
    return Overview(
        now=now,
        account=named(me),
        account_id=me.id,
        workspace_id=me.workspace.id if me.workspace else None,
        balance=balance,
        pods=[
            PodGlance(
                **row.model_dump(exclude_none=True, exclude={"removal_hours_after_boot"}),
                last_backup_at=last_backups.get(row.pod_id),
                removal_hours_after_boot=pod.termination_hours if pod.has_not_started else None,
            )
            for pod, row in zip(shown, await pod_rows(account, shown), strict=True)
        ],
        open_rents=open_rents,
        orders=await list_orders(account),
        work=await _work(account, now, unread),
        unread=unread,
    )


async def _last_backups(account: Account, unread: list[str], in_words: InWords) -> Mapping[str, datetime]:
    """When each pod's last backup was complete, that still has its data."""
    try:
        runs = await account.lium.backups.list()
        backups = [run for run in runs if run.is_completed and not run.is_deleted]
        origins = await find_origins(account, backups)
    except LiumError as error:
        unread.append(f"backups: {in_words(error)}")
        return {}
    last: dict[str, datetime] = {}
    for run in backups:
        origin = origins.get(run.backup_config_id or "")
        if origin is not None and run.completed_at is not None:
            last[origin.pod_id] = max(run.completed_at, last.get(origin.pod_id, run.completed_at))
    return last


async def _work(account: Account, now: datetime, unread: list[str]) -> list[WorkGlance]:
    """The runs and follow-ups that are open, or were closed in the last day."""
    glances: Mapping[TaskKind, Callable[[Task], WorkGlance]] = {"job_run": _run, "follow_up": _follow_up}
    try:
        return [
            show(task)
            for kind, show in glances.items()
            for task in await account.rents.tasks(kind)
            if task.closed_at is None or task.closed_at > now - _SHOWN_FOR
        ]
    except LedgerUnavailable as error:
        unread.append(f"the ledger: {error}")
        return []


def _run(task: Task) -> WorkGlance:
    progress = read_progress(task)
    return WorkGlance(
        kind="run",
        name=task.name,
        pod=read_order(task).name,
        status=progress.state if task.closed_at is None else progress.status or task.status,
        since=task.created_at,
        note=progress.problem or task.note or None,
    )


def _follow_up(task: Task) -> WorkGlance:
    return WorkGlance(
        kind="after a job",
        name=task.name,
        pod=task.subject,
        status="waits" if task.closed_at is None else task.status,
        since=task.created_at,
        note=task.note or None,
    )
