"""Logging in and out, as a person does it at a terminal: through the page of a sandbox on a real port."""

import asyncio
import json
import os
import pty
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.official_config import OfficialConfig
from tests.compat.simulated import Simulated, simulating
from tests.processes import Served, environment, run, serving, start
from tests.wires import Forward, Wire, answering, page, served

KEY = re.compile(r"sk_sandbox_[0-9a-f]{32}")
OLD = "[ui]\ntheme = dark ; as I like it\n\n[api]\napi_key = sk_sandbox_other\n"


@pytest.fixture(scope="module")
def _served() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def lium(_served: Simulated) -> Simulated:
    _served.begin()
    return _served


class ConfigFile:
    """The file in which keys are saved."""

    def __init__(self) -> None:
        self.path = Path.home() / ".lium" / "config.ini"

    @property
    def folder_is_there(self) -> bool:
        return self.path.parent.exists()

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.path.stat().st_mode)

    def write(self, text: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(text)

    def backups(self) -> dict[str, tuple[str, int]]:
        """Content and mode of what is kept, by its path."""
        kept = self.path.parent.glob("*.bak")
        return {str(path): (path.read_text(), stat.S_IMODE(path.stat().st_mode)) for path in kept}


@pytest.fixture
def config() -> ConfigFile:
    return ConfigFile()


def saved_key() -> str:
    return OfficialConfig().key("").text or "?"


def browser(does: str) -> str:
    """A browser that answers the page which it is given, as the person before it does."""
    script = Path.home() / "browser.py"
    script.write_text(
        "import sys, urllib.request\n"
        f"open({str(Path.home() / 'opened')!r}, 'a').write(sys.argv[1] + '\\n')\n"
        f"urllib.request.urlopen(sys.argv[1], b'answer={does}')\n"
    )
    return f"{sys.executable} {script} %s"


def opened() -> list[str]:
    path = Path.home() / "opened"
    return path.read_text().splitlines() if path.exists() else []


async def log_in(lium: Simulated, *options: str, does: str = "agree", **variables: str) -> tuple[int, str, str]:
    return await run("login", *options, **{"LIUM_BASE_URL": lium.base_url, "BROWSER": browser(does), **variables})


async def test_who_agrees_in_the_browser_is_logged_in(lium: Simulated, config: ConfigFile) -> None:
    status, out, err = await log_in(lium)
    assert (status, "Traceback" in err) == (0, False), err
    key = saved_key()
    assert KEY.fullmatch(key)
    [page_opened] = opened()
    assert page_opened in out
    assert "Logged in as Sandbox <sandbox@example.com>, workspace Personal, with $100.00 left." in out
    assert "Next: `lium-mcp " in out
    assert "is not lium.io" in err
    assert key not in out + err
    assert not any(session["page"] not in page_opened for session in lium.state()["logins"])
    assert config.mode == 0o600
    status, out, _ = await run("policy", "explain", LIUM_BASE_URL=lium.base_url)
    assert (status, "with $100.00 left" in out) == (0, True)


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (["--no-browser"], {"BROWSER": "true"}),
        ([], {"BROWSER": ""}),
        ([], {"BROWSER": "", "DISPLAY": ":0", "SSH_CONNECTION": "192.0.2.1 5 192.0.2.2 22"}),
        ([], {"BROWSER": str(Path("/no/such/browser"))}),
    ],
)
async def test_who_has_no_browser_here_is_shown_the_page(
    lium: Simulated, options: list[str], variables: dict[str, str]
) -> None:
    process, page_shown = await waiting(lium, *options, **variables)
    async with httpx2.AsyncClient() as elsewhere:
        assert "Agree only if" in (await elsewhere.get(page_shown)).text
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == ExitStatus.INTERRUPTED


async def test_who_agrees_elsewhere_is_logged_in_here(lium: Simulated) -> None:
    process, page_shown = await waiting(lium, "--no-browser")
    async with httpx2.AsyncClient() as elsewhere:
        await elsewhere.post(page_shown, data={"answer": "agree"})
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, b"Logged in" in out) == (0, True), err


async def waiting(lium: Simulated, *options: str, **variables: str) -> tuple[asyncio.subprocess.Process, str]:
    """A login that waits for a person, and the page that it shows."""
    process = await start("login", *options, LIUM_BASE_URL=lium.base_url, **variables)
    assert process.stdout is not None
    line = ""
    while not (found := re.search(r"http://\S+/cli-auth/\S+", line)):
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line, await process.communicate()
    return process, found[0]


