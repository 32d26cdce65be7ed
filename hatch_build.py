"""Makes the page that a package index shows of the README: there, what lies beside it lies at the project's address."""

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK: Final = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<path>[^)\s]+)\)")


class IndexPage(MetadataHookInterface):
    """Puts the README into the metadata with links that lead somewhere from anywhere."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Say what the package is."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        if address := metadata.get("urls", {}).get("Homepage"):
            text = _LINK.sub(lambda link: _absolute(link, address), text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def _absolute(link: re.Match[str], address: str) -> str:
    shown = "raw" if link["picture"] else "blob"
    return f"{link['picture']}[{link['text']}]({address}/{shown}/main/{link['path']})"
