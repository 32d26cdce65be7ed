"""What a server does between calls, with its own key and with those of logins that are kept: it begins all of it."""

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.auditing import acting
from lium_mcp.rentals import Claim, LedgerUnavailable, Step, TaskKind, Worker
from lium_mcp.services.orders.shared_market import SharedMarket
from lium_mcp.services.polling import Poller
from lium_mcp.serving.callers import Accounts
from lium_mcp.settings import Settings
from lium_mcp.toolkit.call import Runtime

if TYPE_CHECKING:
    from lium_mcp.serving.oauth.kept_keys import KeptKeys

log = logging.getLogger(__name__)

# Start-up comes first: opening a database takes half as long again.
_FIRST_ATTENTION_SECONDS: Final = 2.0
_ATTENTION_SECONDS: Final = 15.0


def prepare_work(
    settings: Settings, runtime: Runtime, accounts: Accounts, offered: Collection[str]
) -> Callable[[], None]:
    """Make what does work between calls, and return what begins it; a key may be found between two beginnings."""
    market = SharedMarket()
    kept_keys = None if settings.read_only else _find_kept_keys(settings, accounts)
    for_logins = _worker_for_logins(kept_keys, accounts, runtime, offered, market)

    def begin() -> None:
        own, start = accounts.own, runtime.background.start
        if own.lium.has_api_key and settings.is_local and not settings.read_only:
            start("rents", lambda: _attend_to_rents(partial(own.renter.attend, in_background=True)))
        if (worker := accounts.own_worker) is not None:
            directory = settings.find_state_directory()
            start("tasks", lambda: _do_tasks(worker, runtime, offered, market, directory))
        if kept_keys is not None:
            start("rents of logins", lambda: _attend_to_rents(kept_keys.attend))
        if for_logins is not None:
            start("tasks of logins", for_logins.run)

    return begin


def _find_kept_keys(settings: Settings, accounts: Accounts) -> "KeptKeys | None":
    """The keys of logins that the settings have kept; None where none are."""
    oauth = settings.find_oauth()
    if oauth is None or oauth.issuer is not None:
        return None
    # Others should not pay for it.
    from lium_mcp.guard.sealing import Seal  # noqa: PLC0415
    from lium_mcp.serving.oauth.kept_keys import KeptKeys  # noqa: PLC0415

    return KeptKeys(accounts.ledger, Seal(oauth.keys), accounts)


def _worker_for_logins(
    kept_keys: "KeptKeys | None", accounts: Accounts, runtime: Runtime, offered: Collection[str], market: SharedMarket
) -> Worker | None:
    """What does the tasks of those who have logged in, if anything does; it logs in to no pods."""
    if kept_keys is None or "rent_pod" not in offered:
        return None
    worker = Worker(accounts.ledger, kept_keys, accounts.now)
    worker.on("standing_order", _carrying_orders_out(runtime, market))
    accounts.work_for_logins(worker)
    return worker


async def _attend_to_rents(attend: Callable[[], Awaitable[object]]) -> None:
    """Settle what an earlier process left, and set removal times that no call waited for."""
    await anyio.sleep(_FIRST_ATTENTION_SECONDS)
    while True:
        try:
            with acting("upkeep"):
                await attend()
        except (LiumError, LedgerUnavailable) as error:
            log.warning("The rents of the ledger could not be attended to for now: %s", error)
        await anyio.sleep(_ATTENTION_SECONDS)


def _carrying_orders_out(runtime: Runtime, market: SharedMarket) -> Step:
    async def carry_order_out(claim: Claim) -> None:
        from lium_mcp.services.orders.order_firing import carry_out  # noqa: PLC0415 - as above

        await carry_out(runtime.account(), runtime.policy, runtime.confirm, market, claim)

    return carry_order_out


def _steps(runtime: Runtime, offered: Collection[str], market: SharedMarket) -> dict[TaskKind, Step]:
    """What this server does between calls, by the kind of task. Each imports its code when one of its kind is due."""

    def poller() -> Poller:
        return Poller(runtime.clock, runtime.stop, runtime.clock.monotonic())

    async def follow_job(claim: Claim) -> None:
        from lium_mcp.services.jobs.following import follow  # noqa: PLC0415 - as above

        await follow(runtime.account(), poller(), claim)

    async def watch_idle(claim: Claim) -> None:
        from lium_mcp.services.jobs.idle_watch import watch_idle  # noqa: PLC0415 - as above

        await watch_idle(runtime.account(), poller(), claim)

    async def do_run(claim: Claim) -> None:
        from lium_mcp.services.jobs.run_endings import do_run  # noqa: PLC0415 - as above

        account = runtime.account()
        await do_run(account, runtime.policy, poller(), claim, lambda text: runtime.redact(account.lium.redact(text)))

    steps: dict[TaskKind, Step] = {}
    if runtime.account().pod_access is not None:
        steps |= {"follow_up": follow_job, "idle_watch": watch_idle}
    if runtime.account().pod_access is not None and "run_job" in offered:
        steps["job_run"] = do_run
    if "rent_pod" in offered:
        steps["standing_order"] = _carrying_orders_out(runtime, market)
    return steps


async def _do_tasks(
    worker: Worker, runtime: Runtime, offered: Collection[str], market: SharedMarket, state_directory: Path | None
) -> None:
    """Run the tasks of the ledger as they fall due; send nothing while there are none."""
    for kind, step in _steps(runtime, offered, market).items():
        worker.on(kind, step)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        files = state_directory / "follow-ups" if state_directory is not None else None
        if files is not None and await anyio.to_thread.run_sync(files.is_dir):
            from lium_mcp.services.jobs.follow_ups import take_up_files  # noqa: PLC0415 - as above

            if (own := runtime.account()).worker is not None:
                await take_up_files(own, own.worker, files)
