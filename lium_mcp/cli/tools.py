"""``lium-mcp tools``: the tools that the settings offer by toolset, what each costs in tokens, and what is off."""

import json
from collections.abc import Sequence
from typing import Any

from lium_mcp.cli.console import say, show_table
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.readied import read
from lium_mcp.server import select_tools
from lium_mcp.settings import Settings
from lium_mcp.settings_table import TOOLSETS
from lium_mcp.toolkit.listing import ListedTool, read_listing
from lium_mcp.toolkit.token_cost import tokens


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    as_json = options.pop("json")
    settings = read(options)
    offered = select_tools(settings)
    if as_json:
        say(json.dumps([_row(item, settings, offered) for item in read_listing()], indent=2))
        return ExitStatus.OK
    show_table(
        ("TOOLSET", "TOOL", "EFFECT", "TOKENS", "TITLE"),
        [
            (item.toolset, item.name, _effect(item), str(tokens(item.tool)), item.tool.title or "")
            for item in _by_toolset(offered)
        ],
        numbers=("TOKENS",),
    )
    total = sum(tokens(item.tool) for item in offered)
    say(f"\n{total} tokens in {len(offered)} tools (bytes / 4 of name, description and parameters).")
    _say_what_is_off(settings, offered)
    return ExitStatus.OK


def _say_what_is_off(settings: Settings, offered: Sequence[ListedTool]) -> None:
    off: dict[str, list[ListedTool]] = {}
    for item in _by_toolset(read_listing()):
        if item not in offered:
            off.setdefault(_why_off(item, settings), []).append(item)
    for why, items in off.items():
        names = ", ".join(item.name for item in items)
        say(f"Off, {why}: {names} ({sum(tokens(item.tool) for item in items)} tokens).")


def _row(item: ListedTool, settings: Settings, offered: Sequence[ListedTool]) -> dict[str, Any]:
    is_offered = item in offered
    row = {
        "name": item.name,
        "title": item.tool.title,
        "toolset": item.toolset,
        "effect": _effect(item),
        "tokens": tokens(item.tool),
        "offered": is_offered,
    }
    return row if is_offered else row | {"off_because": _why_off(item, settings)}


def _by_toolset(items: Sequence[ListedTool]) -> list[ListedTool]:
    return sorted(items, key=lambda item: TOOLSETS.index(item.toolset))


def _effect(item: ListedTool) -> str:
    hints = item.tool.annotations
    if hints is None or hints.read_only_hint:
        return "reads"
    return "destroys" if hints.destructive_hint else "changes"


def _why_off(item: ListedTool, settings: Settings) -> str:
    """Why a tool is not offered, by the setting that would have to change."""
    if settings.read_only and not item.read_only:
        return "since --read-only offers what reads alone"
    if item.name in settings.deny_tools:
        return "denied by --deny-tools"
    if item.toolset not in settings.toolsets:
        return f"since --toolsets does not name {item.toolset}"
    return "since --allow-tools names others"
