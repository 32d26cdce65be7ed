"""How Sphinx makes the site of these pages (``make docs``). It fetches nothing, and neither do the pages."""

import re
import tomllib
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

_ROOT = Path(__file__).parent.parent
_OWNER = tomllib.loads((_ROOT / "manifests" / "source.toml").read_text())["owner"]
_REPOSITORY = f"https://github.com/{_OWNER}/lium-mcp/blob/main"
_LINK_UP = re.compile(r"\]\((\.\./[^)\s]+)\)")

project = "Lium MCP"
author = "The Lium MCP authors"
extensions = ["myst_parser"]
root_doc = "index"
myst_heading_anchors = 4
# The lexer of nginx's files takes a brace in a quoted text for one of its own.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "Lium MCP"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_show_copyright = False


def link_to_repository(_app: object, page: str, source: list[str]) -> None:
    """Let links to what lies beside the pages lead to where the project is published."""

    def linked(link: re.Match[str]) -> str:
        path = normpath(join("docs", dirname(page), link[1]))
        return link[0] if path.startswith("docs/") else f"]({_REPOSITORY}/{path})"

    source[0] = _LINK_UP.sub(linked, source[0])


def setup(app: Any) -> None:  # noqa: ANN401 - mypy runs where there is no Sphinx
    """Tell Sphinx of it."""
    app.connect("source-read", link_to_repository)
