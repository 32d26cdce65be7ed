"""The private key that logs in to pods: in a file, perhaps with a passphrase, or held by an SSH agent."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from lium_mcp.api.ssh_keys import bare_keys
from lium_mcp.failures import Failure
from lium_mcp.values import decoded

if TYPE_CHECKING:
    import asyncssh

_AGENT_SECONDS: Final = 10.0
# By default sshd ends a login after six keys.
_MOST_AGENT_KEYS: Final = 5
NO_KEY: Final = "ssh_key_missing"
_MAKE_ONE: Final = (
    "Make one with `ssh-keygen -t ed25519` on the machine of this server, or name yours with LIUM_SSH_KEY_PATH; pods "
    "rented afterwards accept it."
)


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The public keys of this machine, and whether it could log in to a pod that has them.

    Attributes:
        public: Kind and base64 of each.
        problem: Why none of them could log in from here; None if one could.
    """

    public: list[str]
    problem: Failure | None

    @property
    def is_hopeless(self) -> bool:
        """Whether certainly nobody at this machine could log in, since it has no private half of any of them."""
        return self.problem is not None and self.problem.code == NO_KEY


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the key is. Its public half lies beside it, under the same name plus `.pub`.

    Attributes:
        find_path: Looks for the file each time, so that a key that is made meanwhile is found. A path that is
            configured may lead to no file.
    """

    find_path: Callable[[], Path | None] = lambda: None
    passphrase: str | None = field(default=None, repr=False)
    agent_path: str | None = None

    @property
    def public_path(self) -> Path | None:
        """The file of the public half, whether or not there is one."""
        path = self.find_path()
        return path.with_name(f"{path.name}.pub") if path else None

    async def public_text(self) -> str:
        """The text of the public half's file; empty where there is none that can be read."""
        return await anyio.to_thread.run_sync(self._read_public)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[list["asyncssh.SSHKeyPair | asyncssh.SSHKey"]]:
        """The keys to log in with, best first; an agent's keys work only inside the block.

        Raises:
            Failure: there is none that can be used.
        """
        of_file = await anyio.to_thread.run_sync(self._read)
        async with self._agent_keys() as held:
            if isinstance(of_file, Failure):
                if not held:
                    raise of_file
                yield list(held)
            else:
                yield [of_file, *held]

    async def own_keys(self) -> OwnKeys:
        """The public halves to rent with: those in the file beside the private key, and those that can log in."""
        named = bare_keys(await self.public_text())
        of_file = await anyio.to_thread.run_sync(self._read)
        if not isinstance(of_file, Failure):
            held = [_public_line(of_file)]
        else:
            async with self._agent_keys() as keys:
                held = [_public_line(key) for key in keys]
            if not held:
                return OwnKeys(named, of_file)
        # The file may hold the half of another key, or of one that only another machine has.
        return OwnKeys(named if set(named) & set(held) else [*named, *held], None)

    def _read_public(self) -> str:
        path = self.public_path
        try:
            return decoded(path.read_bytes(), "replace") if path else ""
        except OSError:  # a file that cannot be read any more is no key
            return ""

    def _read(self) -> "asyncssh.SSHKey | Failure":
        """The key in the file, or why there is none."""
        path = self.find_path()
        if path is None or not path.is_file():
            return _missing(path)
        import asyncssh  # noqa: PLC0415 - see the package's docstring

        try:
            return asyncssh.read_private_key(path, self.passphrase)
        except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError, OSError) as error:
            # For a locked key the library raises errors of both its kinds.
            if isinstance(error, asyncssh.KeyEncryptionError) or "assphrase" in str(error):
                return Failure(
                    "ssh_key_locked",
                    f"The private SSH key {path.name} is encrypted, and "
                    + ("the passphrase does not open it." if self.passphrase else "no passphrase is set."),
                    "Set LIUM_SSH_KEY_PASSPHRASE where this server is started, or add the key to an SSH agent.",
                )
            return Failure("ssh_key_unreadable", f"The private SSH key {path.name} cannot be read.", _MAKE_ONE)

    @asynccontextmanager
    async def _agent_keys(self) -> AsyncIterator[list["asyncssh.SSHKeyPair"]]:
        if not self.agent_path:
            yield []
            return
        import asyncssh  # noqa: PLC0415 - see the package's docstring

        agent = None
        keys: list[asyncssh.SSHKeyPair] = []
        with anyio.move_on_after(_AGENT_SECONDS):
            try:
                agent = await asyncssh.connect_agent(self.agent_path)
                keys = list(await agent.get_keys())
            except (OSError, ValueError, asyncssh.Error):
                keys = []  # no agent is like an agent without keys
        wanted = await self._public_blob()
        matching = [key for key in keys if key.public_data == wanted]
        try:
            yield matching or keys[:_MOST_AGENT_KEYS]
        finally:
            if agent is not None:
                agent.close()

    async def _public_blob(self) -> bytes | None:
        import asyncssh  # noqa: PLC0415 - see the package's docstring

        try:
            return asyncssh.import_public_key(await self.public_text()).public_data
        except asyncssh.KeyImportError:
            return None


def _missing(path: Path | None) -> Failure:
    if path is None:
        return Failure(NO_KEY, "There is no private SSH key on the machine of this server.", _MAKE_ONE)
    return Failure(
        NO_KEY,
        f"The private half of {path.name} is not there, which LIUM_SSH_KEY_PATH, key_path in ~/.lium/config.ini or "
        f"the file {path.name}.pub names.",
        "Make it with `ssh-keygen -t ed25519 -f PATH` on the machine of this server, name another key with "
        "LIUM_SSH_KEY_PATH, or add it to an SSH agent.",
    )


def _public_line(key: "asyncssh.SSHKey | asyncssh.SSHKeyPair") -> str:
    blob = key.public_data
    kind = blob[4 : 4 + int.from_bytes(blob[:4])]
    return f"{kind.decode()} {base64.b64encode(blob).decode()}"
