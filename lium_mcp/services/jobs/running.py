"""Does a run: rents its pod, brings its files, starts its command and looks after it until all that follows is done.

Each state is taken up where the ledger says that the last server left off, and recognizes what was done already: a rent
by its row in the ledger, files by their hashes, the command by its folder on the pod. What a run rented and nothing has
run on is removed where the run cannot go on; else the pod stays until its removal time, which Lium keeps itself.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import anyio

from lium_mcp.api.errors import (
    LiumError,
    NotFound,
)
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.pods.models import VOLUME_PATH, PodDetail
from lium_mcp.failures import Failure
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Ask
from lium_mcp.remote.jobs import list_jobs, read_log, start_job, stop_job
from lium_mcp.remote.transfers import Transfer
from lium_mcp.remote.uploads import upload
from lium_mcp.rentals import (
    OTHERS_SECONDS,
    Entry,
    FindJudge,
    Judge,
    LeaseLost,
    NotNow,
    PodNameTaken,
    TaskOver,
    shortfalls,
)
from lium_mcp.services.backing_up import what_is_not_saved
from lium_mcp.services.backups.transfer_details import left_out, open_folders
from lium_mcp.services.failure_words import FAILURES, REFUSALS, as_failure
from lium_mcp.services.jobs.claimed_run import Run, not_now
from lium_mcp.services.jobs.job_watch import why_lost
from lium_mcp.services.jobs.run_order import LEAST_COMMAND_SECONDS
from lium_mcp.services.jobs.runs import RunState
from lium_mcp.services.limits_left import find_judge
from lium_mcp.services.pods.login_keys import register_public_keys
from lium_mcp.services.pods.node_warnings import node_warnings
from lium_mcp.services.pods.pod_connections import inside_of, is_volume_mounted, pod_access
from lium_mcp.services.pods.pod_details import pod_view
from lium_mcp.services.pods.pod_states import judge_gone
from lium_mcp.services.pods.price_rises import came_out_dearer
from lium_mcp.services.pods.readiness import read_pod, wait_for_ssh
from lium_mcp.services.rents.other_nodes import rent_on_some_node
from lium_mcp.services.rents.rent_plan import make_plan
from lium_mcp.services.rents.rent_terms import refuse_dearer
from lium_mcp.services.rents.request_total import total_of
from lium_mcp.services.rents.startup_restores import ordered_restore, wait_for_restore
from lium_mcp.services.rents.total_ceiling import say_cut_short
from lium_mcp.services.templates.what_runs import refuse_changed_template

_LOOK_SECONDS: Final = 20.0
_SSH_SECONDS: Final = 60.0
_START_SECONDS: Final = 90.0
_TRANSFER_SECONDS: Final = 3600.0
# A pod that waits for so long is swept by Lium itself.
_BOOTS_WITHIN: Final = timedelta(minutes=60)
_ANSWERS_WITHIN: Final = timedelta(minutes=15)
_GIVES_UP_AFTER: Final = timedelta(minutes=30)
_LOG_LINES: Final = 20
_LOG_BYTES: Final = 2000
# These do not pass by themselves.
_OF_LOCAL_FILES: Final = frozenset({"file_not_found", "permission_denied", "path_not_allowed", "too_many_files"})


Step = Callable[[Run], Awaitable[None]]


async def go_on(run: Run, steps: dict[RunState, Step]) -> None:
    """Take a run as far as it comes now. This is one step of its task, see `Worker`.

    Raises:
        NotNow: it cannot be done now; other servers may be able to.
        LeaseLost: another server does it.
        LedgerUnavailable: nobody can tell whether one does.
    """
    claim = run.claim
    if not claim.is_own:
        raise NotNow("another key made it", seconds=OTHERS_SECONDS)
    try:
        while await _advance(run, steps):
            pass
    except TimeoutError as error:
        raise not_now("it took too long") from error
    except LiumError as error:
        raise not_now(type(error).__name__) from error
    except Failure as failure:
        await _note_failure(run, failure)


async def _advance(run: Run, steps: dict[RunState, Step]) -> bool:
    """Do what is next; whether something else is next now."""
    state = run.progress.state
    if run.is_unwanted and state in ("booting", "uploading"):
        await run.give_up("stopped", "it was stopped before the command began, and its pod removed")
    else:
        await steps[state](run)
    return not run.claim.is_over and run.progress.state != state


async def _note_failure(run: Run, failure: Failure) -> None:
    """Try again what failed, for a while; then close a run whose command has not run."""
    progress = run.progress
    is_lasting = run.now - progress.since > _GIVES_UP_AFTER
    if progress.state == "uploading" and (is_lasting or failure.code in _OF_LOCAL_FILES):
        await run.give_up("error", f"the files did not arrive: {failure.happened}", problem=failure.code)
    elif progress.state == "starting" and is_lasting:
        said = "the command could not be started, and perhaps it was: look at its pod, which stays"
        await run.over("error", said, problem=failure.code, pod_stays=True)
    else:
        if progress.problem != failure.code:
            await run.note(problem=failure.code)
        raise not_now(failure.code)


async def rent_pod(run: Run) -> None:
    """Rent, unless that was done before; then take the pod for the run's."""
    account, task = run.account, run.claim.task
    entry = next(iter(await run.rents()), None)
    if entry is not None and entry.is_unsettled:
        with suppress(PodNameTaken):  # by another pod, where this rent turns out to have made none
            await account.renter.earlier(run.name, task.payload["asked"])
        entry = next(iter(await run.rents()), None)
    if entry is None and run.is_unwanted:
        await run.over("stopped", "it was stopped before anything was rented")
    elif entry is None:
        await _rent(run)
    elif entry.is_unsettled:
        raise not_now("the answer to its rent was lost, and is being settled")
    elif entry.status == "rented" and entry.pod_ids:
        await run.note("booting", pod_id=entry.pod_ids[0], price_per_hour_usd=entry.price_per_hour_usd)
    else:
        await run.over("rent_failed", entry.given_back_because or entry.note or f"its rent is {entry.status}")