async def test_who_refuses_keeps_what_there_was(lium: Simulated, config: ConfigFile) -> None:
    config.write(OLD)
    status, _, err = await log_in(lium, "--force", does="refuse")
    assert status == ExitStatus.FAILED
    assert "The login was refused on its page" in err
    assert "No key was saved." in err
    assert config.text == OLD


async def test_a_wait_ends(lium: Simulated, config: ConfigFile) -> None:
    status, _, err = await log_in(lium, "--no-browser", "--wait-minutes", "0.01")
    assert (status, "Nobody agreed within 0.01 minutes" in err) == (ExitStatus.FAILED, True)
    assert not config.folder_is_there


async def test_ctrl_c_ends_a_wait_and_saves_nothing(lium: Simulated, config: ConfigFile) -> None:
    process, _ = await waiting(lium, "--no-browser")
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == ExitStatus.INTERRUPTED
    assert err.decode().splitlines()[-1] == "Interrupted: no key was saved."
    assert not config.folder_is_there


async def test_another_key_is_replaced_only_where_that_is_said_and_is_kept(lium: Simulated, config: ConfigFile) -> None:
    config.write(OLD)
    status, _, err = await log_in(lium)
    assert status == ExitStatus.UNUSABLE
    assert "has a key of Other <other@example.com>, workspace Personal already; --force replaces it" in err
    assert config.text == OLD
    assert lium.state()["logins"] == []

    status, out, err = await log_in(lium, "--force")
    assert status == 0, err
    assert "It was a key of Other <other@example.com>" in err
    [(backup, kept)] = config.backups().items()
    assert kept == (OLD, 0o600)
    assert backup in out
    assert config.text == OLD.replace("sk_sandbox_other", saved_key())


async def test_few_of_the_keys_before_are_kept(lium: Simulated, config: ConfigFile) -> None:
    config.write(OLD)
    for number in range(7):
        old = config.path.with_name(f"config.ini.2026010{number + 1}T000000.000000Z.bak")
        old.write_text(f"[api]\napi_key = sk_of_then_{number}\n")
    assert (await log_in(lium, "--force"))[0] == 0
    kept = sorted(text for text, _ in config.backups().values())
    assert kept == sorted([OLD, *(f"[api]\napi_key = sk_of_then_{number}\n" for number in (3, 4, 5, 6))])


@pytest.mark.parametrize(
    ("typed", "questions", "status"),
    [("n\n", 1, ExitStatus.UNUSABLE), ("y\nn\n", 2, ExitStatus.FAILED), ("y\ny\n", 2, 0)],
)
async def test_a_person_at_a_terminal_is_asked_and_again_where_the_new_key_is_of_another_account(
    lium: Simulated, config: ConfigFile, typed: str, questions: int, status: int
) -> None:
    config.write(OLD)
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lium_mcp", "login",
            env=environment(LIUM_BASE_URL=lium.base_url, BROWSER=browser("agree")),
            stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == status, err
    assert err.count(b"[y/N]") == questions
    assert b"has a key of Other <other@example.com>, workspace Personal. Replace it" in err
    assert (b"Logged in as Sandbox" in out, config.text == OLD) == (status == 0, status != 0)


async def test_a_key_that_lium_refuses_replaces_none(lium: Simulated, config: ConfigFile) -> None:
    config.write(OLD)
    async with served(Wire(lium.playing)) as wire:
        wire.on("GET", "/users/me", answering(401, {"detail": "API key not found"}))
        status, _, err = await log_in(lium, "--force", LIUM_BASE_URL=wire.base_url)
    assert (status, "No key was saved." in err) == (ExitStatus.FAILED, True)
    assert config.text == OLD


@pytest.mark.parametrize(("saved", "status"), [("", ExitStatus.OK), (OLD, ExitStatus.FAILED)])
async def test_a_key_that_cannot_be_checked_now_replaces_none_but_is_not_lost(
    lium: Simulated, config: ConfigFile, saved: str, status: int
) -> None:
    config.write(saved)
    async with served(Wire(lium.playing)) as wire:
        wire.on("GET", "/users/me", answering(404, {"message": "gone", "status_code": 404}))
        assert (await log_in(lium, "--force", LIUM_BASE_URL=wire.base_url))[0] == status
    assert (config.text == saved) == bool(saved)


