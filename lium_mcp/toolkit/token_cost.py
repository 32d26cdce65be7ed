"""What a tool costs: every user pays for the whole list on every turn."""

import json

from mcp.types import Tool

_BYTES_PER_TOKEN = 4


def tokens(tool: Tool) -> int:
    """Tokens of one listed tool, as bytes / 4 of its name, description and input schema."""
    schema = json.dumps(tool.input_schema, separators=(",", ":"), ensure_ascii=False)
    return round(len(f"{tool.name}{tool.description or ''}{schema}".encode()) / _BYTES_PER_TOKEN)
