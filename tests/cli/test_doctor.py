"""`lium-mcp doctor`: every broken set-up is named, with what mends it."""

import json
import re
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import httpx2
import pytest

from lium_mcp import __main__ as program
from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY
from tests.processes import ROOT, run
from tests.tls import Proxy, make_certificates, over_tls, proxying
from tests.wires import Wire, answering, served

KEY = "sk_sandbox"
WELL = {"LIUM_MCP_MAX_PODS": "3"}


@dataclass
class Told:
    """What the doctor found."""

    status: int
    level: str
    findings: list[dict[str, str]]

    def that_are(self, *levels: str) -> list[str]:
        """Findings of these levels, as a person reads them."""
        return [
            f"{one['area']}: {one['what']} -> {one['cure']} $ {one['run']}"
            for one in self.findings
            if one["level"] in levels
        ]


async def doctor(*options: str, **variables: str) -> Told:
    """Ask as a program does. Nothing is asked outside this machine."""
    status, out, err = await run("doctor", "--json", *options, **{"HTTPS_PROXY": "http://127.0.0.1:9"} | variables)
    assert err == ""
    assert KEY not in out
    told = json.loads(out)
    assert all(bool(one["cure"]) == (one["level"] != "ok") for one in told["findings"])
    areas = [one["area"] for one in told["findings"]]
    assert len(list(dict.fromkeys(areas))) == sum(1 for _ in groupby(areas)), "an area stands in one place"
    return Told(status, told["level"], told["findings"])


@pytest.fixture
async def lium(sandbox: Sandbox) -> AsyncIterator[Wire]:
    async with served(Wire(sandbox)) as wire:
        yield wire


async def test_a_sound_set_up_is_well(lium: Wire) -> None:
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert (told.status, told.level) == (0, "ok"), told.that_are("warning", "broken")
    areas = [one["area"] for one in told.findings]
    assert {"program", "key", "lium", "ssh", "ledger", "limits"} <= set(areas)
    said = " ".join(told.that_are("ok"))
    assert "is from LIUM_API_KEY" in said
    assert "acts for Sandbox <sandbox@example.com>, workspace Personal." in said
    assert "The balance is $100.00" in said
    assert "max_pods: 3, 0 used, 3 left" in said


async def test_without_limits_it_works_and_is_worth_a_look(lium: Wire) -> None:
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url)
    assert (told.status, told.level) == (1, "warning")
    [limits] = told.that_are("warning")
    assert "LIUM_MCP_MAX_PODS" in limits


async def test_the_sandbox_needs_nothing() -> None:
    told = await doctor("--sandbox")
    assert told.status == 0, told.that_are("warning", "broken")
    assert any("none are needed: Lium is simulated" in line for line in told.that_are("ok"))
    status, text, err = await run("doctor", "--sandbox")
    assert (status, err) == (0, "")
    assert text.endswith(f"All is well: {len(told.findings)} findings.\n")


async def test_a_person_reads_the_same_as_a_program(lium: Wire) -> None:
    wrong = {"LIUM_API_KEY": "", "LIUM_BASE_URL": lium.base_url, "LIUM_SSH_KEY_PATH": "/nowhere/key"}
    told = await doctor(**wrong)
    status, text, err = await run("doctor", **wrong)
    assert (status, err) == (2, "")
    for one in told.findings:
        assert re.sub(r"in \d+ ms", "", one["what"]) in re.sub(r"in \d+ ms", "", text)
        assert one["cure"] in text
    assert text.endswith("\n1 wrong, 2 to look at, 6 well.\n")


SETTINGS_WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"LIUM_SSH_KEY_PATH": "/nowhere/key"}, "Nobody could log in to a pod", "ssh-keygen"),
    ({"SSL_CERT_FILE": "/nowhere/ca.pem", "LIUM_BASE_URL": "https://localhost:1/api"}, "SSL_CERT_FILE: ", "host"),
    ({"LIUM_BASE_URL": "http://127.0.0.1:1/api"}, "Nothing takes a connection", "LIUM_BASE_URL"),
]
"""What a command of a shell does not mend; the rest is in `test_doctor_cures.py`."""


