"""The MCP Inspector's command line, over every transport and in both eras of the protocol."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.page import CARRIED_BY, MIME_TYPE
from tests.compat.clients.conftest import EVERY_TRANSPORT, Target
from tests.compat.installs import node, variables
from tests.compat.simulated import Simulated

LIMIT_SECONDS = 60
TOOL_ERROR = 5
every_transport = pytest.mark.parametrize("target", EVERY_TRANSPORT, indirect=True)


def inspect(inspector: Path, target: Target, home: Path, era: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if target.transport == "stdio":
        command, *rest = target.command
        entry: dict[str, Any] = {"type": "stdio", "command": command, "args": rest, "env": target.env}
    else:
        kind = "sse" if target.transport == "sse" else "streamable-http"
        entry = {"type": kind, "url": target.url, "headers": {"X-API-Key": "sk_sandbox"}}
    config = home / "config.json"
    config.write_text(json.dumps({"mcpServers": {"lium": entry | {"protocolEra": era}}}))
    script = inspector / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build"
    return subprocess.run(
        [
            *(node(inspector), str(script / "index.js"), "--cli"),
            *("--config", str(config), "--server", "lium", "--format", "json", *arguments),
        ],
        env=variables(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


@every_transport
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_it_lists_our_tools_finds_no_fault_in_them_and_calls_one(
    inspector: Path, target: Target, lium: Simulated, tmp_path: Path, era: str
) -> None:
    listed = inspect(inspector, target, tmp_path, era, "--method", "tools/list", "--strict")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    tools = json.loads(listed.stdout)
    assert "rent_pod" in {tool["name"] for tool in tools.get("tools", tools.get("result", {}).get("tools", []))}

    called = inspect(inspector, target, tmp_path, era, "--method", "tools/call", "--tool-name", "get_balance")
    assert called.returncode == 0, called.stdout + called.stderr
    assert '"balance_usd":100' in called.stdout.replace(" ", "").replace("\\", "")


@pytest.mark.parametrize("target", ["http"], indirect=True)
def test_it_shows_a_failure_as_one(inspector: Path, target: Target, tmp_path: Path) -> None:
    arguments = ("--method", "tools/call", "--tool-name", "get_pod", "--tool-arg", "pod=nobody")
    refused = inspect(inspector, target, tmp_path, "legacy", *arguments)
    assert refused.returncode == TOOL_ERROR, refused.stdout + refused.stderr
    assert "pod_not_found" in refused.stdout


@every_transport
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_it_finds_the_page_of_the_tools_that_carry_it_once_it_shows_pages(
    inspector: Path, target: Target, tmp_path: Path, era: str
) -> None:
    listing = ("--method", "tools/list", "--app-info")
    for more, carried in (((), set()), (("--advertise-apps",), CARRIED_BY)):
        told = inspect(inspector, target, tmp_path, era, *listing, *more)
        assert told.returncode == 0, told.stdout + told.stderr
        tools = [json.loads(line) for line in told.stdout.splitlines() if "hasApp" in line]
        apps = [tool.get("appInfo", tool) for tool in tools]
        assert {app["toolName"] for app in apps if app["hasApp"]} == carried
        assert all(app["resourceMimeType"] == MIME_TYPE for app in apps if app["hasApp"])