async def test_a_key_that_may_not_read_its_account_is_a_key(lium: Simulated) -> None:
    async with served(Wire(lium.playing)) as wire:
        wire.on("GET", "/users/me", answering(403, {"message": "API key 'x' does not have the 'read' scope"}))
        status, out, _ = await log_in(lium, LIUM_BASE_URL=wire.base_url)
    assert (status, "Logged in; the key may not read its account." in out) == (0, True)
    assert KEY.fullmatch(saved_key())


@pytest.mark.parametrize(
    "named",
    ["https://lium.io/cli-auth/1", "https://evil.example/", "file:///etc/passwd", "http://127.0.0.1:1/cli-auth/1"],
)
async def test_a_page_that_is_not_of_the_own_site_is_neither_opened_nor_shown(named: str) -> None:
    async with served(Wire()) as wire:
        wire.on("POST", "/cli-auth/init", answering(200, {"browser_url": named, "session_id": "secret-session"}))
        status, out, err = await run("login", LIUM_BASE_URL=wire.base_url, BROWSER=browser("agree"))
        assert [request.method for request in wire.requests] == ["POST"]
    assert (status, "names a login page that is not its own" in err) == (ExitStatus.FAILED, True)
    assert opened() == []
    assert named not in out + err


@pytest.mark.parametrize("session", ["", "../users/me", "a b", "x" * 200, "s\n"])
async def test_a_session_that_cannot_be_one_is_refused_before_its_page_is_shown(session: str) -> None:
    async with served(Wire()) as wire:
        its_page = f"{wire.base_url.removesuffix('/api')}/cli-auth/1"
        wire.on("POST", "/cli-auth/init", answering(200, {"browser_url": its_page, "session_id": session}))
        status, out, err = await run("login", LIUM_BASE_URL=wire.base_url, BROWSER=browser("agree"))
        assert [request.method for request in wire.requests] == ["POST"]
    assert (status, "No key was saved." in err) == (ExitStatus.FAILED, True)
    assert (opened(), "cli-auth" in out + err) == ([], False)


async def test_a_session_is_in_no_sentence_whatever_request_repeats_it(lium: Simulated, config: ConfigFile) -> None:
    async with served(Wire(lium.playing)) as wire:
        polled: list[str] = []

        async def repeats(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            polled.extend(one.url.path.rpartition("/")[2] for one in wire.sent("GET", "/cli-auth/poll/*"))
            return httpx2.Response(500, json={"message": f"no account for {polled[-1]}"})

        wire.on("GET", "/users/me", repeats)
        variables = {"LIUM_BASE_URL": wire.base_url, "LIUM_MCP_TIMEOUT_SECONDS": "1"}
        status, out, err = await log_in(lium, **variables)
        assert (status, polled[-1] in out + err, "no account for [redacted]" in err) == (0, False, True), err
        config.write(OLD)
        status, out, err = await log_in(lium, "--force", **variables)
    assert (status, polled[-1] in out + err, "no account for [redacted]" in err) == (1, False, True), err


async def test_a_name_in_lines_and_colours_is_told_in_one_plain_line(lium: Simulated, config: ConfigFile) -> None:
    config.write(OLD)
    owner = {"id": "u-1", "name": "Eve\x1b[31m\r\n\u202eLogged in", "email": "e@e.example\nAll is well", "balance": 1}
    async with served(Wire(lium.playing)) as wire:
        wire.on("GET", "/users/me", answering(200, owner))
        status, _, asked = await log_in(lium, LIUM_BASE_URL=wire.base_url)
        assert (status, "a key of Eve Logged in <e@e.example All is well> already" in asked) == (2, True)
        for words in (("policy", "explain"), ("status",)):
            out = (await run(*words, LIUM_BASE_URL=wire.base_url))[1]
            assert "Acting for Eve Logged in <e@e.example All is well>" in out
            assert not re.search("[\x1b\r\u202e]", out)
    assert (asked.count("\n"), re.search("[\x1b\r\u202e]", asked)) == (1, None)


@pytest.mark.parametrize("answer", [page(503), answering(404, {"detail": "Not Found"}), answering(200, {"ok": True})])
async def test_where_no_login_can_begin_the_reason_is_said(answer: Any) -> None:
    async with served(Wire()) as wire:
        wire.on("*", "**", answer)
        status, _, err = await run("login", "--no-browser", LIUM_BASE_URL=wire.base_url)
    assert (status, "No key was saved." in err) == (ExitStatus.FAILED, True)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("variables", "saved", "said"),
    [
        ({"LIUM_API_KEY": "sk_mine"}, "", "LIUM_API_KEY: it is set here"),
        ({"LIUM_API_KEY": "sk mine"}, "", "LIUM_API_KEY: it is set here"),
        ({"LIUM_MCP_SANDBOX": "1"}, "", "needs no login"),
        ({"LIUM_WORKSPACE": "team"}, "", "the workspace team is chosen"),
        ({}, "[workspaces]\nactive = Team\n[workspace.team]\napi_key = sk_team\n", "the workspace team is chosen"),
        ({}, "nothing of the kind\n", "this is no INI file"),
        ({"LIUM_BASE_URL": "http://lium.io/api"}, "", "LIUM_BASE_URL"),
    ],
)
async def test_a_login_that_would_not_count_is_not_begun(
    lium: Simulated, config: ConfigFile, variables: dict[str, str], saved: str, said: str
) -> None:
    config.write(saved)
    status, _, err = await log_in(lium, **variables)
    assert (status, said in err) == (ExitStatus.UNUSABLE, True), err
    assert "sk" not in err
    assert config.text == saved
    assert lium.state()["logins"] == []


