"""Connections to pods: one for each, checked against its pinned host key, kept open while used and a while after."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

import anyio
import asyncssh

from lium_mcp.failures import Failure
from lium_mcp.remote.connection_lost import connection_lost
from lium_mcp.remote.host_keys import HostKeys, Pin
from lium_mcp.remote.key_source import KeySource
from lium_mcp.remote.sftp import PodFiles
from lium_mcp.remote.ssh_addresses import Address

_CONNECT_SECONDS: Final = 20.0
_OPEN_SECONDS: Final = 20.0
_KEEP_ALIVE_SECONDS: Final = 15.0
_KEEP_ALIVE_MISSES: Final = 3
# sshd allows ten sessions in one connection by default; one is left for files and one for stopping commands.
_MOST_SESSIONS: Final = 8
# How long the rest of the output is waited for after a command has ended. Something that it left running may hold it.
_DRAIN_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 2.0
# The fastest first: with AES in hardware, GCM is several times faster than the rest.
_CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_HOST_KEY_KINDS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)

# At INFO the library logs every command, and commands may hold secrets.
logging.getLogger("asyncssh").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: by itself with a status, or by a signal.

    Attributes:
        output_open: Something that it left running still holds its output open.
    """

    status: int | None
    signal: str | None = None
    output_open: bool = False


Sink = Callable[[bytes, bool], None]
"""Takes output as it comes; the second argument says whether it is from standard error."""


