"""What the person who runs a server sees of the ledger and the limits, and does by hand."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.cli.main import main
from lium_mcp.sandbox import Sandbox
from tests.compat.simulated import Simulated, simulating
from tests.harness import agent_on
from tests.wires import Wire, failing, on_rents, rent

RENT = {"name": "train", "gpu_type": "A100", "hours": 2}
NO_REPLAY = ("rent_by_spec", "run_record")


def ledger(home: Path) -> str:
    return f"sqlite:///{home / 'state' / 'rentals.db'}"


def none_at(home: Path) -> str:
    return f"There is no ledger at {home / 'state' / 'rentals.db'}: the first rent makes it.\n"


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command on this test's ledger; return its exit status and what it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        status = main([*arguments, "--state-url", ledger(tmp_path)])
        return status, capsys.readouterr().out

    return run


def renting(sandbox: Sandbox, tmp_path: Path, *, lost: bool = False, **wanted: Any) -> str:
    async def call() -> str:
        wire = Wire(sandbox)
        if lost:
            on_rents(wire, failing(httpx2.ReadError("lost")))
        async with agent_on(sandbox, transport=wire, state_url=ledger(tmp_path)) as agent:
            result = await agent.raw("rent_pod", **(RENT | wanted))
            return str((result.structured_content or {}).get("pod_id"))

    return asyncio.run(call())


def test_a_ledger_that_is_not_there_is_empty_and_stays_away(
    say: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert say("rentals") == (0, none_at(tmp_path))
    status, text = say("rentals", "close", "train")
    assert status == 1
    assert "No open rent" in text
    assert not (tmp_path / "state").exists()


def test_whose_rents_are_shown_is_said_where_there_is_a_key(
    say: Callable[..., tuple[int, str]], tmp_path: Path, lium: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    lium.begin()
    monkeypatch.setenv("LIUM_BASE_URL", lium.base_url)
    monkeypatch.setenv("LIUM_API_KEY", "sk_sandbox")
    assert say("rentals") == (0, none_at(tmp_path))
    monkeypatch.delenv("LIUM_API_KEY")
    renting(lium.playing, tmp_path)
    assert "is of" not in say("rentals")[1]
    monkeypatch.setenv("LIUM_API_KEY", "sk_sandbox_other")
    other = say("rentals")[1]
    assert other.startswith("The key from LIUM_API_KEY is of Other <other@example.com>, workspace Personal: without")
    monkeypatch.setenv("LIUM_BASE_URL", "http://127.0.0.1:1/api")
    assert "an account that Lium does not tell now" in say("rentals")[1]
    # An agent on a wire knows its Lium by another address, and so has another account: that of its own is named.
    monkeypatch.setenv("LIUM_API_KEY", "sk_sandbox")
    monkeypatch.setenv("LIUM_BASE_URL", "http://127.0.0.1/api")
    text = say("rentals")[1]
    [row] = [line for line in text.splitlines() if "train" in line]
    assert f"account {row.split()[-1]} below" in text


def test_open_rents_are_listed_with_price_and_pods(
    say: Callable[..., tuple[int, str]], sandbox: Sandbox, tmp_path: Path
) -> None:
    pod_id = renting(sandbox, tmp_path)
    status, text = say("rentals")
    assert status == 0
    [line] = [line for line in text.splitlines() if "train" in line]
    assert "rented" in line
    assert pod_id in line
    assert "sk_" not in text
    assert "by a running server" not in text, "which nobody knows"


def test_an_unsettled_rent_is_closed_by_hand_only_on_a_yes_and_frees_its_name(
    say: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Sandbox(seed=7, speed=0, features=NO_REPLAY)
    renting(sandbox, tmp_path, lost=True)
    text = say("rentals")[1]
    assert "unknown" in text
    assert "only where it has a key of this account, and none is known here" in text
    monkeypatch.setenv("LIUM_BASE_URL", "http://127.0.0.1/api")
    monkeypatch.setenv("LIUM_API_KEY", "sk_sandbox")
    assert "goes on with it: one that runs, or else the next that is started." in say("rentals")[1]
    status, text = say("rentals", "close", "train")
    assert status == 1
    assert "--yes" in text
    assert "unknown" in say("rentals")[1]
    assert say("rentals", "close", "train", "--yes")[0] == 0
    assert "No open rents" in say("rentals")[1]
    assert "closed by hand" in say("rentals", "--all")[1]
    assert renting(sandbox, tmp_path) != "None"


def test_two_rents_that_begin_alike_are_not_guessed_between(
    say: Callable[..., tuple[int, str]], sandbox: Sandbox, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        renting(sandbox, tmp_path, name=name)
    status, text = say("rentals", "close", "", "--yes")
    assert status == 1
    assert "2 open rents" in text
    assert say("rentals")[1].count("rented") == 2


def test_a_ledger_that_cannot_be_read_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("this is no database, and longer than a header " * 10)
    assert main(["rentals", "--state-url", f"sqlite:///{tmp_path / 'broken.db'}"]) == 1
    assert "not a database" in capsys.readouterr().out


@pytest.fixture(scope="module")
def lium() -> Any:
    with simulating() as simulated:
        yield simulated


def test_the_policy_is_explained_with_what_is_used_and_left(
    lium: Simulated, say: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lium.begin()
    monkeypatch.setenv("LIUM_BASE_URL", lium.base_url)
    monkeypatch.setenv("LIUM_API_KEY", "sk_sandbox")
    asyncio.run(rent(lium.playing, "other"))
    status, text = say("policy", "explain", "--max-pods", "3", "--budget-usd", "20", "--allow-gpu-types", "H100")
    assert status == 0
    rows = {
        line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("max_", "budget", "allow"))
    }
    assert rows["max_pods"] == ["3", "1", "2"]
    assert rows["budget_usd"] == ["20"]  # what is used is not bounded
    assert rows["allow_gpu_types"] == ["H100"]
    assert text.startswith("Acting for Sandbox <sandbox@example.com>, workspace Personal, with $")
    assert "the key is from LIUM_API_KEY." in text
    assert "other" in text
    assert "removal time" in text


def test_a_budget_that_has_not_begun_is_explained(
    lium: Simulated, say: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lium.begin()
    monkeypatch.setenv("LIUM_BASE_URL", lium.base_url)
    monkeypatch.setenv("LIUM_API_KEY", "sk_sandbox")
    limits = ("--budget-usd", "20", "--budget-since", "2999-01-01")
    status, text = say("policy", "explain", "--max-pods", "3", *limits)
    assert status == 0
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("max_", "budget"))}
    assert rows == {"max_pods": ["3", "0", "3"], "budget_usd": ["20"], "budget_since": ["2999-01-01"]}
    assert "The budget has not begun: its first day is 2999-01-01. Nothing is rented before." in text
    assert "could not be read" not in say("policy", "explain", *limits)[1]
    assert "Nothing is rented" not in say("policy", "explain", "--policy-mode", "shadow", *limits)[1]


def test_without_limits_the_policy_says_that_everything_may_be_spent(say: Callable[..., tuple[int, str]]) -> None:
    status, text = say("policy", "explain", "--sandbox")
    assert status == 0
    assert "whole balance" in text


@pytest.mark.parametrize(
    ("key", "address", "why"),
    [
        ("", None, "No API key is set."),
        ("sk_wrong", None, "does not accept the API key"),
        ("sk_sandbox", "http://127.0.0.1:9/api", "the address is http://127.0.0.1:9/api."),
        ("sk_sandbox", "nowhere", "has no such route"),
    ],
)
def test_why_what_is_used_is_not_known_is_said_and_is_no_success(
    lium: Simulated,
    say: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    address: str | None,
    why: str,
) -> None:
    lium.begin()
    base_url = f"{lium.base_url}/nowhere" if address == "nowhere" else address or lium.base_url
    monkeypatch.setenv("LIUM_BASE_URL", base_url)
    if key:
        monkeypatch.setenv("LIUM_API_KEY", key)
    status, text = say("policy", "explain", "--max-pods", "3")
    assert status == 1
    assert "max_pods         3" in text
    [line] = [line for line in text.splitlines() if line.startswith("What is used is not known: ")]
    assert why in line
    assert "sk_" not in line


async def test_the_policy_resource_says_what_is_left(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, max_pods=3, max_burn_per_hour_usd=5.0) as agent:
        await agent.call("rent_pod", **RENT)
        content = (await agent.client.read_resource("lium://policy")).contents[0]
    policy = json.loads(getattr(content, "text", ""))
    limits = {row["limit"]: row for row in policy["limits"]}
    assert limits["max_pods"] == {"limit": "max_pods", "allowed": 3, "used": 1, "left": 2}
    burn = limits["max_burn_per_hour_usd"]
    assert burn["used"] > 0
    assert burn["used"] + burn["left"] == pytest.approx(5)
    assert policy["mode"] == "enforce"


async def test_the_policy_resource_says_that_a_budget_has_not_begun(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, max_pods=3, budget_usd=5.0, budget_since="2999-01-01") as agent:
        content = (await agent.client.read_resource("lium://policy")).contents[0]
    policy = json.loads(getattr(content, "text", ""))
    limits = {row["limit"]: row for row in policy["limits"]}
    assert limits["max_pods"]["left"] == 3
    assert limits["budget_usd"] == {"limit": "budget_usd", "allowed": 5}
    assert policy["note"].startswith("The budget has not begun: its first day is 2999-01-01.")