@pytest.mark.parametrize("saved", ["[api]\napi_key = YOUR_API_KEY\n", "[api]\napi_key = ${LIUM_API_KEY}\n"])
async def test_a_login_mends_a_key_that_is_none(lium: Simulated, config: ConfigFile, saved: str) -> None:
    config.write(saved)
    assert (await log_in(lium, LIUM_API_KEY="${LIUM_API_KEY}", LIUM_MCP_MAX_PODS="many"))[0] == 0
    assert KEY.fullmatch(saved_key())


async def test_nothing_secret_is_said_at_any_level(lium: Simulated) -> None:
    async with served(Wire(lium.playing)) as wire:
        status, out, err = await log_in(lium, "--log-level", "DEBUG", LIUM_BASE_URL=wire.base_url)
        [polled] = {request.url.path for request in wire.sent("GET", "/cli-auth/poll/*")}
    assert status == 0
    session = polled.rpartition("/")[2]
    for secret in (session, saved_key()):
        assert secret not in out + err
    assert session not in json.dumps(lium.state())


async def test_a_logout_removes_the_key_and_says_what_is_left(lium: Simulated, config: ConfigFile) -> None:
    config.write(f"{OLD}[workspace.team]\napi_key = sk_team\n")
    status, out, err = await run("logout", LIUM_API_KEY="sk_mine")
    assert status == 0
    assert config.text == f"{OLD}[workspace.team]\napi_key = sk_team\n".replace("api_key = sk_sandbox_other\n", "")
    assert "until it is revoked at https://lium.io/api-keys" in out
    assert "The keys of these workspaces stay there: team." in out
    assert "LIUM_API_KEY is set" in err
    assert "The key sk_\u2026ther is no longer in" in out
    assert "sk_" not in (out + err).replace("sk_\u2026", "")

    status, out, _ = await run("logout")
    assert (status, "There is no key under [api]" in out) == (0, True)


async def test_a_key_of_all_sections_is_not_said_to_be_gone(config: ConfigFile) -> None:
    text = "; mine\n[DEFAULT]\ntheme = dark\napi_key = sk_everywhere\n[api]\napi_key = sk_own\n"
    config.write(text)
    status, out, err = await run("logout")
    assert (status, out, config.text) == (ExitStatus.UNUSABLE, "", text)
    assert f"{config.path}: api_key stands under [DEFAULT] (line 4)" in err
    assert "sk_" not in err
    config.write(text.replace("api_key = sk_everywhere\n", ""))
    assert (await run("logout"))[0] == 0
    assert "sk_" not in config.text


