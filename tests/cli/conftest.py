from collections.abc import AsyncIterator

import pytest

from lium_mcp.sandbox import Sandbox
from tests.cli.doctor_shell import Shell
from tests.wires import Wire, served


@pytest.fixture
async def shell(sandbox: Sandbox) -> AsyncIterator[Shell]:
    async with served(Wire(sandbox)) as wire:
        yield Shell(wire.base_url)
