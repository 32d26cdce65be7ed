"""Toolset `remote`: commands, background jobs and files on a running pod, over SSH."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import anyio
from pydantic import Field

from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.guard.consent import Question
from lium_mcp.inputs import UNLISTED_LIMITS, FilePath, ShortText
from lium_mcp.remote import jobs
from lium_mcp.remote.downloads import download, read_content
from lium_mcp.remote.jobs import MOST_NAME_CHARACTERS, Then
from lium_mcp.remote.transfers import Transfer
from lium_mcp.remote.uploads import upload, upload_content
from lium_mcp.rentals import LedgerUnavailable, Task
from lium_mcp.services.backing_up import refuse_partial
from lium_mcp.services.backups.transfer_details import Transferred, describe_transfer, open_folders, show_transfer
from lium_mcp.services.jobs.follow_ups import (
    keep_promise,
    promise,
    refuse_unkept,
    remember,
    take_back,
    tell_of_problem,
    warn_of_unsaved,
)
from lium_mcp.services.jobs.job_details import (
    FROM_A_POD,
    ObservedJob,
    job_view,
    listed_job,
    next_of_job,
    outcome_of,
    show_run,
)
from lium_mcp.services.jobs.job_watch import observe_run, tell_of_restart, watch_job, why_lost
from lium_mcp.services.jobs.past_jobs import look_back
from lium_mcp.services.jobs.run_order import MOST_COMMAND_CHARACTERS, RunOrder
from lium_mcp.services.jobs.run_planning import check_run, plan_run, question_about_run
from lium_mcp.services.jobs.runs import (
    begin_run,
    calling_off,
    find_earlier,
    find_run,
    is_at_its_command,
    is_called_off,
    own_worker,
    read_progress,
    watch_run,
    watch_start,
)
from lium_mcp.services.pods.at_work import working_in
from lium_mcp.services.pods.pod_commands import CommandRuns, run_on
from lium_mcp.services.pods.pod_connections import pod_access, reporting
from lium_mcp.services.polling import READ_LIMIT_SECONDS, time_limit
from lium_mcp.services.questions import ask_to_start_job
from lium_mcp.services.rents.rent_plan import Plan
from lium_mcp.services.rents.rent_terms import refuse_dearer
from lium_mcp.services.targets import find_pod, find_pods
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import DEFAULT_WAIT_SECONDS, PodName, WaitSeconds
from lium_mcp.toolkit.registry import DESTROYS, DESTROYS_EACH_TIME, READS, WRITES, Toolset

toolset = Toolset("remote")

_MOST_PODS: Final = 20
_LOG_BYTES: Final = 16_384
_MOST_UPLOADED_CHARACTERS: Final = 65_536
_MOST_SHOWN_BYTES: Final = 32_768
_SECONDS_PER_HOUR: Final = 3600
_MAX_HOURS: Final = 24
_START_SECONDS: Final = 60

Command = Annotated[str, Field(min_length=1, max_length=MOST_COMMAND_CHARACTERS, description="For the pod's shell.")]
JobName = Annotated[
    ShortText, Field(min_length=1, max_length=MOST_NAME_CHARACTERS, description="Name that start_job gave it.")
]
Timeout = Annotated[int, Field(ge=1, le=3600, description="Seconds until it is cut off.")]


@toolset.tool(
    title="Run command",
    hints=DESTROYS_EACH_TIME,
    search_hint="run shell commands or scripts over SSH, exec, bash, nvidia-smi, on many pods",
)
async def run_command(
    call: Call,
    command: Command,
    pod: Annotated[ShortText, Field(description="Pod id or name.")] = "",
    pods: Annotated[
        list[ShortText] | None, Field(max_length=_MOST_PODS, description="Or several, at the same time.")
    ] = None,
    timeout_seconds: Timeout = 300,
) -> CommandRuns:
    """Run a shell command in running pods over SSH and read its exit code and output. Whatever takes longer than the
    time limit is stopped, with what it began: start_job runs it in the background.
    """
    if bool(pod) == bool(pods):
        raise Failure("invalid_argument", "Give either pod or pods.", "Correct it and call again.")
    _refuse_nul(command)
    pod_access(call.account)
    targets = await find_pods(call.account, pods) if pods else [await find_pod(call.account, pod)]
    async with reporting(call.poller, timeout_seconds, lambda: "The command runs"):
        return await run_on(call.account, targets, command, timeout_seconds=timeout_seconds, several=bool(pods))


async def ask_to_start(call: Call, *, command: str, name: str, then: Then, **given: Any) -> Question | None:  # noqa: ANN401 - the tool's other arguments
    """Before `start_job`, where the job's end is to remove the pod."""
    _refuse_nul(command)
    jobs.check_job_name(name)
    pod_access(call.account)
    refuse_unkept(call.account, then)
    return await ask_to_start_job(call.account, name=name, then=then, **given)


