"""The same question again over HTTP: the same answer, counted and bounded as any, and never one that is out of date."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import API_KEY
from tests.compat.simulated import Simulated
from tests.harness import PUBLIC_KEY
from tests.http_server import MODERN_VERSION, WAYS, Served, Way, calling, serving, tool_call
from tests.serving.test_http import RENT
from tests.serving.test_metrics import read, value

MINE = {"X-API-Key": API_KEY}
TIMES = 12
CROWD = 60


@pytest.fixture
def server(lium: Simulated, tmp_path: Path) -> Iterator[Served]:
    settings = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_METRICS_PORT": "0", "LIUM_MCP_CALLS_PER_MINUTE": "100000"}
    with serving(tmp_path, **settings) as served:
        yield served


def post(
    server: Served,
    tool: str,
    arguments: dict[str, Any] | None = None,
    *,
    number: object = 1,
    headers: Mapping[str, str] = MINE,
) -> httpx2.Response:
    form = call_by_hand(tool, arguments, number=number, headers=headers)
    return httpx2.post(f"{server.url}/mcp", **form, trust_env=False)


def call_by_hand(
    tool: str, arguments: dict[str, Any] | None = None, *, number: object, headers: Mapping[str, str] = MINE
) -> dict[str, Any]:
    """Body and headers of a call of today's protocol."""
    form = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN_VERSION}
    names = {"Mcp-Method": "tools/call", "Mcp-Name": tool}
    body = tool_call(tool, arguments or {}, modern=True) | {"id": number}
    return {"json": body, "headers": form | names | MINE | dict(headers)}


def result(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["result"]["structuredContent"])


def repeats(server: Served) -> float:
    return value(read(server), "lium_mcp_repeated_answers_total")


@pytest.mark.parametrize("tool", ["list_gpus", "get_gpu_prices", "list_pods"])
def test_what_was_just_asked_is_answered_again_and_counted_as_any_call(server: Served, tool: str) -> None:
    ids: list[str | int] = [number if number % 2 else f'"é\\{number}' for number in range(TIMES)]
    answers = [post(server, tool, number=number) for number in ids]
    assert [answer.json()["id"] for answer in answers] == ids
    first, last = answers[0], answers[-1]
    assert last.json()["result"]["content"]
    assert first.headers.keys() == last.headers.keys()
    assert len({answer.headers["x-request-id"] for answer in answers}) == TIMES
    assert 0 < repeats(server) < TIMES
    assert value(read(server), "lium_mcp_calls_total", tool=tool, outcome="ok") == TIMES
    logged = f"tool={tool} outcome=ok"
    assert server.says(logged, times=TIMES).count(logged) == TIMES


def test_an_older_client_without_a_session_is_answered_again_too(server: Served) -> None:
    call, headers = tool_call("list_gpus", {}, modern=False), MINE | {"Accept": "application/json"}
    deadline = time.monotonic() + 60
    while not repeats(server):
        assert time.monotonic() < deadline
        for _ in range(TIMES):
            answer = httpx2.post(f"{server.url}/mcp", json=call, headers=headers, trust_env=False)
            assert result(answer)["total"] > 0
            assert answer.json().keys() == {"jsonrpc", "id", "result"}
            assert "resultType" not in answer.json()["result"]


def test_what_is_no_call_is_no_call_the_second_time_either(server: Served) -> None:
    form = call_by_hand("list_gpus", number=1)
    for method in ("POST", "PUT", "PATCH", "DELETE", "GET"):
        answer = httpx2.request(method, f"{server.url}/mcp", **form, trust_env=False)
        assert (answer.status_code == 200) == (method == "POST"), method


def test_an_answer_says_how_old_it_really_is(server: Served) -> None:
    earliest = time.monotonic()
    assert "read_seconds_ago" not in result(post(server, "list_gpus"))
    latest = time.monotonic()
    while True:
        asked_at = time.monotonic()
        age_seconds = result(post(server, "list_gpus")).get("read_seconds_ago", 0)
        most_seconds = time.monotonic() - earliest
        assert age_seconds <= min(most_seconds, 1)
        if age_seconds < int(asked_at - latest):
            assert most_seconds >= 2, "what is younger is not read anew"
            return


@pytest.mark.parametrize("way", WAYS)
async def test_after_a_change_nobody_is_told_what_was_before(server: Served, way: Way) -> None:
    for _ in range(3):
        assert result(post(server, "list_pods"))["pods"] == []
    async with calling(server.url, way, MINE) as caller:
        await caller.call("add_ssh_key", name="mine", public_key=PUBLIC_KEY)
        for name in ("one", "two"):
            await caller.call("rent_pod", **RENT | {"name": name, "wait_seconds": 0})
            assert name in [pod["name"] for pod in result(post(server, "list_pods"))["pods"]]


def test_what_was_made_for_one_caller_is_for_nobody_else(server: Served) -> None:
    for _ in range(3):
        assert "pods" in result(post(server, "list_pods"))
    answered = repeats(server)
    for header in ({"X-API-Key": "sk_other"}, {"X-API-Key": ""}):
        refused = post(server, "list_pods", headers=header).json()["result"]
        assert refused["isError"]
        assert refused["_meta"]["lium-mcp/error"]["code"] in ("api_key_refused", "api_key_missing")
    assert repeats(server) == answered
    assert result(post(server, "get_gpu_prices", headers={"X-API-Key": ""})) == result(
        post(server, "get_gpu_prices", headers={"X-API-Key": "sk_other"})
    )


def test_other_words_are_another_question(server: Served) -> None:
    for _ in range(3):
        post(server, "get_gpu_prices")
    [one] = result(post(server, "get_gpu_prices", {"gpu_type": "H200"}))["gpu_types"]
    assert one["gpu_type"] == "H200"
    assert post(server, "get_gpu_prices", headers={"Mcp-Name": "list_gpus"}).status_code == 400
    assert post(server, "get_gpu_prices", headers={"MCP-Protocol-Version": "2099-01-01"}).status_code == 400
    assert post(server, "get_gpu_prices", number=None).status_code == 400
    assert post(server, "get_gpu_prices", headers={"Accept": "text/html"}).status_code == 406


async def test_of_a_crowd_one_is_answered_anew_each_time(server: Served) -> None:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:

        async def ask(number: int) -> dict[str, Any]:
            return result(await http.post(f"{server.url}/mcp", **call_by_hand("list_gpus", number=number)))

        answers = [await ask(0)]
        # As long as the market is read anew once, which makes at least three answers of their own.
        while "read_seconds_ago" not in answers[-1] or len(answers) < CROWD:
            answers += await asyncio.gather(*map(ask, range(CROWD)))
        while "read_seconds_ago" in answers[-1]:
            answers += await asyncio.gather(*map(ask, range(CROWD)))
    made = len(answers) - repeats(server)
    assert 2 < made < CROWD / 2, made


def test_a_failure_is_told_to_whoever_met_it(server: Served, lium: Simulated) -> None:
    lium.fault("error", status=400, match={"method": "GET", "path": "/executors"}, times=2)
    failures = [post(server, "list_gpus").json()["result"] for _ in range(3)]
    assert [failure.get("isError", False) for failure in failures] == [True, True, False]
