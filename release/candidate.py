"""What is to be released: one commit, exported and built, and what a check may find wrong with it."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from packaging.metadata import RawMetadata, parse_email

CHANGELOG: Final = "CHANGELOG.md"
DIST: Final = "dist/release"
LISTING: Final = "lium_mcp/toolkit/listing.json"
_LIMIT_SECONDS: Final = 600


class ReleaseError(Exception):
    """A check could not be made; the sentence says why, and what mends it."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        said: What is wrong.
        mend: What to do about it.
        waits: Only a tagged release has to have it; until then it is a warning.
    """

    said: str
    mend: str
    waits: bool = False


@dataclass(frozen=True)
class Build:
    """The folder with all that one build of the commit made, and that a release hands over."""

    folder: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """Each file by its path in the folder."""
        return {str(path.relative_to(self.folder)): path for path in sorted(self.folder.rglob("*")) if path.is_file()}

    @cached_property
    def sdist(self) -> Path:
        """The sources, as the index has them."""
        return self._only("*.tar.gz")

    @cached_property
    def wheel(self) -> Path:
        """What is installed."""
        return self._only("*.whl")

    @cached_property
    def bundle(self) -> Path:
        """What Claude Desktop installs."""
        return self._only("*.mcpb")

    @cached_property
    def wheel_files(self) -> dict[str, bytes]:
        """The content of each file of the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    @cached_property
    def sdist_files(self) -> dict[str, bytes]:
        """The content of each file of the sdist, by its path below the one folder."""
        found = {}
        with tarfile.open(self.sdist) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                found[member.name.partition("/")[2]] = content.read() if content else b""
        return found

    @cached_property
    def bundle_files(self) -> dict[str, bytes]:
        """The content of each file of the bundle."""
        with zipfile.ZipFile(self.bundle) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    @cached_property
    def metadata(self) -> RawMetadata:
        """What the wheel says of itself."""
        [name] = [name for name in self.wheel_files if name.endswith(".dist-info/METADATA")]
        return parse_email(self.wheel_files[name])[0]

    def _only(self, kind: str) -> Path:
        found = sorted(self.folder.glob(kind))
        if len(found) != 1:
            raise ReleaseError(f"a build made {len(found)} files of the kind {kind}; see [tool.hatch.build]")
        return found[0]


@dataclass(frozen=True)
class Candidate:
    """The commit that a checkout is at.

    Attributes:
        root: The checkout.
        scratch: An empty folder.
        tools: Where the programs of requirements/release.txt are.
        tag: The tag that it is released under; None while nobody releases.
    """

    root: Path
    scratch: Path
    tools: Path
    tag: str | None

    @cached_property
    def epoch(self) -> str:
        """When the commit was made, in seconds: the time of every file that is built."""
        return self.git("log", "-1", "--format=%ct").strip()

    @cached_property
    def export(self) -> Path:
        """The files of the commit, and nothing else of the checkout."""
        return self._exported("export")

    @cached_property
    def tracked(self) -> list[str]:
        """The path of each file of the commit."""
        return self.git("ls-tree", "-r", "--name-only", "-z", "HEAD").split("\0")[:-1]

    @cached_property
    def built(self) -> Build:
        """What is uploaded."""
        return self._build(self.export, "first")

    @cached_property
    def built_again(self) -> Build:
        """The same from an export at another path."""
        return self._build(self._exported("another/export"), "second")

    @cached_property
    def version(self) -> str:
        """The version of the package."""
        return self.built.metadata["version"]

    @cached_property
    def last_release(self) -> str | None:
        """The tag of the release before this one, if there was any."""
        tags = self.git("tag", "--merged", "HEAD", "--sort=-version:refname", "--list", "v*").split()
        return next((tag for tag in tags if tag != self.tag), None)

    @cached_property
    def source(self) -> dict[str, Any]:
        """What manifests/source.toml says."""
        return tomllib.loads((self.export / "manifests" / "source.toml").read_text())

    def git(self, *arguments: str) -> str:
        """Ask git about the checkout.

        Raises:
            ReleaseError: it is no checkout, or has no such thing.
        """
        return _succeed(["git", *arguments], cwd=self.root).stdout

    def listing(self, tag: str | None = None) -> list[dict[str, Any]]:
        """The rows of the tool list of a release; of the built wheel, if no tag is named."""
        text = self.built.wheel_files[LISTING] if tag is None else self.git("show", f"{tag}:{LISTING}")
        return list(json.loads(text))

    def output_of(self, tool: str, *arguments: str | Path, cwd: Path) -> str:
        """Return what a program prints that has to succeed.

        Raises:
            ReleaseError: it did not.
        """
        return _succeed([self.tools / tool, *arguments], cwd=cwd).stdout

    def check_with(self, tool: str, *arguments: str | Path, mend: str) -> list[Finding]:
        """Let another program judge something of the export; what it prints when it is not content is the finding."""
        done = run([self.tools / tool, *arguments], cwd=self.export)
        said = "\n".join(text for text in (done.stdout.strip(), done.stderr.strip()) if text)
        return [Finding(f"{tool} says:\n{said}", mend)] if done.returncode else []

    def _exported(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir(parents=True)
        archive = self.scratch / "commit.tar"
        self.git("archive", f"--output={archive}", "HEAD")
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        return folder

    def _build(self, source: Path, name: str) -> Build:
        out = self.scratch / name
        # Our own modules are the commit's, too.
        variables = os.environ | {"SOURCE_DATE_EPOCH": self.epoch, "PYTHONPATH": str(source)}
        build: list[str | Path] = [self.tools / "python", "-m", "build", "--no-isolation", "--outdir", out, source]
        _succeed(build, cwd=source, variables=variables)
        commit = self.git("rev-parse", "HEAD").strip()
        _succeed([sys.executable, "-m", "manifests.release", out, commit], cwd=source, variables=variables)
        return Build(out)


def run(
    command: Sequence[str | Path], *, cwd: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, within a limit.

    Args:
        command: The program and its arguments.
        cwd: Where it runs.
        variables: Its whole environment; by default our own.

    Raises:
        ReleaseError: it is not there, or did not end in time.
    """
    try:
        return subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ReleaseError(f"there is no {command[0]}: `make release-check` installs what it needs") from None
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{command[0]} took longer than {_LIMIT_SECONDS} s") from None


def _succeed(
    command: Sequence[str | Path], *, cwd: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = run(command, cwd=cwd, variables=variables)
    if done.returncode:
        last = re.sub(r"\s+", " ", (done.stderr or done.stdout).strip())[-600:]
        raise ReleaseError(f"`{' '.join(map(str, command))}` failed: {last}")
    return done