@toolset.tool(
    title="Start job",
    hints=DESTROYS_EACH_TIME,
    search_hint="train models in the background, long-running script or scripts, nohup",
    asks=ask_to_start,
)
async def start_job(
    call: Call,
    pod: PodName,
    command: Command,
    name: Annotated[JobName, Field(description="New name: a-z, 0-9, . _ -")],
    max_hours: Annotated[float, Field(gt=0, le=720, description="It is stopped after so many hours.")] = _MAX_HOURS,
    then: Annotated[Then, Field(description="What follows its end, success or not.")] = "nothing",
) -> ObservedJob:
    """Start a command in a pod that runs on without connection or server; get_job finds it by name. then=backup takes a
    backup when it ends; backup_and_remove also removes the pod, which ends billing and loses what is not in the backup.
    """
    _refuse_nul(command)
    target = await find_pod(call.account, pod)
    max_seconds = max(round(max_hours * _SECONDS_PER_HOUR), 1)
    async with working_in(call.account, target, "job_start", seconds=_START_SECONDS) as connection:
        jobs.check_job_name(name)
        if then == "backup_and_remove":
            refuse_partial(target, await call.lium.backup_schedules.get_for_pod(target.id))
        promised = await promise(call.account, target, name, then)
        try:
            job = await jobs.start_job(
                connection, command, name, max_seconds=max_seconds, then=then, now=call.lium.now()
            )
        except Failure as error:
            if error.code in ("job_exists", "job_not_started"):
                await take_back(call.account, promised)
            raise
    await keep_promise(call.account, promised)
    return ObservedJob(
        outcome=outcome_of(job),
        pod_id=target.id,
        job=job_view(job),
        warnings=_warnings(target, job, max_hours, call.lium.now(), await warn_of_unsaved(call.account, target, job)),
        next=next_of_job(job, does_work=call.account.worker is not None)
        or "It is over: get_job with this name shows its output.",
    )


async def ask_to_run(call: Call, order: RunOrder, **_: Any) -> Question | None:  # noqa: ANN401 - the tool's other arguments
    """Before `run_job`; not where it shows a run of before."""
    order.check()
    if await find_earlier(call.account, order) is not None:
        return None
    await check_run(call.account, order, call.redact)
    return question_about_run(order, await plan_run(call.account, call.policy, order, call.asked, is_to_ask=True))


@toolset.tool(
    title="Run a job on a pod of its own",
    hints=DESTROYS,
    asks=ask_to_run,
)
async def run_job(
    call: Call,
    order: RunOrder,
    *,
    wait_seconds: Annotated[WaitSeconds, UNLISTED_LIMITS] = DEFAULT_WAIT_SECONDS,
) -> ObservedJob:
    """Rent a pod, bring files, run a command, keep the pod or remove it once nothing runs in it.
    Returns once it runs; get_job follows it. Needs max_total_usd, or max_usd_per_hour and
    max_hours.
    """
    order.check()
    task = await find_earlier(call.account, order)
    if task is None:
        await check_run(call.account, order, call.redact)
        with time_limit(READ_LIMIT_SECONDS):
            plan = call.agreed_on(Plan) or await plan_run(call.account, call.policy, order, None, is_to_ask=False)
        refuse_dearer(call.agreed, plan.price_per_hour_usd)
        with anyio.CancelScope(shield=True):  # what was written is called off below
            begun = await begin_run(call.account, order, plan=plan, agreed=call.agreed)
        async with calling_off(call.account, begun):
            task = await watch_start(call.account, call.poller, begun, wait_seconds=wait_seconds)
    else:
        task = await watch_start(call.account, call.poller, task, wait_seconds=wait_seconds)
    return await observe_run(call.account, task)