@pytest.mark.parametrize("home", ["", "person"])
@pytest.mark.parametrize(
    "words",
    [
        ("login", "--no-browser"),
        ("logout",),
        ("install", "cursor", "--yes"),
        ("uninstall", "cursor", "--yes"),
        ("install", "--list"),
        ("rentals",),
        ("status",),
        ("serve", "--transport", "http"),
    ],
    ids=" ".join,
)
async def test_without_a_home_nothing_is_done(lium: Simulated, words: tuple[str, ...], home: str) -> None:
    status, out, err = await run(*words, HOME=home, LIUM_BASE_URL=lium.base_url)
    why = "it is no whole path" if home else "it is empty"
    assert (status, out, err) == (ExitStatus.UNUSABLE, "", f"lium-mcp: HOME: {why}; set it to your home folder\n")
    assert not os.path.exists("/.lium")  # noqa: ASYNC240, PTH110 - a look
    assert lium.state()["logins"] == []


async def test_a_key_that_may_be_none_of_liums_is_said_where_it_is_used(lium: Simulated, config: ConfigFile) -> None:
    config.write("[api]\napi_key = 0123456789abcdef\n")
    for variables, place in (({}, str(config.path)), ({"LIUM_API_KEY": "fedcba9876543210"}, "LIUM_API_KEY")):
        _, out, err = await run("status", LIUM_BASE_URL=lium.base_url, **variables)
        assert "does not begin with sk_" in err
        assert place in err
        findings = json.loads((await run("doctor", "--json", LIUM_BASE_URL=lium.base_url, **variables))[1])["findings"]
        [odd] = [one for one in findings if "may be none of Lium's" in one["what"]]
        assert (odd["level"], place in odd["what"], "lium-mcp login" in odd["run"]) == ("warning", True, True)
        assert not re.search("0123456789|fedcba", out + err + json.dumps(findings))
    assert "begin with" not in (await run("status", LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox"))[2]


CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "get_balance", "arguments": {}}}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}},
    "io.modelcontextprotocol/clientInfo": {"name": "host", "version": "1"},
}


async def initialized(server: Served, capabilities: dict[str, Any]) -> None:
    about = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "h", "version": "1"}}
    await server.ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about})
    await server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})


async def test_a_server_that_runs_uses_the_key_of_a_login_in_another_terminal(lium: Simulated) -> None:
    async with serving(LIUM_BASE_URL=lium.base_url) as server:
        await initialized(server, {})
        refused = (await server.ask(CALL))["result"]
        assert refused["isError"]
        assert "`lium-mcp login`" in refused["content"][0]["text"]
        assert (await log_in(lium))[0] == 0
        answer = (await server.ask(CALL | {"id": 3}))["result"]
        assert answer["structuredContent"]["balance_usd"] == 100
        assert await server.end() == 0
    assert saved_key() not in server.stderr + "".join(server.lines)


async def test_a_host_of_the_older_protocol_is_told_the_page_in_an_error(lium: Simulated) -> None:
    async with serving(LIUM_BASE_URL=lium.base_url) as server:
        await initialized(server, {"elicitation": {"form": {}, "url": {}}})
        error = (await server.ask(CALL))["error"]
        assert error["code"] == -32042
        [shown] = error["data"]["elicitations"]
        assert (shown["mode"], bool(shown["elicitationId"])) == ("url", True)
        await clicked(shown["url"])
        answer = (await server.ask(CALL | {"id": 3}))["result"]
        assert answer["structuredContent"]["balance_usd"] == 100
        assert await server.end() == 0
    assert shown["url"] not in server.stderr


async def test_a_host_of_the_current_protocol_is_told_the_page_in_a_result(lium: Simulated) -> None:
    params: dict[str, Any] = {"name": "get_balance", "arguments": {}, "_meta": META}
    async with serving(LIUM_BASE_URL=lium.base_url) as server:
        result = (await server.ask(CALL | {"params": params}))["result"]
        assert result["resultType"] == "input_required"
        [(name, asked)] = result["inputRequests"].items()
        assert asked["method"] == "elicitation/create"
        assert set(asked["params"]) == {"mode", "message", "url"}
        await clicked(asked["params"]["url"])
        params["inputResponses"] = {name: {"action": "accept"}}
        answer = (await server.ask(CALL | {"id": 3, "params": params}))["result"]
        assert answer["structuredContent"]["balance_usd"] == 100
        assert await server.end() == 0
    assert asked["params"]["url"] not in server.stderr


async def clicked(page_shown: str) -> None:
    async with httpx2.AsyncClient() as elsewhere:
        assert (await elsewhere.post(page_shown, data={"answer": "agree"})).status_code == 200
