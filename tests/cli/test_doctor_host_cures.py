"""What `lium-mcp doctor` says to do about hosts is done here, as in `test_doctor_cures`."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.doctor_shell import Shell, mended, mends, wrong
from tests.processes import ROOT


def put(host_file: str, name: str = "lium", **entry: Any) -> Path:
    file = Path.home() / host_file
    file.parent.mkdir(parents=True, exist_ok=True)
    servers = json.loads(file.read_text())["mcpServers"] if file.exists() else {}
    file.write_text(json.dumps({"mcpServers": {**servers, name: entry}}))
    return file


def ours(*options: str, **env: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-m", "lium_mcp", *options], "env": {"PYTHONPATH": str(ROOT), **env}}


@mends("entry_key_refused")
async def test_an_entry_that_lacks_the_key_alone_is_mended_by_a_login(shell: Shell) -> None:
    base_url = shell.variables["LIUM_BASE_URL"]
    entry = ours("--max-pods", "2", LIUM_BASE_URL=base_url, LIUM_API_KEY="<your Lium API key>")
    put(".codeium/windsurf/mcp_config.json", **entry)
    found = await mended(shell)
    assert "refuses calls: it has no API key." in found["what"]
    assert found["run"] == "unset LIUM_API_KEY; lium-mcp login"


@pytest.mark.parametrize("program", ["/nowhere/venv/bin/lium-mcp", "lium-mcp-of-old", "/nowhere/lium-mcp --sandbox"])
@mends("entry_does_not_start")
async def test_an_entry_whose_program_is_gone_is_written_anew(shell: Shell, program: str) -> None:
    put(".cursor/mcp.json", command=program, args=["--sandbox"])
    [found] = wrong(await shell.look())
    assert f"there is no program {program}" in found["what"]
    assert found["run"] == "lium-mcp install cursor"
    left = wrong(await shell.look(after=found["run"]))
    assert [one["what"] for one in left if "no program" in one["what"]] == []


async def test_an_entry_of_another_name_is_to_be_taken_out_first(shell: Shell) -> None:
    file = put(".cursor/mcp.json", "gpus", command="/nowhere/lium-mcp")
    [found] = wrong(await shell.look())
    assert f"take gpus in {file} out" in found["cure"]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (".cursor/mcp.json", '{"mcpServers": {'),
        (".cursor/mcp.json", '{"mcpServers": {},}'),
        (".config/Code - Insiders/User/mcp.json", "\udc80"),
    ],
)
@mends("host_file_broken")
async def test_the_broken_file_of_a_host_is_put_away(shell: Shell, place: str, text: str) -> None:
    file = Path.home() / place
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    [found] = wrong(await shell.look())
    assert str(file) in found["cure"]
    assert not [one for one in wrong(await shell.look(after=found["run"])) if "cannot be used" in one["what"]]
    assert (file.parent / "mcp.json.old").read_bytes() == text.encode("utf-8", "surrogateescape")


@mends("host_file_is_none")
async def test_a_folder_in_the_place_of_a_hosts_file_is_put_away(shell: Shell) -> None:
    (Path.home() / ".cursor" / "mcp.json").mkdir(parents=True)
    await mended(shell)


@mends("entry_limits_none")
async def test_an_entry_without_limits_gets_some_by_the_command_that_is_told(shell: Shell) -> None:
    file = put(".cursor/mcp.json", **ours(LIUM_BASE_URL=shell.variables["LIUM_BASE_URL"]))
    found = await mended(shell)
    assert (found["level"], found["code"]) == ("warning", "entry_limits_none")
    assert "LIUM_MCP_MAX_PODS of this shell reaches Cursor only where that is started from it" in found["what"]
    assert "LIUM_MCP_BUDGET_USD" in file.read_text()


@mends("entry_of_project")
async def test_what_a_project_names_is_tried_by_the_command_that_is_told(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"mcpServers": {"lium": ours(LIUM_BASE_URL=shell.variables["LIUM_BASE_URL"])}}))
    [found] = [one for one in await shell.look() if one["code"] == "entry_of_project"]
    assert (found["level"], found["run"]) == ("untried", "lium-mcp doctor --try-project")
    assert "entry_of_project" not in {one["code"] for one in await shell.look("--try-project")}
    shell.mended.add("entry_of_project")


@mends("entry_key_refused")
async def test_where_the_saved_key_is_refused_it_is_that_which_is_replaced(shell: Shell) -> None:
    del shell.variables["LIUM_API_KEY"]
    saved = Path.home() / ".lium" / "config.ini"
    saved.parent.mkdir(mode=0o700)
    saved.write_text("[api]\napi_key = sk_of_old_and_refused\n")
    saved.chmod(0o600)
    base_url = shell.variables["LIUM_BASE_URL"]
    entry = ours("--max-pods", "2", LIUM_BASE_URL=base_url, LIUM_API_KEY="<your Lium API key>")
    file = put(".cursor/mcp.json", **entry)
    [found] = [one for one in wrong(await shell.look()) if one["code"] == "entry_key_refused"]
    assert found["cure"].startswith(f"log in anew, in the place of the key saved in {saved}, or set LIUM_API_KEY of ")
    assert wrong(await shell.look(after=found["run"])) == []
    assert "<your Lium API key>" in file.read_text()
