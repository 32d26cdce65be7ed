"""Everything that can go wrong on the wire, for a tool that reads and for one that changes something.

The server is real and listens on a socket; only pauses between attempts are turned instead of slept.
"""

import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, Agent, Failure, Mode, agent_on
from tests.ports import free_port
from tests.wires import Act, Forward, Wire, answering, cut, drop, page, served, silence, trickle

KEY = "sk_sandbox"
SLACK_SECONDS = 25  # of a busy machine
# Binding a tool takes time that a hundred servers would add up.
TOOLSETS = frozenset({"pods", "account", "extras"})
TOOLS = frozenset(
    {
        "list_pods",
        "rent_pod",
        "remove_pod",
        "reboot_pod",
        "schedule_pod_removal",
        "cancel_pod_removal",
        "install_jupyter",
        "get_balance",
        "list_ssh_keys",
        "add_ssh_key",
    }
)
NOTHING_CHANGED = "Nothing was changed."
NOT_KNOWN = "Whether it took effect is not known."


@dataclass(frozen=True)
class Fault:
    """What the wire does, the codes that a reading and a changing tool give it, and how often each is sent."""

    name: str
    act: Act
    reads: str
    changes: str
    reads_sent: int = 1
    changes_sent: int = 1


def elsewhere(status: int) -> Act:
    return answering(status, b"", location="http://127.0.0.1:1/api/ssh-keys")


def loop(status: int) -> Act:
    return answering(status, b"", location="/api/ssh-keys")


FAULTS = [
    Fault("wrong key", answering(401, {"detail": "API key not found"}), "api_key_refused", "api_key_refused"),
    Fault("firewall", page(403), "blocked_by_firewall", "blocked_by_firewall"),
    Fault("failure", page(500), "lium_failed", "outcome_unknown", 3),
    Fault("bad gateway", page(502), "lium_failed", "outcome_unknown", 3),
    Fault("login page", page(200), "not_lium", "outcome_unknown"),
    Fault("half of the JSON", answering(200, b'[{"id": "0b0d2f14-6e'), "unreadable_answer", "outcome_unknown"),
    Fault("cut", cut, "lium_unreachable", "outcome_unknown", 3),
    Fault("dropped", drop, "lium_unreachable", "outcome_unknown", 3),
    Fault("ten megabytes", answering(200, b"[" + b" " * 10 * 2**20 + b"]"), "answer_too_large", "outcome_unknown"),
    Fault("another host, 307", elsewhere(307), "untrusted_redirect", "untrusted_redirect"),
    Fault("another host, 302", elsewhere(302), "untrusted_redirect", "outcome_unknown"),
    Fault("loop, 307", loop(307), "untrusted_redirect", "untrusted_redirect", 6, 6),
    Fault("loop, 302", loop(302), "untrusted_redirect", "outcome_unknown", 6, 1),
    Fault("storm", answering(429, b""), "rate_limited", "rate_limited", 3, 3),
    Fault("storm, wait 5 s", answering(429, b"", retry_after="5"), "rate_limited", "rate_limited", 3, 3),
    Fault("storm, wait a day", answering(429, b"", retry_after="86400"), "rate_limited", "rate_limited"),
    Fault("storm, wait for ever", answering(429, b"", retry_after="9" * 400), "rate_limited", "rate_limited", 3, 3),
]
SLOW = [
    Fault("silence", silence, "timed_out", "outcome_unknown", 3),
    Fault("trickle", trickle, "timed_out", "outcome_unknown", 3),
]
names = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
slow_names = pytest.mark.parametrize("fault", SLOW, ids=lambda fault: fault.name)
both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def connected(
    mode: Mode = "auto", base_url: str | None = None, *, timeout_seconds: int = 15
) -> AsyncIterator[tuple[Agent, Wire]]:
    sandbox = Sandbox(seed=7, speed=0)
    async with served(Wire(sandbox)) as server:
        address = base_url or server.base_url
        transport = httpx2.AsyncHTTPTransport(verify=False)  # nothing here is encrypted, and certificates load slowly
        settings: dict[str, Any] = {
            "base_url": address,
            "timeout_seconds": timeout_seconds,
            "allow_tools": TOOLS,
            "toolsets": TOOLSETS,
        }
        async with agent_on(sandbox, mode=mode, transport=transport, **settings) as agent:
            yield agent, server


