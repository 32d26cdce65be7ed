from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lium_mcp.cli.main import main
from lium_mcp.sandbox import Sandbox
from tests.cli.doctor_shell import Shell
from tests.wires import Wire, served

Lium = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home with nothing on the PATH; the project is a folder in it."""
    home = tmp_path / "person"
    project = home / "project"
    project.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(home / "bin"))
    monkeypatch.chdir(project)
    return home


@pytest.fixture
def lium(home: Path, capsys: pytest.CaptureFixture[str]) -> Lium:
    """The command; its status, answer and what it says aside."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
async def shell(sandbox: Sandbox) -> AsyncIterator[Shell]:
    async with served(Wire(sandbox)) as wire:
        yield Shell(wire.base_url)
