"""Regular expressions for ``grep``, matched in time proportional to pattern and line.

Literals, ``.``, ``[...]``, ``^``, ``$``, ``*``, ``+``, ``?`` and alternatives at the top; no groups and no back
references, which is what makes the time bound possible.
"""

import re
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 500


class PatternFault(Exception):
    """A pattern the sandbox cannot match."""


@dataclass(frozen=True)
class _Atom:
    """One character of a kind, and how often it may come."""

    characters: frozenset[str] | None  # None is any
    is_negated: bool = False
    may_be_missing: bool = False
    may_repeat: bool = False

    def takes(self, character: str) -> bool:
        return self.characters is None or (character in self.characters) != self.is_negated

    def expression(self) -> str:
        """Write it as Python's own expression."""
        if self.characters is None:
            return "."
        letters = "".join(map(re.escape, sorted(self.characters)))
        return f"[{'^' * self.is_negated}{letters}]" if letters else "." if self.is_negated else "(?!)"


@dataclass(frozen=True)
class _Alternative:
    atoms: tuple[_Atom, ...]
    at_start: bool
    at_end: bool

    def first(self, text: str) -> tuple[int, int] | None:
        """Return where the leftmost longest match starts and ends."""
        # State: how many atoms are done; value: the earliest start of a match that is there.
        states: dict[int, int] = {}
        best: tuple[int, int] | None = None
        for at in range(len(text) + 1):
            if best is None and (at == 0 or not self.at_start):
                states.setdefault(0, at)
            self._skip(states)
            done = states.get(len(self.atoms))
            is_end = not self.at_end or at == len(text)
            if done is not None and is_end and (best is None or done <= best[0]):
                best = (done, at)
            if at == len(text) or (best is not None and not any(start <= best[0] for start in states.values())):
                break
            states = self._step(states, text[at])
        return best

    def expression(self) -> str:
        """Write an alternative in which nothing repeats as Python's own expression."""
        start, end = "\\A" if self.at_start else "", "\\Z" if self.at_end else ""
        return start + "".join(atom.expression() for atom in self.atoms) + end

    def _skip(self, states: dict[int, int]) -> None:
        for number, atom in enumerate(self.atoms):
            if number in states and atom.may_be_missing:
                states[number + 1] = min(states[number], states.get(number + 1, states[number]))

    def _step(self, states: dict[int, int], character: str) -> dict[int, int]:
        after: dict[int, int] = {}
        for number, start in states.items():
            if number < len(self.atoms) and self.atoms[number].takes(character):
                after[number + 1] = min(start, after.get(number + 1, start))
                if self.atoms[number].may_repeat:
                    after[number] = min(start, after.get(number, start))
        return after


class Pattern:
    """A compiled pattern.

    Raises:
        PatternFault: it holds what the sandbox does not know, or is too long.
    """

    def __init__(self, pattern: str, *, fixed: bool = False, extended: bool = False, ignore_case: bool = False) -> None:
        if len(pattern) > LONGEST:
            raise PatternFault("pattern too long")
        self._ignores_case = ignore_case
        pattern = pattern.lower() if ignore_case else pattern
        lines = pattern.split("\n")
        if fixed:
            self._alternatives = [
                _Alternative(tuple(_Atom(frozenset(letter)) for letter in line), at_start=False, at_end=False)
                for line in lines
            ]
        else:
            self._alternatives = [each for line in lines for each in _Reader(line, extended=extended).alternatives()]

        self._quick: re.Pattern[str] | None = None
        if not any(atom.may_repeat or atom.may_be_missing for each in self._alternatives for atom in each.atoms):
            self._quick = re.compile("|".join(each.expression() for each in self._alternatives), re.DOTALL)

    @property
    def is_quick(self) -> bool:
        """Whether nothing in it repeats, so that Python's own matcher cannot go astray."""
        return self._quick is not None

    def first(self, text: str) -> tuple[int, int] | None:
        """Return where the first match in a line starts and ends."""
        if self._quick is not None:
            found_quickly = self._quick.search(text.lower() if self._ignores_case else text)
            return None if found_quickly is None else found_quickly.span()
        text = text.lower() if self._ignores_case else text
        found = [match for each in self._alternatives if (match := each.first(text)) is not None]
        return min(found, key=lambda match: (match[0], -match[1]), default=None)


class _Reader:
    def __init__(self, pattern: str, *, extended: bool) -> None:
        self._left = pattern
        self._extended = extended

    def alternatives(self) -> list[_Alternative]:
        found, atoms = [], list[_Atom]()
        at_start = at_end = False
        while self._left:
            symbol, is_special = self._symbol()
            if is_special and symbol == "|":
                found.append(_Alternative(tuple(atoms), at_start, at_end))
                atoms, at_start, at_end = [], False, False
            elif is_special and symbol == "^" and not atoms:
                at_start = True
            elif is_special and symbol == "$" and (not self._left or self._left.startswith(("|", "\\|"))):
                at_end = True
            elif is_special and symbol in "*+?" and atoms:
                last = atoms.pop()
                missing = last.may_be_missing or symbol in "*?"
                atoms.append(_Atom(last.characters, last.is_negated, missing, last.may_repeat or symbol in "*+"))
            elif is_special and symbol == ".":
                atoms.append(_Atom(None))
            elif is_special and symbol == "[":
                atoms.append(self._set())
            elif is_special and symbol in "(){}":
                raise PatternFault("the sandbox's grep knows no groups and counts")
            else:
                atoms.append(_Atom(frozenset(symbol)))
        found.append(_Alternative(tuple(atoms), at_start, at_end))
        return found

    def _symbol(self) -> tuple[str, bool]:
        character, self._left = self._left[0], self._left[1:]
        if character == "\\" and self._left:
            character, self._left = self._left[0], self._left[1:]
            # In basic expressions a backslash gives these their meaning, in extended ones it takes it away.
            return character, not self._extended and character in "|+?(){}"
        return character, character in ".*[^$" or (self._extended and character in "|+?(){}")

    def _set(self) -> _Atom:
        is_negated = self._left.startswith("^")
        text = self._left[is_negated:]
        end = text.find("]", 1)
        if end < 0:
            raise PatternFault("unmatched [")
        self._left = text[end + 1 :]
        text, found, at = text[:end], set[str](), 0
        if ":" in text and text.startswith("["):
            raise PatternFault("the sandbox's grep knows no [[:classes:]]")
        while at < len(text):
            if text[at + 1 : at + 2] == "-" and at + 2 < len(text):
                found.update(map(chr, range(ord(text[at]), min(ord(text[at + 2]), ord(text[at]) + 256) + 1)))
                at += 3
            else:
                found.add(text[at])
                at += 1
        return _Atom(frozenset(found), is_negated)
