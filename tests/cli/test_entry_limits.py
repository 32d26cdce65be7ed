"""Whose limits hold: what an agent uses has those of its entry, and not those of the shell in which a person looks."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.cli.doctor_shell import KEY
from tests.cli.test_doctor_hosts import ours, put
from tests.http_server import serving
from tests.processes import run
from tests.wires import Wire, served

NONE = "Cursor (lium) has no limits: an agent may spend the whole balance."


@pytest.fixture
async def here(sandbox: Sandbox) -> AsyncIterator[dict[str, str]]:
    """What a shell sets in which all is well."""
    async with served(Wire(sandbox)) as wire:
        yield {"LIUM_API_KEY": KEY, "LIUM_BASE_URL": wire.base_url, "HTTPS_PROXY": "http://127.0.0.1:9"}


async def doctor(*options: str, **variables: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status, and what is found that is of limits."""
    status, out, err = await run("doctor", "--json", *options, **variables)
    assert err == ""
    found = json.loads(out)["findings"]
    return status, [one for one in found if one["area"] == "limits" or " limits" in one["what"]]


async def test_an_entry_without_limits_is_worth_a_look_whatever_the_shell_sets(here: dict[str, str]) -> None:
    put({"lium": ours()})
    status, found = await doctor(**here, LIUM_MCP_MAX_PODS="3", LIUM_MCP_READ_ONLY="1", LIUM_MCP_SANDBOX="0")
    assert status == 1
    *of_shell, of_entry = found
    assert [one["what"] for one in of_shell] == [
        "These are of this shell; what each host starts has its own: see hosts, below.",
        "max_pods: 3, 0 used, 3 left",
    ]
    assert (of_entry["area"], of_entry["level"], of_entry["code"]) == ("hosts", "warning", "entry_limits_none")
    reached = "LIUM_MCP_MAX_PODS of this shell reaches Cursor only where that is started from it."
    assert of_entry["what"] == f"{NONE} {reached}"
    assert of_entry["run"].startswith("lium-mcp install cursor --max-price-per-hour-usd 3 --max-pods 2 ")
    entry = ours(LIUM_API_KEY=KEY, LIUM_BASE_URL=here["LIUM_BASE_URL"])
    desktop = put({"lium": entry}, Path(".config/Claude/claude_desktop_config.json"))
    assert "LIUM_MCP_MAX_PODS of this shell does not reach what Claude Desktop starts." in str(
        await doctor(**here, LIUM_MCP_MAX_PODS="3")
    )
    several = await doctor(**here, LIUM_MCP_MAX_PODS="3", LIUM_MCP_BUDGET_USD="9")
    assert "LIUM_MCP_MAX_PODS, LIUM_MCP_BUDGET_USD of this shell reach Cursor only where that" in str(several)
    desktop.unlink()
    _, text, _ = await run("doctor", **here)
    assert f"  look    {NONE}\n          -> put limits into the entry" in text


async def test_the_limits_of_each_entry_are_told_and_a_shell_needs_none_beside(here: dict[str, str]) -> None:
    put({"lium": ours("--max-price-per-hour-usd", "2.5", "--budget-usd=50", LIUM_MCP_MAX_PODS="2")})
    put({"lium": ours(LIUM_MCP_MAX_HOURS="12")}, Path(".codeium/windsurf/mcp_config.json"))
    status, found = await doctor(**here)
    assert [one["what"] for one in found] == [
        "This shell sets none; what each host starts has its own, or none: see hosts, below.",
        "Cursor (lium) has limits: max_price_per_hour_usd: 2.5, max_pods: 2, budget_usd: 50.",
        "Windsurf (lium) has limits: max_hours: 12.",
    ]
    assert status == 0, found


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (ours("--sandbox"), []),
        (ours(LIUM_MCP_SANDBOX="true"), []),
        (ours("--sandbox", "--max-pods", "2"), ["Cursor (lium) has limits: max_pods: 2."]),
        (ours("--read-only"), ["Cursor (lium) only reads, so it needs no limits."]),
        (ours("--toolsets", "marketplace"), ["Cursor (lium) only reads, so it needs no limits."]),
    ],
    ids=["sandbox", "sandbox by a variable", "sandbox with limits", "reads", "reads by its toolsets"],
)
async def test_what_can_spend_nothing_needs_no_limits(
    here: dict[str, str], entry: dict[str, Any], said: list[str]
) -> None:
    put({"lium": entry})
    status, found = await doctor(**here)
    assert (status, [one["what"] for one in found if one["area"] == "hosts"]) == (0, said)


