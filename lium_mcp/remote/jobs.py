"""Background jobs on a pod: they outlive the connection, end at their time limit, and are found by name from anywhere.

A job is a folder on the pod, `.lium-mcp/jobs/<name>/` in the login directory. This server writes what to run, a runner
(`job_runner.sh`) writes what becomes of it, and whoever connects later reads it. The folder is made in one step that
fails where it exists, so two jobs never have the same name.
"""

import json
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import anyio

from lium_mcp.failures import Failure
from lium_mcp.remote.commands import (
    Started,
    is_alive,
    processes_script,
    run_short,
    stop_all,
    text_of_tail,
    without_cut_end,
)

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection
    from lium_mcp.remote.sftp import FileStatus, PodFiles

Then = Literal["nothing", "backup", "backup_and_remove"]
THEN: Final[tuple[Then, ...]] = get_args(Then)
JobStatus = Literal["starting", "running", "succeeded", "failed", "stopped", "timed_out", "lost"]

MOST_NAME_CHARACTERS: Final = 64
JOB_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MOST_COMMAND_BYTES: Final = 262_144
_ROOT: Final = ".lium-mcp/jobs"
_VERSION: Final = 1
_MOST_JOBS: Final = 200
_MOST_NAMED: Final = 10
_MOST_FILE_BYTES: Final = 4096
_START_SECONDS: Final = 15.0
_EXEC_SECONDS: Final = 20.0
_NEW: Final = timedelta(seconds=60)
_STOP_GRACE_SECONDS: Final = 10.0
_RECORD_LOOKS: Final = 20
_RECORD_PAUSE_SECONDS: Final = 0.1
_RECORD_SECONDS: Final = 0.3
# The runner looks once a second whether something runs on.
_RECORD_OF_BACKGROUND_SECONDS: Final = 1.5
_KILLED_STATUS: Final = 137
_MOST_STATUS_DIGITS: Final = 4
_MOST_UNIX_DIGITS: Final = 11
_MARK: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its folder shows it; start and end are by the pod's clock.

    Attributes:
        left_running: Whether its command has ended, and something that it put in the background still runs.
    """

    name: str
    status: JobStatus
    exit_code: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    max_seconds: int | None = None
    then: Then = "nothing"
    followed_by: dict[str, str] | None = None
    left_running: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its command has ended."""
        return self.status not in ("starting", "running")

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of it runs any more, not even what its command put in the background."""
        return self.is_over and not self.left_running


@dataclass(frozen=True, slots=True)
class Log:
    """The end of what a job wrote.

    Attributes:
        text: Its last lines.
        total_bytes: All that it wrote so far.
        cut_bytes: What comes before the text and was to be shown, too.
    """

    text: str
    total_bytes: int
    cut_bytes: int


def check_job_name(name: str) -> str:
    """Return the name, if a job can have it.

    Raises:
        Failure: no job can have it.
    """
    if not JOB_NAME.fullmatch(name):
        raise Failure(
            "invalid_argument",
            "name is not a job's name: 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first.",
            "Choose another name.",
        )
    return name


async def start_job(
    connection: "Connection",
    command: str,
    name: str,
    *,
    max_seconds: int,
    now: datetime,
    then: Then = "nothing",
    run: str = "",
) -> Job:
    """Start a command that outlives the connection.

    Args:
        connection: To the pod.
        command: What to run.
        name: Of the job.
        max_seconds: It is stopped after so many seconds.
        now: By Lium's clock.
        then: What is to follow it.
        run: The id of the run that it belongs to, if it is part of one. A run that starts its job again, since nobody
            wrote that it had, gets the job as it is, and its command still runs once.

    Raises:
        Failure: the name is taken, the pod cannot run jobs, or the connection broke.
    """
    folder = _folder(name)
    # What is started again has the same mark, whichever start came first.
    mark = run or secrets.token_hex(8)
    pod_files = await connection.files()
    try:
        await pod_files.make_folders(_ROOT)
        is_taken = await _take_folder(pod_files, folder, run)
        if not is_taken:
            spec = {
                "version": _VERSION,
                "name": name,
                "max_seconds": max_seconds,
                "then": then,
                "run": run,
                "mark": mark,
                "created_at": now.astimezone(UTC).isoformat(timespec="seconds"),
            }
            await pod_files.write(f"{folder}/spec.json", json.dumps(spec).encode())
            await pod_files.write(f"{folder}/command", command.encode())
            await pod_files.write(f"{folder}/processes", processes_script().encode())
            await pod_files.write(f"{folder}/run", _runner())
    except FileExistsError:
        raise _taken(connection, name) from None
    except OSError as error:
        raise _no_folder(connection) from error
    if not is_taken:
        await run_short(
            connection,
            f"setsid sh {folder}/run {max_seconds} {mark} </dev/null >/dev/null 2>&1 &",
            timeout_seconds=_EXEC_SECONDS,
        )
    pause = 0.05
    with anyio.move_on_after(_START_SECONDS):
        while (job := await read_job(connection, name, now=now)).status == "starting":
            await anyio.sleep(pause)
            pause = min(2 * pause, 1.0)
        return job
    raise Failure(
        "job_not_started",
        f"Job {name} did not start on {connection.address}.",
        "The pod's image needs sh, date and setsid (package util-linux). Then start it under another name.",
        effect="Its folder in .lium-mcp/jobs was made.",
    )


async def refuse_taken(connection: "Connection", name: str) -> None:
    """Refuse a name that a job of the pod has; where that cannot be looked at, it shows at the start.

    Raises:
        Failure: one has it, or the connection broke.
    """
    pod_files = await connection.files()
    with suppress(OSError):
        await pod_files.stat(_folder(name), follow=False)
        raise _taken(connection, name)


def _taken(connection: "Connection", name: str) -> Failure:
    return Failure(
        "job_exists",
        f"{connection.address} has a job named {name} already.",
        "Look at it with get_job, or choose another name: a name is used once on a pod.",
    )


async def read_job(connection: "Connection", name: str, *, now: datetime) -> Job:
    """A job as it is now.

    Raises:
        Failure: there is none of that name, or the connection broke.
    """
    pod_files = await connection.files()
    folder = _folder(name)
    try:
        await pod_files.stat(folder, follow=False)
    except FileNotFoundError:
        raise Failure(
            "job_not_found",
            f"{connection.address} has no job named {name}.",
            f"{await _what_there_is(pod_files)} A reboot loses those outside the local volume.",
        ) from None
    except OSError as error:
        raise _no_folder(connection) from error
    return await _read(connection, pod_files, name, now)


async def _what_there_is(pod_files: "PodFiles") -> str:
    try:
        names = _job_names(await pod_files.list(_ROOT, most=_MOST_JOBS))
    except FileNotFoundError:
        names = []
    except (OverflowError, OSError):
        return "Call get_job without a name to see its jobs."
    if not names:
        return "It has no jobs: start_job starts one."
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"It has: {', '.join(names[:_MOST_NAMED])}{more}."


def _job_names(rows: Iterable[tuple[str, "FileStatus"]]) -> list[str]:
    # The pod's users may have put anything there.
    return sorted(name for name, entry in rows if entry.kind == "folder" and JOB_NAME.fullmatch(name))


async def list_jobs(connection: "Connection", *, now: datetime) -> list[Job]:
    """All jobs of a pod, newest first.

    Raises:
        Failure: the connection broke, or there are too many.
    """
    pod_files = await connection.files()
    try:
        rows = await pod_files.list(_ROOT, most=_MOST_JOBS)
    except FileNotFoundError:
        return []
    except OverflowError:
        raise Failure(
            "too_many_jobs",
            f"{connection.address} has more than {_MOST_JOBS} jobs.",
            "Name the job, or remove old folders in .lium-mcp/jobs on the pod.",
        ) from None
    except OSError as error:
        raise _no_folder(connection) from error
    jobs = [await _read(connection, pod_files, name, now) for name in _job_names(rows)]
    return sorted(jobs, key=lambda job: (job.created_at or datetime.min.replace(tzinfo=UTC), job.name), reverse=True)


async def read_log(
    connection: "Connection", name: str, *, lines: int, most_bytes: int, after_bytes: int = 0, goes_on: bool = False
) -> Log:
    """The last lines of what a job wrote after so many bytes.

    While it goes on, a character of which only the beginning is written is left to the next look.

    Raises:
        Failure: the connection broke.
    """
    pod_files = await connection.files()
    path = f"{_folder(name)}/log"
    try:
        size = (await pod_files.stat(path)).size
        begins_at = after_bytes if after_bytes <= size else 0  # else it is the output of another job
        offset = max(size - most_bytes, begins_at)
        data = await pod_files.read(path, offset=offset, size=size - offset) if offset < size else b""
    except OSError:
        return Log("", 0, 0)
    if goes_on:
        data = without_cut_end(data)
    kept = b"".join(data.splitlines(keepends=True)[-lines:])
    return Log(text_of_tail(kept), offset + len(data), offset + len(data) - len(kept) - begins_at)


async def stop_job(connection: "Connection", name: str, *, now: datetime) -> Job:
    """Stop a job with all that it started, and return it as it is then.

    Raises:
        Failure: there is none of that name, it does not stop, or the connection broke.
    """
    before = await read_job(connection, name, now=now)
    if before.is_quiet:
        return before
    pod_files = await connection.files()
    folder = _folder(name)
    started = await _started(pod_files, folder, _object(await _content(pod_files, f"{folder}/spec.json")))
    if started is None:
        raise Failure("job_starting", f"Job {name} is still starting.", "Call stop_job again in a moment.")
    try:
        await pod_files.write(f"{folder}/ended_by", b"stop\n")
        if not await stop_all(connection, started, grace_seconds=_STOP_GRACE_SECONDS):
            job = await read_job(connection, name, now=now)
            if not job.is_quiet:
                raise Failure(
                    "job_not_stopped",
                    f"Job {name} still runs although it was killed; its processes wait for the kernel.",
                    "Call get_job in a minute; reboot_pod ends everything.",
                )
        # The runner writes down what came of the job; if it was killed too, this does.
        for _ in range(_RECORD_LOOKS):
            job = await read_job(connection, name, now=now)
            if job.is_quiet and job.status != "lost":
                return job
            await anyio.sleep(_RECORD_PAUSE_SECONDS)
        if not before.is_over:
            await pod_files.write(f"{folder}/finished_at", f"{int(datetime.now(UTC).timestamp())}\n".encode())
        exit_code = before.exit_code if before.exit_code is not None else _KILLED_STATUS
        await pod_files.write(f"{folder}/exit_code", f"{exit_code}\n".encode())
    except OSError as error:
        raise _no_folder(connection) from error
    return await read_job(connection, name, now=now)


async def note_follow_up(connection: "Connection", name: str, said: dict[str, str]) -> None:
    """Write into a job's folder what followed it.

    Raises:
        Failure: the connection broke.
    """
    pod_files = await connection.files()
    try:
        await pod_files.write(f"{_folder(name)}/then.json", json.dumps(said).encode())
    except OSError as error:
        raise _no_folder(connection) from error


@cache
def _runner() -> bytes:
    return files(__package__).joinpath("job_runner.sh").read_bytes()


def _folder(name: str) -> str:
    return f"{_ROOT}/{check_job_name(name)}"


async def _take_folder(pod_files: "PodFiles", folder: str, run: str) -> bool:
    """Make a job's folder, or go on with the one that the same run has made; whether its runner was started already.

    Raises:
        FileExistsError: another job has it.
    """
    try:
        await pod_files.make_folder(folder)
    except FileExistsError:
        spec = _object(await _content(pod_files, f"{folder}/spec.json"))
        if not run or spec.get("run", run) != run:
            raise
    else:
        return False
    return await _is_there(pod_files, f"{folder}/taken")


async def _read(connection: "Connection", pod_files: "PodFiles", name: str, now: datetime) -> Job:
    folder = _folder(name)
    spec = _object(await _content(pod_files, f"{folder}/spec.json"))
    created_at = _iso(spec.get("created_at"))
    is_new = created_at is not None and abs(now - created_at) < _NEW
    status, exit_code, left_running = await _status(connection, pod_files, folder, spec, is_new=is_new)
    followed_by = {
        key: value
        for key, value in _object(await _content(pod_files, f"{folder}/then.json")).items()
        if isinstance(value, str)
    }
    max_seconds = spec.get("max_seconds")
    then: Then = next((choice for choice in THEN if choice == spec.get("then")), "nothing")
    return Job(
        name=name,
        status=status,
        exit_code=exit_code,
        created_at=created_at,
        started_at=_unix(await _content(pod_files, f"{folder}/started_at")),
        finished_at=_unix(await _content(pod_files, f"{folder}/finished_at")) if exit_code is not None else None,
        max_seconds=max_seconds if isinstance(max_seconds, int) else None,
        then=then,
        followed_by=followed_by or None,
        left_running=left_running,
    )


async def _status(
    connection: "Connection", pod_files: "PodFiles", folder: str, spec: dict[str, Any], *, is_new: bool
) -> tuple[JobStatus, int | None, bool]:
    """The status of a job, its exit code, and whether something that it left in the background still runs."""
    for last_look in (False, True):
        exit_code = _number(await _content(pod_files, f"{folder}/exit_code"), _MOST_STATUS_DIGITS)
        if exit_code is not None:
            return _how_it_ended(exit_code, await _content(pod_files, f"{folder}/ended_by")), exit_code, False
        started = await _started(pod_files, folder, spec)
        if started is None:
            return ("starting" if is_new else "lost"), None, False
        ended = _number(await _content(pod_files, f"{folder}/command_ended"), _MOST_STATUS_DIGITS)
        if await _is_same_container(pod_files, folder) and await is_alive(connection, started):
            if ended is None:
                return "running", None, False
            return _how_it_ended(ended, await _content(pod_files, f"{folder}/ended_by")), ended, True
        if not last_look:
            # It may have ended just now, and the runner is writing that down.
            await anyio.sleep(_RECORD_SECONDS if ended is None else _RECORD_OF_BACKGROUND_SECONDS)
    return "lost", None, False


async def _started(pod_files: "PodFiles", folder: str, spec: dict[str, Any]) -> Started | None:
    """How to find what the job started; nothing while it has started nothing."""
    group = _number(await _content(pod_files, f"{folder}/pid"))
    if group is None or group < 2:  # noqa: PLR2004 - 0 and 1 would be everything
        return None
    mark = spec.get("mark")
    if not isinstance(mark, str) or not _MARK.fullmatch(mark):
        return Started(group)  # as an earlier version has started it
    has_ended = await _is_there(pod_files, f"{folder}/group_ended")
    # The environment of the shell that looks may hold its command, which the pattern does not match.
    return Started(None if has_ended else group, f"LIUM[_]JOB={mark}")


async def _is_there(pod_files: "PodFiles", path: str) -> bool:
    try:
        await pod_files.stat(path)
    except FileNotFoundError:
        return False
    return True


def _how_it_ended(exit_code: int, ended_by: str) -> JobStatus:
    if ended_by == "stop":
        return "stopped"
    if ended_by == "time_limit":
        return "timed_out"
    return "succeeded" if exit_code == 0 else "failed"


async def _is_same_container(pod_files: "PodFiles", folder: str) -> bool:
    """Whether the job was started in the container that runs now; in another, its process id means something else."""
    noted = await _content(pod_files, f"{folder}/container")
    if not noted:
        return True
    now = (await _content(pod_files, "/proc/1/stat")).rpartition(") ")[2].split()
    return len(now) < 20 or now[19] == noted  # noqa: PLR2004 - the start time, two fields of which came before


async def _content(pod_files: "PodFiles", path: str) -> str:
    try:
        return (await pod_files.read(path, size=_MOST_FILE_BYTES)).decode(errors="replace").strip()
    except OSError:
        return ""


def _number(text: str, most_digits: int = 9) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= most_digits else None


def _unix(text: str) -> datetime | None:
    number = _number(text, _MOST_UNIX_DIGITS)
    return None if number is None else datetime.fromtimestamp(number, UTC)


def _iso(text: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _no_folder(connection: "Connection") -> Failure:
    return Failure(
        "pod_disk_refused",
        f"{connection.address} refuses to keep files in .lium-mcp/jobs of its login directory.",
        "Its disk may be full or read-only: look with run_command (df -h).",
    )
