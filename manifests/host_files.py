"""The ready-made files of each host: what `lium-mcp install` would write where there is no file yet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from lium_mcp.hosts.config_changes import plan_install
from lium_mcp.hosts.host_entries import KEY_TO_FILL_IN, Wish
from lium_mcp.hosts.host_facts import KEY_VARIABLE, Format, Host
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.settings_table import SETTINGS
from manifests.source import Source

Variant = Literal["stdio", "sandbox", "http"]
VARIANTS: Final[tuple[Variant, ...]] = ("stdio", "sandbox", "http")
LOCAL_URL: Final = f"http://{SETTINGS['host'].default}:{SETTINGS['port'].default}/mcp"
"""Where `lium-mcp serve --transport http` is, if it is told nothing else."""

_SAME_FILES: Final = {"vscode-insiders", "vscodium"}
"""Hosts that read what VS Code reads."""
SHIPPED: Final = {name: host for name, host in HOSTS.items() if name not in _SAME_FILES}
_ENDINGS: Final[dict[Format, str]] = {"json": "json", "toml": "toml", "yaml": "yaml"}
_NOWHERE: Final = Machine("linux", {"HOME": "/nowhere"}, Path("/nowhere"))


def variants(host: Host) -> list[Variant]:
    """The variants that a host has: some are told of an address in the app alone."""
    return [variant for variant in VARIANTS if variant != "http" or host.http]


def path_of(host: Host, variant: Variant) -> str:
    """Where such a file is, below the folder of the manifests."""
    return f"hosts/{host.name}/{variant}.{_ENDINGS[host.file_format]}"


def wish_of(source: Source, host: Host, variant: Variant) -> Wish:
    """What the host is told: which command to start, or which address to speak to, and where the key comes from."""
    if variant == "http":
        return Wish(url=LOCAL_URL)
    if variant == "sandbox":
        return Wish(command=(*source.command, "--sandbox"), needs_key=False)
    # Where the key comes by itself, a text to be replaced would only stand in its way.
    by_hand = {} if host.passes_key else {KEY_VARIABLE: KEY_TO_FILL_IN}
    return Wish(command=source.command, variables=by_hand)


def host_files(source: Source) -> Iterator[tuple[str, str]]:
    """Make every file of every host: where it is below the folder of the manifests, and its text."""
    for host in SHIPPED.values():
        for variant in variants(host):
            change = plan_install(host, _NOWHERE, "user", wish_of(source, host, variant))
            yield path_of(host, variant), _noted(source, host) + (change.after or b"").decode()


def _noted(source: Source, host: Host) -> str:
    note = source.notes.get(host.name, "") if host.file_format != "json" else ""
    return "".join(f"# {line}\n" for line in note.strip().splitlines())
