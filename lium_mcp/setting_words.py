"""What a setting takes, in words, and what was given instead.

Pydantic's own sentences name types of Python, where a person wants to know what to write.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from lium_mcp.settings_table import Setting
from lium_mcp.values import KEY_PREFIX, NotOfItsKindError, is_decimal

# A secret that got into the wrong place is longer, or holds other signs.
_SHORT: Final = re.compile(r"[A-Za-z0-9_ .,:+-]{1,20}")


def problem_with(found: Mapping[str, Any], setting: Setting) -> str:
    """Say what is wrong with the value of a setting.

    Args:
        found: One of the errors of a pydantic model, with the input.
        setting: Whose value it is.
    """
    wrong = found["input"]
    match found.get("ctx", {}).get("error"):
        case NotOfItsKindError() as error:
            wrong = error.entry or wrong
        case ValueError() as error:
            return str(error)
    given = _shown(wrong)
    takes = f"it takes {what_it_takes(setting, given)}"
    return f"{given}: {takes}" if given else takes


def what_it_takes(setting: Setting, given: str) -> str:
    """What may be written, in place of what was given, as it follows "it takes"."""
    match setting.kind:
        case "flag":
            return "true or false"
        case "choice" | "choices":
            *others, last = setting.choices
            return f"{', '.join(others)} or {last}"
        case "number" | "count":
            kind, example = ("a number", "2.5") if setting.kind == "number" else ("a whole number", "2")
            digits = "" if is_decimal(given) else f", in plain digits as {example}"
            return f"{kind} from {setting.low:g} {_up_to(setting.high)}{digits}"
        case "gpu types":
            return "types of GPUs, as H100 or RTX4090, one in each entry"
        case "countries":
            return "two-letter codes of countries, as US or DE"
        case "ids":
            return "ids of templates, which the tool list_templates shows"
        case "day":
            return "a day, as 2026-01-31"
    return setting.kind


def _up_to(high: float | None) -> str:
    return "up" if high is None else f"to {high:.0f}"


def _shown(given: object) -> str:
    """What was given, where that surely is no secret; else empty."""
    text = str(given).lower() if isinstance(given, bool) else str(given).strip()
    return text if _SHORT.fullmatch(text) and not text.startswith(KEY_PREFIX) else ""
