"""The question that a person is asked, and the error where no yes came. Knows no MCP."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

ConfirmMode = Literal["auto", "always", "never"]

_AMOUNT: Final = re.compile(r"\$-?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked.

    Attributes:
        text: Target, price and consequence, in words. It holds no figure that changes from one second to the next.
        pins: Arguments by which the call goes on after a yes: ids in the place of names.
        price_per_hour_usd: The price that is agreed to; one that is higher needs another question.
        basis: Stands for what is agreed to and the words do not show in full, such as what a template runs.
        subject: What was worked out for the question, so that after a yes it is this that is done.
    """

    text: str
    pins: Mapping[str, Any] = field(default_factory=dict)
    price_per_hour_usd: float | None = None
    basis: str = field(default="", compare=False)
    subject: object = field(default=None, compare=False, repr=False)

    def is_cheaper_than(self, other: "Question") -> bool:
        """Whether the other is of a higher price."""
        mine, theirs = self.price_per_hour_usd, other.price_per_hour_usd
        return mine is not None and theirs is not None and theirs > mine

    def binds_as(self, other: "Question") -> bool:
        """Whether a yes to this is a yes to the other: it says the same of the same target, at no higher price."""
        mine, theirs = self.price_per_hour_usd, other.price_per_hour_usd
        if self.pins != other.pins:
            return False
        if mine is None or theirs is None:
            return self.text == other.text
        # The price is held by its figure, the sums that follow from it and the balance are not agreed to.
        return theirs <= mine and _AMOUNT.sub("$", self.text) == _AMOUNT.sub("$", other.text)


NOTHING_TO_ASK: Final = Question("")
"""Stands for a yes where the person could have been asked, and there was nothing to ask."""


class NotConfirmed(Exception):
    """There was no yes; nothing was changed.

    Attributes:
        code: Stable, for programs.
        advice: What to do next.
    """

    def __init__(self, code: str, happened: str, advice: str) -> None:
        super().__init__(happened)
        self.code = code
        self.advice = advice
