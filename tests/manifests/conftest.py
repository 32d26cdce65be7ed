"""What a host has around it: `lium-mcp`, `uvx` and uv on its path, and a simulated Lium at an address."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from tests.compat.simulated import Simulated, simulating


@pytest.fixture
def host_path(tmp_path: Path, simulated: Simulated) -> str:
    """A PATH with uv, and with commands that run this checkout, and no other package, over the simulated Lium.

    They know its address themselves: many hosts pass on no variable but a few.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    run = f'LIUM_BASE_URL={simulated.base_url} exec "{sys.executable}" -m lium_mcp "$@"\n'
    for name, before in (("lium-mcp", ""), ("uvx", '[ "$1" = lium-mcp ] || exit 9\nshift\n')):
        (folder / name).write_text(f"#!/bin/sh\n{before}{run}")
        (folder / name).chmod(0o755)
    return os.pathsep.join((str(folder), str(Path(uv.find_uv_bin()).parent), os.environ["PATH"]))


@pytest.fixture(scope="session")
def _simulated() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def simulated(_simulated: Simulated) -> Simulated:
    """A fresh simulated Lium, whose only key is `sk_sandbox`."""
    _simulated.begin()
    return _simulated