def check(failure: Failure, code: str) -> None:
    assert failure.code == code, failure.text
    assert (NOT_KNOWN if code == "outcome_unknown" else NOTHING_CHANGED) in failure.text
    assert (NOTHING_CHANGED in failure.text) != (NOT_KNOWN in failure.text)
    text = failure.text.replace("http://<IP address>", "")  # our own advice
    assert not re.search(r"<|>|html|script|x-api-key|traceback|httpx", text, re.IGNORECASE), text
    assert KEY not in failure.text


async def check_reading(agent: Agent, server: Wire, fault: Fault) -> None:
    server.on("*", "/ssh-keys", fault.act)
    check(await agent.refused("list_ssh_keys"), fault.reads)
    # A slow answer can leave a busy machine no time for the last of the tries.
    assert fault.reads_sent - (fault in SLOW) <= len(server.requests) <= fault.reads_sent
    server.behave()
    assert (await agent.call("list_ssh_keys"))["total"] == 0


async def check_changing(agent: Agent, server: Wire, fault: Fault) -> None:
    server.on("POST", "/ssh-keys", fault.act)
    check(await agent.refused("add_ssh_key", name="k", public_key=PUBLIC_KEY), fault.changes)
    assert sum(request.method == "POST" for request in server.requests) == fault.changes_sent
    server.behave()
    assert (await agent.call("add_ssh_key", name="k", public_key=PUBLIC_KEY))["already_registered"] is False


@names
async def test_a_reading_tool_says_what_failed_and_the_server_lives_on(fault: Fault) -> None:
    async with connected() as (agent, server):
        await check_reading(agent, server, fault)


@names
async def test_a_changing_tool_says_whether_it_changed_anything_and_the_server_lives_on(fault: Fault) -> None:
    async with connected() as (agent, server):
        await check_changing(agent, server, fault)


async def test_clients_of_the_legacy_era_read_the_same() -> None:
    for fault in FAULTS:
        async with connected("legacy") as (agent, server):
            await check_changing(agent, server, fault)
            server.requests.clear()
            server.on("*", "/ssh-keys", fault.act)
            check(await agent.refused("list_ssh_keys"), fault.reads)


@slow_names
async def test_an_answer_that_does_not_come_ends_with_the_time_limit(fault: Fault) -> None:
    async with connected(timeout_seconds=1) as (agent, server):
        started = time.monotonic()
        await check_changing(agent, server, fault)
        assert time.monotonic() - started < 1 + SLACK_SECONDS
    async with connected(timeout_seconds=1) as (agent, server):
        started = time.monotonic()
        await check_reading(agent, server, fault)
        assert time.monotonic() - started < 3 * 1 + SLACK_SECONDS


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_key_does_not_follow_a_redirect_to_another_host(status: int) -> None:
    async with served(Wire(Sandbox(seed=7, speed=0))) as thief, connected() as (agent, server):
        for location in (f"{thief.base_url}/ssh-keys", thief.base_url.replace("http:", "") + "/ssh-keys"):
            server.on("*", "/ssh-keys", answering(status, b"", location=location))
            assert (await agent.refused("list_ssh_keys")).code == "untrusted_redirect"
            server.on("POST", "/ssh-keys", answering(status, b"", location=location))
            await agent.refused("add_ssh_key", name="k", public_key=PUBLIC_KEY)
        assert all(request.headers["x-api-key"] == KEY for request in server.requests)
        assert thief.requests == []


@both_eras
async def test_a_port_where_nobody_listens_is_said_to_be_unreachable(mode: Mode) -> None:
    async with connected(mode, base_url=f"http://127.0.0.1:{free_port()}/api") as (agent, _):
        check(await agent.refused("list_pods"), "lium_unreachable")
        check(await agent.refused("add_ssh_key", name="k", public_key=PUBLIC_KEY), "lium_unreachable")
        check(await agent.refused("rent_pod", name="p", gpu_type="A100"), "lium_unreachable")


