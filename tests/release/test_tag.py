"""The tag of a release is read before anything is built."""

import subprocess
import sys

import pytest

from tests.processes import ROOT


@pytest.mark.parametrize(
    ("tag", "meant"), [("0.1.0", "v0.1.0"), ("0.2.0rc1", "v0.2.0rc1"), ("release", "v0.1.0"), ("", "v0.1.0")]
)
def test_what_is_no_tag_of_a_version_is_refused_with_what_was_meant(tag: str, meant: str) -> None:
    command = [sys.executable, "-m", "release.check", "--tag", tag]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"a tag is v and the version, as {meant} (make release-check TAG={meant})" in done.stderr
    assert "Traceback" not in done.stderr
