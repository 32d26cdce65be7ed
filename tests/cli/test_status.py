"""`lium-mcp status`: what a person sees of an account at one glance, over HTTP as they do."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.cli.main import main
from tests.compat.simulated import Simulated, simulating
from tests.harness import agent_on
from tests.processes import environment
from tests.wires import Wire, failing, on_rents

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def served() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def lium(served: Simulated, monkeypatch: pytest.MonkeyPatch) -> Simulated:
    served.begin()
    monkeypatch.setenv("LIUM_BASE_URL", served.base_url)
    monkeypatch.setenv("LIUM_API_KEY", "sk_sandbox")
    return served


@pytest.fixture
def state_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'rentals.db'}"


@pytest.fixture
def say(state_url: str, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["status", *arguments, "--state-url", state_url])
        said = capsys.readouterr()
        assert "sk_sandbox" not in said.out + said.err
        return status, said.out, said.err

    return run


def playing(lium: Simulated, state_url: str, *calls: tuple[str, dict[str, Any]], wire: Wire | None = None) -> None:
    """Let an agent of the account make these calls on the ledger that is looked at."""

    async def play() -> None:
        async with agent_on(lium.playing, transport=wire, base_url=lium.base_url, state_url=state_url) as agent:
            for tool, arguments in calls:
                result = await agent.raw(tool, **arguments)
                assert bool(result.is_error) == (wire is not None), result

    asyncio.run(play())


def line_of(text: str, name: str) -> str:
    [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line


def test_an_account_with_nothing_says_so(lium: Simulated, say: Say) -> None:
    status, out, err = say()
    assert (status, err) == (0, "")
    assert out.startswith("Acting for Sandbox <sandbox@example.com>, workspace Personal; the key")
    assert "the key is from LIUM_API_KEY" in out
    assert "$100.00 left; $0.00 an hour burns." in out
    assert "No pods." in out
    assert out.count("No limits are set") == 1


def test_pods_money_limits_and_work_are_seen_at_one_glance(lium: Simulated, say: Say, state_url: str) -> None:
    playing(
        lium,
        state_url,
        ("rent_pod", {"name": "train", "gpu_type": "A100", "hours": 5}),
        ("rent_pod", {"name": "idle", "gpu_type": "A100"}),
        ("create_backup", {"pod": "train", "wait_seconds": 300}),
        (
            "rent_pod",
            {"name": "later", "gpu_type": "A100", "max_usd_per_hour": 0.01, "hours": 1, "keep_trying_hours": 4},
        ),
    )
    lium.playing.clock.advance(hours=2)
    status, out, _ = say("--max-pods", "3")
    assert status == 0
    train = line_of(out, "train")
    assert "RUNNING" in train
    assert "1 x A100" in train
    assert "in 2." in train or "in 3.0 h" in train, train
    assert "h ago" in train
    idle = line_of(out, "idle")
    assert "never" in idle
    assert idle.rstrip().endswith("none")
    assert line_of(out, "max_pods").split() == ["max_pods", "3", "2", "1"]
    assert "waiting" in line_of(out, "later")
    assert "it lasts" in out


def test_what_has_yet_to_start_shows_how_long_it_will_live(lium: Simulated, say: Say, state_url: str) -> None:
    playing(lium, state_url, ("rent_pod", {"name": "young", "gpu_type": "A100", "hours": 1, "wait_seconds": 0}))
    assert "1 h after its start" in line_of(say()[1], "young")
    lium.playing.clock.advance(minutes=10)
    started = say()[1]
    assert ("never" in line_of(started, "young"), "after its start" in started) == (False, False)
    assert ", if pods run on past their removal times." in started
    assert "runs_out_at" not in started


def test_a_budget_of_which_nobody_knows_what_is_used_says_why(lium: Simulated, say: Say, state_url: str) -> None:
    playing(lium, state_url, ("rent_pod", {"name": "endless", "gpu_type": "A100"}))
    unbounded = "Without a known removal time, so without a bounded cost: endless."
    assert f"{unbounded} Nothing more is rented meanwhile." in say("--budget-usd", "50")[1]
    _, out, _ = say("--budget-usd", "50", "--policy-mode", "shadow")
    assert (unbounded in out, "Nothing more" in out) == (True, False), "limits that refuse nothing"


def test_a_rent_that_is_not_settled_is_shown_and_not_touched(lium: Simulated, say: Say, state_url: str) -> None:
    wire = Wire(lium.playing)
    on_rents(wire, failing(httpx2.ReadError("lost")))
    playing(lium, state_url, ("rent_pod", {"name": "lost", "gpu_type": "A100", "hours": 1}), wire=wire)
    before = lium.playing.state()["requests"]
    out = say()[1]
    assert "lost" in out
    sent = lium.playing.state()["requests"][len(before) :]
    assert {note["method"] for note in sent} == {"GET"}


def test_programs_get_the_same_as_json(lium: Simulated, say: Say, state_url: str) -> None:
    playing(lium, state_url, ("rent_pod", {"name": "train", "gpu_type": "A100", "hours": 5}))
    status, out, _ = say("--json", "--max-pods", "3")
    assert status == 0
    told = json.loads(out)
    [pod] = told["pods"]
    assert (pod["name"], pod["status"]) == ("train", "RUNNING")
    assert told["balance"]["burn_per_hour_usd"] == pod["price_per_hour_usd"]
    assert told["balance"]["limits"] == [{"limit": "max_pods", "allowed": 3.0, "used": 1.0, "left": 2.0}]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LIUM_API_KEY": ""}, "No API key is set. To get one: lium-mcp login"),
        ({"LIUM_API_KEY": "sk_wrong"}, "does not accept the API key"),
        ({"LIUM_BASE_URL": "http://127.0.0.1:9/api"}, "No connection to Lium"),
    ],
)
def test_what_cannot_be_read_is_a_sentence_and_no_success(
    lium: Simulated, say: Say, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    status, out, err = say()
    assert (status, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


def test_what_could_be_read_is_shown_where_backups_could_not(lium: Simulated, say: Say, state_url: str) -> None:
    playing(lium, state_url, ("rent_pod", {"name": "train", "gpu_type": "A100", "hours": 5}))
    lium.playing.add_fault("error", status=500, match={"path": "/backup-logs/**"}, times=None)
    status, out, _ = say()
    assert status == 1
    assert "RUNNING" in line_of(out, "train")
    assert "Not read: backups:" in out


async def test_a_watch_looks_again_until_it_is_interrupted(lium: Simulated, state_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lium_mcp",
        "status",
        "--watch",
        "1",
        "--state-url",
        state_url,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(LIUM_BASE_URL=os.environ["LIUM_BASE_URL"], LIUM_API_KEY="sk_sandbox"),
    )
    assert process.stdout is not None
    looks = 0
    async with asyncio.timeout(60):
        while looks < 2:
            looks += b"No pods." in await process.stdout.readline()
        process.send_signal(2)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert err == b""