def _as_shown(shown: Mapping[str, Any] | None) -> Callable[[Executor], bool] | None:
    """Which nodes may be rented after a person's yes: those of the GPU and tier that they were shown."""
    if shown is None:
        return None
    return lambda node: (node.gpu_name, node.tier) == (shown["gpu_name"], shown["tier"])


async def _rent(run: Run) -> None:
    """Rent as any call does, but for the run: what is rented is its own, whatever becomes of this server."""
    account, policy, payload = run.account, run.policy, run.claim.task.payload
    ceiling = payload["ceiling_per_hour_usd"]
    agreed = None if ceiling is None else Question("", price_per_hour_usd=ceiling)
    try:
        wish = run.order.wish(payload["hours"])
        total = await total_of(account, wish)
        plan = await make_plan(account, policy, wish, total, priced=True, admits=_as_shown(payload.get("shown")))
        refuse_dearer(agreed, plan.price_per_hour_usd)
        # A run of an earlier version has none.
        refuse_changed_template(account, payload.get("template_digest"), payload.get("template_id"), plan.template)

        def judging(ask: Ask) -> FindJudge:
            async def judge_if_wanted(_: Sequence[Entry]) -> Judge:
                await run.claim.keep()
                if run.is_unwanted:
                    raise Failure("stopped", "It was stopped when it was about to rent.", "")
                return await find_judge(account, policy, ask)

            return judge_if_wanted

        async with rent_on_some_node(
            account, policy, agreed, plan, asked=payload["asked"], task_id=run.claim.task.id, judging=judging
        ) as (rental, plan):
            cut_short = say_cut_short(run.order.life_hours, plan.hours)
            warnings = [*node_warnings(plan.node), *cut_short, *plan.warnings]
            price = plan.price_per_hour_usd
            await run.note("booting", pod_id=rental.pod_id, price_per_hour_usd=price, warnings=warnings or None)
            await register_public_keys(account)
    except TaskOver as over:
        raise LeaseLost from over
    except FAILURES as error:
        await _note_refusal(run, error)


async def _note_refusal(run: Run, error: Exception) -> None:
    """Close a run that could not be rented; what may pass by itself is tried again, and nothing that may have rented.

    Raises:
        NotNow: it is tried again.
    """
    failure = as_failure(error)
    may_have_rented = any(entry.status != "refused" for entry in await run.rents())
    passes = isinstance(error, LiumError) and not isinstance(error, (*REFUSALS, NotFound))
    may_pass = passes or failure.code in ("rent_unsettled", "ledger_unavailable", "account_unknown")
    if may_have_rented or (may_pass and run.now - run.progress.since < _GIVES_UP_AFTER):
        raise not_now(failure.code) from error
    if run.is_unwanted:
        await run.over("stopped", failure.happened)
    else:
        await run.over("rent_failed", " ".join((failure.happened, failure.advice)), problem=failure.code)