async def test_where_hosts_use_the_sandbox_alone_it_is_said_how_to_look_at_that(here: dict[str, str]) -> None:
    put({"lium": ours("--sandbox")})
    _, text, _ = await run("doctor", **here)
    assert "looked at by lium-mcp doctor --sandbox." in text
    assert "looked at by" not in (await run("doctor", "--sandbox"))[1]


async def test_limits_that_refuse_nothing_and_those_of_another_name_are_mended_in_the_entry(
    here: dict[str, str],
) -> None:
    file = put({"lium": ours("--max-pods", "2", LIUM_MCP_POLICY_MODE="shadow")})
    status, [_, found] = await doctor(**here)
    assert (status, found["what"], found["run"]) == (1, "The limits of Cursor (lium) refuse nothing.", "")
    assert f"take the mode shadow out of lium in {file}" in found["cure"]
    put({"gpus": ours()})
    status, [_, found] = await doctor(**here)
    assert (status, found["run"]) == (1, "")
    assert found["cure"].endswith(f" and LIUM_MCP_BUDGET_USD of gpus in {file}")


async def test_at_an_address_the_limits_are_those_of_its_server(here: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path, LIUM_BASE_URL=here["LIUM_BASE_URL"]) as server:
        put({"lium": {"url": f"{server.url}/mcp", "headers": {"X-API-Key": KEY}}})
        status, [*_, found] = await doctor(**here, LIUM_MCP_MAX_PODS="3")
        assert (status, found["what"], found["run"]) == (1, NONE, "")
        assert found["cure"].startswith("where that server runs, set LIUM_MCP_MAX_PRICE_PER_HOUR_USD, ")


async def test_of_what_was_not_tried_the_limits_are_not_known(
    here: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put({"lium": ours()}, tmp_path / ".cursor" / "mcp.json")
    status, [_, found] = await doctor(**here)
    assert (status, found["level"], found["code"]) == (0, "untried", "entry_of_project")
    assert "which was not tried, nor its limits" in found["what"]
    status, [_, found] = await doctor("--try-project", **here)
    assert (status, found["code"]) == (1, "entry_limits_none")
    assert found["run"].startswith("lium-mcp install cursor --scope project --max-price-per-hour-usd 3 ")


@pytest.mark.parametrize("command", [["policy", "explain"], ["status"]], ids=" ".join)
async def test_what_a_shell_shows_says_so_where_hosts_have_other_limits(
    here: dict[str, str], command: list[str]
) -> None:
    path = Path(".codeium/windsurf/mcp_config.json")
    put({"lium": ours("--max-pods", "2")})
    put({"lium": ours("--max-pods", "3.0", "--sandbox")}, path)
    _, same, _ = await run(*command, "--max-pods", "2", **here)
    assert "What hosts start" not in same
    _, other, _ = await run(*command, **here)
    assert "\nSo it is in this shell. What hosts start has other limits: Cursor (lium). lium-mcp doctor" in other
    put({"lium": ours()}, path)
    _, both, _ = await run(*command, "--max-pods", "1", **here)
    assert "has other limits: Cursor (lium); none: Windsurf (lium). lium-mcp doctor shows each.\n" in both
    put({"lium": {"url": "https://gpu.example.com/mcp"}})
    put({"lium": ours() | {"disabled": True}}, path)
    assert "What hosts start" not in (await run(*command, "--max-pods", "1", **here))[1]


@pytest.mark.parametrize("named", ["a policy file", "a file that is not there"])
async def test_a_policy_file_of_an_entry_counts(here: dict[str, str], tmp_path: Path, named: str) -> None:
    file = tmp_path / "policy.toml"
    if named == "a policy file":
        file.write_text("max_pods = 2\n")
    put({"lium": ours("--policy", str(file))})
    _, text, _ = await run("policy", "explain", **here)
    assert ("What hosts start has other limits: Cursor (lium)." in text) == (named == "a policy file")
    _, same, _ = await run("policy", "explain", "--max-pods", "2", **here)
    assert "What hosts start" not in same


async def test_a_folder_that_may_not_be_read_hides_nothing_else(here: dict[str, str]) -> None:
    (Path.home() / ".cursor").mkdir()
    (Path.home() / ".cursor" / "mcp.json").symlink_to("mcp.json")
    put({"lium": ours("--max-pods", "2")}, Path(".codeium/windsurf/mcp_config.json"))
    status, text, _ = await run("policy", "explain", **here)
    assert (status, "What hosts start has other limits: Windsurf (lium)." in text) == (0, True)
