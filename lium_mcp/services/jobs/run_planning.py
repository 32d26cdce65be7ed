"""What comes before a run: its paths are looked at, its rent is planned, and a person is asked once about all of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import anyio

from lium_mcp.failures import Failure
from lium_mcp.figures import counted
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy, PolicyRefused
from lium_mcp.remote.local_files import LocalFolders, kind_of
from lium_mcp.services.accounts import Account
from lium_mcp.services.backups.transfer_details import open_folders
from lium_mcp.services.jobs.run_order import Ending, RunOrder
from lium_mcp.services.jobs.runs import own_worker
from lium_mcp.services.pods.pod_connections import pod_access
from lium_mcp.services.question_words import quoted
from lium_mcp.services.rents.rent_plan import Plan
from lium_mcp.services.rents.rent_questions import plan_to_ask, question_about
from lium_mcp.services.rents.request_total import total_of

_ENDINGS: Final[dict[Ending, str]] = {
    "keep": "The pod stays after that.",
    "remove": "After that the pod is removed for good, with all that is in it.",
    "backup_and_remove": "After that its local volume is backed up, and the pod removed for good; it stays if the "
    "backup fails. What lies outside the volume is lost.",
    "download_and_remove": "After that {what} is downloaded to {where}, and the pod removed for good; it stays while "
    "the download is not complete. What is not in it is lost.",
}


async def check_run(account: Account, order: RunOrder, redact: Callable[[str], str]) -> None:
    """Refuse a run that could not be carried out, before anything is spent.

    Raises:
        Failure: why not.
        PodNameTaken: a pod of its name lives.
    """
    order.check()
    own_worker(account)
    access = pod_access(account)
    if redact(order.command) != order.command:
        raise Failure(
            "secret_in_command",
            "The command holds what looks like a secret, and it would be written into the ledger.",
            "Bring the secret in a file of local_path, or in the environment of the template, and read it from there.",
        )
    if order.local_path or order.download_path:
        await anyio.to_thread.run_sync(_check_paths, open_folders(access.local_folders), order)
    await account.renter.earlier(order.name, "a run")  # no rent is asked for so, so this only looks at the name


def _check_paths(folders: LocalFolders, order: RunOrder) -> None:
    try:
        if order.local_path and kind_of(folders.locate(order.local_path)) not in ("file", "folder"):
            raise Failure("file_not_found", "local_path is no file and no folder.", "Check local_path.")
        if order.download_path and kind_of(folders.locate(order.target, "to_path")) != "missing":
            raise Failure(
                "file_exists",
                f"{order.target} exists on this machine already, and what is downloaded must not mix with it.",
                "Name a new place with to_path.",
            )
    except OSError as error:
        raise Failure("files_refused", f"A local path cannot be looked at: {error.strerror}.", "Check it.") from error


async def plan_run(
    account: Account, policy: Policy, order: RunOrder, asked: Question | None, *, is_to_ask: bool
) -> Plan:
    """Plan the rent of a run, for as long as its money lasts.

    What a person says yes to is rented on a node that is picked here, as it was shown; so what that lacks, such as a
    default template, has to be seen before they are asked.

    Raises:
        Failure, PolicyRefused, LiumError, LedgerUnavailable: as `plan_to_ask`.
    """
    wish = order.wish(order.life_hours)
    total = await total_of(account, wish)
    try:
        return await plan_to_ask(account, policy, wish, total, asked, admits=(lambda _: True) if is_to_ask else None)
    except PolicyRefused as refused:
        if refused.limit != "max_hours" or order.hours is not None:
            raise
        happened = f"max_hours, and the time for what comes before and after the command: {refused.happened}"
        raise PolicyRefused(refused.limit, happened, f"{refused.fits} with max_hours below it") from refused


def question_about_run(order: RunOrder, plan: Plan) -> Question:
    """What a person is asked before a run: its rent, and what follows without anybody being asked again."""
    question = question_about(plan)
    what = f"It runs job {quoted(order.name)}"
    if order.max_hours is not None:
        what += f" for at most {counted(order.max_hours, 'hour')}"
    if order.local_path:
        what += f" with {quoted(order.local_path)} of this machine"
    then = _ENDINGS[order.then].format(what=quoted(order.download_path), where=quoted(order.target))
    if order.only_if_succeeded and order.then != "keep":
        then += " All this only if the command succeeds."
    start = "A pod that does not start, or whose files do not arrive, is removed."
    return replace(question, text=f"{question.text} {what}. {then} {start}")
