"""What the quick start says of each host: the command, the file that it writes, and how the key gets in."""

from pathlib import Path
from typing import Final

from lium_mcp.hosts.config_changes import plan_install
from lium_mcp.hosts.host_entries import Wish
from lium_mcp.hosts.host_facts import Host
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS
from manifests.generate import where

SCRIPT: Final = "/path/to/lium-mcp"
"""What stands for the script in what is shown; `lium-mcp install` writes where it really is."""
_NOBODYS: Final = Machine("linux", {"HOME": "/nowhere"}, Path("/nowhere"))


def hosts() -> str:
    """A section for each host."""
    return "\n\n".join(map(_section, HOSTS.values()))


def hosts_table() -> str:
    """A line for each host."""
    rows = ["| host | tell it of the server |", "|---|---|"]
    return "\n".join([*rows, *(f"| {host.title} | `lium-mcp install {host.name}` |" for host in HOSTS.values())])


def _section(host: Host) -> str:
    change = plan_install(host, _NOBODYS, "user", Wish(command=(SCRIPT,)))
    assert change.after is not None
    parts = [
        f"### {host.title}",
        f"```console\n$ lium-mcp install {host.name}\n```",
        f"writes into the file of {host.title} ({where(host)}):",
        f"<!-- host: {host.name} -->\n```{host.file_format}\n{change.after.decode().rstrip()}\n```",
        f"{_key(host)}{_next(host)}",
    ]
    return "\n\n".join(parts)


def _key(host: Host) -> str:
    if host.asks_key:
        return f"Where no key is saved, {host.title} asks you for it once, and keeps it."
    saved = "The key is the one that `lium-mcp login` saved."
    if not host.passes_key:
        return saved
    return f"{saved} If {host.title} was started with `LIUM_API_KEY` in its environment, it is that one."


def _next(host: Host) -> str:
    then = f" Then {host.restart}." if host.restart else ""
    return f"{then} {host.hint}.".rstrip() if host.hint else then
