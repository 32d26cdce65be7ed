"""The commands that write the entry of a host: anew, and with limits."""

from typing import Final

from lium_mcp.hosts.host_facts import Host, Scope
from lium_mcp.settings_table import as_option

_EXAMPLE: Final = {"max_price_per_hour_usd": 3, "max_pods": 2, "max_hours": 12, "budget_usd": 50}


def install(host: Host, scope: Scope) -> str:
    """What writes the entry anew."""
    return f"lium-mcp install {host.name}{' --scope project' if scope == 'project' else ''}"


def install_with_limits(host: Host, scope: Scope) -> str:
    """What puts limits into the entry, with figures that a person may want to change."""
    return " ".join([install(host, scope), *(f"{as_option(name)} {figure}" for name, figure in _EXAMPLE.items())])
