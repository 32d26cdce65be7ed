"""The documents, and what tests read in them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from manifests.generate import with_generated

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
README: Final = ROOT / "README.md"
DOCUMENTS: Final = [
    README,
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "manifests" / "README.md",
    *sorted(DOCS.rglob("*.md")),
]
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


class Block(NamedTuple):
    """An example that stands by itself; what is part of a list only quotes.

    Attributes:
        document: Where it stands.
        language: What it is written in.
        text: What it says.
        label: What the comment above it says: `not run: REASON`, `file: NAME` or `host: NAME`; empty without one.
    """

    document: Path
    language: str
    text: str
    label: str

    @property
    def not_run_because(self) -> str | None:
        """Why no test runs it; None where one does."""
        return self.labelled("not run")

    def labelled(self, kind: str) -> str | None:
        """What the comment says of this kind."""
        found, _, said = self.label.partition(": ")
        return said if found == kind else None

    def __str__(self) -> str:
        """A name for tests."""
        first = self.text.strip().splitlines()[0] if self.text.strip() else ""
        return f"{self.document.relative_to(ROOT).as_posix()}: {self.label or first}"


_BLOCK: Final = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\S*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(document: Path, *languages: str) -> list[Block]:
    """The examples of a document in these languages; without one, in all."""
    found = [Block(document, part[2], part[3], part[1] or "") for part in _BLOCK.finditer(document.read_text())]
    return [block for block in found if not languages or block.language in languages]


def console_lines(block: Block) -> list[str]:
    """What a person types."""
    return [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]


def examples(document: Path) -> dict[str, str]:
    """The files that a document shows, by their names."""
    return {name: block.text for block in blocks(document) if (name := block.labelled("file"))}


def hold(file: Path, made: str) -> None:
    """Insist that a file is as it is made; with UPDATE_SNAPSHOTS it is written first."""
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(made)
    assert file.read_text() == made, "`make snapshots` writes it"


def hold_parts(document: Path, parts: Mapping[str, str]) -> None:
    """Insist that the parts of a document between two comments of that name are these."""
    made = document.read_text()
    for marker, content in parts.items():
        made = with_generated(made, marker, content)
    hold(document, made)
