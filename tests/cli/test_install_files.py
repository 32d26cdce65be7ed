"""Installing into files as they are found: whose they are, how they were written, and what breaks off meanwhile."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from lium_mcp import own_files
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.sandbox import Sandbox
from tests.cli.conftest import Lium
from tests.processes import environment
from tests.wires import Wire, served


def test_who_puts_a_path_of_this_machine_into_a_projects_file_is_told(lium: Lium) -> None:
    status, _, err = lium("install", "cursor", "--yes", "--scope", "project")
    assert status == ExitStatus.OK
    assert "its command is a path of this machine: /" in err
    assert "let each install it for themselves (lium-mcp install cursor)" in err
    assert "path of this machine" not in lium("install", "cursor", "--yes")[2]
    address = ("--http", "https://gpu.example.com/mcp")
    assert "path of this machine" not in lium("install", "codex", "--yes", "--scope", "project", *address)[2]


async def interrupted(home: Path, *words: str, answers: int, **variables: str) -> tuple[int | None, str]:
    """Answer so many questions of a command, and interrupt it at the next."""
    typed, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lium_mcp", *words),
        stdin=terminal,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(HOME=str(home), **variables),
        cwd=home,
    )
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(60):
        for number in range(answers + 1):
            while len([*said.split("USD per hour: "), *said.split("at once: "), *said.split("[y/N] ")]) - 3 <= number:
                part = await process.stderr.read(1000)
                assert part, said
                said += part.decode()
            if number < answers:
                os.write(typed, b"1\n")
        process.send_signal(signal.SIGINT)
        said += (await process.stderr.read()).decode()
        await process.wait()
    os.close(typed)
    os.close(terminal)
    return process.returncode, said


@pytest.mark.parametrize("answers", [0, 1])
async def test_an_interrupt_at_a_question_of_install_leaves_nothing(home: Path, answers: int) -> None:
    status, said = await interrupted(home, "install", "cursor", answers=answers)
    assert (status, said.splitlines()[-1]) == (ExitStatus.INTERRUPTED, "Interrupted: nothing was changed.")
    assert not (home / ".cursor").exists()


async def test_an_interrupt_at_the_change_leaves_the_file(home: Path) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text("{}")
    status, said = await interrupted(home, "install", "cursor", "--max-pods", "1", answers=0)
    assert (status, "Traceback" in said) == (ExitStatus.INTERRUPTED, False)
    assert [path.name for path in file.parent.iterdir()] == ["mcp.json"]


async def test_an_interrupt_at_the_question_of_login_ends_it_at_once(home: Path, sandbox: Sandbox) -> None:
    file = home / ".lium" / "config.ini"
    file.parent.mkdir()
    file.write_text("[api]\napi_key = sk_sandbox_other\n")
    async with served(Wire(sandbox)) as wire:
        status, said = await interrupted(home, "login", answers=0, LIUM_BASE_URL=wire.base_url)
        assert wire.sent("POST", "/cli-auth/init") == []
    assert (status, said.splitlines()[-1]) == (ExitStatus.INTERRUPTED, "Interrupted: nothing was changed.")
    assert [path.name for path in file.parent.iterdir()] == ["config.ini"]


def test_an_install_that_came_too_late_leaves_no_copy(lium: Lium, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text("{}")
    real = own_files.keep

    def another_writes_then(target: Path, content: own_files.Content) -> Path:
        copy = real(target, content)
        target.write_text('{"theirs": 1}')
        return copy

    monkeypatch.setattr(own_files, "keep", another_writes_then)
    status, _, err = lium("install", "cursor", "--yes")
    assert (status, "another program has changed it meanwhile" in err) == (ExitStatus.UNUSABLE, True)
    assert {path.name: path.read_text() for path in file.parent.iterdir()} == {"mcp.json": '{"theirs": 1}'}
