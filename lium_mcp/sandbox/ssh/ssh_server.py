"""Serves one SSH connection to a pod: who may log in, and how a session is joined to the pod's processes.

One logs in with one of the pod's own public keys, as root. There is no password, no forwarding, and no way to the
machine that this runs on.
"""

import asyncio
import logging
import socket
from contextlib import suppress
from functools import partial
from typing import Final

import asyncssh

from lium_mcp.sandbox.container.containers import Container
from lium_mcp.sandbox.container.processes import SIGNALS, Process
from lium_mcp.sandbox.container.streams import Pipe
from lium_mcp.sandbox.ssh.pod_line import PodLine
from lium_mcp.sandbox.ssh.sftp_server import PodSftpServer
from lium_mcp.sandbox.world import World

LOGIN_SECONDS: Final = 20
NO_SHELL: Final = 254
PIPE_BYTES: Final = 512 * 1024
CHUNK_BYTES: Final = 64 * 1024
ENVIRONMENT_ACCEPTED: Final = frozenset({"LANG"})

# The library logs every command at INFO, and a command may hold a secret.
asyncssh.set_log_level(logging.WARNING)


async def serve_connection(world: World, container: Container, sock: socket.socket) -> None:
    """Serve one accepted connection to its end."""
    facts = {"pod_id": container.pod.id, "pod_name": container.pod.name}
    with world.lock:
        refuses = world.faults.strike("ssh_refuses", **facts)
        says_nothing = world.faults.strike("ssh_silent", **facts)
        if world.faults.strike("host_key_changes", **facts):
            container.host_key = None
    if refuses:
        sock.close()
        return
    if says_nothing:
        with suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(sock, CHUNK_BYTES):
                pass
        sock.close()
        return
    line = PodLine(world, container)
    try:
        connection = await asyncssh.run_server(
            sock,
            server_factory=lambda: PodLogin(container),
            server_host_keys=[_host_key(container)],
            process_factory=partial(_serve_process, line),
            allow_pty=False,
            sftp_factory=lambda channel: PodSftpServer(channel, line),
            allow_scp=False,
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
            gss_host=None,
            login_timeout=LOGIN_SECONDS,
            connect_timeout=LOGIN_SECONDS,
            compression_algs=None,
        )
    except (OSError, asyncssh.Error):
        sock.close()
        return
    line.connection = connection
    try:
        await connection.wait_closed()
    finally:
        connection.abort()
        with suppress(OSError, asyncssh.Error):
            await connection.wait_closed()


def _host_key(container: Container) -> asyncssh.SSHKey:
    if not isinstance(container.host_key, asyncssh.SSHKey):
        container.host_key = asyncssh.generate_private_key("ssh-ed25519")
    return container.host_key


class PodLogin(asyncssh.SSHServer):
    """Lets in whoever holds the private half of one of the pod's keys."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        """Demand authentication of everybody."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Offer public keys."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Accept the pod's keys for root; if any of them has a letter that is not ASCII, accept none."""
        lines = self._container.pod.public_keys
        if username != "root" or not all(line.isascii() for line in lines):
            return False
        for line in lines:
            with suppress(asyncssh.KeyImportError, ValueError):
                if asyncssh.import_public_key(line).public_data == key.public_data:
                    return True
        return False

    def password_auth_supported(self) -> bool:
        """Offer no password."""
        return False

    def kbdint_auth_supported(self) -> bool:
        """Offer no questions and answers."""
        return False


async def _serve_process(line: PodLine, channel: "asyncssh.SSHServerProcess[bytes]") -> None:
    """Run what a session asks for."""
    if channel.subsystem is not None:
        channel.stderr.write(b"no such subsystem\n")
        channel.exit(1)
        return
    line.begin()
    with suppress(OSError, asyncssh.Error):
        try:
            session = _PodSession(line, channel)
        except OSError as error:
            channel.stderr.write(f"cannot start a shell: {error.strerror}\n".encode())
            channel.exit(NO_SHELL)
            return
        await session.serve()


