"""The patterns of ``grep``, matched by Python's ``re`` in a time that is bounded beforehand.

``re`` tries one split of a line after the other. Where no group repeats and nothing refers back, as here, a line of n
characters and a pattern with k repetitions or alternatives have fewer than (n + k over k + 1) ways to try.
"""

import math
import re
from itertools import pairwise
from typing import Final

from lium_mcp.sandbox.container.run import Usage

LONGEST: Final = 200
MOST_GROUPS: Final = 10
_PART: Final = re.compile(r"\\.|\[\^?\]?[^]]*\]|.", re.DOTALL)
_REPEATS: Final = frozenset("*+?{")
_AS_THEY_ARE: Final = frozenset({".", "^", "$", "*", "\\w", "\\W", "\\s", "\\S", "\\b"})


class Pattern:
    """A pattern, basic or extended as ``grep`` knows them, or a fixed text.

    Raises:
        Usage: it holds what the sandbox does not match.
    """

    def __init__(self, text: str, *, is_fixed: bool, is_extended: bool, ignores_case: bool) -> None:
        parts = [re.escape(text)] if is_fixed else [_translated(part, is_extended) for part in _PART.findall(text)]
        if len(text) > LONGEST or parts.count("(") > MOST_GROUPS:
            raise Usage("the pattern is too long for the sandbox's grep")
        if any(part in _REPEATS and before in {"(", ")", "|"} for before, part in pairwise(parts)):
            raise Usage("the sandbox's grep repeats no groups")
        self._choices = sum(part in _REPEATS or part == "|" for part in parts)
        try:
            self.compiled = re.compile("".join(parts), re.IGNORECASE if ignores_case else 0)
        except (re.error, OverflowError) as error:
            raise Usage(f"invalid pattern: {error}") from None

    def ways(self, line: str) -> int:
        """Return how many ways there are at most to try it on a line."""
        return math.comb(len(line) + self._choices, self._choices + 1)


def _translated(part: str, is_extended: bool) -> str:
    """Write one character of a POSIX pattern, with its backslash, or one set of characters as Python does."""
    sign = part[-1]
    if len(part) > 1 and part[0] == "[":
        if "[:" in part:
            raise Usage("the sandbox's grep knows no [[:classes:]]")
        start = 2 if part[1] == "^" else 1
        return part[:start] + re.sub(r"[][\\&~|]|-(?=-)", r"\\\g<0>", part[start:-1]) + "]"
    if part in _AS_THEY_ARE or (sign in "(){}|+?" and (len(part) == 1) == is_extended):
        return sign if sign in "(){}|+?" else part
    if part[0] == "\\" and sign.isalnum():
        raise Usage(f"the sandbox's grep knows no {part}")
    return re.escape(sign)
