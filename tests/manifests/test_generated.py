"""What is checked in is what is generated, holds no key, and names nothing that is not there today."""

import json
import re
import struct
import zlib

import pytest

from lium_mcp import __version__
from manifests import icon
from manifests.generate import files
from manifests.source import HERE, PROJECT, ROOT, Source, read

SOURCE = read()
OF_A_RELEASE = SOURCE.model_copy(
    update={"owner": "Some-One", "published": True, "remote": "https://gpu.example.com/mcp"}
)
BY_HAND = {"manifests/source.toml"}
DEPLOYMENTS = ("manifests/compose/", "manifests/k8s/")
PASTED = ("manifests/hosts/", "manifests/README.md", "manifests/plugin/README.md")
"""What people copy from."""


def test_what_is_checked_in_is_what_is_generated() -> None:
    for path, text in files(SOURCE).items():
        assert (ROOT / path).read_text() == text, f"{path}: `make manifests` writes it"


def test_every_config_that_is_checked_in_is_generated() -> None:
    endings = (".json", ".toml", ".yaml", ".svg", "SKILL.md")
    checked_in = {path.relative_to(ROOT).as_posix() for path in HERE.rglob("*.*") if path.name.endswith(endings)}
    generated = {path for path in files(SOURCE) if path.startswith("manifests/") and path.endswith(endings)}
    by_hand = BY_HAND | {path for path in checked_in if path.startswith(DEPLOYMENTS)}
    assert checked_in - by_hand == generated


def test_nothing_that_is_shipped_holds_a_key() -> None:
    made = files(SOURCE)
    assert len(made) > 50
    assert [path for path, text in made.items() if re.search(r"sk_[A-Za-z0-9]{4}", text)] == []


@pytest.mark.parametrize("source", [SOURCE, OF_A_RELEASE], ids=["today", "released"])
def test_nothing_that_is_pasted_names_the_account_that_publishes(source: Source) -> None:
    pasted = {path: text for path, text in files(source).items() if path.startswith(PASTED)}
    assert len(pasted) > 40
    assert [path for path, text in pasted.items() if source.owner in text] == []


def test_the_account_that_publishes_is_one_setting() -> None:
    made = files(OF_A_RELEASE)
    assert [path for path, text in made.items() if re.search(r"\bOWNER\b", text)] == []
    assert "<!-- mcp-name: io.github.Some-One/lium-mcp -->" in made["README.md"]
    assert 'Homepage = "https://github.com/Some-One/lium-mcp"' in made["pyproject.toml"]
    assert json.loads(made["glama.json"])["maintainers"] == ["Some-One"]


def test_the_index_shows_where_the_project_is() -> None:
    addresses = PROJECT["urls"]
    assert addresses["Homepage"] == SOURCE.repository
    assert all(address.startswith(SOURCE.repository) for address in addresses.values())


def test_the_icon_is_a_square_png_of_what_is_drawn() -> None:
    data = (HERE / "icon.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, bits, colours = struct.unpack(">IIBB", data[16:26])
    assert (width, height, bits, colours) == (512, 512, 8, 6)
    chunks, at = {}, 8
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + length]
        assert zlib.crc32(name + content) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        chunks[name], at = content, at + 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert zlib.decompress(chunks[b"IDAT"]) == icon.pixels(), "`make manifests` draws it"
    assert __version__ in SOURCE.icon
