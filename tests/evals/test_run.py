"""The runner for other people's models: what a scripted one does through inspect-ai, with our server as a process."""

import subprocess
from pathlib import Path

import pytest

from tests.compat.installs import ROOT, installed, variables


@pytest.mark.external
def test_a_scripted_model_goes_reference_ways_through_inspect(tmp_path: Path) -> None:
    python = installed("inspect") / "bin" / "python"
    command = [str(python), "-m", "evals.run", "reference", "lost_answer", "backup_never_works", "--no-results"]
    done = subprocess.run(
        command, cwd=ROOT, env=variables(tmp_path), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost_answer: done" in done.stdout