class Connection:
    """A connection to one pod, shared by all that is done there at the same time."""

    def __init__(self, address: Address, ssh: asyncssh.SSHClientConnection) -> None:
        self.address = address
        self.users = 0
        self._ssh = ssh
        self._sessions = anyio.Semaphore(_MOST_SESSIONS)
        self._files: PodFiles | None = None
        self._files_lock = anyio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether it can still be used, as far as is known."""
        return not self._ssh.is_closed()

    async def execute(self, command: str, sink: Sink, *, reserved: bool = False) -> Ended:
        """Run a command with nothing on its standard input and wait until it ends; cancellation leaves it running.

        Args:
            command: For the login shell of the pod.
            sink: Takes the output; called from the event loop, so it has to be quick.
            reserved: Do not wait for other commands to end first.

        Raises:
            Failure: the connection broke, or the pod refuses to run anything.
        """
        if reserved:
            return await self._execute(command, sink)
        async with self._sessions:
            return await self._execute(command, sink)

    async def _execute(self, command: str, sink: Sink) -> Ended:
        session = _CommandSession(sink)
        try:
            with anyio.fail_after(_OPEN_SECONDS):
                channel, _ = await self._ssh.create_session(lambda: session, command, encoding=None, request_pty=False)
        except asyncssh.ChannelOpenError as error:
            if not self.is_open:
                raise connection_lost(str(self.address)) from error
            raise Failure(
                "ssh_refused",
                f"{self.address} refuses to run a command.",
                "Check the login shell and the SSH server of the pod's image.",
            ) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise connection_lost(str(self.address)) from error
        try:
            channel.write_eof()
            await session.ended.wait()
            with anyio.move_on_after(_DRAIN_SECONDS):
                await session.closed.wait()
        finally:
            channel.abort()
        if session.status is None and session.signal is None:
            raise connection_lost(str(self.address))
        return Ended(session.status, session.signal, output_open=not session.closed.is_set())

    async def files(self) -> PodFiles:
        """The pod's files.

        Raises:
            Failure: the connection broke, or the pod has no SFTP.
        """
        async with self._files_lock:
            if self._files is None or not self._files.is_open:
                try:
                    with anyio.fail_after(_OPEN_SECONDS):
                        client = await self._ssh.start_sftp_client(path_errors="surrogateescape")
                except (asyncssh.Error, OSError, TimeoutError) as error:
                    if not self.is_open:
                        raise connection_lost(str(self.address)) from error
                    raise Failure(
                        "no_sftp",
                        f"The SSH server of {self.address} offers no SFTP.",
                        "Choose an image whose SSH server has it (in OpenSSH: Subsystem sftp).",
                    ) from error
                self._files = PodFiles(client, str(self.address))
            return self._files

    async def close(self) -> None:
        """Close the connection, also under commands that still run over it."""
        self._ssh.close()
        with anyio.move_on_after(_CLOSE_SECONDS), suppress(asyncssh.Error, OSError):
            await self._ssh.wait_closed()
        self._ssh.abort()


class _CommandSession(asyncssh.SSHClientSession[bytes]):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.status: int | None = None
        self.signal: str | None = None
        self.ended = asyncio.Event()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._sink(data, datatype == asyncssh.EXTENDED_DATA_STDERR)

    def exit_status_received(self, status: int) -> None:
        self.status = status
        self.ended.set()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: ARG002 - the library's interface
        self.signal = signal
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the library's interface
        self.ended.set()
        self.closed.set()


class _OtherKey(Exception):
    """A pod shows another host key than the one that is pinned."""


class _Client(asyncssh.SSHClient):
    """Trusts any host key where none is pinned. The library trusts a pinned one without asking this."""

    def __init__(self, *, is_pinned: bool) -> None:
        self._is_pinned = is_pinned
        self.changed = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002 - the library's interface
        self.changed = self._is_pinned
        return not self.changed


class Connections:
    """The pool of connections, so that a second command on a pod needs no new handshake."""

    def __init__(
        self,
        keys: KeySource,
        host_keys: HostKeys,
        is_replaced: Callable[[Address, Pin], Awaitable[bool]],
        now: Callable[[], float],
        *,
        idle_seconds: float = 300.0,
    ) -> None:
        self._keys = keys
        self._host_keys = host_keys
        self._is_replaced = is_replaced
        self._now = now
        self._idle_seconds = idle_seconds
        self._open: dict[str, Connection] = {}
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._turns: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    @asynccontextmanager
    async def to(self, address: Address) -> AsyncIterator[Connection]:
        """A connection to a pod, which stays open for a while after the block.

        Raises:
            Failure: the pod cannot be reached, refuses the key, or shows another host key than before.
        """
        async with self._turns[address.pod_id]:
            connection = self._open.get(address.pod_id)
            if connection is None or not connection.is_open or connection.address.target != address.target:
                await self.drop(address.pod_id)
                connection = self._open[address.pod_id] = Connection(address, await self._connect(address))
            if timer := self._idle.pop(address.pod_id, None):
                timer.cancel()
            connection.users += 1
        try:
            yield connection
        finally:
            connection.users -= 1
            if not connection.users and self._open.get(address.pod_id) is connection:
                self._idle[address.pod_id] = asyncio.get_running_loop().call_later(
                    self._idle_seconds, self._close_idle, address.pod_id, connection
                )

    def has(self, pod_id: str) -> bool:
        """Whether there is an open connection to a pod, as far as is known."""
        connection = self._open.get(pod_id)
        return connection is not None and connection.is_open

    async def drop(self, pod_id: str) -> None:
        """Close the connection to a pod, if there is one."""
        if timer := self._idle.pop(pod_id, None):
            timer.cancel()
        connection = self._open.pop(pod_id, None)
        if connection is not None:
            await connection.close()

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(self.drop(pod_id) for pod_id in tuple(self._open)), *self._closing)

    def _close_idle(self, pod_id: str, connection: Connection) -> None:
        self._idle.pop(pod_id, None)
        if connection.users or self._open.get(pod_id) is not connection:
            return
        del self._open[pod_id]
        task = asyncio.get_running_loop().create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _connect(self, address: Address) -> asyncssh.SSHClientConnection:
        pin = await self._pinned(address)
        try:
            return await self._log_in(address, pin)
        except _OtherKey:
            if pin is None or not await self._is_replaced(address, pin):
                raise self._changed(address) from None
        # A new container: whatever key it shows is pinned as the first one was.
        await anyio.to_thread.run_sync(self._host_keys.forget, address.pod_id)
        try:
            return await self._log_in(address, None)
        except _OtherKey:
            raise self._changed(address) from None

    async def _log_in(self, address: Address, pin: Pin | None) -> asyncssh.SSHClientConnection:
        trusted = [asyncssh.import_public_key(pin.key)] if pin else []
        client = _Client(is_pinned=pin is not None)
        try:
            async with self._keys.open() as keys:
                with anyio.fail_after(_CONNECT_SECONDS):
                    ssh = await asyncssh.connect(
                        address.target.host,
                        address.target.port,
                        username=address.target.user,
                        client_factory=lambda: client,
                        client_keys=keys,
                        agent_path=None,
                        known_hosts=(trusted, [], []),
                        server_host_key_algs=_kinds_from(trusted),
                        encryption_algs=_CIPHERS,
                        compression_algs=["none"],
                        preferred_auth="publickey",
                        x509_trusted_certs=None,
                        config=None,
                        keepalive_interval=_KEEP_ALIVE_SECONDS,
                        keepalive_count_max=_KEEP_ALIVE_MISSES,
                        login_timeout=_CONNECT_SECONDS,
                    )
        except (asyncssh.Error, OSError, TimeoutError) as error:
            if client.changed:
                raise _OtherKey from error
            raise self._failure(address, error) from error
        key = ssh.get_server_host_key()
        shown = key.export_public_key().decode().strip() if key is not None else ""
        now = self._now()
        if pin is None:
            first = Pin(shown, now, now, template_id=address.template_id)
            pin = await anyio.to_thread.run_sync(self._host_keys.pin, address.pod_id, first)
        if _blob(pin.key) != _blob(shown):
            ssh.abort()
            raise _OtherKey
        seen = replace(pin, seen_at=now, template_id=address.template_id or pin.template_id)
        if seen != pin:
            await anyio.to_thread.run_sync(self._host_keys.note, address.pod_id, pin, seen)
        return ssh

    async def _pinned(self, address: Address) -> Pin | None:
        try:
            pinned = await anyio.to_thread.run_sync(self._host_keys.read, address.pod_id)
            if pinned:
                asyncssh.import_public_key(pinned.key)
        except (OSError, asyncssh.KeyImportError) as error:
            raise Failure(
                "host_key_unreadable",
                f"The host key that was pinned for {address} cannot be read.",
                f"Have a person look at the file {self._host_keys.path(address.pod_id)}.",
            ) from error
        return pinned

    def _failure(self, address: Address, error: Exception) -> Failure:
        if isinstance(error, asyncssh.PermissionDenied):
            return Failure(
                "ssh_refused",
                f"{address} does not accept the SSH key of this server's machine.",
                "A pod takes the keys that it was rented with: name that one with LIUM_SSH_KEY_PATH, or rent again.",
            )
        return Failure(
            "ssh_unreachable",
            f"No SSH connection to {address} could be made ({_reason(error)}).",
            "Call get_pod to see whether it still runs, and try again in a minute. If that lasts, see get_pod_logs: a "
            "container that restarted by itself has no SSH if its image brings no server of its own. reboot_pod starts "
            "it anew with one, but what lies outside the local volume is lost.",
        )

    def _changed(self, address: Address) -> Failure:
        path = self._host_keys.path(address.pod_id)
        return Failure(
            "host_key_changed",
            f"{address} shows another SSH host key than before, so nothing was sent to it.",
            "Lium tells of no reboot or new container since, so the connection may be intercepted. Ask the person: if "
            "they know why the key changed, "
            + (f"they delete the file {path}, then call again." if path else "they restart this server."),
        )


def _kinds_from(trusted: list[asyncssh.SSHKey]) -> list[str]:
    """The kinds of host keys to ask for, the pinned key's first, so that a server with several shows the same again."""
    pinned = {key.get_algorithm() for key in trusted}
    if "ssh-rsa" in pinned:
        pinned |= {"rsa-sha2-512", "rsa-sha2-256"}
    return sorted(_HOST_KEY_KINDS, key=lambda kind: kind not in pinned)


def _blob(line: str) -> str:
    return " ".join(line.split()[:2])


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return "the network did not carry it"
    return "the SSH server ended it"
