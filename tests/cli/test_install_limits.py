"""`lium-mcp install` offers limits wherever an agent could else spend all, and says what of an entry stays and goes."""

import json
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.cli.exit_statuses import ExitStatus
from tests.cli.at_terminal import at_a_terminal
from tests.cli.conftest import Lium

OFFERED = "Most that one pod may cost"
UNBOUNDED = (
    "The entry has no limits: an agent may spend the whole balance. To set some, for instance: lium-mcp install "
)


def entry_of(home: Path) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads((home / ".cursor" / "mcp.json").read_text())["mcpServers"]["lium"]
    return entry


async def test_at_a_terminal_the_limits_are_offered_and_the_change_is_asked_about(home: Path) -> None:
    status, out = await at_a_terminal(home, "3\nmany\n2\n\n50\ny\n", "install", "cursor")
    assert status == ExitStatus.OK
    entry = json.loads((home / ".cursor" / "mcp.json").read_text())["mcpServers"]["lium"]
    limits = {name: value for name, value in entry["env"].items() if name != "LIUM_API_KEY"}
    assert limits == {
        "LIUM_MCP_MAX_PRICE_PER_HOUR_USD": "3",
        "LIUM_MCP_MAX_PODS": "2",
        "LIUM_MCP_BUDGET_USD": "50",
    }
    assert "--max-pods: many: it takes a whole number" in out
    assert "Make this change?" in out


@pytest.mark.parametrize(
    "earlier", [["--sandbox"], [], ["--http", "https://gpu.example.com/mcp"]], ids=["sandbox", "bare", "at an address"]
)
async def test_limits_are_offered_over_an_entry_that_has_none(lium: Lium, home: Path, earlier: list[str]) -> None:
    lium("install", "cursor", "--yes", *earlier)
    status, out = await at_a_terminal(home, "\n4\n\n\ny\n", "install", "cursor")
    assert (status, OFFERED in out) == (ExitStatus.OK, True)
    assert entry_of(home)["env"]["LIUM_MCP_MAX_PODS"] == "4"
    assert UNBOUNDED not in out
    status, out = await at_a_terminal(home, "", "install", "cursor")
    assert (status, OFFERED in out) == (ExitStatus.OK, False), "it has one now"


@pytest.mark.parametrize("words", [["--sandbox"], ["--read-only"], ["--max-pods", "2"]], ids=" ".join)
async def test_limits_are_not_offered_where_none_are_needed(home: Path, words: list[str]) -> None:
    status, out = await at_a_terminal(home, "y\n", "install", "cursor", *words)
    assert (status, OFFERED in out, UNBOUNDED in out) == (ExitStatus.OK, False, False)


async def test_who_sets_no_limits_is_told_what_that_means(lium: Lium, home: Path) -> None:
    status, out = await at_a_terminal(home, "\n\n\n\ny\n", "install", "cursor")
    assert (status, f"{UNBOUNDED}cursor --max-price-per-hour-usd 3 " in out) == (ExitStatus.OK, True)
    (home / ".config" / "zed").mkdir(parents=True)
    (home / ".config" / "zed" / "settings.json").write_text("// mine\n{}\n")
    assert f"{UNBOUNDED}zed --max-price" in lium("install", "zed", "--yes")[1], "what a person writes too"
    told = lium("install", "cursor", "--yes", "--scope", "project")[1]
    assert f"{UNBOUNDED}cursor --scope project --max-price-per-hour-usd 3 " in told
    assert UNBOUNDED not in lium("install", "codex", "--yes", "--http", "https://gpu.example.com/mcp")[1]


def test_a_reinstall_says_what_of_the_entry_it_keeps_and_what_it_drops(lium: Lium, home: Path) -> None:
    lium("install", "cursor", "--yes", "--sandbox", "--read-only", "--max-pods", "2")
    _, out, _ = lium("install", "cursor", "--yes")
    assert "Kept from the entry that is there: --read-only, --max-pods 2.\n" in out
    assert "Dropped from it: --sandbox. What an agent rents then costs real money.\n" in out
    assert entry_of(home)["args"] == []
    _, out, _ = lium("install", "cursor", "--yes", "--http", "https://gpu.example.com/mcp")
    assert "Kept" not in out
    assert "Dropped from it: --read-only, --max-pods 2.\n" in out
    assert "Kept" not in lium("install", "codex", "--yes", "--max-pods", "2")[1], "there was none"


