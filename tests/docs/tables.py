"""What the documents say that the code says too: every part of them that is generated."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.parser import make_parser
from lium_mcp.settings_table import DEFAULT_TOOLSETS, LIMITS, SETTINGS, TOOLSETS, Setting, as_option, is_option
from lium_mcp.toolkit.listing import ListedTool, read_listing
from manifests.source import read
from tests.docs.documents import DOCS, README
from tests.docs.host_pages import hosts, hosts_table

# Before which calls a person is asked, of a tool that asks.
ASKS: Final[dict[str, str]] = {
    "rent_pod": "before it rents, or places a standing order",
    "remove_pod": "before the removal, or before a standing order is cancelled",
    "reboot_pod": "before the reboot",
    "schedule_pod_removal": "before a time or an idle removal is set",
    "cancel_pod_removal": "before the removal is cancelled",
    "update_template": "before a change; not where nothing changes",
    "delete_template": "before the deletion",
    "delete_volume": "before the deletion",
    "set_backup_schedule": "where it is new or was inactive, would cover something else, or delete backups earlier",
    "create_backup": "where the pod has no schedule, so that one is made and stays",
    "delete_backup_schedule": "before the deletion",
    "delete_backup": "before the deletion",
    "restore_backup": "where you name a folder and nobody can look whether it is empty",
    "start_job": "where the end of the job is to remove the pod",
    "run_job": "before it rents",
    "rent_cluster": "before it rents",
    "remove_cluster": "before the removal",
    "reset_pod_gpus": "before the reset",
    "delete_ssh_key": "before the key is removed",
    "switch_pod_template": "before the switch",
}
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Limits": (*LIMITS, "policy", "policy_mode"),
    "Lium and SSH": ("api_key", "base_url", "timeout_seconds", "ssh_key_path", "ssh_key_passphrase", "ssh_agent"),
    "What agents are offered, and what you are asked": (
        *("toolsets", "allow_tools", "deny_tools", "read_only", "confirm", "local_dirs"),
    ),
    "The ledger": ("state_url",),
    "Over HTTP": (
        *("transport", "host", "port", "allowed_host", "path_prefix", "server_token", "trusted_proxy"),
        *("state_keys", "replica", "stateless"),
        *("calls_at_once", "calls_per_minute", "metrics_port", "shutdown_delay_seconds", "drain_seconds"),
    ),
    "Logging in over HTTP": (
        "oauth",
        "public_url",
        "oauth_keys",
        "oauth_hook",
        "oauth_scopes",
        "oauth_registered_only",
    ),
    "The log": ("log_level", "log_format", "audit_file"),
    "The sandbox": ("sandbox", "sandbox_speed", "sandbox_seed"),
}


def settings() -> str:
    """Every setting, by what it is about."""
    parts = []
    for title, names in GROUPS.items():
        rows = ["| variable, option | takes | meaning |", "|---|---|---|"]
        for name in names:
            setting = SETTINGS[name]
            option = f"<br>`{as_option(name)}`" if is_option(name) else ""
            default = f"; by default `{shown}`" if (shown := _default(setting)) else ""
            rows.append(f"| `{setting.variable}`{option} | {_values(setting)}{default} | {setting.about} |")
        parts.append(f"## {title}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _default(setting: Setting) -> str:
    default = setting.default
    if isinstance(default, frozenset | tuple):
        return ",".join(sorted(default))
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _values(setting: Setting) -> str:
    if setting.kind == "flag":
        return "`true`, `false`"
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    bounds = _bounds(setting.low, setting.high)
    return f"{setting.kind} {bounds}".rstrip()


def _bounds(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"from {low:,g}"
    return f"up to {high:,g}" if low is None else f"{low:,g} to {high:,g}"


def tools() -> str:
    """Every tool: what it is for, what it does to the world, when it asks, and what it takes."""
    parts = []
    for toolset in TOOLSETS:
        off = "" if toolset in DEFAULT_TOOLSETS else " (not offered by default)"
        parts.append(f"## {toolset}{off}")
        parts += [_tool(item) for item in read_listing() if item.toolset == toolset]
    return "\n\n".join(parts)


def _tool(item: ListedTool) -> str:
    asks = f" Asks you {ASKS[item.name]}." if item.name in ASKS else ""
    parts = [
        f"### {item.name}",
        f"**{item.tool.title}.** {item.tool.description}",
        f"*{_effect(item)}.*{asks}",
    ]
    schema = item.tool.input_schema
    rows = [
        f"| `{name}` | {'**yes**' if name in schema.get('required', ()) else ''} | {_type(of)} | {_about(of)} |"
        for name, of in schema["properties"].items()
    ]
    if rows:
        parts.append("\n".join(["| parameter | needed | takes | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _effect(item: ListedTool) -> str:
    hints = item.tool.annotations
    assert hints is not None
    if hints.read_only_hint:
        return "Reads; changes and spends nothing"
    again = "a second call like it does nothing more" if hints.idempotent_hint else "each call does it once more"
    return f"{'Can destroy something' if hints.destructive_hint else 'Changes something'}; {again}"


def _type(of: Mapping[str, Any]) -> str:
    if "enum" in of:
        return ", ".join(f"`{value}`" for value in of["enum"])
    if of["type"] == "array":
        many = f", at most {of['maxItems']}" if "maxItems" in of else ""
        return f"list of {_type(of['items'])}{many}"
    word = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}[of["type"]]
    if of["type"] == "string":
        return word
    above = f"above {of['exclusiveMinimum']:g}" if "exclusiveMinimum" in of else ""
    bounds = above or _bounds(of.get("minimum"), of.get("maximum"))
    return f"{word} {bounds}".rstrip()


def _about(of: Mapping[str, Any]) -> str:
    default = of.get("default")
    shown = f" Default: `{str(default).lower() if isinstance(default, bool) else default}`." if default else ""
    return f"{of.get('description', '')}{shown}".replace("|", "\\|")


def toolsets() -> str:
    """Every toolset with the names of its tools."""
    rows = ["| toolset | tools |", "|---|---|"]
    for toolset in TOOLSETS:
        names = ", ".join(f"[`{item.name}`](#{item.name})" for item in read_listing() if item.toolset == toolset)
        rows.append(f"| `{toolset}` | {names} |")
    return "\n".join(rows)


def statuses() -> str:
    """The exit statuses of every command."""
    return "\n".join(["| status | meaning |", "|---|---|", *(f"| {one:d} | {one.meaning} |" for one in ExitStatus)])


def commands() -> str:
    """Every command, and what it is for."""
    [action] = _choices(make_parser())
    rows = [f"| `{_typed(one.dest, action.choices[one.dest])}` | {one.help} |" for one in action._choices_actions]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def _choices(parser: argparse.ArgumentParser) -> list["argparse._SubParsersAction[Any]"]:
    return [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]


def _typed(name: str, parser: argparse.ArgumentParser) -> str:
    needed = [str(one.metavar) for one in _choices(parser) if one.required]
    return " ".join(["lium-mcp", name, *needed])


def install(*, published: bool = read().published) -> str:
    """How the command gets onto a machine, by whether an index has the package."""
    what, where = ("lium-mcp", "With") if published else (".", "The package is not on an index yet. In a clone, with")
    return f"""\
{where} [uv](https://docs.astral.sh/uv/):

<!-- not run: it installs a program for the person -->
```console
$ uv tool install {what}
```

```console
$ lium-mcp demo
```"""


GENERATED: Final[dict[Path, dict[str, Callable[[], str]]]] = {
    DOCS / "tools.md": {"toolsets": toolsets, "tools": tools},
    DOCS / "settings.md": {"settings": settings},
    DOCS / "command-line.md": {"commands": commands, "statuses": statuses},
    README: {"install": install, "hosts": hosts_table},
    DOCS / "quickstart.md": {"install": install, "hosts": hosts},
}
