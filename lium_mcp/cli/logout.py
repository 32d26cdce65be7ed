"""``lium-mcp logout``: remove the API key that a login saved on this machine."""

import os
from typing import Any

from lium_mcp.cli.console import say, say_aside
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.key_cures import masked
from lium_mcp.official_config import OfficialConfig, config_path
from lium_mcp.saved_key import remove_key
from lium_mcp.services.logging_in import KEYS_PAGE


def run(_options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    saved = OfficialConfig().general_key()
    if remove_key():
        which = f"The key {masked(saved)}" if saved else "The key"
        say(f"{which} is no longer in {config_path()}. Servers that run keep it until they are restarted.")
        say(f"It goes on to work for whoever has it until it is revoked at {KEYS_PAGE}.")
    else:
        say(f"There is no key under [api] in {config_path()}.")
    if workspaces := OfficialConfig().workspaces_with_keys():
        say(f"The keys of these workspaces stay there: {', '.join(workspaces)}.")
    if kept := sorted(str(path) for path in config_path().resolve().parent.glob("config.ini.*.bak")):
        say(f"Keys before it are in {', '.join(kept)}.")
    if os.environ.get("LIUM_API_KEY"):
        say_aside("LIUM_API_KEY is set, so this machine goes on to use that key.")
    return ExitStatus.OK