async def wait_for_boot(run: Run) -> None:
    """Wait until the pod runs, has its removal time, and answers SSH."""
    account = run.account
    pod = await run.read_pod()
    if pod is None:
        return
    await _note_price(run, pod)
    if await account.rents.has_something_left(pod):
        await account.renter.attend()
    newest: PodDetail | None = await run.poller.anew().until(
        pod,
        lambda: read_pod(account, pod.id),
        lambda seen: seen is None or seen.is_ready or seen.is_terminal,
        wait_seconds=_LOOK_SECONDS,
        describe=lambda _: f"{run.name} boots",
    )
    if newest is None:
        return
    await _note_price(run, newest)
    if newest.is_being_removed:
        return
    if newest.is_terminal:
        said = judge_gone(await pod_view(account, newest)).next  # which is what it is once this is said
        await run.give_up("boot_failed", said or f"its pod is {newest.state}")
        return
    if not newest.is_ready:
        if run.now - run.progress.since > _BOOTS_WITHIN:
            await run.give_up("boot_failed", "its pod did not start within an hour, and was removed")
        return
    if run.progress.ready_since is None:
        await run.note(ready_since=run.now)
    await _wait_for_ssh(run, newest)


async def _wait_for_ssh(run: Run, pod: PodDetail) -> None:
    account = run.account
    if await account.rents.has_something_left(pod):
        await account.renter.attend()
    newest, ssh = await wait_for_ssh(account, run.poller.anew(), pod, wait_seconds=0)
    if newest is None or not newest.is_ready:
        return
    if run.progress.removal_at != newest.removal_scheduled_at:
        await run.note(removal_at=newest.removal_scheduled_at)
    has_its_end = newest.removal_scheduled_at is not None or not await account.rents.has_removal_to_set(pod.id)
    if ssh == "answers" and has_its_end:
        if not await _is_restored(run, newest):
            return
        lacking = await _lacks(run, newest)
        if lacking is None:
            return
        unsaved = what_is_not_saved(newest, None) if run.order.then == "backup_and_remove" else None
        warnings = [*(run.progress.warnings or ()), *([unsaved] if unsaved else []), *lacking]
        await run.note("uploading", removal_at=newest.removal_scheduled_at, warnings=warnings or None)
    elif run.now - (run.progress.ready_since or run.now) > _ANSWERS_WITHIN:
        lacks = "got no removal time" if ssh == "answers" else "did not answer SSH"
        await run.give_up("boot_failed", f"its pod ran and {lacks} within 15 minutes, and was removed")


async def bring_files(run: Run) -> None:
    """Copy what is to be copied to the pod; what is the same there is skipped."""
    order, account = run.order, run.account
    if not order.local_path:
        await run.note("starting")
        return
    await run.refuse_elsewhere()
    pod = await run.read_pod()
    if pod is None:
        return
    access = pod_access(account)
    transfer = Transfer()
    with anyio.fail_after(_TRANSFER_SECONDS):
        async with run.claim.held(), access.to(pod) as connection:
            await upload(connection, open_folders(access.local_folders), order.local_path, "", transfer)
    if not transfer.is_done:
        raise Failure("upload_incomplete", "; ".join(transfer.problems[:3]) or "not all arrived", "Look at the files.")
    warnings = [*(run.progress.warnings or ()), *left_out(transfer)]
    await run.note("starting", problem=None, warnings=warnings or None)


async def start_command(run: Run) -> None:
    """Start the command, unless it was started before."""
    pod = await run.read_pod()
    if pod is None:
        return
    order, task = run.order, run.claim.task
    seconds = order.command_seconds(run.now, pod.removal_scheduled_at)
    if seconds < LEAST_COMMAND_SECONDS:
        await run.give_up("budget_exhausted", "no time was left for the command, so its pod was removed")
        return
    await run.claim.keep()
    if run.is_unwanted:
        await run.give_up("stopped", "it was stopped before the command began, and its pod removed")
        return
    with anyio.fail_after(_START_SECONDS):
        async with pod_access(run.account).to(pod) as connection:
            command = run.progress.command or ""
            job = await start_job(connection, command, run.name, max_seconds=seconds, now=run.now, run=task.id)
    stops_at = None
    if job.started_at is not None and job.max_seconds is not None:
        stops_at = job.started_at + timedelta(seconds=job.max_seconds)
    await run.note(
        "running",
        command=None,
        problem=None,
        started_at=job.started_at,
        stops_at=stops_at,
        removal_at=pod.removal_scheduled_at,
    )