@toolset.tool(title="Get job", hints=READS)
async def get_job(
    call: Call,
    pod: PodName,
    name: Annotated[ShortText, Field(max_length=MOST_NAME_CHARACTERS, description="Job; default all.")] = "",
    log_lines: Annotated[int, Field(ge=0, le=1000, description="Newest lines of its output.")] = 50,
    log_after: Annotated[int, Field(ge=0, description="Only output after this log_bytes of an earlier answer.")] = 0,
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> ObservedJob:
    """Look in on a job that start_job or run_job began, in any session: wait for its end, and read status, exit code
    and newest output. Without a name, list all jobs of the pod at once.
    """
    run = await _find_run(call, pod, name)
    if run is not None and not is_at_its_command(run):
        run = await watch_run(call.account, call.poller, run, is_at_its_command, wait_seconds=wait_seconds)
    if run is None:
        try:
            return await _look(call, pod, name, log_lines, log_after, wait_seconds, None)
        except Failure as failure:
            past = await look_back(call.account, pod, name, failure)
            if past is None:
                raise
            return past
    pod_id = read_progress(run).pod_id
    if pod_id is None or not is_at_its_command(run):
        return await observe_run(call.account, run)
    try:
        # Of a run that is over, another pod may have the name by now.
        return await _look(call, pod if _is_closed(run) else pod_id, name, log_lines, log_after, wait_seconds, run)
    except Failure:  # its pod is gone, or cannot be looked into
        over = await watch_run(call.account, call.poller, run, _is_closed, wait_seconds=wait_seconds)
        return await observe_run(call.account, over)


def _is_closed(run: Task) -> bool:
    return run.closed_at is not None


async def _find_run(call: Call, pod: str, name: str = "") -> Task | None:
    with suppress(LedgerUnavailable):  # what is on the pod is there all the same
        return await find_run(call.account, name, pod)
    return None


async def _look(
    call: Call, pod: str, name: str, log_lines: int, log_after: int, wait_seconds: float, run: Task | None
) -> ObservedJob:
    """Look at a job on its pod, which may be that of a run; without a name, at all jobs of the pod."""
    target = await find_pod(call.account, pod)
    if run is not None and read_progress(run).pod_id != target.id:
        run = None
    access = pod_access(call.account)
    if name:
        jobs.check_job_name(name)
    try:
        async with access.to(target) as connection:
            found = [await jobs.read_job(connection, name, now=call.lium.now())] if name else None
            found = found or await jobs.list_jobs(connection, now=call.lium.now())
    except Failure as failure:
        await tell_of_restart(call.account, target, failure)
        raise
    for one in found:
        await remember(call.account, target, one)
    if not name:
        lost = next((one for one in found if one.status == "lost"), None)
        because = await why_lost(call.account, target, lost) if lost else None
        views = [listed_job(one, run) for one in found]
        return ObservedJob(outcome="done", pod_id=target.id, jobs=views, next=because)
    watched = await watch_job(call.account, call.poller, target, found[0], wait_seconds=wait_seconds)
    job, log = watched.job, None
    if log_lines:
        with suppress(Failure):  # what became of the job is worth more
            async with access.to(target) as connection:
                log = await jobs.read_log(
                    connection,
                    name,
                    lines=log_lines,
                    most_bytes=_LOG_BYTES,
                    after_bytes=log_after,
                    goes_on=not job.is_quiet,
                )
    if run is not None and run.name == name:
        if job.is_over:
            run = await watch_run(call.account, call.poller, run, _is_closed, wait_seconds=wait_seconds)
        return show_run(run, call.lium.now(), job, log, pod=target)
    return ObservedJob(
        outcome=outcome_of(job),
        pod_id=target.id,
        job=job_view(job),
        log=log.text if log else None,
        log_bytes=log.total_bytes if log else None,
        log_cut_bytes=(log.cut_bytes or None) if log else None,
        note=FROM_A_POD if log and log.text else None,
        warnings=await warn_of_unsaved(call.account, target, job) or None,
        next=watched.lost_because
        or next_of_job(job, does_work=call.account.worker is not None)
        or tell_of_problem(target, job),
    )


@toolset.tool(title="Stop job", hints=DESTROYS, search_hint="kill a training run, cancel a running script, end jobs")
async def stop_job(call: Call, pod: PodName, name: JobName) -> ObservedJob:
    """Stop a job and everything that it started. Its files and output stay; what was to follow it does not happen. A
    run_job whose command has not begun is called off, and its pod removed once nobody else works in it.
    """
    run = await _find_run(call, pod, name)
    if run is not None and not is_at_its_command(run):
        await own_worker(call.account).stop(run)
        run = await watch_run(call.account, call.poller, run, is_called_off, wait_seconds=DEFAULT_WAIT_SECONDS)
        if run.closed_at is not None or not is_at_its_command(run):
            return await observe_run(call.account, run)
    target = await find_pod(call.account, pod)
    async with pod_access(call.account).to(target) as connection:
        jobs.check_job_name(name)
        async with reporting(call.poller, DEFAULT_WAIT_SECONDS, lambda: f"Job {name} is being stopped"):
            before = await jobs.read_job(connection, name, now=call.lium.now())
            job = await jobs.stop_job(connection, name, now=call.lium.now())
    # It may also end by itself while it is being stopped.
    ended_before = before.is_quiet or job.status != "stopped"
    return ObservedJob(
        outcome="done",
        pod_id=target.id,
        job=job_view(job),
        next="It had ended before: nothing was stopped." if ended_before else None,
    )


@toolset.tool(
    title="Upload files", hints=DESTROYS, search_hint="copy code or data, a file or folder, to the GPU machine, scp"
)
async def upload_files(
    call: Call,
    pod: PodName,
    pod_path: Annotated[
        FilePath, Field(description="Where a folder's content, or the file, goes; default: its name in /root.")
    ] = "",
    local_path: Annotated[FilePath, Field(description="File or folder of this machine.")] = "",
    content: Annotated[str, Field(max_length=_MOST_UPLOADED_CHARACTERS, description="Or the file's text.")] = "",
    timeout_seconds: Timeout = 300,
) -> Transferred:
    """Send code or data into a pod: a local file, what a local folder holds, or a text. Files of the same name are
    replaced there, and equal ones skipped; call again to go on with what was cut off.
    """
    if bool(local_path) == bool(content) or (content and not pod_path):
        raise Failure(
            "invalid_argument", "Give either local_path, or content with pod_path.", "Correct it and call again."
        )
    access = pod_access(call.account)
    target = await find_pod(call.account, pod)
    transfer = Transfer()
    async with (
        working_in(call.account, target, "upload", seconds=timeout_seconds) as connection,
        reporting(call.poller, timeout_seconds, lambda: describe_transfer(transfer)),
    ):
        with anyio.move_on_after(timeout_seconds) as limit:
            if content:
                await upload_content(connection, content.encode(errors="replace"), pod_path, transfer)
            else:
                await upload(connection, open_folders(access.local_folders), local_path, pod_path, transfer)
    return show_transfer(target, transfer, cut_off=limit.cancelled_caught)


@toolset.tool(
    title="Download files",
    hints=WRITES,
    search_hint="get a result or results, checkpoints, logs from the GPU machine, scp",
)
async def download_files(
    call: Call,
    pod: PodName,
    pod_path: Annotated[FilePath, Field(min_length=1, description="File or folder.")],
    local_path: Annotated[FilePath, Field(description="Where to here; default: into the answer, if it is text.")] = "",
    overwrite: Annotated[bool, Field(description="Replace local files that differ.")] = False,
    timeout_seconds: Timeout = 300,
) -> Transferred:
    """Fetch results from a pod: a file, or what a folder of it holds, to this machine; or read a text file of it. Local
    files are kept unless overwrite is set; call again to go on with what was cut off.
    """
    access = pod_access(call.account)
    target = await find_pod(call.account, pod)
    transfer = Transfer()
    async with (
        working_in(call.account, target, "download", seconds=timeout_seconds) as connection,
        reporting(call.poller, timeout_seconds, lambda: describe_transfer(transfer)),
    ):
        with anyio.move_on_after(timeout_seconds) as limit:
            if not local_path:
                content, size = await read_content(connection, pod_path, most_bytes=_MOST_SHOWN_BYTES)
                return _shown(target, content, size)
            folders = open_folders(access.local_folders)
            await download(connection, folders, pod_path, local_path, transfer, overwrite=overwrite)
    return show_transfer(target, transfer, cut_off=limit.cancelled_caught)


def _refuse_nul(command: str) -> None:
    if "\0" in command:
        raise Failure("invalid_argument", "command holds a NUL character.", "Correct it and call again.")


def _warnings(pod: Pod, job: jobs.Job, max_hours: float, now: datetime, unsaved: Sequence[str]) -> list[str] | None:
    warnings = [*unsaved]
    removal = pod.removal_scheduled_at
    is_cut_off = removal is not None and not job.is_over and removal < now + timedelta(hours=max_hours)
    if is_cut_off:
        warnings.append(f"Lium removes the pod at {removal:%Y-%m-%dT%H:%M:%SZ}, before the job's limit (max_hours).")
    if job.then != "nothing":
        warnings.append(
            "What follows the job is done by this server while it runs, or by another one of this account that shares "
            "its ledger; nothing else does it."
        )
    if job.then != "nothing" and not is_cut_off:
        warnings.append(
            f"In any case Lium removes the pod at {removal:%Y-%m-%dT%H:%M:%SZ}."
            if removal
            else "The pod's removal time cannot be read: it may be removed before the job ends, or bill on after it."
            if pod.has_unreadable_removal
            else "The pod has no removal time, so it bills until somebody removes it: schedule_pod_removal sets one."
        )
    return warnings or None


def _shown(pod: Pod, content: bytes, size: int) -> Transferred:
    if b"\0" in content:
        raise Failure("not_text", "The file is not text.", "Give local_path to copy it to this machine.")
    cut = size > len(content)
    outcome: Literal["done", "pending"] = "pending" if cut else "done"
    return Transferred(
        outcome=outcome,
        pod_id=pod.id,
        total_bytes=size,
        moved_bytes=len(content),
        content=content.decode(errors="ignore" if cut else "replace"),
        note=FROM_A_POD,
        next="This is only its beginning: give local_path for all of it, or read on with run_command (tail, sed -n)."
        if cut
        else None,
    )
