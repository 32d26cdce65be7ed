"""The page on which people see pods, money and market: where it is, and which tools carry it for whom.

Hosts that show pages (MCP Apps) say so in their capabilities, and read the page once a tool names it. Others hear
nothing of it. The front answers before anything is imported, so this file imports nothing either. `web/` has the source
of `page.html`.
"""

ADDRESS = "ui://lium/page.html"
MIME_TYPE = "text/html;profile=mcp-app"
EXTENSION = "io.modelcontextprotocol/ui"
FILE_NAME = "page.html"

CARRIED_BY = frozenset(
    ("list_pods", "get_pod", "get_balance", "get_spending", "list_gpus", "get_gpu_prices", "quote_rental")
)
"""The tools whose answers it shows."""

CARRIED: dict[str, object] = {"ui": {"resourceUri": ADDRESS}, "ui/resourceUri": ADDRESS}
"""What such a tool says of it in its `_meta`; the second form is that of older hosts."""

EXTENSIONS: dict[str, object] = {EXTENSION: {}}
"""What the server says of itself to a host that shows pages."""


def is_shown(extensions: object) -> bool:
    """Whether a client shows pages that has these extensions among its capabilities."""
    said = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    kinds = said.get("mimeTypes") if isinstance(said, dict) else None
    return isinstance(kinds, list) and MIME_TYPE in kinds


def read_page() -> str:
    """The page."""
    with open(__file__.replace("__init__.py", FILE_NAME), encoding="utf-8") as file:  # noqa: PTH123 - as the file says
        return file.read()
