"""For the same operation our client and the official SDK send the same request, but for a few intended differences."""

import ssl
from collections.abc import Iterator
from dataclasses import replace

import httpx2
import pytest

from lium_mcp.api.client import LiumClient
from tests.compat.differences import EVERY_JSON_BODY, EVERY_REQUEST, INTENDED, unintended
from tests.compat.driver import Official
from tests.compat.operations import CASES, OUTSIDE_THE_CONTRACT, Case
from tests.compat.recorder import Recorded, Recorder, contract_operations, recording
from tests.tools.test_parity import NOT_OFFERED

# Nothing here is encrypted, but each client would load the system's certificates again.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture(scope="module")
def server() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_both_clients_send_the_same(case: Case, official: Official, server: Recorder) -> None:
    server.clear(case.answers)
    official.point_at(server.base_url)
    official.sdk(case.official.method, *case.official.positional, **case.official.named)
    [theirs] = server.of(case.operation)

    server.clear(case.answers)
    transport = httpx2.AsyncHTTPTransport(verify=TLS)
    async with LiumClient(api_key="sk_sandbox", base_url=server.base_url, transport=transport) as lium:
        await case.ours(lium)
    [mine] = server.of(case.operation)

    assert unintended(case, theirs, mine) == []


def test_every_operation_of_the_official_sdk_is_compared_that_a_tool_reaches(official: Official) -> None:
    assert operations_of_the_official_sdk(official) - NOT_OFFERED.keys() == {case.operation for case in CASES}


def test_every_listed_difference_concerns_a_case() -> None:
    places = {EVERY_REQUEST, EVERY_JSON_BODY} | {place for case in CASES for place in (case.operation, case.what)}
    assert {row.where for row in INTENDED} <= places


def operations_of_the_official_sdk(official: Official) -> set[str]:
    """Return the contract's operations that the SDK's source names; every path it names is accounted for."""
    contract: dict[str, dict[str, str]] = {}
    for (method, path), operation in contract_operations().items():
        contract.setdefault(_shape(path), {})[method] = operation
    found: set[str] = set()
    outside: set[str] = set()
    for method, path in official.routes():
        operations = contract.get(_shape(path))
        if operations is None:
            [prefix] = [prefix for prefix in OUTSIDE_THE_CONTRACT if path.startswith(prefix)]
            outside.add(prefix)
        else:
            found |= set(operations.values()) if method == "*" else {operations[method]}
    assert outside == OUTSIDE_THE_CONTRACT.keys()
    return found


def _shape(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def test_a_difference_that_is_not_listed_is_found() -> None:
    [case] = [case for case in CASES if str(case) == "listPods"]
    theirs = _request({"X-Source": "sdk", "User-Agent": "python-requests/2.34.2", "X-Lium-Client-Version": "0.32.0"})
    mine = _request({"X-Source": "mcp", "User-Agent": "lium-mcp/0.1.0", "X-Lium-Client-Version": "0.1.0"})
    assert unintended(case, theirs, mine) == []

    assert unintended(case, theirs, replace(mine, path="/pods/")) == [
        "path: the official client sends /pods, ours /pods/"
    ]
    assert unintended(case, theirs, replace(mine, query=[("page", "1")])) == [
        "query page: the official client sends absent, ours 1"
    ]
    assert unintended(case, theirs, replace(mine, headers={**mine.headers, "X-Source": "sdk"})) == [
        "header X-Source is listed as different and is the same"
    ]


def _request(headers: dict[str, str]) -> Recorded:
    return Recorded("listPods", "GET", "/pods", [], headers, b"")
