"""What a host has around it: `uvx` and uv on its path, and a simulated Lium at an address."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from tests.compat.simulated import Simulated, simulating


@pytest.fixture
def host_path(tmp_path: Path) -> str:
    """A PATH with uv, and with a stand-in for `uvx` that runs this checkout and no other package."""
    stand_in = tmp_path / "bin" / "uvx"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\n[ "$1" = lium-mcp ] || exit 9\nshift\nexec "{sys.executable}" -m lium_mcp "$@"\n')
    stand_in.chmod(0o755)
    return os.pathsep.join((str(stand_in.parent), str(Path(uv.find_uv_bin()).parent), os.environ["PATH"]))


@pytest.fixture(scope="session")
def _simulated() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def simulated(_simulated: Simulated) -> Simulated:
    """A fresh simulated Lium, whose only key is `sk_sandbox`."""
    _simulated.begin()
    return _simulated
