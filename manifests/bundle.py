"""Build the MCPB bundle, which Claude Desktop installs with a double click (``make bundle``).

It holds our sources and names its dependencies; the host's own uv installs these on the user's machine. They are
bound to the versions that we test with, because a bundle is installed long after it was built.
"""

import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.types import Tool

from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from manifests.directories import BUNDLE_NAME
from manifests.source import HERE, NAME, PROJECT, ROOT, VERSION, Asked, Source, asked, read

ENTRY_POINT = "main.py"
_ICON = "icon.png"
# The zip format begins in 1980. One fixed time makes two builds of one state the same file, with the same hash.
_BUILT_AT = (1980, 1, 1, 0, 0, 0)
_READABLE_FILE = 0o100644


def build(folder: Path) -> Path:
    """Build the bundle into a folder and return its path."""
    described = manifest(read(), anyio.run(_listed_tools))
    contents = {
        "manifest.json": json.dumps(described, indent=2).encode(),
        "pyproject.toml": pyproject().encode(),
        ENTRY_POINT: (HERE / "bundle_files" / ENTRY_POINT).read_bytes(),
        _ICON: (HERE / _ICON).read_bytes(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    for path in sorted((ROOT / "lium_mcp").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            contents[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / BUNDLE_NAME
    with zipfile.ZipFile(target, "w") as bundle:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _BUILT_AT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = _READABLE_FILE << 16
            bundle.writestr(entry, content)
    return target


async def _listed_tools() -> list[Tool]:
    # The defaults alone: what the builder's own environment says is not the user's.
    async with Client(build_server(Settings.model_construct())) as client:
        return (await client.list_tools()).tools


def manifest(source: Source, tools: Sequence[Tool]) -> dict[str, Any]:
    """Make manifest.json; `tools` are those that the server itself lists."""
    inputs = asked(source)
    return {
        "manifest_version": "0.4",
        "name": NAME,
        "display_name": source.title,
        "version": VERSION,
        "description": PROJECT["description"],
        "author": {"name": PROJECT["authors"][0]["name"]},
        "repository": {"type": "git", "url": source.repository},
        "homepage": source.repository,
        "support": f"{source.repository}/issues",
        "icon": _ICON,
        "license": PROJECT["license"],
        "keywords": PROJECT["keywords"],
        "server": {
            "type": "uv",
            "entry_point": ENTRY_POINT,
            "mcp_config": {
                "command": "uv",
                "args": ["run", "--directory", "${__dirname}", ENTRY_POINT],
                "env": {item.setting.variable: f"${{user_config.{item.field}}}" for item in inputs},
            },
        },
        "tools": [{"name": tool.name, "description": tool.description or ""} for tool in tools],
        "tools_generated": False,
        "prompts_generated": True,
        "user_config": {item.field: _bundle_input(item) for item in inputs},
        "compatibility": {
            "platforms": ["darwin", "win32", "linux"],
            "runtimes": {"python": PROJECT["requires-python"]},
        },
    }


def _bundle_input(item: Asked) -> dict[str, Any]:
    told: dict[str, Any] = {"title": item.title, "description": item.description, "required": False}
    match item.kind:
        case "secret":
            return {"type": "string", "sensitive": True} | told
        case "boolean":
            return {"type": "boolean", "default": item.setting.default} | told
        case "number":
            bounds = {"min": item.setting.low, "max": item.setting.high}
            return {"type": "number"} | told | {name: bound for name, bound in bounds.items() if bound is not None}
        case "file":
            return {"type": "file"} | told


def pyproject() -> str:
    """Make the bundle's pyproject.toml: what to install, and nothing to build."""
    constraints = [
        line.removesuffix("\\").strip()
        for line in (ROOT / "requirements" / "run.txt").read_text().splitlines()
        if line and not line.startswith((" ", "#"))
    ]
    return "\n".join(
        (
            "[project]",
            f"name = {json.dumps(NAME)}",
            f"version = {json.dumps(VERSION)}",
            f"requires-python = {json.dumps(PROJECT['requires-python'])}",
            f"dependencies = {json.dumps(PROJECT['dependencies'], indent=2)}",
            "",
            "[tool.uv]",
            "package = false",
            f"constraint-dependencies = {json.dumps(constraints, indent=2)}",
            "",
        )
    )


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
