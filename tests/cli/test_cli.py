"""The command line as a person or a host meets it: as a process."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from typing import get_args

import httpx2
import pytest

from lium_mcp import __version__
from lium_mcp.cli.main import main
from lium_mcp.settings import Settings, ToolsetName
from lium_mcp.settings_table import SETTINGS, as_option, is_option
from tests.processes import environment, run, start

COMMANDS = [
    *([name] for name in ("serve", "tools", "login", "logout", "install", "uninstall", "demo", "sandbox", "templates")),
    *([name] for name in ("rentals", "doctor", "status", "policy")),
    *(["templates", "sync"], ["rentals", "close"], ["policy", "explain"]),
]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run with arguments that argparse refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdin, "isatty", lambda: True)
        assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, "a line, and not all that there is"
    return said.err


def test_help_names_every_command_and_every_setting_but_no_place_for_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in ("serve", "tools", "demo", "sandbox"):
        assert command in text
    for name in Settings.model_fields:
        assert bool(re.search(rf"^  {as_option(name)}\b", text, re.MULTILINE)) == is_option(name)
        assert (f"[{SETTINGS[name].variable}]" in text) == is_option(name)
    assert not {name for name in SETTINGS if is_option(name)} & {"api_key", "server_token", "oauth_keys", "state_keys"}
    assert "LIUM_API_KEY" in text


@pytest.mark.parametrize("words", [["-v"], ["-V"], ["--version"]])
def test_every_way_to_ask_for_the_version(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert (caught.value.code, capsys.readouterr().out) == (0, f"lium-mcp {__version__}\n")


@pytest.mark.parametrize("command", [[], ["install"], ["rentals", "close"]])
def test_help_can_be_asked_for_as_a_command(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    told = []
    for words in (["help", *command], [*command, "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        told.append((caught.value.code, capsys.readouterr().out))
    assert told[0] == told[1]
    assert told[0][1].startswith(f"usage: {' '.join(['lium-mcp', *command])} ")


def test_every_page_of_help_says_what_its_command_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    for words in COMMANDS:
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        usage, said, *_ = capsys.readouterr().out.split("\n\n")
        assert usage.startswith(f"usage: lium-mcp {' '.join(words)}")
        assert said.endswith("."), said
        assert max(map(len, usage.splitlines())) < 70


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--no-such-option",), "--no-such-option"),
        (("no-such-command",), "no-such-command"),
        (("toolz",), "toolz: there is no such command; tools is one"),
        (("--max-pod", "3"), "lium-mcp: --max-pod: there is no such option; --max-pods is one"),
        (("tools", "--reed-only"), "lium-mcp tools: --reed-only: there is no such option; --read-only is one"),
        (("tools", "rent_pod"), "rent_pod: nothing of the kind is expected here; see lium-mcp tools --help"),
        (("rentals", "clos"), "lium-mcp rentals: clos: there is no such command; close is one"),
        (("demo", "--workflow", "jop"), "lium-mcp demo: --workflow: jop: it takes rent or job"),
        (("install", "cursor", "--scope", "team"), "--scope: team: it takes user or project"),
        (("--transport", "tcp"), "--transport: tcp: it takes stdio, http or sse"),
        (("nonsense",), "nonsense: there is no such command; there is serve, tools, login, "),
        (("help", "tols"), "tols: there is no such command; tools is one"),
        (("policy",), "required: explain"),
        (("templates", "sync"), "required: FILE"),
        (("--max-pods", "many"), "lium-mcp: --max-pods: many: it takes a whole number from 0 up, in plain digits as 2"),
        (("--port", "8000"), "lium-mcp: --port: it is for a server over HTTP: add --transport http"),
        (("sandbox", "--port", "http"), "--port"),
        (("sandbox", "--port", "65536"), "--port: 65536: it takes a whole number from 0 to 65535"),
        (("sandbox", "--port", "-1"), "--port: -1: it takes a whole number from 0 to 65535"),
        (("sandbox", "--port", "1.5"), "--port: 1.5: it takes a whole number from 0 to 65535"),
        (("sandbox", "--speed", "nan"), "--speed: nan: it takes a number from 0 to 100000, in plain digits as 2.5"),
        (("sandbox", "--speed", "-1"), "--speed: -1: it takes a number from 0 to 100000"),
        (("sandbox", "--seed", "-1"), "--seed: -1: it takes a whole number from 0 up"),
        (("status", "--watch", "0"), "--watch: 0: it takes a number from 1 to 3600"),
        (("login", "--wait-minutes", "61"), "--wait-minutes: 61: it takes a number from 0.01 to 60"),
        (("sandbox", "--seed", "seven"), "--seed"),
    ],
)
def test_what_the_command_line_does_not_know_is_named(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    assert named in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    "words", [["install"], ["uninstall"], ["templates"], ["templates", "sync"], ["rentals", "close"], ["policy"]]
)
def test_half_a_command_line_is_told_of_options_that_there_are(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    said = refusal(capsys, *words)
    for command, option in re.findall(r"(?:lium-mcp ((?:[a-z]+ )+))?(--[a-z-]+)", said):
        with pytest.raises(SystemExit):
            main([*(command.split() or words), "--help"])
        assert option in capsys.readouterr().out, said


def test_a_key_that_is_mistaken_for_an_option_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--api-key", "sk_secret"], ["--api-key=sk_secret"], ["tools", "sk_secret"]):
        assert "sk_secret" not in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LIUM_MCP_READ_ONLY", "perhaps"),
        ("LIUM_MCP_TIMEOUT_SECONDS", "0"),
        ("LIUM_MCP_TIMEOUT_SECONDS", "nan"),
        ("LIUM_MCP_TIMEOUT_SECONDS", "600"),
        ("LIUM_MCP_TOOLSETS", "podz"),
        ("LIUM_MCP_DENY_TOOLS", "rent_pods"),
        ("LIUM_BASE_URL", "http://lium.io/api"),
        ("LIUM_API_KEY", "sk_secret with a blank"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "serve --transport http", "tools"])
def test_a_setting_that_cannot_be_read_stops_what_a_person_starts_and_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"lium-mcp: {variable}: ")
    assert captured.err.count("\n") == 1
    assert "sk_secret" not in captured.err


def test_all_that_is_wrong_with_the_settings_is_said_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {
        "LIUM_MCP_MAX_POD": "3",
        "LIUM_MCP_PORT": "http",
        "LIUM_MCP_STATE_URL": "mysql://there",
        "LIUM_BASE_URL": "ftp://lium.io",
        "LIUM_MCP_DENY_TOOLS": "rent_pods",
        "LIUM_MCP_POLICY": "/no/such/policy.toml",
        "LIUM_MCP_AUDIT_FILE": "/no/such/audit.jsonl",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    assert main(["tools"]) == 2
    said = capsys.readouterr().err
    assert [said.count(f"{name}: ") for name in wrong] == [1] * len(wrong)


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    assert main(["tools", *arguments]) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()
    rows = lines[: lines.index("")]
    [total] = [line for line in lines if " tokens in " in line]
    assert f"{sum(int(row.split()[3]) for row in rows)} tokens in {len(rows)} tools" in total
    return {row.split()[1] for row in rows}


def test_an_option_says_the_same_as_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [
        ("LIUM_MCP_READ_ONLY", "true", ["--read-only"]),
        ("LIUM_MCP_TOOLSETS", "account,clusters", ["--toolsets", "account,clusters"]),
        ("LIUM_MCP_ALLOW_TOOLS", "list_pods, rent_pod", ["--allow-tools", "list_pods, rent_pod"]),
        ("LIUM_MCP_DENY_TOOLS", "rent_pod", ["--deny-tools", "rent_pod"]),
    ]
    seen = [listed(capsys)]
    for variable, value, option in pairs:
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            by_variable = listed(capsys)
        assert listed(capsys, *option) == by_variable
        assert by_variable not in seen, "the setting did something"
        seen.append(by_variable)
    monkeypatch.setenv("LIUM_MCP_READ_ONLY", "true")
    assert listed(capsys, "--no-read-only") == seen[0], "the command line wins"


def test_every_toolset_can_be_chosen_by_itself_and_is_named_with_its_tools(capsys: pytest.CaptureFixture[str]) -> None:
    for toolset in get_args(ToolsetName):
        assert main(["tools", "--toolsets", toolset]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {row.split()[0] for row in lines[2 : lines.index("")]} == {toolset}


def test_tools_say_their_effect_and_why_one_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "--json", "--deny-tools", "list_pods"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: rows[name]["effect"] for name in ("list_gpus", "rent_pod", "remove_pod")} == {
        "list_gpus": "reads",
        "rent_pod": "changes",
        "remove_pod": "destroys",
    }
    assert rows["list_gpus"]["offered"]
    assert "off_because" not in rows["list_gpus"]
    assert rows["list_pods"]["off_because"] == "denied by --deny-tools"
    assert "clusters" in rows["rent_cluster"]["off_because"]
    assert main(["tools", "--read-only"]) == 0
    [off] = [line for line in capsys.readouterr().out.splitlines() if "--read-only" in line]
    assert "rent_pod" in off
    assert "list_pods" not in off


@pytest.mark.parametrize("command", [["tools"], ["rentals"], ["policy", "explain"], ["rentals", "close"]])
def test_a_command_shows_its_own_options_alone(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert "--port" not in text
    assert ("--max-pods" in text) == ("policy" in command)
    assert ("--state-url" in text) == ("tools" not in command)


@pytest.mark.parametrize("settings", [{"LC_ALL": "C"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"COLUMNS": "40"}])
async def test_a_list_can_be_read_in_any_surroundings(settings: dict[str, str]) -> None:
    status, out, err = await run("tools", "--toolsets", "account", **settings)
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert {"get_balance", "get_spending"} <= set(out.split())
    assert out.isascii() == ("LC_ALL" in settings)


async def test_a_server_that_a_person_starts_says_what_it_waits_for() -> None:
    read, written = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lium_mcp",
        "--sandbox",
        stdin=written,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        said = (await process.stderr.readline()).decode()
    process.terminate()
    await process.wait()
    os.close(read)
    os.close(written)
    assert "waits for an MCP host" in said
    assert "lium-mcp demo" in said


async def test_the_module_runs_as_the_command_does() -> None:
    assert await run("--version") == (0, f"lium-mcp {__version__}\n", "")


def test_a_closed_pipe_ends_the_list_without_a_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lium_mcp", "tools"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(30) == 141


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_sandbox_announces_itself_serves_and_stops_on_a_signal(number: signal.Signals) -> None:
    process = await start("sandbox", "--port", "0", "--seed", "3")
    assert process.stderr is not None
    announced = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
    base_url = announced.split()[-1]
    use = (await process.stderr.readline()).decode()
    assert f"LIUM_BASE_URL={base_url} LIUM_API_KEY=sk_sandbox" in use
    controls = re.search(r"http://\S+/_sandbox/", (await process.stderr.readline()).decode())
    assert controls
    async with httpx2.AsyncClient(verify=False, headers={"X-API-Key": "sk_sandbox"}) as client:
        assert (await client.get(f"{base_url}/executors")).json()
        assert (await client.get(f"{base_url}/pods")).json() == []
        assert "GET /_sandbox/state" in (await client.get(controls[0])).json()
        process.send_signal(number)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    assert process.returncode == 0
    assert out == b""
    assert b"Traceback" not in err


async def test_a_rough_sandbox_has_the_rough_market() -> None:
    process = await start("sandbox", "--port", "0", "--rough")
    assert process.stderr is not None
    base_url = (await asyncio.wait_for(process.stderr.readline(), 60)).decode().split()[-1]
    async with httpx2.AsyncClient(verify=False, headers={"X-API-Key": "sk_sandbox_own"}) as client:
        assert "NVIDIA H20" in {row["name"] for row in (await client.get(f"{base_url}/machines")).json()}
    process.terminate()
    await process.communicate()


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = await run("sandbox", "--port", str(port))
    assert status == 1
    assert out == ""
    assert err == f"lium-mcp: cannot listen at port {port}: Address already in use\n"
