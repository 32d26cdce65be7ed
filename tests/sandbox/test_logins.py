"""A login in the browser: a page on which a person agrees, and a session that gives a key once."""

import json
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.sandbox.wire import Wire


async def begun(wire: Wire) -> tuple[str, str]:
    login = await wire.ok("beginLogin", key=None)
    return login["browser_url"], login["session_id"]


async def polled(wire: Wire, session_id: str) -> dict[str, Any]:
    return dict(await wire.ok("pollLogin", key=None, session_id=session_id))


async def test_a_person_reads_a_page_without_scripts_and_agrees_on_it(wire: Wire) -> None:
    page, session_id = await begun(wire)

    shown = await wire.http.get(page)
    assert shown.status_code == 200
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert "Agree only if you have just started" in shown.text
    assert "<script" not in shown.text
    assert session_id not in f"{page}{shown.text}", "who sees the page could take the key"
    assert await polled(wire, session_id) == {"status": "pending", "api_key": None}

    assert "You agreed" in (await wire.http.post(page, data={"answer": "agree"})).text
    approved = await polled(wire, session_id)
    assert approved["status"] == "approved"
    assert (await wire.ok("getMe", key=approved["api_key"]))["name"] == "Sandbox"
    assert "You agreed" in (await wire.http.get(page)).text


async def test_a_key_is_delivered_once(wire: Wire) -> None:
    page, session_id = await begun(wire)
    await wire.http.post(page, data={"answer": "agree"})
    await polled(wire, session_id)
    await wire.refused("pollLogin", 404, key=None, session_id=session_id)


async def test_who_refuses_gives_no_key_and_an_answer_is_final(wire: Wire) -> None:
    page, session_id = await begun(wire)
    await wire.http.post(page, data={"answer": "refuse"})
    assert "You refused" in (await wire.http.post(page, data={"answer": "agree"})).text
    for _ in range(2):
        assert await polled(wire, session_id) == {"status": "denied", "api_key": None}


async def test_a_login_that_nobody_answers_ends(sandbox: Sandbox, wire: Wire) -> None:
    page, session_id = await begun(wire)
    sandbox.clock.advance(seconds=599)
    assert (await polled(wire, session_id))["status"] == "pending"
    sandbox.clock.advance(seconds=1)
    await wire.refused("pollLogin", 404, key=None, session_id=session_id)
    for answer in (await wire.http.get(page), await wire.http.post(page, data={"answer": "agree"})):
        assert answer.status_code == 404
    assert len(sandbox.state("keys")["keys"]) == 2, "no key was made"


@pytest.mark.parametrize(
    ("headers", "given", "status"),
    [
        ({"Origin": "https://evil.example"}, {"answer": "agree"}, 403),
        ({}, {}, 422),
        ({}, {"answer": "perhaps"}, 422),
    ],
)
async def test_only_a_person_at_that_page_agrees(
    wire: Wire, headers: dict[str, str], given: dict[str, str], status: int
) -> None:
    page, session_id = await begun(wire)
    assert (await wire.http.post(page, data=given, headers=headers)).status_code == status
    assert (await polled(wire, session_id))["status"] == "pending"


async def test_two_logins_know_nothing_of_each_other(wire: Wire) -> None:
    (first_page, first), (second_page, second) = await begun(wire), await begun(wire)
    assert len({first_page, second_page, first, second}) == 4
    await wire.http.post(second_page, data={"answer": "agree"})
    assert (await polled(wire, first))["status"] == "pending"
    assert (await polled(wire, second))["status"] == "approved"


async def test_neither_the_session_nor_the_key_is_in_what_the_sandbox_shows(sandbox: Sandbox, wire: Wire) -> None:
    page, session_id = await begun(wire)
    await wire.http.post(page, data={"answer": "agree"})
    key = (await polled(wire, session_id))["api_key"]
    shown = json.dumps(sandbox.state())
    assert session_id not in shown
    assert key not in shown
    assert "/cli-auth/poll/{session_id}" in [request["path"] for request in sandbox.state()["requests"]]


async def test_there_is_no_page_without_a_login(wire: Wire) -> None:
    assert (await wire.http.get("http://sandbox/cli-auth/nothing")).status_code == 404
