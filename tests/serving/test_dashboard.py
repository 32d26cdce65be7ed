"""The page in a browser: who is let in, with what, and what the page may do."""

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.page import read_page
from lium_mcp.sandbox import API_KEY, Sandbox
from lium_mcp.serving.dashboard import ENTRY_MINUTES, Entrance
from tests.compat.simulated import simulating
from tests.harness import TurnedClock
from tests.http_server import serving
from tests.pages import Shown, call, said_by, showing
from tests.processes import run

BEHIND = ["/mcp", "/sse", "/messages/", "/start.json", "/_sandbox/clock", "/healthz", "/readyz", "/anything"]

TOKEN = "a-token-that-a-test-has-made-up-4711"
NOWHERE = {"LIUM_API_KEY": "sk_sandbox", "LIUM_BASE_URL": "http://127.0.0.1:9/api"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with showing(tmp_path_factory.mktemp("shown"), "dashboard", "--sandbox", "--no-browser") as page:
        yield page


@pytest.fixture(scope="module")
def session(shown: Shown) -> str:
    return shown.session()


@pytest.fixture
def page(shown: Shown, session: str) -> Iterator[httpx2.Client]:
    """What the page is, seen from the server."""
    with shown.caller(**said_by(session, shown.url)) as http:
        yield http


@pytest.fixture
def stranger(shown: Shown) -> Iterator[httpx2.Client]:
    with shown.caller() as http:
        yield http


def test_the_page_may_do_nothing_but_run_itself_and_ask_its_server(stranger: httpx2.Client) -> None:
    answer = stranger.get("/")
    assert answer.status_code == 200
    assert answer.text == read_page()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    rules = answer.headers["content-security-policy"].split("; ")
    assert rules[0] == "default-src 'none'"
    assert re.fullmatch(r"script-src( 'sha256-[\w+/]{43}=')+", rules[1])
    assert re.fullmatch(r"style-src( 'sha256-[\w+/]{43}=')+", rules[2])
    none = [f"{rule} 'none'" for rule in ("frame-ancestors", "base-uri", "form-action")]
    assert rules[3:] == ["connect-src 'self'", *none]


def test_what_it_is_told_at_its_start(page: httpx2.Client) -> None:
    said = page.get("/start.json")
    assert said.json().keys() == {"version", "controls"}
    assert said.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", BEHIND)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_without_the_session_nothing_is_to_be_had(
    stranger: httpx2.Client, shown: Shown, path: str, method: str
) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {shown.token}"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer sk_sandbox"},
        {"X-API-Key": "sk_sandbox"},
        {"X-Lium-MCP-Token": shown.token},
    ):
        answer = stranger.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert "lium-mcp dashboard" in answer.json()["error"]


def test_the_address_opens_the_page_once(stranger: httpx2.Client, shown: Shown, session: str) -> None:
    assert session != shown.token
    again = stranger.post("/token", json={"token": shown.token})
    assert again.status_code == 401
    assert again.json()["error"].startswith("This address has been used")
    assert "If you had not used it, somebody else has: end it with Ctrl-C." in again.json()["error"]
    assert again.headers["cache-control"] == "no-store"
    assert session not in again.text


NO_TOKENS = (
    '{"token": "x"}',
    '{"token": null}',
    '{"token": "\\ud800"}',
    '{"token": []}',
    "{}",
    "[]",
    '"x"',
    "null",
    "",
    "{",
)


@pytest.mark.parametrize("sent", NO_TOKENS)
def test_no_other_token_opens_it(stranger: httpx2.Client, sent: str) -> None:
    answer = stranger.post("/token", content=sent)
    assert answer.status_code == 401
    assert answer.json()["error"].startswith("This is not the address that was printed")


def test_what_is_no_token_at_all_is_not_read_for_long(stranger: httpx2.Client) -> None:
    assert stranger.post("/token", content=b"[" * 4000).status_code == 401
    assert stranger.post("/token", content=b" " * 100_000).status_code == 413
    assert stranger.get("/token").status_code == 405


def test_an_address_that_lay_about_opens_nothing() -> None:
    clock = TurnedClock(Sandbox(speed=0))
    entrance = Entrance("session", clock)
    clock.slept_seconds += 60 * ENTRY_MINUTES + 1
    with pytest.raises(PermissionError, match=f"older than {ENTRY_MINUTES} minutes"):
        entrance.open(entrance.token)


@pytest.mark.parametrize(("header", "status"), [("Host", 421), ("Origin", 403)])
@pytest.mark.parametrize("path", ["/", "/token", "/mcp", "/start.json", "/_sandbox/clock"])
def test_no_other_site_may_ask(page: httpx2.Client, path: str, header: str, status: int) -> None:
    evil = "evil.example.com" if header == "Host" else "https://evil.example.com"
    assert page.post(path, headers={header: evil}).status_code == status


