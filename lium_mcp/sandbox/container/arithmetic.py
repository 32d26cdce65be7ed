"""Integer arithmetic as the shell's ``$((...))`` does it, in 64 bits."""

import re
from collections.abc import Callable, Mapping
from typing import Final

LONGEST: Final = 1000
DEEPEST: Final = 40
_TOKEN: Final = re.compile(r"\s*(\d+|[A-Za-z_]\w*|&&|\|\||[<>=!]=|[-+*/%()<>!])")


class ArithmeticFault(Exception):
    """The expression has no value."""


_LEVELS: Final[tuple[dict[str, Callable[[int, int], int]], ...]] = (
    {"||": lambda a, b: int(bool(a or b))},
    {"&&": lambda a, b: int(bool(a and b))},
    {"==": lambda a, b: int(a == b), "!=": lambda a, b: int(a != b)},
    {
        "<": lambda a, b: int(a < b),
        ">": lambda a, b: int(a > b),
        "<=": lambda a, b: int(a <= b),
        ">=": lambda a, b: int(a >= b),
    },
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"*": lambda a, b: a * b, "/": lambda a, b: _divided(a, b)[0], "%": lambda a, b: _divided(a, b)[1]},
)


def evaluate(expression: str, variables: Mapping[str, str]) -> int:
    """Compute an expression.

    Raises:
        ArithmeticFault: it is none, or divides by zero.
    """
    if len(expression) > LONGEST:
        raise ArithmeticFault("expression too long")
    return _Reader(expression, variables).whole()


def _divided(a: int, b: int) -> tuple[int, int]:
    if b == 0:
        raise ArithmeticFault("division by 0")
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient, a - quotient * b


def _wrapped(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


class _Reader:
    def __init__(self, expression: str, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._tokens: list[str] = []
        self._depth = at = 0
        expression = expression.strip()
        while at < len(expression):
            match = _TOKEN.match(expression, at)
            if match is None:
                raise ArithmeticFault("syntax error in expression")
            self._tokens.append(match.group(1))
            at = match.end()
        self._tokens.reverse()

    def whole(self) -> int:
        value = self._level(0) if self._tokens else 0
        if self._tokens:
            raise ArithmeticFault("syntax error in expression")
        return value

    def _level(self, number: int) -> int:
        if number == len(_LEVELS):
            return self._single()
        value = self._level(number + 1)
        while self._tokens and self._tokens[-1] in _LEVELS[number]:
            operator = _LEVELS[number][self._tokens.pop()]
            value = _wrapped(operator(value, self._level(number + 1)))
        return value

    def _single(self) -> int:
        self._depth += 1
        if not self._tokens or self._depth > DEEPEST:
            raise ArithmeticFault("syntax error in expression")
        symbol = self._tokens.pop()
        if symbol == "(":
            value = self._level(0)
            if not self._tokens or self._tokens.pop() != ")":
                raise ArithmeticFault("missing `)'")
        elif symbol in {"-", "+", "!"}:
            value = self._single()
            value = {"-": -value, "+": value, "!": int(not value)}[symbol]
        elif symbol[0].isdigit() or symbol[0].isalpha() or symbol[0] == "_":
            text = symbol if symbol[0].isdigit() else self._variables.get(symbol, "").strip() or "0"
            if not re.fullmatch(r"-?[0-9]{1,19}", text):
                raise ArithmeticFault(f"{text[:40]}: not a number")
            value = int(text)
        else:
            raise ArithmeticFault("syntax error in expression")
        self._depth -= 1
        return _wrapped(value)
