"""The tree that a script is read into."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """Characters that stand for themselves; unquoted ones may hold wildcards."""

    text: str
    quoted: bool


@dataclass(frozen=True)
class ShellVariable:
    """``$name``, ``${name}``, ``$1``, ``$?`` and the like."""

    name: str
    quoted: bool


@dataclass(frozen=True)
class Substitution:
    """``$(...)``."""

    script: "ShellScript"
    quoted: bool


Part = Text | ShellVariable | Substitution
Word = Sequence[Part]


@dataclass(frozen=True)
class Redirect:
    """One redirection; ``target`` is a file name, or the number after ``>&``."""

    number: int
    operator: str
    target: Word


@dataclass(frozen=True)
class Simple:
    """Assignments and a command with its arguments."""

    assignments: Sequence[tuple[str, Word]]
    words: Sequence[Word]


@dataclass(frozen=True)
class Subshell:
    """``( ... )``."""

    body: "ShellScript"


@dataclass(frozen=True)
class If:
    """Branches of condition and body; the condition of ``else`` is an empty script."""

    branches: Sequence[tuple["ShellScript", "ShellScript"]]


@dataclass(frozen=True)
class For:
    """A loop over words."""

    name: str
    words: Sequence[Word]
    body: "ShellScript"


@dataclass(frozen=True)
class ShellCommand:
    """What is run, where its input and output go, and how it is written."""

    what: Simple | Subshell | If | For
    redirects: Sequence[Redirect]
    source: str


@dataclass(frozen=True)
class Chain:
    """Pipelines, each with the ``&&`` or ``||`` before it; the first has none."""

    pipelines: Sequence[tuple[str, Sequence[ShellCommand]]]
    in_background: bool
    source: str


ShellScript = Sequence[Chain]