@pytest.mark.parametrize("path", ["/", "/token", "/mcp", "/start.json", "/_sandbox/clock"])
def test_nor_may_a_page_at_another_port_of_this_machine(page: httpx2.Client, shown: Shown, path: str) -> None:
    port = shown.url.rpartition(":")[2]
    for other in ("http://127.0.0.1:3000", "http://127.0.0.1", f"http://localhost:{port}", f"https://127.0.0.1:{port}"):
        for answer in (
            page.post(path, headers={"Origin": other}),
            page.options(path, headers={"Origin": other, "Access-Control-Request-Method": "POST"}),
        ):
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


def test_the_page_may_ask_under_the_port_that_ssh_forwards(page: httpx2.Client) -> None:
    there = "127.0.0.1:9000"
    assert page.get("/start.json", headers={"Host": there, "Origin": f"http://{there}"}).status_code == 200


def test_the_page_is_asked_before_anything_is_rented_and_a_no_rents_nothing(page: httpx2.Client) -> None:
    wish = {"name": "seen", "gpu_type": "A100", "hours": 1, "wait_seconds": 0}

    def answered(action: str, **content: Any) -> dict[str, Any]:
        asked = call(page, "rent_pod", **wish).json()["result"]
        assert asked["resultType"] == "input_required"
        [(name, request)] = asked["inputRequests"].items()
        assert "A100" in request["params"]["message"]
        reply = {name: {"action": action} | ({"content": content} if content else {})}
        state = {"inputResponses": reply, "requestState": asked["requestState"]}
        return dict(call(page, "rent_pod", **wish, **state).json()["result"])

    assert answered("decline")["isError"]
    assert call(page, "list_pods").json()["result"]["structuredContent"]["total"] == 0
    rented = answered("accept", confirm=True)
    assert not rented["isError"], rented
    pods = call(page, "list_pods").json()["result"]["structuredContent"]["pods"]
    assert [pod["name"] for pod in pods] == ["seen"]


def test_the_page_turns_the_clock_of_the_sandbox_and_sets_faults(page: httpx2.Client) -> None:
    path = page.get("/start.json").json()["controls"]
    before = page.get(f"{path}/clock").json()
    after = page.post(f"{path}/clock", json={"advance_seconds": 3600}).json()
    assert after["now"] > before["now"]
    assert page.post(f"{path}/faults", json={"kind": "rate_limit", "times": 3}).json()
    assert page.delete(f"{path}/faults").json() == []


def test_the_token_is_printed_and_nowhere_else(shown: Shown, session: str, page: httpx2.Client) -> None:
    call(page, "list_pods")
    log = shown.says("tool=list_pods")
    assert shown.out.count(shown.token) == 1
    assert shown.token not in log
    assert session not in shown.out + log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_order(tmp_path: Path, number: int) -> None:
    with showing(tmp_path, "dashboard", "--no-browser") as page:
        page.session()
        assert page.stop(number) == 0
        assert "Traceback" not in page.log
        assert "ERROR" not in page.log


def test_without_a_key_the_page_is_there_and_says_what_to_do(tmp_path: Path) -> None:
    with (
        showing(tmp_path, "dashboard", "--no-browser", LIUM_BASE_URL=NOWHERE["LIUM_BASE_URL"]) as page,
        page.caller(**said_by(page.session(), page.url)) as http,
    ):
        assert http.get("/").text == read_page()
        assert http.get("/start.json").json().keys() == {"version"}
        assert http.get("/_sandbox/clock").status_code == 404
        result = call(http, "list_pods").json()["result"]
    assert result["_meta"]["lium-mcp/error"]["code"] == "api_key_missing"
    assert "lium-mcp login" in result["content"][0]["text"]


def test_a_key_that_is_saved_meanwhile_is_taken_up(tmp_path: Path) -> None:
    with simulating() as lium:
        lium.begin()
        with (
            showing(tmp_path, "dashboard", "--no-browser", LIUM_BASE_URL=lium.base_url) as page,
            page.caller(**said_by(page.session(), page.url)) as http,
        ):
            assert call(http, "list_pods").json()["result"]["isError"]
            (tmp_path / ".lium").mkdir()
            (tmp_path / ".lium" / "config.ini").write_text(f"[api]\napi_key = {API_KEY}\n")
            assert call(http, "list_pods").json()["result"]["structuredContent"]["pods"] == []


def test_what_is_set_for_a_server_over_http_counts_for_nothing_here(tmp_path: Path) -> None:
    settings = {
        "LIUM_API_KEY": "sk_sandbox",
        "LIUM_MCP_TRANSPORT": "http",
        "LIUM_MCP_PORT": "1",
        "LIUM_MCP_HOST": "0.0.0.0",  # noqa: S104 - that it does not count is tested
        "LIUM_MCP_ALLOWED_HOST": "gpu.example.com",
        "LIUM_MCP_PATH_PREFIX": "/lium",
        "LIUM_MCP_SERVER_TOKEN": TOKEN,
        "LIUM_MCP_STATELESS": "true",
    }
    with showing(tmp_path, "dashboard", "--no-browser", **settings) as page, page.caller() as http:
        assert http.get("/").status_code == 200
        assert http.get("/", headers={"Host": "gpu.example.com"}).status_code == 421
        token = {"Authorization": f"Bearer {settings['LIUM_MCP_SERVER_TOKEN']}"}
        assert http.get("/start.json", headers=token).status_code == 401
        assert page.stop() == 0


