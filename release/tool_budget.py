"""What the tool list may cost: every user pays for it on every turn."""

from collections.abc import Iterator, Sequence
from typing import Final

from mcp.types import Tool

from lium_mcp.toolkit.token_cost import tokens

# One page, and less than the 40 that Cursor takes of all servers together.
MOST_TOOLS: Final = 36
MOST_TOKENS: Final = 7500
_MOST_TOKENS_OF_ONE: Final = 450
_MOST_TOKENS_OF: Final = {"rent_pod": 700}


def over_budget(every_tool: Sequence[Tool], listed_by_default: Sequence[Tool]) -> Iterator[str]:
    """Say what costs more than it may."""
    for tool in every_tool:
        most = _MOST_TOKENS_OF.get(tool.name, _MOST_TOKENS_OF_ONE)
        if (cost := tokens(tool)) > most:
            yield f"{tool.name} costs {cost} tokens, and may cost {most}"
    if (cost := sum(map(tokens, listed_by_default))) > MOST_TOKENS:
        yield f"the list costs {cost} tokens, and may cost {MOST_TOKENS}"
    if (count := len(listed_by_default)) > MOST_TOOLS:
        yield f"the list has {count} tools, and may have {MOST_TOOLS}"
