"""What is wrong with arguments, in words that repeat no value."""

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from lium_mcp.failures import Failure

_MAX_PROBLEMS = 5
_MAX_NAME_CHARACTERS = 60
# How alike two names are that may mean the same, and what a common word adds: as in maxPrice, max_usd_per_gpu_hour.
_NEAR: Final = 0.6
_COMMON_WORD: Final = 0.3
# What pydantic calls an unknown name: of a model, as tools have, and of a function, as prompts are.
_UNKNOWN_NAME: Final = ("extra_forbidden", "unexpected_keyword_argument")
# What pydantic calls a list that is too short, and a text.
_TOO_SHORT: Final = ("too_short", "string_too_short")


def from_validation(tool: str, error: ValidationError, schema: Mapping[str, Any] = MappingProxyType({})) -> Failure:
    """Name each argument that does not fit, and never repeat its value: it may be long or secret.

    Args:
        tool: What was called.
        error: What does not fit.
        schema: The parameters there are.
    """
    names, required = list(schema.get("properties", ())), schema.get("required", ())
    items = error.errors(include_url=False)
    problems = "; ".join(f"{_place(item)}: {_problem(item, names, required)}" for item in items[:_MAX_PROBLEMS])
    if len(items) > _MAX_PROBLEMS:
        problems += f"; and {len(items) - _MAX_PROBLEMS} more"
    advice = "Correct them and call again."
    if any(item["type"] in _UNKNOWN_NAME for item in items):
        advice += f" {tool} has {'these parameters: ' + ', '.join(names) if names else 'no parameters'}."
    return Failure("invalid_argument", f"{tool} cannot take these arguments: {problems}.", advice)


def _place(item: Any) -> str:  # noqa: ANN401 - as below
    # A name that is none of ours is the caller's text, and of any length.
    return ".".join(str(part) for part in item["loc"])[:_MAX_NAME_CHARACTERS] or "arguments"


def _problem(item: Any, names: Sequence[str], required: Collection[str]) -> str:  # noqa: ANN401 - pydantic_core.ErrorDetails, whose context is untyped
    if item["type"] in _UNKNOWN_NAME:
        nearest = _nearest(str(item["loc"][-1]), names)
        return f"there is no such parameter{nearest and f', {nearest} is the nearest'}"
    if item["type"] in _TOO_SHORT:
        least = item["ctx"]["min_length"]
        return "must not be empty" if least == 1 else f"needs at least {least}"
    problem = str(item["msg"]).removeprefix("Value error, ")
    blank = isinstance(item["input"], str) and not item["input"].strip()
    too_small = item["type"] in ("greater_than", "greater_than_equal")
    if len(item["loc"]) > 1 or item["loc"][0] in required or not (blank or too_small):
        return problem
    # An empty ceiling, or one of 0, is not taken for absent: there would be no limit at all.
    return f"{'must not be empty' if blank else problem}, but may be left out"


def _nearest(name: str, names: Sequence[str]) -> str:
    words = _words(name[:_MAX_NAME_CHARACTERS])

    def likeness(known: str) -> float:
        theirs = _words(known)
        common = _COMMON_WORD if {*words} & {*theirs} else 0
        return common + SequenceMatcher(None, "".join(words), "".join(theirs)).ratio()

    best = max(names, key=likeness, default="")
    return best if best and likeness(best) >= _NEAR else ""


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]
