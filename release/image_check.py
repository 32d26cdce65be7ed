"""Run the steps of the Dockerfile where there is no container engine, and try what they make (``make image-check``).

It takes root, buildah and debootstrap. The base image is stood in for by a minimal Debian with its own Python; the
rest is the Dockerfile as it is. What comes out is started as an engine would start it, as far as chroot and mount
namespaces go: as the user of the image, with no capabilities, no new privileges, a read-only root and a volume.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Final

import anyio

from release.candidate import ReleaseError, run
from release.check import ROOT
from release.starting import listed_tools

_IMAGE: Final = "localhost/lium-mcp:tried"
_BASE: Final = "localhost/lium-mcp-base"
_DEBIAN: Final = "trixie"
_PORT: Final = 8934
_LIMIT_SECONDS: Final = 30
_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# $1 is the root, $2 the volume; the rest is what runs.
_CONTAINED: Final = """
root=$1; mount --bind "$root" "$root"; mount --bind "$2" "$root/home/lium"; shift 2
mount -t proc proc "$root/proc"; mount -t tmpfs -o noexec,size=16m tmpfs "$root/tmp"; mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec env -i PATH=/opt/lium/bin:/usr/bin:/bin HOME=/home/lium PYTHONDONTWRITEBYTECODE=1 \\
  "$(command -v chroot)" --userspec=10001:10001 "$root" \\
  setpriv --no-new-privs --inh-caps=-all sh -c 'cd /work && exec "$@"' sh "$@"
"""


def main() -> int:
    """Build it, try it, and return the exit status."""
    missing = [tool for tool in ("buildah", "debootstrap", "unshare", "chroot") if shutil.which(tool) is None]
    if os.geteuid() or missing:
        print(f"This takes root, and {', '.join(missing) or 'nothing else'}: apt-get install buildah debootstrap")
        return 1
    os.environ |= {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    with tempfile.TemporaryDirectory(prefix="lium-image-") as scratch:
        _make_base(Path(scratch))
        _buildah("bud", "--quiet", "--format", "docker", "--build-arg", f"PYTHON_IMAGE={_BASE}", "--tag", _IMAGE, ".")
        container = _buildah("from", _IMAGE)
        try:
            wrong = list(_tried(Path(_buildah("mount", container)), Path(scratch)))
        finally:
            _buildah("rm", container)
            _buildah("rmi", "--force", _IMAGE, _BASE)
    print("\n".join(wrong) or "The image starts, as nobody, on a read-only root, over both transports.")
    return bool(wrong)


def _make_base(scratch: Path) -> None:
    root = scratch / "base"
    packages = "--include=python3,python3-venv,ca-certificates"
    _succeed("debootstrap", "--variant=minbase", packages, _DEBIAN, str(root))
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    shutil.copy(_AUTHORITIES, root / _AUTHORITIES.relative_to("/"))
    container = _buildah("from", "scratch")
    _buildah("add", "--quiet", container, str(root), "/")
    _buildah("commit", "--quiet", container, _BASE)
    _buildah("rm", container)


def _tried(root: Path, scratch: Path) -> Iterator[str]:
    home = scratch / "home"
    shutil.copytree(root / "home/lium", home)
    _succeed("chown", "--recursive", "10001:10001", str(home))
    contained = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        _CONTAINED,
        "sh",
        str(root),
        str(home),
    ]
    who = run([*contained, "id", "-u"], cwd=scratch).stdout.strip()
    if who != "10001":
        yield f"It runs as {who}, not as 10001."
    if not run([*contained, "touch", "/work/here"], cwd=scratch).returncode:
        yield "Its root can be written to."
    if (demo := run([*contained, "lium-mcp", "demo"], cwd=scratch)).returncode:
        yield f"`demo` ends with status {demo.returncode}:\n{demo.stdout}{demo.stderr}"
    command, *arguments = contained
    if not anyio.run(listed_tools, command, [*arguments, "lium-mcp"], dict(os.environ)):
        yield "It lists no tools over standard input and output."
    over_http = f"serve --transport http --host 0.0.0.0 --port {_PORT} --allowed-host localhost".split()
    with _running([*contained, "lium-mcp", *over_http]):
        if (status := _health()) != 200:  # noqa: PLR2004
            yield f"`GET /healthz` answers {status}."


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    # What takes another user's rights in a namespace of its own is no longer bound to who started it: end the group.
    process = Popen(command, stderr=DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_LIMIT_SECONDS)
        except TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _health() -> int | None:
    """The status of the health check, once the server listens."""
    end = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/healthz", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.2)
    return None


def _buildah(*arguments: str) -> str:
    return _succeed("buildah", *arguments)


def _succeed(*command: str) -> str:
    done = run(list(command), cwd=ROOT)
    if done.returncode:
        raise ReleaseError(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
