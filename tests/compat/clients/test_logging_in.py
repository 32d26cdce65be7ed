"""Other people's clients log in over HTTP: each as one that registers, and as one that publishes what it is."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.client_sites import ADDRESS, SITE, Sites, publishing
from tests.compat.installs import node, variables
from tests.compat.simulated import Simulated, simulating
from tests.http_server import Served, serving_amid
from tests.oauth_client import REDIRECT, agree, at_lium
from tests.ports import free_port

LIMIT_SECONDS = 60


@pytest.fixture(scope="module")
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(start=datetime.now(UTC).replace(microsecond=0))
        yield simulated


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with publishing(tmp_path_factory.mktemp("sites")) as sites:
        yield sites


@pytest.fixture(scope="module")
def hosted(lium: Simulated, sites: Sites, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home, port = tmp_path_factory.mktemp("hosted"), free_port()
    settings = at_lium(lium, home, port) | sites.settings()
    with serving_amid(home, {SITE: [[ADDRESS]]}, "--port", str(port), **settings) as served:
        yield served


def document(sites: Sites, name: str, redirect: str, *, publishes: bool) -> str | None:
    """What the client is called that publishes what it is; None for one that registers."""
    return sites.publish(f"/{name}.json", redirect_uris=[redirect]) if publishes else None


@pytest.mark.parametrize("publishes", [False, True], ids=["registers", "publishes"])
async def test_typescript_sdk(
    typescript: Path, hosted: Served, sites: Sites, tmp_path: Path, *, publishes: bool
) -> None:
    client_id = document(sites, "typescript", REDIRECT, publishes=publishes)
    driver = [node(typescript), str(Path(__file__).with_name("typescript_login.mjs")), str(typescript)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*driver, stdin=pipe, stdout=pipe, env=variables(tmp_path))
    assert process.stdin is not None
    assert process.stdout is not None
    with anyio.fail_after(LIMIT_SECONDS):
        told = {"url": f"{hosted.url}/mcp", "redirect": REDIRECT, "document": client_id}
        process.stdin.write(f"{json.dumps(told)}\n".encode())
        address = (await process.stdout.readline()).decode().strip()
        process.stdin.write(f"{await agree(address)}\n".encode())
        report = json.loads(await process.stdout.readline())
        assert await process.wait() == 0
    assert report["balance"]["balance_usd"] == report["renewed"]["balance_usd"] == 100
    assert (report["client"] == client_id) is publishes


@pytest.mark.parametrize("publishes", [False, True], ids=["registers", "publishes"])
async def test_inspector(inspector: Path, hosted: Served, sites: Sites, tmp_path: Path, *, publishes: bool) -> None:
    callback = f"http://127.0.0.1:{free_port()}/oauth/callback"
    # What it publishes names no port, and it listens at one that is free.
    client_id = document(sites, "inspector", "http://127.0.0.1/oauth/callback", publishes=publishes)
    script = inspector / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build"
    process = await asyncio.create_subprocess_exec(
        *(node(inspector), str(script / "index.js"), "--cli", f"{hosted.url}/mcp", "--transport", "http"),
        *("--method", "tools/call", "--tool-name", "get_balance", "--format", "json", "--callback-url", callback),
        *(("--client-metadata-url", client_id) if client_id else ()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=variables(tmp_path) | {"MCP_AUTO_OPEN_ENABLED": "true", "MCP_INSPECTOR_SECRET_STORE": "memory"},
    )
    assert process.stdout is not None
    said = ""
    with anyio.fail_after(LIMIT_SECONDS):
        async for line in process.stdout:
            said += line.decode()
            if found := re.search(r"http\S+/authorize\?\S+", line.decode()):
                assert ("client_id=https" in found[0]) is publishes
                async with httpx2.AsyncClient(trust_env=False) as browser:
                    assert (await browser.get(await agree(found[0]))).status_code == 200
        assert await process.wait() == 0, said
    assert '"balance_usd":100' in said
