"""Our program as others start it: a process with nothing in its environment but what a test gives it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
_LIMIT_SECONDS: Final = 60
_LINE_BYTES: Final = 2**24


def environment(**variables: str) -> dict[str, str]:
    """A home of the test's own, a path, and what is asked for."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT), **variables}


async def start(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lium_mcp",
        *arguments,
        env=environment(**variables),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )


async def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run to the end; return status, standard output and standard error."""
    process = await start(*arguments, **variables)
    out, err = await asyncio.wait_for(process.communicate(b""), _LIMIT_SECONDS)  # a host hangs up
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


class Served:
    """A server process, spoken to in lines of JSON that are written by hand."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._errors = asyncio.create_task(_all_of(process.stderr))
        self.stderr = ""
        self.lines: list[str] = []

    async def send(self, line: str | dict[str, Any]) -> None:
        assert self._process.stdin is not None
        text = line if isinstance(line, str) else json.dumps(line)
        self._process.stdin.write(text.encode("utf-8", "surrogatepass") + b"\n")
        await self._process.stdin.drain()

    async def send_without_end(self, text: str) -> None:
        """Send what begins a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        await self._process.stdin.drain()

    async def receive(self) -> dict[str, Any]:
        """The next message, which has to be one of the protocol."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _LIMIT_SECONDS)
        self.lines.append(line.decode())
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return dict(message)

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer, which has to be the next message."""
        await self.send(message)
        answer = await self.receive()
        assert answer["id"] == message["id"]
        return answer

    def close_input(self) -> None:
        """Hang up, and read on."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def interrupt(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait for the exit status, closing standard input if that has not been done."""
        self.close_input()
        return await self.exited()

    async def exited(self) -> int:
        """Wait for the exit status with standard input left open, as a host's pipe is."""
        assert self._process.stdout is not None
        status = await asyncio.wait_for(self._process.wait(), _LIMIT_SECONDS)
        self.stderr = await self._errors
        left = (await self._process.stdout.read()).decode().splitlines(keepends=True)
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in left)
        self.lines += left
        return status

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._errors


@asynccontextmanager
async def serving(*arguments: str, **variables: str) -> AsyncIterator[Served]:
    """Start a server over standard input and output."""
    served = Served(await start(*arguments, **variables))
    try:
        yield served
    finally:
        await served.kill()


@asynccontextmanager
async def cold(*arguments: str, **variables: str) -> AsyncIterator[Served]:
    """A server that is started as hosts start it: what it needs is imported then, and not before as in other tests."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lium_mcp", *arguments,
        env=environment(**variables), stdin=-1, stdout=-1, stderr=-1, limit=2**24,
        process_group=0,
    )  # fmt: skip
    served = Served(process)
    try:
        yield served
    finally:
        await served.kill()


async def _all_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.read()).decode()