@pytest.mark.parametrize("variables", [{"LIUM_MCP_SANDBOX": "true"}, {"LIUM_MCP_SANDBOX": "1", "LIUM_API_KEY": "sk_x"}])
async def test_a_sandbox_that_a_variable_names_is_dropped_as_its_option_is(
    lium: Lium, home: Path, variables: dict[str, str]
) -> None:
    lium("install", "cursor", "--yes", "--sandbox")
    file = home / ".cursor" / "mcp.json"
    entry = {"command": entry_of(home)["command"], "args": [], "env": variables}
    file.write_text(json.dumps({"mcpServers": {"lium": entry}}))
    status, out = await at_a_terminal(home, "\n2\n\n\ny\n", "install", "cursor")
    assert (status, "Dropped from it: --sandbox." in out) == (ExitStatus.OK, True)
    env = entry_of(home)["env"]
    assert (env["LIUM_MCP_MAX_PODS"], "LIUM_MCP_SANDBOX" in env) == ("2", False)


def test_what_may_be_a_secret_is_kept_without_being_shown(lium: Lium, home: Path) -> None:
    lium("install", "cursor", "--yes")
    file = home / ".cursor" / "mcp.json"
    entry = entry_of(home)
    entry["env"]["LIUM_MCP_STATE_URL"] = "postgresql://me:hidden@db/lium"
    entry["args"] = ["--toolsets", "pods,account", "--no-read-only"]
    file.write_text(json.dumps({"mcpServers": {"lium": entry}}))
    _, out, _ = lium("install", "cursor", "--yes", "--max-pods", "1")
    assert "Kept from the entry that is there: --state-url, --toolsets, --no-read-only.\n" in out
    assert entry_of(home)["args"] == ["--toolsets", "pods,account", "--no-read-only"]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"env": {"LIUM_MCP_MAX_POD": "2"}}, "LIUM_MCP_MAX_POD: there is no such setting; LIUM_MCP_MAX_PODS is one"),
        ({"env": {"LIUM_MCP_MAX_PODS": "two"}}, "LIUM_MCP_MAX_PODS: two: it takes a whole number from 0 up"),
        ({"env": {"LIUM_MCP_MAX_PODS": ""}}, "LIUM_MCP_MAX_PODS: "),
        ({"args": ["--max-pod", "2"]}, "--max-pod: there is no such option; --max-pods is one"),
        ({"args": ["--max-pods=two"]}, "--max-pods: two: it takes a whole number from 0 up"),
    ],
    ids=["misspelt", "unreadable", "empty", "misspelt option", "unreadable option"],
)
def test_a_limit_that_the_server_there_cannot_use_is_not_kept_in_silence(
    lium: Lium, home: Path, written: dict[str, Any], problem: str
) -> None:
    lium("install", "cursor", "--yes")
    file = home / ".cursor" / "mcp.json"
    entry = {"command": entry_of(home)["command"], "args": [], "env": {}} | written
    file.write_text(json.dumps({"mcpServers": {"lium": entry}}))
    status, out, err = lium("install", "cursor", "--yes")
    assert (status, out, entry_of(home)) == (ExitStatus.UNUSABLE, "", entry)
    assert problem in err
    assert f"lium in {file}: its server would refuse every call, so nothing was changed: " in err
    status, _, _ = lium("install", "cursor", "--yes", "--max-pods", "2")
    is_set_anew = "no such" not in problem
    assert (status == ExitStatus.OK) == is_set_anew


def test_what_the_host_fills_in_is_left_to_it(lium: Lium, home: Path) -> None:
    lium("install", "cursor", "--yes")
    entry = {"command": entry_of(home)["command"], "args": [], "env": {"LIUM_MCP_MAX_PODS": "${env:MOST}"}}
    (home / ".cursor" / "mcp.json").write_text(json.dumps({"mcpServers": {"lium": entry}}))
    assert lium("install", "cursor", "--yes")[0] == ExitStatus.OK