async def watch_command(run: Run) -> None:
    """Look whether the command has ended."""
    pod = await run.read_ready_pod()
    if pod is None:
        return
    if run.progress.removal_at != pod.removal_scheduled_at:
        await run.note(removal_at=pod.removal_scheduled_at)
    await _note_price(run, pod)
    try:
        with anyio.fail_after(_SSH_SECONDS):
            async with pod_access(run.account).to(pod) as connection:
                if run.is_unwanted:
                    await stop_job(connection, run.name, now=run.now)
                log = await read_log(connection, run.name, lines=_LOG_LINES, most_bytes=_LOG_BYTES)
                on_pod = await list_jobs(connection, now=run.now)
    except Failure as failure:
        raise not_now(failure.code) from failure
    job = next((one for one in on_pod if one.name == run.name), None)
    tail = run.redact(log.text) or None
    if job is None or job.status == "lost":
        await run.note(status="error", log=tail)
        why = "its folder on the pod is gone" if job is None else await why_lost(run.account, pod, job)
        await run.over("error", f"{why} Nothing follows, and its pod stays", problem="job_lost", pod_stays=True)
        return
    ended: dict[str, Any] = {}
    if job.is_over:
        ended = {"status": job.status, "exit_code": job.exit_code, "finished_at": job.finished_at}
    # What follows waits for what the command left in the background, which may be the work itself.
    if job.is_quiet or (job.is_over and run.order.then == "keep"):
        await run.note("following", log=tail, **ended)
    elif (tail, job.exit_code) != (run.progress.log, run.progress.exit_code):
        await run.note(log=tail, **ended)


async def _note_price(run: Run, pod: PodDetail) -> None:
    """Show what the pod bills, and warn where that is more than it was offered at."""
    planned_usd = run.progress.price_per_hour_usd
    if pod.price in (None, planned_usd):
        return
    dearer = came_out_dearer(planned_usd, pod.price, "remove_pod")
    warnings = [*(run.progress.warnings or ()), *([dearer] if dearer else [])]
    await run.note(price_per_hour_usd=pod.price, warnings=warnings or None)


async def _is_restored(run: Run, pod: PodDetail) -> bool:
    """Whether what the pod was to be restored from is there; the run is given up where it will not be.

    A command would not know of what it lacks.
    """
    [entry, *_] = await run.rents()
    ordered = ordered_restore(entry)
    if ordered is None:
        return True
    restore = await wait_for_restore(run.account, run.poller.anew(), pod.id, ordered, wait_seconds=_LOOK_SECONDS)
    if restore.outcome == "failed":
        why = f": {restore.problem}" if restore.problem else ""
        said = f"the restore into {restore.path} failed, so its pod was removed{why}"
        await run.give_up("boot_failed", said, problem="restore_failed")
    return restore.outcome == "done"


async def _lacks(run: Run, pod: PodDetail) -> list[str] | None:
    """Say what a pod has less of than it was rented with, or could not be looked for.

    None where its volume is not there and the run is given up: what a command writes to /mnt would go with the pod.
    """
    inside = await inside_of(run.account, pod)
    [entry, *_] = await run.rents()
    visible, volume_id = inside.visible_gpus if inside else None, entry.volume_id
    is_mounted = is_volume_mounted(pod, inside) if volume_id else None
    if is_mounted is False:
        said = (
            f"volume {volume_id} could not be attached: nothing is mounted at {VOLUME_PATH}, so the command was not "
            "started, and the pod was removed. Another node (executor_id) may attach it"
        )
        await run.give_up("boot_failed", said, problem="volume_not_mounted")
        return None
    lacks = shortfalls(pod, volume_id=volume_id, visible_gpus=visible, is_volume_mounted=is_mounted, events=())
    if volume_id and is_mounted is None:
        lacks.append(
            f"Whether volume {volume_id} is mounted could not be read: look with run_command (mountpoint "
            f"{VOLUME_PATH}) before you rely on what the command writes to {VOLUME_PATH}."
        )
    return lacks
