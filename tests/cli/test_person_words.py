"""What a command says of a failure is for a person at a terminal: no tool to call, nobody to ask, no argument."""

import re
from pathlib import Path

import pytest

from lium_mcp.sandbox import Sandbox
from tests.processes import run
from tests.wires import Act, Wire, answering, drop, page, served

FOR_AGENTS = re.compile(
    r"\b(list|get|remove|rent)_[a-z]+\b|call (it )?again|the user|a person has|argument|tool|MCP server|List what",
    re.IGNORECASE,
)
ANSWERS: dict[str, tuple[Act, str]] = {
    "the key is refused": (answering(401, {"detail": "API key not found"}), "Put another into LIUM_API_KEY"),
    "the budget is used up": (answering(402, {"code": "API_KEY_BUDGET_EXCEEDED"}), "Raise the budget of this key"),
    "a payment": (answering(402, {"code": "card"}), "Billing"),
    "a scope": (answering(403, {"message": "API key 'x' does not have the 'read' scope"}), "Make a key that has"),
    "no balance": (answering(403, {"code": "insufficient_balance"}), "Top up"),
    "not permitted": (answering(403, {"code": "other"}), "Use a key that may"),
    "the firewall": (page(403), "VPN or proxy"),
    "nothing there": (answering(404, {"message": "no such thing"}), "lium.io shows what there is"),
    "no such route": (answering(404, {"detail": "Not Found"}), "Check LIUM_BASE_URL"),
    "something under way": (answering(409, {"message": "busy"}), "try again"),
    "a taken node": (answering(409, {"code": "node_rent_in_progress"}), "try again in a minute"),
    "not valid": (answering(422, {"detail": [{"loc": ["body", "x"], "msg": "is odd"}]}), "Correct what it names"),
    "too many": (answering(429, {}, retry_after="3000"), "Wait 3000 seconds, and try again"),
    "a failing server": (answering(500, {"error": {"request_id": "req-7"}}), "req-7"),
    "a page": (page(200), "Check LIUM_BASE_URL"),
    "another address": (answering(302, None, location="https://elsewhere.example/"), "Check LIUM_BASE_URL"),
    "a lost connection": (drop, "Check the network"),
}


CASES = [
    *((("status",), answer) for answer in ANSWERS),
    (("policy", "explain"), "the key is refused"),
    (("templates", "sync", "FILE"), "something under way"),
    (("login", "--no-browser"), "nothing there"),
]


@pytest.mark.parametrize(("words", "answer"), CASES, ids=[f"{words[0]}, {answer}" for words, answer in CASES])
async def test_a_refusal_is_told_to_a_person(words: tuple[str, ...], answer: str, tmp_path: Path) -> None:
    act, advice = ANSWERS[answer]
    file = tmp_path / "templates.toml"
    file.write_text("")
    async with served(Wire()) as wire:
        wire.on("*", "**", act)
        variables = {"LIUM_BASE_URL": wire.base_url, "LIUM_MCP_TIMEOUT_SECONDS": "1"}
        variables |= {} if words[0] == "login" else {"LIUM_API_KEY": "sk_of_mine"}
        status, out, err = await run(*(str(file) if word == "FILE" else word for word in words), **variables)
    assert status == 1, err
    assert advice in out + err
    assert (found := FOR_AGENTS.search(re.sub("tools of", "", out + err))) is None, found


@pytest.mark.parametrize("words", [("status",), ("policy", "explain")], ids=" ".join)
async def test_without_a_key_the_command_that_gets_one_is_named(words: tuple[str, ...]) -> None:
    for variables, run_this in (({}, "lium-mcp login"), ({"LIUM_WORKSPACE": "team"}, "lium keys create")):
        status, out, err = await run(*words, **variables)
        assert (status, f"To get one: {run_this}" in out + err) == (1, True)
        assert not FOR_AGENTS.search(re.sub("tools of", "", out + err))


async def test_what_of_the_limits_could_not_be_read_is_told_to_a_person(sandbox: Sandbox) -> None:
    async with served(Wire(sandbox)) as wire:
        wire.on("GET", "/pods", answering(403, {"message": "API key 'x' does not have the 'read' scope"}))
        variables = {"LIUM_BASE_URL": wire.base_url, "LIUM_API_KEY": "sk_sandbox"}
        status, out, _ = await run("policy", "explain", "--max-pods", "3", **variables)
    assert (status, "What is used is not known" in out, "Make a key that has the scope" in out) == (1, True, True)