@pytest.mark.parametrize(("wrong", "cause", "cure"), SETTINGS_WRONG, ids=lambda value: str(value)[:40])
async def test_a_wrong_setting_is_named_with_its_cure(lium: Wire, wrong: dict[str, str], cause: str, cure: str) -> None:
    told = await doctor(**{"LIUM_API_KEY": KEY, "LIUM_BASE_URL": lium.base_url} | WELL | wrong)
    assert (told.status, told.level) == (2, "broken")
    assert any(cause in line and cure in line for line in told.that_are("broken")), told.that_are("broken")


@pytest.mark.parametrize("read_only", [{}, {"LIUM_MCP_READ_ONLY": "true"}], ids=["rents", "only reads"])
async def test_a_missing_ssh_key_is_as_bad_as_what_it_does_to_a_rent(lium: Wire, read_only: dict[str, str]) -> None:
    known = {"LIUM_API_KEY": KEY, "LIUM_BASE_URL": lium.base_url, "LIUM_SSH_KEY_PATH": "/nowhere/key"} | WELL
    told = await doctor(**known | read_only)
    assert told.status == (1 if read_only else 2)
    [line] = told.that_are("warning", "broken")
    assert "none is rented: the account has no key registered either" in line
    async with httpx2.AsyncClient(headers={"X-API-Key": KEY}) as client:
        key = {"name": "elsewhere", "public_key": PUBLIC_KEY}
        assert (await client.post(f"{lium.base_url}/ssh-keys", json=key)).is_success
    told = await doctor(**known | read_only)
    assert told.status == 1
    [line] = told.that_are("warning")
    assert "pods can be rented all the same" in line
    lium.on("GET", "/ssh-keys", answering(500))
    told = await doctor(**known | read_only)
    assert told.status == 1
    [line] = told.that_are("warning")
    assert "whether pods can be rented all the same is not known" in line


async def test_a_wrong_address_is_told_from_a_wrong_key(lium: Wire) -> None:
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=f"{lium.base_url}/v1", **WELL)
    assert told.status == 2
    [line] = [line for line in told.that_are("broken") if line.startswith("lium: ")]
    assert "LIUM_BASE_URL" in line
    assert "ends with /api" in line


async def test_a_name_that_leads_nowhere_is_told(lium: Wire) -> None:
    told = await doctor(
        LIUM_API_KEY=KEY, LIUM_BASE_URL="https://lium.invalid/api", HTTPS_PROXY="", NO_PROXY="*", **WELL
    )
    assert told.status == 2
    assert any("No address is known for the name lium.invalid" in line for line in told.that_are("broken"))


async def test_a_clock_that_is_wrong_is_told(lium: Wire, sandbox: Sandbox) -> None:
    sandbox.clock.advance(hours=3)
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert told.status == 1
    [line] = told.that_are("warning")
    assert "180 minutes behind" in line


