"""Installing into files as they are found: whose they are, how they were written, and what breaks off meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.main import main

Lium = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    home = tmp_path / "person"
    (home / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(home / "bin"))
    monkeypatch.chdir(home / "project")
    return home


@pytest.fixture
def lium(capsys: pytest.CaptureFixture[str]) -> Lium:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        return status, *capsys.readouterr()

    return run


def test_who_puts_a_path_of_this_machine_into_a_projects_file_is_told(lium: Lium) -> None:
    status, _, err = lium("install", "cursor", "--yes", "--scope", "project")
    assert status == ExitStatus.OK
    assert "its command is a path of this machine: /" in err
    assert "let each install it for themselves (lium-mcp install cursor)" in err
    assert "path of this machine" not in lium("install", "cursor", "--yes")[2]
    address = ("--http", "https://gpu.example.com/mcp")
    assert "path of this machine" not in lium("install", "codex", "--yes", "--scope", "project", *address)[2]
