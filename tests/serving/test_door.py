"""What stands before the web application: pages, hosts, paths and forms of requests that clients and proxies use."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import API_KEY
from tests.http_server import (
    LEGACY_VERSION,
    MODERN_VERSION,
    WAYS,
    Served,
    Way,
    calling,
    initialize,
    initialized,
    serving,
    tool_call,
)

MINE = {"X-API-Key": API_KEY}
INSPECTOR = "http://localhost:6274"
STREAMS_TOO = "application/json, text/event-stream"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server behind a proxy that serves it below a path."""
    with serving(
        tmp_path_factory.mktemp("served"),
        LIUM_MCP_SANDBOX="true",
        LIUM_MCP_ALLOWED_HOST="GPU.example.com,lium.example.com:443,other.example.com.:8443",
        LIUM_MCP_PATH_PREFIX="/lium/",
    ) as server:
        yield server


@pytest.fixture
def http(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.url, timeout=60, trust_env=False) as client:
        yield client


def ask(http: httpx2.Client, headers: dict[str, str], path: str = "/mcp") -> httpx2.Response:
    """Ask for the tools over the current protocol."""
    meta = tool_call("", {}, modern=True)["params"]["_meta"]
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    usual = {"Accept": STREAMS_TOO, "MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/list"}
    return http.post(path, json=body, headers=usual | headers)


# --- credentials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization", "X-Lium-MCP-Token"])
def test_two_credentials_of_one_kind_are_refused_and_the_same_one_twice_is_one(http: httpx2.Client, name: str) -> None:
    first, second = (f"{'Bearer ' if name == 'Authorization' else ''}sk_{key}" for key in ("one", "two"))
    sent = [("Accept", STREAMS_TOO), ("MCP-Protocol-Version", MODERN_VERSION), ("Mcp-Method", "tools/list")]
    meta = tool_call("", {}, modern=True)["params"]["_meta"]
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    for path in ("/mcp", "/lium/mcp", "/sse"):
        refused = http.post(path, json=body, headers=[*sent, (name, first), (name, second)])
        assert refused.status_code == 400
        said = refused.json()["error"]["message"]
        assert said.startswith(f"The header {name} came more than once, with different values")
        assert "sk_" not in said
    assert http.post("/mcp", json=body, headers=[*sent, (name, first), (name, first)]).status_code == 200


# --- web pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages/", "/lium/mcp"])
@pytest.mark.parametrize("origin", [INSPECTOR, "https://gpu.example.com", "https://lium.example.com"])
def test_a_browser_may_send_what_clients_send(http: httpx2.Client, path: str, origin: str) -> None:
    sent = "authorization,content-type,last-event-id,mcp-protocol-version,mcp-session-id,x-api-key,x-lium-mcp-token"
    for method in ("GET", "POST", "DELETE"):
        headers = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": sent}
        answer = http.options(path, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in answer.headers
        assert set(sent.split(",")) <= set(answer.headers["access-control-allow-headers"].lower().split(", "))
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-other"}
    assert http.options(path, headers=headers).status_code == 400


def test_a_browser_may_read_answers_and_the_session(http: httpx2.Client) -> None:
    answer = http.post("/mcp", json=initialize(), headers={"Origin": INSPECTOR, "Accept": STREAMS_TOO})
    assert answer.headers["access-control-allow-origin"] == INSPECTOR
    assert "Mcp-Session-Id" in answer.headers["access-control-expose-headers"]
    assert answer.headers["mcp-session-id"]
    assert ask(http, {"Origin": INSPECTOR, "Accept": "nothing"}).headers["access-control-allow-origin"] == INSPECTOR


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "gpu.example.com", "Gpu.Example.COM", "gpu.example.com:80", "gpu.example.com:9999", "lium.example.com",
        "LIUM.example.com:443", "other.example.com:8443", "LocalHost", "[::1]:8000", "gpu.example.com.",
        "gpu.example.com.:8080", "other.example.com.:8443",
    ],
)  # fmt: skip
def test_a_host_is_the_same_in_any_case_and_with_its_default_port(http: httpx2.Client, host: str) -> None:
    assert ask(http, {"Host": host}).status_code == 200
    assert ask(http, {"Origin": f"https://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "other.example.com",
        "lium.example.com:8443",
        "evil.gpu.example.com",
        "gpu.example.com:x",
        "gpuxexample.com",
        "gpu.example.com..",
        "::1",
    ],
)
def test_who_is_refused_reads_which_setting_does_it(served: Served, http: httpx2.Client, host: str) -> None:
    for header, value, status in (("Host", host, 421), ("Origin", f"https://{host}", 403)):
        answer = ask(http, {header: value})
        assert answer.status_code == status
        assert "LIUM_MCP_ALLOWED_HOST (" in answer.text
        assert host not in answer.text
    served.says("none of LIUM_MCP_ALLOWED_HOST")


# --- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "Application/Json"])
def test_a_media_type_is_the_same_in_any_case(http: httpx2.Client, content_type: str) -> None:
    headers = MINE | {"Accept": STREAMS_TOO, "Content-Type": content_type}
    opening = http.post("/mcp", content=json.dumps(initialize()), headers=headers)
    assert opening.status_code == 200
    http.delete("/mcp", headers=MINE | {"Mcp-Session-Id": opening.headers["mcp-session-id"]})


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/lium/mcp", "/lium/mcp/"])
def test_a_path_is_served_with_a_slash_and_below_the_prefix(http: httpx2.Client, path: str) -> None:
    assert "result" in ask(http, {}, path).json()
    health = path.replace("mcp", "healthz")
    assert http.get(health, headers={"Host": "10.1.2.3:8000"}).json()["status"] == "ok"


