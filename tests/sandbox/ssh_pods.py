"""A pod that answers SSH, and a client that has its key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncssh

from lium_mcp.sandbox import Sandbox
from tests.sandbox.conftest import START
from tests.sandbox.wire import Wire, wire_to

ANSWER_SECONDS = 60


@dataclass
class SshPod:
    sandbox: Sandbox
    wire: Wire
    key: asyncssh.SSHKey
    pod_id: str

    async def port(self) -> int:
        return int((await self.wire.pod(self.pod_id))["ports_mapping"]["22"])

    async def connect(self, **options: Any) -> asyncssh.SSHClientConnection:
        given = {"username": "root", "client_keys": [self.key], "known_hosts": None, "config": None} | options
        return await asyncio.wait_for(
            asyncssh.connect("127.0.0.1", await self.port(), agent_path=None, **given), ANSWER_SECONDS
        )

    async def run(self, command: str, *, stdin: str = "") -> asyncssh.SSHCompletedProcess:
        """Run a command over a connection of its own."""
        connection = await self.connect()
        try:
            return await asyncio.wait_for(connection.run(command, input=stdin), ANSWER_SECONDS)
        finally:
            connection.close()

    async def out(self, command: str) -> str:
        """Run a command that should succeed, and return what it prints."""
        done = await self.run(command)
        assert done.exit_status == 0, (command, done.stdout, done.stderr)
        return str(done.stdout)

    async def until_it_sleeps(self) -> None:
        """Wait until a process waits for the sandbox's time."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while "sleep" not in await self.out("ps"):
                pass

    async def reboot(self) -> None:
        await self.wire.ok("rebootPod", pod_id=self.pod_id, json={})
        self.sandbox.clock.advance(minutes=2)
        assert (await self.wire.pod(self.pod_id))["status"] == "RUNNING"


@asynccontextmanager
async def ssh_pod(sandbox: Sandbox | None = None, **asked: Any) -> AsyncIterator[SshPod]:
    """Rent a pod in a sandbox whose pods answer SSH, and close everything afterwards."""
    sandbox = sandbox or Sandbox(seed=7, speed=0, start=START, ssh=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    async with wire_to(sandbox) as wire:
        pod_id = await wire.running(sandbox, user_public_key=[key.export_public_key().decode()], **asked)
        try:
            yield SshPod(sandbox, wire, key, pod_id)
        finally:
            await sandbox.aclose()
