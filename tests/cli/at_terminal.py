"""A command whose questions a person answers."""

import asyncio
import os
import sys
from pathlib import Path

from tests.processes import environment


async def at_a_terminal(home: Path, answers: str, *words: str) -> tuple[int | None, str]:
    read, written = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lium_mcp", *words),
        stdin=written,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(HOME=str(home)),
        cwd=home,
    )
    os.write(read, answers.encode())
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    os.close(read)
    os.close(written)
    return process.returncode, out.decode()
