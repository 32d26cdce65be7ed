"""How `lium-mcp doctor` tries what hosts start and call: side by side, within a time, and with nothing left behind."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.http_server import serving
from tests.processes import ROOT, environment, run, start
from tests.wires import Wire, served

KEY = "sk_sandbox"
Finding = dict[str, str]


@pytest.fixture
async def lium(sandbox: Sandbox) -> AsyncIterator[Wire]:
    async with served(Wire(sandbox)) as wire:
        yield wire


async def look(*options: str, project: Path = ROOT, **variables: str) -> tuple[int, list[Finding]]:
    """The exit status, and what is found of hosts from this folder."""
    well = {"LIUM_MCP_MAX_PODS": "3", "HTTPS_PROXY": "http://127.0.0.1:9"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lium_mcp", "doctor", "--sandbox", "--json", *options),
        env=environment(**well | variables),
        cwd=project,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert err == b""
    assert process.returncode is not None
    return process.returncode, [one for one in json.loads(out)["findings"] if one["area"] == "hosts"]


def put(entries: dict[str, dict[str, Any]], file: Path = Path(".cursor/mcp.json"), servers: str = "mcpServers") -> Path:
    path = Path.home() / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({servers: entries}))
    return path


def ours(*options: str, **env: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-m", "lium_mcp", *options], "env": {"PYTHONPATH": str(ROOT), **env}}


def hanging(folder: Path, *, leaves: bool = False) -> dict[str, Any]:
    """An entry whose program says nothing, and perhaps starts one in a session of its own."""
    child = f"setsid sh -c 'echo $$ >> {folder}/left; sleep 300' &\n" if leaves else ""
    script = folder / "lium-mcp"
    script.write_text(f"#!/bin/sh\necho $$ >> {folder}/left\n{child}exec sleep 300\n")
    script.chmod(0o755)
    return {"command": str(script)}


def living(folder: Path) -> list[int]:
    """Those that were started and still do something; one that has ended may wait for whoever took it over."""
    started = [Path(f"/proc/{pid}/cmdline") for pid in (folder / "left").read_text().split()]
    return [int(path.parent.name) for path in started if path.exists() and path.read_bytes()]


async def test_entries_that_hang_are_tried_side_by_side_and_nothing_of_them_is_left(tmp_path: Path) -> None:
    put({f"gpu{number}": hanging(tmp_path, leaves=True) for number in range(4)})
    began = time.monotonic()
    status, found = await look()
    assert time.monotonic() - began < 40, "and not four times ten seconds"
    assert status == 2
    assert sum("it did not answer within 10 seconds" in one["what"] for one in found) == 4
    assert len((tmp_path / "left").read_text().split()) == 8, "the programs, and what each has started"
    assert living(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_doctor_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    put({"lium": hanging(tmp_path, leaves=True)})
    process = await start("doctor", "--sandbox")
    async with asyncio.timeout(60):
        while not (tmp_path / "left").exists() or len((tmp_path / "left").read_text().split()) < 2:  # noqa: ASYNC110 - it and its child
            await asyncio.sleep(0.02)
        process.send_signal(number)
        out, _ = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert living(tmp_path) == []


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_an_entry_at_an_address_is_tried_as_its_host_would(lium: Wire, tmp_path: Path, path: str) -> None:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_MAX_PODS="3") as server:
        url = f"{server.url}{path}"
        file = put({"lium": {"url": url, "headers": {"X-API-Key": "${env:MY_KEY}"}}})
        status, [found, limits] = await look(MY_KEY=KEY)
        assert (status, found["level"], limits["what"]) == (0, "ok", "Cursor (lium) has limits: max_pods: 3."), found
        assert found["what"].startswith(f"Cursor (lium) calls {url}, which lists ")
        status, [found, _] = await look(MY_KEY="sk_wrong")
        assert (status, found["level"]) == (1, "warning"), found
        assert found["cure"] == f"put a key that Lium takes into the header X-API-Key of lium in {file}"
        put({"lium": {"url": f"{server.url}/elsewhere"}})
        _, [found] = await look()
        assert (found["level"], "HTTP 404" in found["what"]) == ("broken", True), found
        assert f"correct the address of lium in {file}" in found["cure"]
    put({"lium": {"url": url}})
    _, [found] = await look()
    assert (found["level"], "no connection could be made" in found["what"]) == ("broken", True), found
    assert f"or correct the address of lium in {file}" in found["cure"]


async def test_an_entry_whose_key_a_person_is_asked_for_is_right() -> None:
    entry = ours("--max-pods", "2", LIUM_API_KEY="${input:lium_api_key}", LIUM_BASE_URL="http://127.0.0.1:9/api")
    put({"lium": entry}, Path(".config/Code/User/mcp.json"), "servers")
    status, [found, limits] = await look()
    assert (status, found["level"]) == (0, "ok"), found
    assert limits["what"] == "VS Code (lium) has limits: max_pods: 2."
    assert "lists 36 tools" in found["what"]
    assert "VS Code asks you for the key when it starts it" in found["what"]


async def test_what_a_project_names_is_tried_only_where_it_is_trusted(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".cursor").mkdir(parents=True)
    entry = hanging(tmp_path)
    (project / ".cursor" / "mcp.json").write_text(json.dumps({"mcpServers": {"lium": entry}}))
    status, [found] = await look(project=project)
    assert (status, found["level"]) == (0, "untried"), found
    assert found["run"] == "lium-mcp doctor --try-project"
    assert not (tmp_path / "left").exists(), "it was not started"
    status, [found] = await look("--try-project", project=project)
    assert (status, "it did not answer" in found["what"]) == (2, True), found
    assert found["run"] == "lium-mcp install cursor --scope project"


async def test_a_file_that_is_of_the_person_and_of_the_project_is_told_once() -> None:
    put({"lium": ours("--sandbox")})
    put({"lium": ours("--sandbox")}, Path(".vscode/mcp.json"), "servers")
    _, found = await look(project=Path.home())
    assert [(one["level"], one["what"].split(" starts ")[0]) for one in found] == [
        ("ok", "Cursor (lium)"),
        ("untried", "VS Code, in this project (lium)"),
    ]


async def test_an_entry_that_is_switched_off_is_not_started(tmp_path: Path) -> None:
    path = put({"lium": hanging(tmp_path) | {"disabled": True}})
    status, [found] = await look()
    assert (status, found["level"], found["what"]) == (0, "untried", "Cursor (lium) is switched off there.")
    assert f"take lium in {path} out" in found["cure"]
    assert not (tmp_path / "left").exists()


async def test_two_entries_of_ours_and_a_key_of_another_account_are_told(lium: Wire) -> None:
    there = ours("--max-pods", "3", LIUM_API_KEY="sk_sandbox_other", LIUM_BASE_URL=lium.base_url)
    path = put({"lium": there, "gpus": ours("--sandbox")})
    status, out, _ = await run(
        *("doctor", "--json", "--max-pods", "3"), LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, HTTPS_PROXY=""
    )
    wrong = [one for one in json.loads(out)["findings"] if one["level"] not in ("ok", "untried")]
    assert status == 1
    assert [one["cure"] for one in wrong] == [
        f"take all but one of them out of {path}",
        f"take LIUM_API_KEY out of lium in {path}, if that is not meant",
    ]
    assert "uses the key sk_\u2026ther, and not (a short one) as here" in wrong[1]["what"]
    assert "sk_sandbox_other" not in out


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b""])
async def test_a_file_with_a_byte_order_mark_and_behind_a_link_is_read(before: bytes) -> None:
    path = put({"lium": ours("--sandbox")})
    real = path.with_name("real.json")
    real.write_bytes(before + path.read_bytes().replace(b"{", b"{\r\n"))
    path.unlink()
    path.symlink_to(real)
    status, [found] = await look()
    assert (status, found["level"]) == (0, "ok"), found


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("lium-mcp", "cannot use lium in"),
        ({"command": 5}, "cannot use lium in"),
        ({"command": "lium-mcp", "args": "--sandbox"}, "cannot use lium in"),
        ({"command": "/opt/lium-mcp --sandbox"}, "there is no program /opt/lium-mcp --sandbox"),
        ({"url": "lium.example.com/mcp"}, "it begins with neither https:// nor http://"),
    ],
)
async def test_an_entry_that_no_host_could_use_is_told(entry: Any, said: str) -> None:
    path = put({"lium": entry})
    status, [found] = await look()
    assert (status, found["level"]) == (2, "broken"), found
    assert said in found["what"]
    cures = ("lium-mcp install cursor", f"correct the address of lium in {path}")
    assert any(cure in f"{found['cure']} {found['run']}" for cure in cures)


async def test_a_file_with_something_else_in_the_place_of_servers_is_told() -> None:
    path = put({})
    path.write_text('{"mcpServers": []}')
    status, [found] = await look()
    assert (status, "what stands under mcpServers is no table of servers" in found["what"]) == (2, True), found
    assert f"correct {path} in an editor" in found["cure"]


async def test_a_script_whose_python_is_gone_is_told() -> None:
    script = Path.home() / "lium-mcp"
    script.write_text("#!/nowhere/venv/bin/python\n")
    script.chmod(0o755)
    put({"lium": {"command": str(script)}})
    status, [found] = await look()
    assert status == 2
    assert "what its first line names to run it with is not there" in found["what"]
    assert found["run"] == "lium-mcp install cursor"


async def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    put({"lium": ours("--sandbox"), "gpus": ours("--sandbox")})
    read, written = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lium_mcp", "doctor", "--sandbox"),
        env=environment(TERM="xterm"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=written,
    )
    os.close(written)
    await asyncio.wait_for(process.wait(), 60)
    shown = os.read(read, 65_536).decode(errors="replace")
    os.close(read)
    assert "Looking" in shown
    assert re.search("Trying the entries of hosts: [12] of 2", shown)


@pytest.mark.parametrize("name", ["LIUM_MCP_MAX_POD", "LIUM_MAX_PODS", "LIUM_MCP_MAX_PODS"])
async def test_what_this_shell_sets_of_the_server_makes_no_entry_look_broken(lium: Wire, name: str) -> None:
    put({"lium": ours("--max-hours", "12", LIUM_BASE_URL=lium.base_url, LIUM_API_KEY=KEY)})
    _, out, _ = await run("doctor", "--sandbox", "--json", **{name: "2"})
    found, limits, *_ = [one for one in json.loads(out)["findings"] if one["area"] == "hosts"]
    assert (found["level"], limits["what"]) == ("ok", "Cursor (lium) has limits: max_hours: 12."), found
