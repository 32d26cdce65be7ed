"""A person's terminal: commands one after the other, a yes to what is asked, servers that go on beside it."""

import os
import pty
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lium_mcp.cli.exit_statuses import ExitStatus
from tests.ports import free_port

_LIMIT_SECONDS: Final = 100.0
# How commands may end besides 0: they tell what they have found.
_FOUND: Final = {"--dry-run": ExitStatus.DIFFERS, " doctor": ExitStatus.FAILED}
_SAYS_THAT_IT_SERVES: Final = re.compile(r"http://\S+")
_ANSWERS: Final = {b"[y/N] ": b"y\n", b": ": b"\n"}


class CommandFailed(AssertionError):
    """A command did not do what it is for."""


class Terminal:
    """Types what is shown, with ports that are free here in place of those that are."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self._folder = folder
        self._variables = variables
        self._serving: list[subprocess.Popen[bytes]] = []
        self._ports: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Sit down."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End what still serves."""
        for process in self._serving:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()

    def type(self, line: str) -> None:
        """Run a command to its end, or until it serves.

        Raises:
            CommandFailed: it ended otherwise than it should.
        """
        if line.startswith("export "):
            self._export(line)
        elif line.startswith(("lium-mcp serve", "lium-mcp sandbox", "lium-mcp dashboard")):
            self._serve(line)
        else:
            self._run(self._here(line))

    def _export(self, line: str) -> None:
        names = [word.partition("=")[0] for word in shlex.split(self._here(line))[1:]]
        shown = "; ".join(f'printf "%s\\n" "${name}"' for name in names)
        values = subprocess.run(
            ["/bin/sh", "-c", f"{self._here(line)}; {shown}"],
            cwd=self._folder,
            env=self._variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        self._variables |= dict(zip(names, values, strict=True))

    def _here(self, line: str) -> str:
        for shown, free in self._ports.items():
            line = line.replace(f":{shown}", f":{free}")
        return line

    def _serve(self, line: str) -> None:
        port = str(free_port())
        shown = re.search(r"--port (\d+)", line)
        if shown:
            self._ports[shown[1]] = port
            line = line.replace(shown[0], f"--port {port}")
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}"],
            cwd=self._folder,
            env=self._variables | {"LIUM_MCP_PORT": port},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._serving.append(process)
        assert process.stderr is not None
        said = ""
        while not _SAYS_THAT_IT_SERVES.search(said):
            part = process.stderr.readline().decode()
            said += part
            if not part:
                raise CommandFailed(f"{line} does not serve: {said}")

    def _run(self, line: str) -> None:
        keyboard, seen = pty.openpty()
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", line],
                cwd=self._folder,
                env=self._variables,
                stdin=seen,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            said = self._answer(process, keyboard)
        finally:
            os.close(keyboard)
            os.close(seen)
        expected = {ExitStatus.OK, *(status for word, status in _FOUND.items() if word in line)}
        if process.returncode not in expected:
            raise CommandFailed(f"{line} ended with {process.returncode}: {said.decode(errors='replace')[-2000:]}")

    def _answer(self, process: subprocess.Popen[bytes], keyboard: int) -> bytes:
        """Read all that a command says, with a yes to what it asks and Enter for what it offers."""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said, answered, until = b"", 0, time.monotonic() + _LIMIT_SECONDS
        with process.stdout:
            while True:
                part = process.stdout.read()
                if part == b"":
                    process.wait()
                    return said
                said += part or b""
                for question, answer in _ANSWERS.items():
                    if len(said) > answered and said.endswith(question):
                        os.write(keyboard, answer)
                        answered = len(said)
                if time.monotonic() > until:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise CommandFailed(f"it does not end: {said.decode(errors='replace')[-2000:]}")
                time.sleep(0.02)
