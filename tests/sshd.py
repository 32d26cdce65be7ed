"""A real OpenSSH server as the pod: of this user, on a free port of loopback, with a home of its own."""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent
from tests.ports import free_port
from tests.wires import Wire, editing

_SFTP_SERVERS: Final = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")
_START_SECONDS: Final = 30.0
_LISTENING: Final = "Server listening"


def find(program: str) -> str | None:
    """A program that may live where only root's path leads."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin")


def what_is_missing() -> str | None:
    """What this machine lacks for it, in a line, or nothing."""
    missing = [name for name in ("sshd", "ssh-keygen", "setsid", "sha256sum") if find(name) is None]
    if not any(Path(path).exists() for path in _SFTP_SERVERS):
        missing.append("sftp-server")
    if os.getuid() == 0 and not missing:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return f"no {', '.join(missing)} on this machine" if missing else None


@dataclass(frozen=True)
class Sshd:
    """The server. `log()` is what it wrote."""

    folder: Path
    port: int
    user: str
    process: "subprocess.Popen[bytes]"

    @property
    def home(self) -> Path:
        """Where a login starts."""
        return self.folder / "home"

    @property
    def key_path(self) -> Path:
        """The private key that it accepts."""
        return self.folder / "user_key"

    @property
    def ssh_command(self) -> str:
        """As the API would write it."""
        return f"ssh {self.user}@127.0.0.1 -p {self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def logins(self) -> int:
        return self.log().count("Accepted publickey")

    def processes(self) -> list[int]:
        """What runs in the pod, but for the SFTP of a connection: whoever logs in starts below this folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_here = (entry / "cwd").resolve().is_relative_to(self.folder.resolve())
                if is_here and b"/sftp-server" not in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def change_host_key(self) -> None:
        """Show another host key from the next connection on, as a replaced container does."""
        make_key(self.folder / "host_key")
        listening = self.log().count(_LISTENING)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log().count(_LISTENING) > listening)


def make_key(path: Path, *, passphrase: str = "") -> None:
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.pub").unlink(missing_ok=True)
    command = [find("ssh-keygen") or "", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True)


@contextmanager
def running(folder: Path) -> Iterator[Sshd]:
    """Run a server whose files are in `folder`, while no other test on this machine runs one.

    Each sees all processes of the machine as its pod's: what one test starts would be at work in the pod of another.
    """
    with (Path(tempfile.gettempdir()) / f"lium-mcp-sshd-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _running(folder) as server:
            yield server


@contextmanager
def _running(folder: Path) -> Iterator[Sshd]:
    for below in ("home", "bin"):
        (folder / below).mkdir(parents=True)
    make_key(folder / "host_key")
    make_key(folder / "user_key")
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    port = free_port()
    sftp_server = next(path for path in _SFTP_SERVERS if Path(path).exists())
    home = shlex.quote(str(folder / "home"))
    (folder / "login").write_text(
        "#!/bin/sh\n"
        f"export HOME={home} PATH={shlex.quote(str(folder / 'bin'))}:$PATH\n"
        "cd\n"
        f'[ "$SSH_ORIGINAL_COMMAND" = {sftp_server} ] && exec {sftp_server} -d {home}\n'
        'exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    (folder / "login").chmod(0o755)
    (folder / "config").write_text(
        f"Port {port}\n"
        "ListenAddress 127.0.0.1\n"
        f"HostKey {folder}/host_key\n"
        "PidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\n"
        "StrictModes no\n"
        "UsePAM no\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "MaxStartups 100\n"
        f"Subsystem sftp {sftp_server}\n"
        f"ForceCommand {folder}/login\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find("sshd") or "", "-D", "-e", "-f", str(folder / "config")], stderr=log)
    server = Sshd(folder, port, _user(), process)
    try:
        wait_until(lambda: _LISTENING in server.log())
        yield server
    finally:
        process.terminate()
        process.wait()
        # What commands left in the background: the next test's pod is this machine too, and would be found at work.
        for left in server.processes():
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


def at_sshd(sandbox: Sandbox, server: Sshd) -> Wire:
    """The way to a sandbox whose pods, while they run, all listen where the server does."""

    def moved(body: Any) -> Any:
        if isinstance(body, list):
            return [moved(row) for row in body]
        return body | ({"ssh_connect_cmd": server.ssh_command} if body.get("status") == "RUNNING" else {})

    wire = Wire(sandbox)
    for path in ("/pods", "/pods/*"):
        wire.on("GET", path, editing(moved))
    return wire


def _user() -> str:
    return subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()


def wait_until(holds: Callable[[], bool]) -> None:
    """Look until something holds."""
    deadline = time.monotonic() + _START_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


async def rent(agent: Agent, *, name: str = "train", wait_seconds: int = 300) -> str:
    """Rent a pod; return its id."""
    rented = await agent.call("rent_pod", name=name, gpu_type="A100", hours=24, wait_seconds=wait_seconds)
    return str(rented["pod_id"])