async def test_an_empty_account_and_a_key_that_may_not_read_are_told(lium: Wire) -> None:
    lium.on("GET", "/users/me", answering(200, {"id": "11111111-1111-4111-8111-111111111111", "balance": 0.2}))
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert told.status == 1
    assert any("The balance is $0.20" in line and "top up" in line for line in told.that_are("warning"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def test_certificates_and_proxies_that_stand_in_the_way_are_told(
    sandbox: Sandbox, certificates: tuple[Path, ssl.SSLContext]
) -> None:
    authority, context = certificates
    async with over_tls(sandbox, context) as base_url:
        known = {"LIUM_API_KEY": KEY, "LIUM_BASE_URL": base_url, "HTTPS_PROXY": ""} | WELL
        told = await doctor(**known)
        assert any("SSL_CERT_FILE=/path" in line for line in told.that_are("broken"))
        trusting = known | {"SSL_CERT_FILE": str(authority)}
        told = await doctor(**trusting)
        assert told.status == 0, told.that_are("warning", "broken")
        assert f"trusting the certificates in {authority}" in str(told.findings)
        for refusal, cure in (("407 Proxy Authentication Required", "HTTPS_PROXY"), ("403 Forbidden", "HTTPS_PROXY")):
            async with proxying(Proxy(refusal)) as proxy_url:
                told = await doctor(**trusting | {"HTTPS_PROXY": proxy_url})
            assert any(cure in line for line in told.that_are("broken")), refusal
        async with proxying(Proxy()) as proxy_url:
            told = await doctor(**trusting | {"HTTPS_PROXY": proxy_url})
        assert told.status == 0, told.that_are("warning", "broken")
        assert "through the proxy 127.0.0.1 of HTTPS_PROXY" in str(told.findings)


def put_entry(command: str, *args: str, **env: str) -> Path:
    """Let Cursor be here, with an entry of ours."""
    file = Path.home() / ".cursor" / "mcp.json"
    file.parent.mkdir()
    entry = {"command": command, "args": [*args], "env": {"PYTHONPATH": str(ROOT), **env}}
    file.write_text(json.dumps({"mcpServers": {"lium": entry, "other": {"command": "/nowhere/other"}}}))
    return file


async def test_an_entry_of_ours_is_started_as_its_host_would(lium: Wire) -> None:
    file = put_entry(sys.executable, "-m", "lium_mcp", "--sandbox")
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert told.status == 0, told.that_are("warning", "broken")
    [line] = [line for line in told.that_are("ok") if line.startswith("hosts: Cursor")]
    assert line.startswith(f"hosts: Cursor (lium) starts {sys.executable}, which lists 36 tools in ")
    assert line.endswith("and reads the balance of the sandbox, where no money is real. ->  $ ")
    assert "other" not in line, "what is not ours is not started"
    file.unlink()
    put = {"LIUM_API_KEY": "sk_wrong", "LIUM_BASE_URL": lium.base_url} | WELL
    file.parent.rmdir()
    put_entry(sys.executable, "-m", "lium_mcp", **put)
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert told.status == 1
    [line] = told.that_are("warning")
    assert "refuses calls: Lium does not accept the API key" in line
    assert "the user" not in line, "which is for agents"
    assert f"correct LIUM_API_KEY of lium in {file}" in line


async def test_an_entry_that_does_not_start_and_settings_that_are_broken_are_named(lium: Wire) -> None:
    file = put_entry("/nowhere/lium-mcp")
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert told.status == 2
    [line] = told.that_are("broken")
    assert "there is no program /nowhere/lium-mcp" in line
    assert "lium-mcp install cursor" in line
    file.write_text('{"mcpServers": {')
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert told.status == 2
    [line] = told.that_are("broken")
    assert str(file) in line
    assert f"correct {file} in an editor" in line


@pytest.mark.parametrize(
    ("script", "said"),
    [("head -c 1000 /dev/urandom; exit 3", ""), ("echo fatal: no module >&2; exit 3", "fatal: no module")],
)
async def test_what_a_program_said_before_it_died_is_told(lium: Wire, script: str, said: str) -> None:
    program = Path.home() / "lium-mcp"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    put_entry(str(program))
    told = await doctor(LIUM_API_KEY=KEY, LIUM_BASE_URL=lium.base_url, **WELL)
    assert told.status == 2
    [line] = told.that_are("broken")
    assert "it ended, or did not speak MCP" in line
    assert said in line


def test_an_old_python_is_told_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.version_info", (3, 9, 18, "final", 0))
    assert program.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Python 3.11 or later is needed, and this is 3.9.18" in said.err
    assert "--python 3.12" in said.err
