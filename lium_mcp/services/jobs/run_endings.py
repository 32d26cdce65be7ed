"""What follows the command of a run: its files are saved, its pod is removed, or it stays until its removal time.

A pod goes only once what was to be saved is complete and checked, and no job runs there any more.
"""

from collections.abc import Callable
from typing import Final

import anyio

from lium_mcp.failures import Failure
from lium_mcp.guard.policy import Policy
from lium_mcp.remote.downloads import download
from lium_mcp.remote.transfers import Transfer
from lium_mcp.rentals import Claim, NotNow
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import LOGIN_FOLDER
from lium_mcp.services.backups.transfer_details import open_folders
from lium_mcp.services.jobs.claimed_run import Run
from lium_mcp.services.jobs.following import back_up, end_pod, try_again_later
from lium_mcp.services.jobs.run_order import Ending, RunOrder
from lium_mcp.services.jobs.running import (
    Step,
    bring_files,
    go_on,
    rent_pod,
    start_command,
    wait_for_boot,
    watch_command,
)
from lium_mcp.services.jobs.runs import RunState
from lium_mcp.services.pods.pod_connections import pod_access
from lium_mcp.services.pods.pod_details import past_view
from lium_mcp.services.pods.removing import is_gone
from lium_mcp.services.polling import Poller
from lium_mcp.services.question_words import quoted
from lium_mcp.text import quotation

_MOST_NAMED: Final = 3
_SHOWN_CHARACTERS: Final = 120
# A download that failed so fails again until somebody does something.
_LASTING: Final = frozenset(
    {
        "file_not_found",
        "permission_denied",
        "invalid_argument",
        "too_many_files",
        "download_impossible",
        "download_left_out",
        "nothing_to_download",
    }
)
_WITH_ADVICE: Final = frozenset({"download_left_out", "nothing_to_download"})
_REMOVED: Final[dict[Ending, str]] = {
    "remove": "its pod was removed",
    "backup_and_remove": "its pod was removed after its backup",
    "download_and_remove": "its pod was removed after the download",
}
_DOWNLOAD_SECONDS: Final = 3600.0
_DOWNLOAD_AGAIN_SECONDS: Final = 60.0
_REMOVAL_LOOK_SECONDS: Final = 30.0


async def do_run(account: Account, policy: Policy, poller: Poller, claim: Claim, redact: Callable[[str], str]) -> None:
    """Take a run as far as it comes now, see `go_on`."""
    await go_on(Run(account, policy, poller, claim, redact), _STEPS)


async def follow_command(run: Run) -> None:
    """Do what is to follow the command."""
    order, progress = run.order, run.progress
    status = progress.status or "error"
    if status == "stopped":
        await run.over(status, "it was stopped, so nothing follows, and its pod stays", pod_stays=True)
        return
    if order.then == "keep":
        await run.over(status, "its pod stays", pod_stays=True)
        return
    if order.only_if_succeeded and status != "succeeded":
        said = f"it did not succeed, so {order.then} does not follow, and its pod stays"
        await run.over(status, said, pod_stays=True)
        return
    pod = await run.read_ready_pod()
    if pod is None:
        return
    if order.then == "download_and_remove":
        await run.refuse_elsewhere()

    async def save() -> bool:
        match order.then:
            case "backup_and_remove":
                return await back_up(run.account, run.poller, run.claim, pod)
            case "download_and_remove":
                return await _download(run)
        return True

    try:
        if await end_pod(run.account, run.claim, pod, save):
            await run.note("removing", problem=None)
    except Failure as failure:
        await _note_failure(run, failure)


async def _download(run: Run) -> bool:
    """Copy what the run made to this machine; whether all of it is here and checked.

    Raises:
        Failure: some of it is not.
        NotNow: the pod could not be reached.
    """
    order = run.order
    if run.progress.path is not None:
        return True
    pod = await run.read_pod()
    if pod is None:
        return False
    access = pod_access(run.account)
    transfer = Transfer()
    with anyio.fail_after(_DOWNLOAD_SECONDS):
        async with run.claim.held(), access.to(pod) as connection:
            folders = open_folders(access.local_folders)
            await download(connection, folders, order.download_path, order.target, transfer, overwrite=False)
    _refuse_incomplete(order, transfer)
    await run.note(
        path=transfer.path, downloaded_files=transfer.total_files, downloaded_bytes=transfer.total_bytes, problem=None
    )
    return True


