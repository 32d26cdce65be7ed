"""The server's instructions promise no tool that it does not offer."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.instructions import MOST_CHARACTERS
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.tools.catalog import TOOLSETS

TOOLS = {spec.name for toolset in TOOLSETS for spec in toolset.specs}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(read_only=True),
        Settings(toolsets=frozenset({"account"})),
        Settings(deny_tools=frozenset({"rent_pod", "remove_pod"})),
        Settings(toolsets=frozenset(toolset.name for toolset in TOOLSETS)),
        Settings(
            toolsets=frozenset(toolset.name for toolset in TOOLSETS),
            max_price_per_hour_usd=123456789.25,
            max_pods=10**9,
            max_hours=719.5,
            max_burn_per_hour_usd=123456789.25,
            budget_usd=123456789.25,
            budget_since=date(2026, 1, 31),
            allow_gpu_types=frozenset(f"RTX40{number}" for number in range(10, 99)),
            allow_countries=frozenset({"US", "DE", "FR", "NL", "FI", "SE"}),
            allow_templates=frozenset(f"{number:08d}-0000-4000-8000-000000000000" for number in range(99)),
        ),
    ],
)
async def test_only_offered_tools_are_named_within_the_length(settings: Settings) -> None:
    server = build_server(settings)
    offered = {tool.name for tool in await server.list_tools()}
    text = server.instructions or ""
    assert 0 < len(text) <= MOST_CHARACTERS
    named = set(re.findall(r"[a-z]+(?:_[a-z]+)+", text)) & TOOLS
    assert named <= offered
    assert ("only reads" in text) == ("rent_pod" not in offered and "remove_pod" not in offered)


def said(**settings: Any) -> str:
    text = build_server(Settings(**settings)).instructions or ""
    return "".join(line for line in text.splitlines() if line.startswith("Limits"))


def test_the_limits_in_force_are_named_with_their_figures() -> None:
    assert said() == ""
    assert said(max_pods=2, max_price_per_hour_usd=2.5, budget_usd=100) == (
        "Limits that no call can change: $2.5 an hour for a pod, 2 pods, $100 spent a month; get_balance shows what is "
        "left."
    )
    lists = {"allow_gpu_types": "H100,A100", "allow_templates": "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"}
    assert said(max_hours=24, budget_usd=100, budget_since="2026-01-31", deny_tools="get_balance", **lists) == (
        "Limits that no call can change: 24 hours of a pod's life, $100 spent since 2026-01-31, only GPU types A100 "
        "H100, only templates of a list of 1."
    )


def test_limits_that_refuse_nothing_are_not_named(tmp_path: Path) -> None:
    assert said(max_pods=2, policy_mode="shadow") == ""
    assert said(max_pods=2, read_only=True) == ""
    policy = tmp_path / "policy.toml"
    policy.write_text("max_pods = 1\nmax_hours = 8\n")
    assert said(max_pods=2, policy=policy) == (
        "Limits that no call can change: 1 pods, 8 hours of a pod's life; get_balance shows what is left."
    )
