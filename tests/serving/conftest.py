"""The simulated Lium before which servers over HTTP stand; a file that begins it otherwise has one of its own."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.compat.simulated import Simulated, simulating


@pytest.fixture
def lium() -> Iterator[Simulated]:
    """A fresh sandbox in a process of its own, by the clock of this machine."""
    with simulating() as simulated:
        simulated.begin(start=datetime.now(UTC).replace(microsecond=0))
        yield simulated