def _refuse_incomplete(order: RunOrder, transfer: Transfer) -> None:
    """Refuse to count a download as complete that leaves anything of the pod behind.

    Raises:
        Failure: it does.
    """
    what = quoted(order.download_path)
    if transfer.failed_files or not transfer.is_done:
        code = "download_impossible" if transfer.lasting_failures else "download_incomplete"
        problems = ", ".join(quotation(each, _SHOWN_CHARACTERS) for each in transfer.problems[:_MOST_NAMED])
        problems = problems or "not all arrived"
        raise Failure(code, f"Of {what} not all could be copied to {transfer.path}: {problems}.", "")
    if transfer.passed_over:
        names = ", ".join(quoted(path) for path in transfer.left_out)
        raise Failure(
            "download_left_out",
            f"What is no file of its own was left out of {what}: {transfer.passed_over} symbolic links and the like, "
            f"such as {names}. The other {transfer.total_files} files are in {transfer.path}.",
            "Copy what they point to into a new folder of the pod (cp -rL).",
        )
    if not transfer.total_files:
        raise Failure("nothing_to_download", f"{what} holds no file, so nothing was saved.", "Look what the pod holds.")
    if transfer.unverified:
        raise Failure("download_unverified", "The pod has no sha256sum, so what arrived in parts is unproven.", "")


async def _note_failure(run: Run, failure: Failure) -> None:
    """Note why what was to follow has not. A download is tried for as long as it may succeed, a backup some times."""
    order, happened = run.order, failure.happened
    if order.then == "download_and_remove":
        happened = f"{happened.rstrip('.')} (download_path {quoted(order.download_path)}, to_path {order.target})."
        if failure.code == "file_not_found":
            happened = (
                f"The pod has no {quoted(order.download_path)}, which download_path names; it starts at {LOGIN_FOLDER} "
                f"where it is not absolute. Look what is there with run_command (pod={run.name}, ls), fetch it with "
                f"download_files (pod={run.name}) from its right pod_path, then call remove_pod."
            )
        elif failure.code in _LASTING:
            advice = failure.advice if failure.code in _WITH_ADVICE else ""
            fetch = f"fetch it with download_files (pod={run.name}) to another local_path, then call remove_pod."
            happened = " ".join(filter(None, (happened, advice, f"If you need it, {fetch}")))
    elif order.then == "backup_and_remove":
        happened = f"{happened.rstrip('.')}. Each try may be a whole backup: they are minutes apart, three at most."
    happened = run.redact(happened)
    if (run.progress.problem, run.progress.problem_said) != (failure.code, happened):
        await run.note(problem=failure.code, problem_said=happened)
    if order.then == "download_and_remove" and failure.code in _LASTING:
        said = "the download failed and would fail again, so its pod stays"
        await run.over(run.progress.status or "error", said, problem=failure.code, pod_stays=True)
        return
    if order.then == "download_and_remove":
        raise NotNow(failure.code, seconds=_DOWNLOAD_AGAIN_SECONDS) from failure
    if not await try_again_later(run.account, run.claim):
        said = f"its pod stays, since {run.order.then} failed: {failure.happened}"
        await run.over(run.progress.status or "error", said, problem=failure.code, pod_stays=True)


async def see_removal(run: Run) -> None:
    """Wait until the pod is gone, and read what it cost."""
    pod_id = run.progress.pod_id or ""
    gone = await run.poller.anew().until(
        False,
        lambda: is_gone(run.account, pod_id),
        bool,
        wait_seconds=_REMOVAL_LOOK_SECONDS,
        describe=lambda _: f"{run.name} is being removed",
    )
    if not gone:
        return
    await run.account.rents.note_gone(pod_id)
    past = await past_view(run.account, pod_id)
    await run.note(charged_usd=past.cost_so_far_usd if past else None)
    await run.over(run.progress.status or "error", _REMOVED[run.order.then])


_STEPS: Final[dict[RunState, Step]] = {
    "renting": rent_pod,
    "booting": wait_for_boot,
    "uploading": bring_files,
    "starting": start_command,
    "running": watch_command,
    "following": follow_command,
    "removing": see_removal,
}
