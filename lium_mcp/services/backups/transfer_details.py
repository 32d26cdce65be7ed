"""How the copying of files is shown, and which local folders are open to it."""

from typing import Final

from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.remote.local_files import LocalFolders
from lium_mcp.remote.transfers import Transfer
from lium_mcp.results import Result, note_on
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.text import quotation

_SHOWN_CHARACTERS: Final = 120


class Transferred(Result):
    """What came of copying files."""

    outcome: Outcome
    pod_id: str
    path: str | None = None
    copied_files: int | None = None
    same_files: int | None = None
    total_files: int | None = None
    moved_bytes: int | None = None
    total_bytes: int | None = None
    content: str | None = None
    note: str | None = None
    problems: list[str] | None = None
    warnings: list[str] | None = None
    next: str | None = None


def open_folders(folders: LocalFolders | None) -> LocalFolders:
    """The local folders that are open to this server.

    Raises:
        Failure: the caller is elsewhere, so there are none.
    """
    if folders is None:
        raise Failure(
            "no_local_files",
            "This server has no files of yours: it does not run on your machine.",
            "Use content to upload, and leave local_path out to read a file.",
        )
    return folders


def describe_transfer(transfer: Transfer) -> str:
    """Say how far the copying is."""
    if not transfer.total_bytes:
        return "Looking at the files"
    return (
        f"{(transfer.moved_bytes + transfer.there_bytes) / 1e6:.1f} of {transfer.total_bytes / 1e6:.1f} MB, "
        f"{transfer.moved_files + transfer.same_files} of {transfer.total_files} files"
    )


def left_out(transfer: Transfer) -> list[str]:
    """Say what was not copied since it is no file of its own; nothing where there was no such thing."""
    if not transfer.passed_over:
        return []
    names = ", ".join(quotation(path, _SHOWN_CHARACTERS) for path in transfer.left_out)
    return [f"{transfer.passed_over} symbolic links and the like, which are no files, were left out: such as {names}."]


def show_transfer(pod: Pod, transfer: Transfer, *, cut_off: bool) -> Transferred:
    """Show what came of the copying, which may have been cut off by its time limit."""
    warnings = left_out(transfer)
    if transfer.unverified:
        warnings.append(f"{transfer.unverified} files could not be compared by hash: the pod has no sha256sum.")
    outcome: Outcome = "done" if transfer.is_done else "pending" if cut_off else "failed"
    next_step = None
    if cut_off:
        next_step = "The time is over: call again with the same paths to go on."
    elif transfer.problems:
        next_step = "Some files were not copied: see problems."
    return Transferred(
        outcome=outcome,
        pod_id=pod.id,
        path=transfer.path or None,
        copied_files=transfer.moved_files,
        same_files=transfer.same_files,
        total_files=transfer.total_files,
        moved_bytes=transfer.moved_bytes,
        total_bytes=transfer.total_bytes,
        problems=transfer.problems or None,
        note=note_on(*transfer.problems, *transfer.left_out),
        warnings=warnings or None,
        next=next_step,
    )
