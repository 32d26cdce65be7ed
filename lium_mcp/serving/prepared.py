"""Answers that the SDK has given before: the handshake and the lists, as `recorded.tsv` holds them.

`make snapshots` records them from the real server, for each version of the protocol; a test holds what is joined here
against what the SDK answers, byte for byte. Standard library only.
"""

import json
import os
import sys

from lium_mcp.instructions import instructions
from lium_mcp.page import CARRIED, EXTENSIONS
from lium_mcp.settings_table import Offer

FILE_NAME = "recorded.tsv"
CURRENT = "2026-07-28"
HANDSHAKE = "handshake"
"""Stands for all versions that begin with `initialize`: they differ in the version that it says, and in no more."""
HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

ID, VERSION, INSTRUCTIONS, ITEMS, PAGE = (
    f"@@{name}@@".encode() for name in ("id", "version", "instructions", "items", "page")
)


def _in_object(members: dict[str, object]) -> bytes:
    """Members as they stand behind others in an object."""
    return b"," + json.dumps(members, separators=(",", ":"))[1:-1].encode()


SAID_OF_PAGE = {"tools/list": _in_object(CARRIED), "server/discover": _in_object({"extensions": EXTENSIONS})}
"""What stands in an answer for those who show the page, and for them alone, by method."""


class Records:
    """What was recorded.

    Attributes:
        sdk: The version of the SDK that answered so.
        answers: Whole answers with holes, by era and method.
        items: What the lists are made of: era, method, name, needs and text of each. A tool needs its toolset, and
            `reads` or `writes`; others need tools.
    """

    def __init__(self, content: bytes) -> None:
        """Read the content of the file."""
        self.sdk = ""
        self.answers: dict[tuple[str, str], bytes] = {}
        self.items: list[tuple[str, str, str, list[str], bytes]] = []
        for line in content.splitlines():
            era, method, name, needs, text = line.split(b"\t")
            if method == b"sdk":
                self.sdk = text.decode()
            elif name:
                self.items.append((era.decode(), method.decode(), name.decode(), needs.decode().split(), text))
            else:
                self.answers[era.decode(), method.decode()] = text

    def tools(self) -> set[str]:
        """The names of all tools that there are."""
        return {name for _, method, name, _, _ in self.items if method == "tools/list"}

    def are_of_this_sdk(self) -> bool:
        """Whether the SDK that will be imported is one of the minor version that was recorded, told by its folder."""
        minor = f"mcp-{self.sdk.rpartition('.')[0]}."
        for folder in sys.path:
            try:
                names = os.listdir(folder or ".")  # noqa: PTH208 - to import pathlib takes a third of the start
            except OSError:
                continue
            found = [name for name in names if name.startswith("mcp-") and name.endswith(".dist-info")]
            if found:
                return all(name.startswith(minor) for name in found)
        return False


def read_records() -> Records:
    """Read the file.

    Raises:
        OSError: it cannot be read, as from an archive.
    """
    return Records(read_file(__file__.replace("prepared.py", FILE_NAME)))


def read_file(path: str) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - to import pathlib takes a third of the start
        return file.read()


class Prepared:
    """The answers of a server that offers certain tools."""

    def __init__(self, records: Records, offer: Offer) -> None:
        self._answers = records.answers
        self._items = [item for item in records.items if item[1] == "tools/list" and _is_offered(item, offer)]
        offered = {name for _, _, name, _, _ in self._items}
        self._items += [item for item in records.items if item[1] != "tools/list" and offered.issuperset(item[3])]
        self._instructions = as_json(instructions(frozenset(offered), offer.limits))

    def knows(self, era: str, method: str) -> bool:
        """Whether there is an answer to a method."""
        return (era, method) in self._answers

    def answer(self, era: str, method: str, request_id: bytes, version: str = "", *, shows_page: bool = False) -> bytes:
        """The answer to a request of plain form, with its line break.

        Args:
            era: `CURRENT` or `HANDSHAKE`.
            method: One that is known.
            request_id: As JSON.
            version: What `initialize` asked for.
            shows_page: Whether the client shows the page.
        """
        items = b",".join(item[4] for item in self._items if item[:2] == (era, method))
        text = self._answers[era, method].replace(ID, request_id, 1).replace(ITEMS, items)
        text = text.replace(PAGE, SAID_OF_PAGE.get(method, b"") if shows_page else b"")
        return text.replace(VERSION, version.encode()).replace(INSTRUCTIONS, self._instructions) + b"\n"


def _is_offered(item: tuple[str, str, str, list[str], bytes], offer: Offer) -> bool:
    _, _, name, (toolset, safety), _ = item
    return offer.has(name, toolset, reads_only=safety == "reads")


def as_json(text: str) -> bytes:
    """What stands between the quotes of a text without control characters but line breaks, as the SDK writes it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()
