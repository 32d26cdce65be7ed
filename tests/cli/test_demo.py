"""`lium-mcp demo` is the first thing a newcomer runs: it holds, or it says in a sentence what does not."""

import re
from pathlib import Path

import pytest

from tests.processes import ROOT, run

# Python runs a module of this name at its start: the demo's server pauses for a tenth of the time between two looks.
HASTY_SERVER = """
import sys
if "--sandbox" in sys.orig_argv:
    import anyio
    from lium_mcp.api.clock import SYSTEM_CLOCK
    async def sleep(self, seconds):
        await anyio.sleep(seconds / 10)
    type(SYSTEM_CLOCK).sleep = sleep
"""
# It begins with a fault in its simulated Lium.
FAULTY_SERVER = f"""{HASTY_SERVER}
    from lium_mcp import sandbox
    class Faulty(sandbox.Sandbox):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.add_fault("boot_fails", message="the driver does not load")
    sandbox.Sandbox = Faulty
"""
DEAD_SERVER = """
import os, sys
if "--sandbox" in sys.orig_argv:
    os._exit(3)
"""


def python_path(tmp_path: Path, at_start: str) -> str:
    (tmp_path / "sitecustomize.py").write_text(at_start)
    return f"{tmp_path}:{ROOT}"


@pytest.mark.parametrize("workflow", ["rent", "job"])
async def test_every_step_does_what_it_says(tmp_path: Path, workflow: str) -> None:
    variables = {"LIUM_API_KEY": "sk_real", "LIUM_BASE_URL": "https://lium.invalid/api"}
    if workflow == "job":  # the other one is as people see it
        variables["PYTHONPATH"] = python_path(tmp_path, HASTY_SERVER)
    status, out, err = await run("demo", "--workflow", workflow, **variables)
    assert (status, err) == (0, "")
    for number in range(1, 9):
        assert f"\n{number}. " in out
    assert out.count("   ok ") >= 9
    assert re.search(r"\nAll steps did what they say, in \d+ s\.\nNext: `lium-mcp install HOST` ", out)
    if workflow == "rent":
        paid = re.search(r"\$([\d.]+) - \$([\d.]+) that Lium charged = \$([\d.]+)\n", out)
        assert paid
        before, charged, after = map(float, paid.groups())
        assert charged > 0
        assert round(before - charged - after, 4) == 0
        assert "The limit max_price_per_hour_usd of this server refuses it" in out
        assert out.count("? R") == out.count("yes, the person answers") == 2, "a rent and a removal are asked about"
        assert "its node rents 4 at once" in out
    assert "\033" not in out, "colours are for terminals"


async def test_a_step_that_does_not_hold_ends_it_with_a_sentence(tmp_path: Path) -> None:
    status, out, err = await run("demo", PYTHONPATH=python_path(tmp_path, FAULTY_SERVER))
    assert (status, err) == (1, "")
    assert re.match(r"The demo failed: demo does not run\. .*the driver does not load", out.splitlines()[-1])
    assert "All steps did" not in out
    assert "Remove it" in out, "it cleans up after itself"


async def test_a_server_that_does_not_start_ends_it_with_a_sentence(tmp_path: Path) -> None:
    status, out, err = await run("demo", PYTHONPATH=python_path(tmp_path, DEAD_SERVER))
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == "The demo failed: the server did not answer: Connection closed"