def test_a_request_that_a_proxy_brings_does_not_act_with_the_key(tmp_path: Path) -> None:
    with (
        showing(tmp_path, "dashboard", "--no-browser", **NOWHERE) as page,
        page.caller(**said_by(page.session(), page.url)) as http,
    ):
        http.headers["X-Forwarded-For"] = "203.0.113.9"
        result = call(http, "list_pods").json()["result"]
    assert result["_meta"]["lium-mcp/error"]["code"] == "api_key_missing"


def test_the_sandbox_shows_it_at_its_own_address(tmp_path: Path) -> None:
    with showing(tmp_path, "sandbox", "--port", "0") as sandbox:
        with sandbox.caller() as http:
            sent = http.get("/")
            assert sent.status_code == 307
            assert http.get("/api/executors", headers={"X-API-Key": "sk_sandbox"}).status_code == 200
            origin = {"Origin": sandbox.url}
            assert http.post("/_sandbox/clock", json={}, headers=origin).status_code == 403, "not from a browser"
        home = sent.headers["location"].rstrip("/")
        with httpx2.Client(base_url=home, timeout=60, trust_env=False) as page:
            session = page.post("/token", json={"token": sandbox.token}).json()["token"]
            page.headers.update(said_by(session, home))
            turned = page.post("/_sandbox/clock", json={"advance_seconds": 60, "speed": 0}).json()
            assert call(page, "list_pods").json()["result"]["structuredContent"]["now"] == turned["now"]
        with sandbox.caller() as http:
            assert http.get("/_sandbox/clock").json() == turned, "it is one sandbox"
        assert sandbox.stop() == 0
        assert "ERROR" not in sandbox.log
        assert "Traceback" not in sandbox.log


def test_the_browser_is_started_without_the_token(tmp_path: Path) -> None:
    """Other users of a machine see what programs are started with."""
    seen, copy, browser = (tmp_path / name for name in ("seen", "copy", "browser"))
    lines = (
        "#!/bin/sh",
        "file=${1#file://}",
        f"stat -c %a $file > {copy}",
        f"cat $file >> {copy}",
        f'echo "$1" > {seen}.part && mv {seen}.part {seen}',
    )
    browser.write_text("\n".join(lines))
    browser.chmod(0o700)
    with showing(tmp_path / "home", "dashboard", BROWSER=f"{browser} %s") as page:
        page.session()
        while not seen.exists():
            time.sleep(0.02)
        assert page.token not in seen.read_text()
        mode, text = copy.read_text().split("\n", 1)
        assert mode == "600"
        assert f'content="0; url={page.url}/#token={page.token}"' in text
        assert page.stop() == 0
    assert not Path(seen.read_text().strip().removeprefix("file://")).exists()


@pytest.mark.parametrize("command", ["dashboard", "sandbox"])
async def test_with_wrong_settings_it_does_not_begin(command: str) -> None:
    status, out, err = await run(command, LIUM_MCP_MAX_PODS="many")
    assert (status, out) == (2, "")
    assert "LIUM_MCP_MAX_PODS" in err


@pytest.mark.parametrize(("command", "status"), [("dashboard", 2), ("sandbox", 1)])
async def test_a_port_that_is_taken_is_named(command: str, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended, out, err = await run(command, "--port", port)
    assert (ended, out) == (status, "")
    assert port in err.splitlines()[-1]
    assert "Traceback" not in err


def test_read_only_is_read_only_on_the_page_too(tmp_path: Path) -> None:
    with (
        showing(tmp_path, "dashboard", "--no-browser", "--sandbox", "--read-only") as page,
        page.caller(**said_by(page.session(), page.url)) as http,
    ):
        answer = call(http, "rent_pod", name="p", gpu_type="A100").json()
    assert "There is no tool of that name" in answer["error"]["message"]


def test_it_shares_the_ledger_with_the_server_of_a_host(tmp_path: Path) -> None:
    wish = {"name": "shared", "gpu_type": "A100", "hours": 1, "wait_seconds": 0}
    with simulating() as lium:
        lium.begin()
        account = {"LIUM_BASE_URL": lium.base_url, "LIUM_API_KEY": API_KEY, "LIUM_MCP_CONFIRM": "never"}
        with (
            serving(tmp_path / "home", **account, LIUM_MCP_SERVER_TOKEN=TOKEN) as server,
            showing(tmp_path / "home", "dashboard", "--no-browser", **account) as page,
            page.caller(**said_by(page.session(), page.url)) as http,
            httpx2.Client(
                base_url=server.url, headers={"X-Lium-MCP-Token": TOKEN}, timeout=60, trust_env=False
            ) as host,
        ):
            first = call(host, "rent_pod", **wish).json()["result"]["structuredContent"]
            again = call(http, "rent_pod", **wish).json()["result"]["structuredContent"]
            assert again["already_rented"]
            assert again["pod"] == first["pod"]
            assert len(lium.state()["rents"]) == 1
