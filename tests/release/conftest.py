"""A copy of this checkout as a repository of its own, with one fault, and what the check says of it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.installs import CACHE, ROOT

# The check is run with a maintainer's own environment: that it installs takes a network, and the cache of its packages.
_MAINTAINERS = dict(os.environ)


class Checked:
    """What `make release-check` came to."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert not done.stderr, done.stderr
        self.is_well = done.returncode == 0
        self.said = done.stdout

    def said_of(self, check: str) -> str:
        """The part about one check."""
        parts = re.split(r"^(?=(?:ok|later|WRONG) )", self.said, flags=re.MULTILINE)
        [part] = [part for part in parts if part.split()[1:2] == [check]]
        return part

    def word_of(self, check: str) -> str:
        """`ok`, `later` or `WRONG`."""
        return self.said_of(check).split()[0]


class Copy:
    """A repository with the files of this checkout in its first commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("Begin")

    def git(self, *arguments: str) -> str:
        author = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
        done = subprocess.run(
            ["git", *author, *arguments], cwd=self.root, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def commit(self, subject: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)

    def replace(self, path: str, old: str, new: str) -> None:
        """Put other words into a file; the old ones have to be there."""
        file = self.root / path
        text = file.read_text()
        assert old in text, (path, old)
        file.write_text(text.replace(old, new))

    def replace_line(self, path: str, beginning: str, new: str) -> None:
        """Put another line in the place of the one that begins so."""
        [line] = re.findall(rf"^{re.escape(beginning)}.*\n", (self.root / path).read_text(), re.MULTILINE)
        self.replace(path, line, new)

    def set_version(self, version: str) -> None:
        self.replace_line("lium_mcp/__init__.py", "__version__ = ", f'__version__ = "{version}"\n')

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def check(self, *arguments: str) -> Checked:
        """Run the copy's own check."""
        done = subprocess.run(
            [sys.executable, "-m", "release.check", *arguments],
            cwd=self.root,
            env=_MAINTAINERS | {"PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Checked(done)


MakeCopy = Callable[[str], Copy]


@pytest.fixture(scope="session")
def make_copy(tmp_path_factory: pytest.TempPathFactory) -> MakeCopy:
    """Copies the files of this checkout, committed or not, without what git ignores."""

    def make(name: str) -> Copy:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip
        root = tmp_path_factory.mktemp(name)
        for path in filter(None, listed.split("\0")):
            if (ROOT / path).is_file():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, root / path)
        # The programs of the check are those of this checkout.
        (root / ".cache").mkdir()
        (root / ".cache" / "clients").symlink_to(CACHE / "clients")
        return Copy(root)

    return make
