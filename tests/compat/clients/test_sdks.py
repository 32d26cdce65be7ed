"""The SDKs that most hosts are made with: each lists what we offer, rents a pod with progress and removes it."""

import json
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.compat.clients.conftest import EVERY_TRANSPORT, Target
from tests.compat.clients.visit import RENT, check, coming_up, drive
from tests.compat.installs import node
from tests.compat.simulated import Simulated
from tests.harness import text_of

HERE = Path(__file__).parent
every_transport = pytest.mark.parametrize("target", EVERY_TRANSPORT, indirect=True)


@every_transport
def test_python_sdk_1(python_130: Path, target: Target, lium: Simulated, tmp_path: Path) -> None:
    report = drive([str(python_130), str(HERE / "python_driver.py")], target.as_json(), tmp_path, lium)
    assert report["protocol"] == "2025-11-25"
    check(report, lium)


@every_transport
def test_typescript_sdk(typescript: Path, target: Target, lium: Simulated, tmp_path: Path) -> None:
    command = [node(typescript), str(HERE / "typescript_driver.mjs"), str(typescript)]
    check(drive(command, target.as_json(), tmp_path, lium), lium)


@every_transport
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_python_sdk_2(target: Target, lium: Simulated, mode: Literal["auto", "legacy"]) -> None:
    opened: Any
    http = httpx2.AsyncClient(headers=target.headers, timeout=60, trust_env=False)
    if target.transport == "stdio":
        command, *arguments = target.command
        opened = stdio_client(StdioServerParameters(command=command, args=arguments, env=target.env))
    elif target.transport == "sse":
        opened = sse_client(target.url, headers=target.headers)
    else:
        opened = streamable_http_client(target.url, http_client=http)
    heard: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with http, Client(opened, mode=mode) as client:
        balance = await client.call_tool("get_balance", {})
        with coming_up(lium):
            rented = await client.call_tool("rent_pod", dict(RENT), progress_callback=on_progress)
        failure = await client.call_tool("get_pod", {"pod": "nobody"})
        await client.call_tool("remove_pod", {"pod": "train", "wait_seconds": 0})
        assert client.server_info is not None
        report = {
            "server": client.server_info.name,
            "instructions": client.instructions,
            "tools": [tool.name for tool in (await client.list_tools()).tools],
            "prompts": [prompt.name for prompt in (await client.list_prompts()).prompts],
            "resources": [resource.uri for resource in (await client.list_resources()).resources],
            "balance": balance.structured_content,
            "rented": rented.structured_content,
            "progress": heard,
            "failure": {"isError": failure.is_error, "text": text_of(failure)},
        }
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
    assert json.loads(text_of(balance)) == balance.structured_content
    check(report, lium)