class _PodSession:
    """One exec or shell request, and the process that answers it."""

    def __init__(self, line: PodLine, channel: "asyncssh.SSHServerProcess[bytes]") -> None:
        self._line, self._channel = line, channel
        self._world, self._container = line.world, line.container
        loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

        self._read = asyncio.Event()

        def pipe(changed: asyncio.Event) -> Pipe:
            def tell() -> None:
                # Whoever turns the clock may be in another thread, and this loop gone.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(changed.set)

            return Pipe(limit_bytes=PIPE_BYTES, on_change=tell)

        self._input, self._output, self._errors = pipe(self._read), pipe(self._changed), pipe(self._changed)
        self._process = self._start()

    def _start(self) -> Process:
        streams = {0: self._input, 1: self._output.writer, 2: self._errors.writer}
        command = self._channel.command
        asked = self._channel.env
        environment = {name: value for name, value in asked.items() if name in ENVIRONMENT_ACCEPTED}
        with self._world.lock:
            self._world.catch_up()
            return self._container.start(command, streams, environment)

    async def serve(self) -> None:
        """Carry input and output until the process has ended, and so have all others that write to its output."""
        feeding = asyncio.ensure_future(self._feed())
        closing = asyncio.ensure_future(self._channel.channel.wait_closed())
        closing.add_done_callback(lambda _: self._changed.set())
        try:
            with self._world.lock:
                self._container.kernel.run()
            self._line.carry(1)
            while not closing.done():
                self._changed.clear()
                with self._world.lock:
                    output, errors = self._output.take(), self._errors.take()
                    self._container.kernel.run()
                    is_over = self._output.is_finished and self._errors.is_finished
                    is_over = is_over and self._process.exit_code is not None
                    is_over = is_over and not self._output.buffer and not self._errors.buffer
                await self._send(output, errors)
                if is_over:
                    self._exit()
                    return
                if not output and not errors:
                    await self._changed.wait()
        finally:
            feeding.cancel()
            closing.cancel()
            with self._world.lock:
                self._input.finish()
                self._output.closed()
                self._errors.closed()
                self._container.kernel.run()

    async def _send(self, output: bytes, errors: bytes) -> None:
        self._line.carry(len(output) + len(errors))
        for stream, data in ((self._channel.stdout, output), (self._channel.stderr, errors)):
            for start in range(0, len(data), CHUNK_BYTES):
                stream.write(data[start : start + CHUNK_BYTES])
                await stream.drain()

    def _exit(self) -> None:
        # Like OpenSSH: some clients wait for the end of the output, however the channel ends.
        self._channel.channel.write_eof()
        self._channel.exit(self._process.exit_code or 0)

    async def _feed(self) -> None:
        with suppress(OSError, asyncssh.Error):
            await self._read_input()

    async def _read_input(self) -> None:
        while True:
            try:
                data = await self._channel.stdin.read(CHUNK_BYTES)
            except asyncssh.SignalReceived as received:
                self._signal(SIGNALS.get(received.signal, 0))
                continue
            except asyncssh.BreakReceived:
                self._signal(SIGNALS["INT"])
                continue
            except (OSError, asyncssh.Error):
                data = b""
            self._take_in(data)
            if not data:
                return
            while len(self._input.buffer) > PIPE_BYTES and not self._input.is_broken:
                self._read.clear()
                await self._read.wait()

    def _take_in(self, data: bytes) -> None:
        with self._world.lock:
            if data:
                self._input.put(data)
            else:
                self._input.finish()
            self._container.kernel.run()

    def _signal(self, number: int) -> None:
        with self._world.lock:
            kernel = self._container.kernel
            if number and self._process.exit_code is None:
                kernel.signal(kernel.group(self._process.group), number)
                kernel.run()
