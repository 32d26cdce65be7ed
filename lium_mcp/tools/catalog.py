"""Every toolset there is, in listing order. Importing this imports every tool: start-up reads `listing.py` instead."""

from typing import Final

from lium_mcp.toolkit.registry import Toolset, ToolSpec
from lium_mcp.tools import account, backups, clusters, extras, marketplace, pods, remote, templates, volumes

TOOLSETS: Final[tuple[Toolset, ...]] = (
    marketplace.toolset,
    pods.toolset,
    templates.toolset,
    volumes.toolset,
    backups.toolset,
    account.toolset,
    remote.toolset,
    clusters.toolset,
    extras.toolset,
)

_SPECS: Final = {spec.name: spec for toolset in TOOLSETS for spec in toolset.specs}


def find_spec(name: str) -> ToolSpec:
    """The declared tool of this name.

    Raises:
        KeyError: there is none.
    """
    return _SPECS[name]
