"""The wheel, installed where nothing else is, on every Python that is there, and tried as a user and a host would."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
from mcp import Client, StdioServerParameters
from packaging.specifiers import SpecifierSet

from release.candidate import Candidate, Finding, ReleaseError, run
from release.tool_list import listed_by_default

_MEND: Final = "see whether pyproject.toml names all that is imported, in versions that this Python has"
_HANDSHAKE_SECONDS: Final = 60
_LINES_SHOWN: Final = 8


def starts_on_every_python(candidate: Candidate) -> Iterator[Finding]:
    """Install and try it on the newest Python of each minor version."""
    for version, python in pythons(candidate).items():
        for said in _tried(candidate, python, candidate.scratch / f"python-{version}"):
            yield Finding(f"on Python {version}: {said}", _MEND)


def pythons(candidate: Candidate) -> dict[str, str]:
    """Find the interpreters on this machine that the package says it runs on: path by version.

    Raises:
        ReleaseError: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    # pyenv has only one of its versions on the path.
    path = os.pathsep.join([*map(str, pyenv.glob("versions/*/bin")), os.environ["PATH"]])
    done = run(
        [candidate.tools / "uv", "python", "list", "--only-installed", "--output-format", "json"],
        cwd=candidate.scratch,
        variables=os.environ | {"PATH": path},
    )
    supported = SpecifierSet(candidate.built.metadata["requires_python"])
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for row in json.loads(done.stdout or "[]"):
        minor = (row["version_parts"]["major"], row["version_parts"]["minor"])
        if row["implementation"] == "cpython" and row["version"] in supported:
            found.setdefault(minor, (row["version"], row["path"]))
    if not found:
        raise ReleaseError(f"there is no Python {supported} on this machine; install one")
    return dict(found[minor] for minor in sorted(found))


def _tried(candidate: Candidate, python: str, folder: Path) -> Iterator[str]:
    home = folder / "home"
    home.mkdir(parents=True)
    variables = {"PATH": os.environ["PATH"], "HOME": str(home)}
    installed = folder / "installed"
    for arguments in (
        ("venv", "--quiet", "--python", python, installed),
        ("pip", "install", "--quiet", "--python", installed, candidate.built.wheel),
        ("pip", "check", "--quiet", "--python", installed),
    ):
        done = run([candidate.tools / "uv", *arguments], cwd=home)
        if done.returncode:
            yield f"`uv {' '.join(map(str, arguments))}` says:\n{done.stderr.strip()}"
            return
    command = installed / "bin" / "lium-mcp"
    said = run([command, "--version"], cwd=home, variables=variables).stdout.split()
    if said[-1:] != [candidate.version]:
        yield f"`lium-mcp --version` says {' '.join(said) or 'nothing'}, not {candidate.version}"
    demo = run([command, "demo"], cwd=home, variables=variables)
    if demo.returncode:
        last = "\n".join((demo.stdout + demo.stderr).strip().splitlines()[-_LINES_SHOWN:])
        yield f"`lium-mcp demo` ends with status {demo.returncode}:\n{last}"
    try:
        listed = anyio.run(listed_tools, str(command), [], variables)
    except Exception as problem:  # noqa: BLE001 - whatever kept it from answering is what is to be told
        yield f"it lists no tools over standard input and output: {problem!r}"
        return
    expected = [tool.name for tool in listed_by_default(candidate)]
    if listed != expected:
        yield f"it lists {len(listed)} tools, and its list has {len(expected)}: {sorted({*listed} ^ {*expected})}"


async def listed_tools(command: str, arguments: list[str], variables: dict[str, str]) -> list[str]:
    """Start a server as a host does, and return the names of the tools that it lists."""
    server = StdioServerParameters(command=command, args=arguments, env=variables)
    with anyio.fail_after(_HANDSHAKE_SECONDS):
        async with Client(server) as client:
            return [tool.name for tool in (await client.list_tools()).tools]
