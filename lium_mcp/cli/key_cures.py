"""How a person comes to a key that is then the one in use, and how a key is shown."""

from collections.abc import Mapping
from typing import Final

from lium_mcp.cli.shell_lines import in_turn, quoted, unset
from lium_mcp.hosts.host_facts import KEY_VARIABLE
from lium_mcp.official_config import OfficialConfig
from lium_mcp.values import SettingsError, cleaned

_SHOWN_CHARACTERS: Final = 4
_LONG_ENOUGH: Final = 16


def masked(key: str) -> str:
    """A key as it may be shown: enough to tell it from others."""
    return f"sk_\u2026{key[-_SHOWN_CHARACTERS:]}" if len(key) >= _LONG_ENOUGH else "(a short one)"


def log_in(variables: Mapping[str, str], *, force: bool = False) -> str:
    """The commands after which a new key is in use, where a shell has these variables.

    A login refuses where another key than the one that it saves would be used, so that is taken out of the way.

    Args:
        variables: Those of the shell.
        force: Whether what is saved is of no use, so that nobody need be asked about it.
    """
    first = unset(KEY_VARIABLE) if variables.get(KEY_VARIABLE, "").strip() else ""
    workspace = _workspace(variables)
    if workspace:
        return in_turn(first, f"lium keys create NAME --workspace {quoted(workspace)} --save")
    return in_turn(first, f"lium-mcp login{' --force' if force else ''}")


def _workspace(variables: Mapping[str, str]) -> str:
    """The workspace whose own key is the one in use; empty where none is chosen."""
    if chosen := cleaned(variables.get("LIUM_WORKSPACE", "")):
        return chosen
    try:
        config = OfficialConfig()
    except SettingsError:
        return ""
    active = config.active_workspace()
    return active if active in config.workspaces_with_keys() else ""
