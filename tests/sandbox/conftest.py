"""A frozen sandbox that starts at a known time, and a client that checks every answer against the contract."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from lium_mcp.sandbox import Sandbox
from tests.sandbox.wire import Wire, wire_to

START = datetime(2026, 10, 6, 12, 0, 2, tzinfo=UTC)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(seed=7, speed=0, start=START)


@pytest.fixture
async def wire(sandbox: Sandbox) -> AsyncIterator[Wire]:
    async with wire_to(sandbox) as connected:
        yield connected
