"""Limits as they are written: one that cannot be read stops the start, and none is ever dropped in silence."""

import re
import sys
from pathlib import Path

import pytest

from lium_mcp.cli.main import main
from lium_mcp.settings_reading import load
from lium_mcp.settings_table import OVER_HTTP, SETTINGS, as_option, is_option
from lium_mcp.values import SettingsError
from tests.processes import run

NUMBERS = ("max_price_per_hour_usd", "max_pods", "max_hours", "max_burn_per_hour_usd", "budget_usd")
NO_NUMBER = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "-0.01",
    "abc",
    "1,5",
    "$3",
    "3 USD",
    "true",
    "None",
    "${X}",
    " ",
    "--3",
    "1_0",
    "0x10",
    "1e1",
    " 1e1 ",
    "\u0661",
)
NO_GPU = ("H100 A100", "H100;A100", "RTX4090 RTX3090", "8x H100", "8xH100", '["H100 A100"]', "any", "NVIDIA", "H100|T4")
LISTS = ("allow_gpu_types", "allow_countries", "allow_templates")

MALFORMED = [
    *((name, value) for name in NUMBERS for value in NO_NUMBER),
    ("max_pods", "2.5"),
    ("max_hours", "0"),
    ("max_hours", "0.05"),
    ("max_hours", "720.1"),
    *((name, value) for name in LISTS for value in (",", " ", " , ,", "[]", '[""]', "[1]", '["US"', "['US']")),
    *(("allow_gpu_types", value) for value in NO_GPU),
    *(
        ("budget_since", value)
        for value in ("yesterday", "2026-02-30", "1/2/2026", "20260101", "0", "2026-01-01T00:00")
    ),
    ("allow_countries", "Germany"),
    ("allow_countries", "DE,USA"),
    ("allow_templates", "pytorch"),
    ("policy_mode", "off"),
    ("policy_mode", "Shadow"),
    ("policy", "${TEAM_POLICY}"),
    ("policy", "/nowhere/policy.toml"),
    ("policy", " "),
    ("confirm", "sometimes"),
    ("confirm", "true"),
    ("state_url", "${STATE}"),
    ("state_url", "mysql://host/db"),
    ("state_url", "sqlite://rentals.db"),
    ("state_url", "sqlite:/rentals.db"),
    ("state_url", "sqlite:///"),
    ("state_url", "postgresql://user:pa@ss@host/db"),
    ("state_url", "postgresql://user:pa/ss@host/db"),
    ("state_url", "postgresql://user:hunter22@host:port/db"),
    ("state_url", "postgresql://user:hunter22@[host/db"),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_value_that_cannot_be_read_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    variable = f"LIUM_MCP_{name.upper()}"
    monkeypatch.setenv(variable, value)
    assert main(["tools"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"lium-mcp: {variable}: ")
    assert not re.search(r"Traceback|hunter22|pa@ss|pa/ss", said.err)


IN_A_FILE = {
    "max_pods = true": "max_pods: true: it takes a whole number from 0 up, in plain digits as 2",
    "max_hours = false": "max_hours",
    "max_hours = 0.05": "max_hours: 0.05: it takes a number from 1 to 720",
    "max_hours = '1e1'": "max_hours",
    "max_pods = '1_0'": "max_pods",
    "max_pods = '0x10'": "max_pods",
    "max_price_per_hour_usd = nan": "max_price_per_hour_usd",
    "max_burn_per_hour_usd = inf": "max_burn_per_hour_usd",
    "budget_usd = -1": "budget_usd",
    "budget_usd = [1]": "budget_usd",
    "max_hours = 10:00:00": "max_hours",
    "budget_since = 0": "budget_since: 0: it takes a day, as 2026-01-31",
    "budget_since = 2026-11-01T10:00:00Z": "budget_since",
    "allow_gpu_types = ['']": "allow_gpu_types: it names nothing",
    "allow_countries = []": "allow_countries: it names nothing",
    "allow_countries = ''": "allow_countries: it names nothing",
    "allow_gpu_types = [1]": "allow_gpu_types",
    "allow_gpu_types = ['H100', 'H100 A100']": "allow_gpu_types: H100 A100: it takes types of GPUs, as H100 or RTX4090",
    "allow_countries = 3": "allow_countries",
    "allow_templates = {a = 1}": "allow_templates",
    "mode = 'off'": "mode: off: it takes enforce or shadow",
    "max_price = 1": "max_price: there is no such key; max_price_per_hour_usd is one",  # a name that is nearly right
    "MAX_PODS = 1": "MAX_PODS: there is no such key; max_pods is one",
    "[limits]\nmax_pods = 1": "limits",
    "": "sets no limit",
    "# max_pods = 2\nmode = 'shadow'": "sets no limit",
    "max_pods = 1\nmax_pods = 2": "is not TOML",
    "max_pods =": "is not TOML",
    "max_pods = 1 # \x00": "is not TOML",
    "x" * (2**20 + 1): "larger than",
}


@pytest.mark.parametrize("text", IN_A_FILE, ids=lambda text: text[:40])
def test_a_file_that_cannot_be_read_stops_the_start(capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = Path.home() / "policy.toml"
    path.write_text(text)
    assert main(["policy", "explain", "--policy", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("lium-mcp: --policy: ")
    assert str(path) in said.err
    assert IN_A_FILE[text] in said.err


@pytest.mark.parametrize("kind", ["a directory", "not UTF-8", "not readable"])
def test_a_file_that_is_none_stops_the_start(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = Path.home() / "policy.toml"
    if kind == "a directory":
        path.mkdir()
    if kind == "not UTF-8":
        path.write_bytes(b"max_pods = 1 # \xff")
    if kind == "not readable":
        path.symlink_to(path)  # permissions do not stop a superuser
    assert main(["policy", "explain", "--policy", str(path)]) == 2
    assert "--policy: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        ([], {"LIUM_MCP_MAX_PODS": "many"}, "LIUM_MCP_MAX_PODS"),
        (["--max-hours", "nan"], {}, "--max-hours: "),
        (["--max-price", "1"], {}, "--max-price"),  # the beginning of an option is not that option
        (["--policy", "/nowhere.toml"], {}, "--policy: "),
    ],
)
async def test_the_program_ends_with_status_2(arguments: list[str], environment: dict[str, str], named: str) -> None:
    status, out, err = await run("serve", *arguments, **environment)
    assert (status, out) == (2, "")
    assert named in err
    assert "Traceback" not in err


@pytest.mark.parametrize("blank", ["", "  ", '""'])
@pytest.mark.parametrize("name", [name for name in SETTINGS if is_option(name)])
def test_what_is_left_empty_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, blank: str
) -> None:
    """Hosts and shells set to nothing what they know no value for, which must not be any value at all."""
    variable, said = SETTINGS[name].variable, "it is empty; give it a value or leave it out"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    over_http = ["--transport", "http"] if name in OVER_HTTP else []
    if SETTINGS[name].kind != "flag":
        assert main([*over_http, as_option(name), blank]) == 2
        assert capsys.readouterr() == ("", f"lium-mcp: {as_option(name)}: {said}\n")
    monkeypatch.setenv(variable, blank)
    assert main(over_http) == 2
    assert capsys.readouterr() == ("", f"lium-mcp: {variable}: {said}\n")


SHADOW = "mode = 'shadow'\nmax_hours = 1"


@pytest.mark.parametrize("settings", [{"max_pods": "1"}, {"policy_mode": "enforce"}])
def test_a_file_in_shadow_mode_does_not_loosen_the_settings(settings: dict[str, str]) -> None:
    path = Path.home() / "policy.toml"
    path.write_text(SHADOW)
    with pytest.raises(SettingsError, match="LIUM_MCP_POLICY_MODE=shadow"):
        load(settings | {"policy": str(path)}).find_limits()


@pytest.mark.parametrize(
    ("settings", "written", "mode"),
    [
        ({}, SHADOW, "shadow"),
        ({"max_pods": "1", "policy_mode": "shadow"}, SHADOW, "shadow"),
        ({"max_pods": "1", "policy_mode": "shadow"}, "mode = 'enforce'\nmax_hours = 1", "enforce"),
        ({"max_pods": "1", "policy_mode": "shadow"}, "max_hours = 1", "shadow"),
    ],
)
def test_of_two_modes_the_stricter_holds(settings: dict[str, str], written: str, mode: str) -> None:
    path = Path.home() / "policy.toml"
    path.write_text(written)
    assert load(settings | {"policy": str(path)}).find_limits()[1] == mode


def test_a_first_day_without_a_budget_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="LIUM_MCP_BUDGET_USD is missing"):
        load({"budget_since": "2026-11-01"}).find_limits()


@pytest.mark.parametrize(
    ("settings", "written", "since"),
    [
        ({"budget_usd": "5"}, "budget_usd = 3", None),
        ({"budget_usd": "5", "budget_since": "2026-11-01"}, "budget_usd = 3\nbudget_since = 2026-10-01", "2026-10-01"),
        ({"budget_usd": "5", "budget_since": "2026-11-01"}, "max_pods = 1", "2026-11-01"),
        ({}, "budget_usd = 3\nbudget_since = '2026-10-01'", "2026-10-01"),
        ({"budget_since": "2026-11-01"}, "budget_usd = 3\nbudget_since = 2026-10-01", "2026-10-01"),
    ],
)
def test_of_two_budgets_the_longer_period_holds(settings: dict[str, str], written: str, since: str | None) -> None:
    path = Path.home() / "policy.toml"
    path.write_text(written)
    limits, _ = load(settings | {"policy": str(path)}).find_limits()
    assert (limits.budget_since and limits.budget_since.isoformat()) == since
    assert limits.budget_usd == (3 if "budget_usd" in written else 5)


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({"budget_usd": "5"}, "budget_usd = 30\nbudget_since = 2026-11-20"),
        ({"budget_usd": "5", "budget_since": "2026-11-20"}, "budget_usd = 3"),
        ({"budget_since": "2026-11-20"}, "budget_usd = 3"),
    ],
)
def test_a_first_day_never_loosens_the_other_budget(settings: dict[str, str], written: str) -> None:
    path = Path.home() / "policy.toml"
    path.write_text(written)
    with pytest.raises(SettingsError, match="budget_since"):
        load(settings | {"policy": str(path)}).find_limits()
