"""That each finding of the doctor has a cure which was tried, and that its lines are for the shell that is here."""

import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from lium_mcp.cli import shell_lines
from lium_mcp.cli.checks.findings import Code
from tests.cli.doctor_shell import BY_HAND, CURED, KEY, NOT_RUN, Shell
from tests.processes import ROOT


@pytest.mark.parametrize("mode", [0o000, 0o200])
def test_a_file_that_its_owner_may_not_read_is_opened_by_the_line_that_is_told(tmp_path: Path, mode: int) -> None:
    # Whoever runs the tests may read everything, so the finding itself is of other users.
    file = tmp_path / "it's mine.ini"
    file.touch(mode)
    subprocess.run(["sh", "-c", shell_lines.let_read(file)], check=True)
    assert file.stat().st_mode & 0o400
    folder = tmp_path / "a folder"
    folder.mkdir(0o500)
    subprocess.run(["sh", "-c", shell_lines.let_write(folder)], check=True)
    assert folder.stat().st_mode & 0o700 == 0o700


CURED.update(("saved_file_unreadable", "ssh_key_unreadable", "host_file_unreadable"))


def test_each_finding_that_is_not_well_has_a_cure_that_a_test_has_run() -> None:
    for module in ("test_doctor_cures", "test_doctor_host_cures"):
        import_module(f"tests.cli.{module}")
    tables = [CURED, BY_HAND.keys(), NOT_RUN.keys()]
    assert set().union(*tables) == set(get_args(Code))
    assert sum(map(len, tables)) == len(get_args(Code)), "in one of them"
    source = "".join(
        path.read_text() for path in (ROOT / "lium_mcp" / "cli").rglob("*.py") if path.name != "findings.py"
    )
    assert [code for code in get_args(Code) if f'"{code}"' not in source] == []


POSIX = re.compile(r"\b(export|unset|chmod|mv|mkdir -p|timedatectl) ")
WINDOWS = {
    "a misspelt key": (
        {"LIUM_APIKEY": KEY},
        '$env:LIUM_API_KEY = "$env:LIUM_APIKEY"; Remove-Item Env:LIUM_APIKEY',
    ),
    "a wrong setting": ({"LIUM_MCP_MAX_PODS": "many"}, "Remove-Item Env:LIUM_MCP_MAX_PODS"),
    "a key in quotes": ({"LIUM_API_KEY": "'\"sk_x\"'"}, "Remove-Item Env:LIUM_API_KEY; lium-mcp login"),
    "an SSH key": (
        {"LIUM_SSH_KEY_PATH": "/no'where/key"},
        "New-Item -ItemType Directory -Force '/no''where'; ssh-keygen -t ed25519 -f '/no''where/key'",
    ),
    "a proxy": ({"LIUM_BASE_URL": "https://lium.example/api"}, '$env:NO_PROXY = "$env:NO_PROXY,lium.example"'),
    "the file of keys": (
        {"config.ini": "[api]\n[api]\n"},
        "config.ini.old'; Remove-Item Env:LIUM_API_KEY; lium-mcp login",
    ),
}


@pytest.mark.parametrize("cause", WINDOWS)
async def test_on_windows_the_lines_are_for_powershell(shell: Shell, cause: str) -> None:
    variables, line = WINDOWS[cause]
    shell.variables |= {"LIUM_MCP_TIMEOUT_SECONDS": "1", **variables}
    if "config.ini" in variables:
        path = Path.home() / ".lium" / "config.ini"
        path.parent.mkdir()
        path.write_text(variables["config.ini"])
    lines = [one["run"] for one in await shell.look_on_windows() if one["run"]]
    assert any(line in one for one in lines), lines
    assert not [one for one in lines if POSIX.search(one)]


def test_one_file_alone_has_lines_for_a_shell() -> None:
    files = [path for path in (ROOT / "lium_mcp" / "cli").rglob("*.py") if path.name != "shell_lines.py"]
    assert {path.name: found[0] for path in files if (found := POSIX.search(path.read_text()))} == {}