def test_the_address_that_is_printed_names_the_prefix(served: Served) -> None:
    assert f"Serving {served.url}/lium/mcp and {served.url}/lium/sse" in served.first_words


@pytest.mark.parametrize("path", ["/", "/lium", "/liummcp", "/mcp/mcp", "/lium/lium/mcp", "/other/mcp"])
def test_another_path_is_not_found_and_leads_nowhere(http: httpx2.Client, path: str) -> None:
    assert ask(http, {}, path).status_code == 404


@pytest.mark.parametrize("path", ["/sse", "/sse/", "/lium/sse"])
def test_who_comes_over_sse_is_sent_below_the_prefix(http: httpx2.Client, path: str) -> None:
    with http.stream("GET", path, headers=MINE) as stream:
        lines = stream.iter_lines()
        [place] = [line for line in (next(lines), next(lines)) if line.startswith("data: ")]
        place = place.removeprefix("data: ")
        assert re.match(r"/lium/messages/[\w-]+/\?session_id=", place)
        for messages in (place, place.replace("/lium", ""), place.replace("/?", "?")):
            assert http.post(messages, json=initialized(), headers=MINE).status_code == 202


@pytest.mark.parametrize("way", WAYS)
async def test_clients_work_below_the_prefix(served: Served, way: Way) -> None:
    async with calling(f"{served.url}/lium", way, MINE) as caller:
        assert (await caller.call("get_balance"))["balance_usd"] == 100


# --- forms of requests -----------------------------------------------------------------------------------------------


def without_accept(http: httpx2.Client) -> httpx2.Client:
    del http.headers["accept"]
    return http


@pytest.mark.parametrize("accept", [None, "application/json", "application/*;q=0.9"])
@pytest.mark.parametrize("version", [MODERN_VERSION, LEGACY_VERSION, None])
def test_who_takes_no_stream_is_answered_in_json(http: httpx2.Client, version: str | None, accept: str | None) -> None:
    headers = MINE | ({"Accept": accept} if accept else {}) | ({"MCP-Protocol-Version": version} if version else {})
    http = without_accept(http)
    if version != MODERN_VERSION:
        opening = http.post("/mcp", json=initialize(), headers=headers)
        assert opening.json()["result"]["protocolVersion"] == LEGACY_VERSION
        assert http.post("/mcp", json=initialized(), headers=headers).status_code == 202
    call = tool_call("get_balance", {}, modern=version == MODERN_VERSION)
    named = {"Mcp-Method": "tools/call", "Mcp-Name": "get_balance"}
    answer = http.post("/mcp", json=call, headers=headers | named)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["structuredContent"]["balance_usd"] == 100
    assert "mcp-session-id" not in answer.headers


@pytest.mark.parametrize("accept", [STREAMS_TOO, "application/json"])
@pytest.mark.parametrize("version", [LEGACY_VERSION, None])
@pytest.mark.parametrize("in_session", [False, True])
def test_a_message_of_another_protocol_than_its_header_names_is_refused(
    http: httpx2.Client, version: str | None, accept: str, *, in_session: bool
) -> None:
    headers = (open_session(http) if in_session else MINE) | {"Accept": accept}
    headers |= {"MCP-Protocol-Version": version} if version else {}
    refused = http.post("/mcp", json=tool_call("get_balance", {}, modern=True), headers=headers)
    assert refused.status_code == 400
    answer = refused.json()
    assert (answer["id"], answer["error"]["code"]) == (2, -32020)
    assert "MCP-Protocol-Version" in answer["error"]["message"]
    opening = initialize()
    opening["params"]["_meta"] = tool_call("", {}, modern=True)["params"]["_meta"]
    assert "protocolVersion" in http.post("/mcp", json=opening, headers=MINE | {"Accept": accept}).text


def test_a_request_with_two_lengths_is_refused_and_nothing_follows_it(served: Served) -> None:
    address = httpx2.URL(served.url)
    head = b"POST /lium/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    hidden = b"GET /lium/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    heard = b""
    with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
        connection.sendall(head + b"0\r\n\r\n" + hidden)
        while part := connection.recv(65536):
            heard += part
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert b"not both" in heard
    assert heard.count(b"HTTP/1.1 ") == 1


def open_session(http: httpx2.Client) -> dict[str, str]:
    opening = http.post("/mcp", json=initialize(), headers=MINE | {"Accept": STREAMS_TOO})
    return MINE | {"Mcp-Session-Id": opening.headers["mcp-session-id"]}


def test_in_a_session_what_is_not_answered_with_a_stream_needs_not_accept_one(http: httpx2.Client) -> None:
    session = open_session(http)
    call = tool_call("get_balance", {}, modern=False)
    assert http.post("/mcp", json=initialized(), headers=session | {"Accept": "application/json"}).status_code == 202
    assert http.post("/mcp", json=call, headers=session | {"Accept": "application/json"}).status_code == 406
    answer = without_accept(http).post("/mcp", json=call, headers=session)
    result = json.loads(answer.text.partition("data: ")[2])["result"]
    assert result["structuredContent"]["balance_usd"] == 100


def test_a_stream_that_is_resumed_begins_anew(http: httpx2.Client) -> None:
    headers = open_session(http) | {"Accept": "text/event-stream", "Last-Event-ID": "7"}
    with http.stream("GET", "/mcp", headers=headers) as stream:
        assert stream.status_code == 200
    call: dict[str, Any] = tool_call("get_balance", {}, modern=False)
    assert "balance_usd" in http.post("/mcp", json=call, headers=headers | {"Accept": STREAMS_TOO}).text