async def test_an_address_that_takes_no_connection_is_given_up_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        # The queue of connections that nobody accepts is full after a few; then attempts are not even refused.
        waiting = [socket.socket() for _ in range(4)]
        try:
            for connection in waiting:
                connection.setblocking(False)
                connection.connect_ex(address)
            async with connected(base_url=f"http://127.0.0.1:{address[1]}/api", timeout_seconds=1) as (agent, _):
                started = time.monotonic()
                check(await agent.refused("list_pods"), "lium_unreachable")
                check(await agent.refused("add_ssh_key", name="k", public_key=PUBLIC_KEY), "lium_unreachable")
                assert time.monotonic() - started < 2 * 3 * 0.25 + SLACK_SECONDS
        finally:
            for connection in waiting:
                connection.close()


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (answering(401, {"detail": "API key not found"}), "api_key_refused"),
        (page(403), "blocked_by_firewall"),
        (answering(429, b"", retry_after="86400"), "rate_limited"),
        (elsewhere(307), "untrusted_redirect"),
        (page(502), "outcome_unknown"),
        (drop, "outcome_unknown"),
        (answering(200, b'{"success": tr'), "outcome_unknown"),
        (loop(302), "outcome_unknown"),
    ],
    ids=["key", "firewall", "storm", "elsewhere", "gateway", "dropped", "half", "loop"],
)
async def test_a_rent_that_meets_a_fault_says_whether_a_pod_may_exist(act: Act, code: str) -> None:
    async with connected() as (agent, server):
        server.on("POST", "/executors/**", act)
        failure = await agent.refused("rent_pod", name="p", gpu_type="A100")
        assert failure.code == code, failure.text
        assert ("may exist and bill" in failure.text) == (code == "outcome_unknown")
        assert "html" not in failure.text
        keys = {request.headers.get("idempotency-key") for request in server.requests if request.method == "POST"}
        assert len(keys) == 1
        assert None not in keys
        server.behave()
        if code != "outcome_unknown":
            assert (await agent.call("rent_pod", name="p", gpu_type="A100"))["outcome"] == "done"


async def test_a_key_that_is_revoked_between_two_calls_is_refused_from_then_on() -> None:
    async with connected() as (agent, server):
        await agent.call("list_pods")
        server.on("*", "**", answering(401, {"detail": "API key has been revoked"}))
        await agent.clock.sleep(2)  # for so long the pods are shown that were listed last
        for tool, arguments in (("list_pods", {}), ("remove_pod", {"pod": "x"}), ("get_balance", {})):
            failure = await agent.refused(tool, **arguments)
            check(failure, "api_key_refused")
            assert "revoked" in failure.text


def once_changed(act: Act) -> Act:
    """The act answers everything that comes after the next change that succeeds."""
    is_changed = False

    async def acted(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal is_changed
        if is_changed:
            return await act(request, forward)
        response = await forward(request)
        is_changed = request.method != "GET" and response.is_success
        return response

    return acted


CHANGES: dict[str, dict[str, int]] = {
    "reboot_pod": {},
    "schedule_pod_removal": {"hours_from_now": 3},
    "cancel_pod_removal": {},
    "install_jupyter": {"port": 8888},
}


AFTERWARDS = {
    "broken": page(500),
    "revoked": answering(401, {"detail": "API key has been revoked"}),
    "spent": answering(402, {"detail": "The budget of this key is used up"}),
    "forbidden": answering(403, {"detail": "Not allowed"}),
}


@pytest.mark.parametrize("afterwards", AFTERWARDS)
@pytest.mark.parametrize("tool", CHANGES)
async def test_a_change_that_cannot_be_read_back_is_not_denied(tool: str, afterwards: str) -> None:
    async with connected() as (agent, server):
        rented = await agent.call("rent_pod", name="p", gpu_type="A100", hours=2)
        sent = len(server.requests)
        server.on("*", "**", once_changed(AFTERWARDS[afterwards]))
        failure = await agent.refused(tool, pod=rented["pod_id"], **CHANGES[tool])
        assert NOTHING_CHANGED not in failure.text, failure.text
        assert any(request.method != "GET" for request in server.requests[sent:])
