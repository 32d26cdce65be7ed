"""What a script is made of, once it has been read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Text:
    """Characters that stand for themselves; unquoted ones may hold wildcards."""

    text: str
    quoted: bool


@dataclass(frozen=True)
class Parameter:
    """``$name``, ``${name:-word}`` and the like; ``operator`` is ``length`` for ``${#name}``."""

    name: str
    quoted: bool
    operator: str = ""
    argument: "Word | None" = None


@dataclass(frozen=True)
class Substitution:
    """``$(...)``."""

    body: "List"
    quoted: bool


@dataclass(frozen=True)
class Arithmetic:
    """``$((...))``."""

    expression: "Word"
    quoted: bool


Part = Text | Parameter | Substitution | Arithmetic
Word = Sequence[Part]


@dataclass(frozen=True)
class Redirect:
    """One redirection; ``target`` is a file name, the number after ``&``, or a here-document's text."""

    number: int
    operator: Literal["<", ">", ">>", ">&", "<<", "&>", "&>>"]
    target: Word


@dataclass(frozen=True)
class Simple:
    """Assignments and a command with its arguments."""

    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]
    source: str


@dataclass(frozen=True)
class Group:
    """``{ ...; }``, or a subshell."""

    body: "List"
    is_subshell: bool
    redirects: tuple[Redirect, ...]
    source: str


@dataclass(frozen=True)
class If:
    """Branches of condition and body, and what is done otherwise."""

    branches: tuple[tuple["List", "List"], ...]
    otherwise: "List | None"
    redirects: tuple[Redirect, ...]
    source: str


@dataclass(frozen=True)
class For:
    """A loop over words."""

    name: str
    words: tuple[Word, ...]
    body: "List"
    redirects: tuple[Redirect, ...]
    source: str


@dataclass(frozen=True)
class While:
    """A loop while (or until) a condition holds."""

    condition: "List"
    body: "List"
    until: bool
    redirects: tuple[Redirect, ...]
    source: str


Command = Simple | Group | If | For | While


@dataclass(frozen=True)
class Pipeline:
    """Commands joined by pipes."""

    commands: tuple[Command, ...]
    is_negated: bool


@dataclass(frozen=True)
class Chain:
    """Pipelines joined by ``&&`` and ``||``."""

    first: Pipeline
    rest: tuple[tuple[Literal["&&", "||"], Pipeline], ...]
    in_background: bool
    source: str


@dataclass(frozen=True)
class List:
    """Chains, one after the other."""

    chains: tuple[Chain, ...]
