"""What `lium-mcp doctor` says to do is done here, in a shell as a person has it: what was wrong is then gone."""

import asyncio
import json
import os
import shlex
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from lium_mcp.sandbox import Sandbox
from tests.processes import ROOT, environment
from tests.tls import Proxy, make_certificates, over_tls, proxying
from tests.wires import Wire, served

KEY = "sk_sandbox"
OTHER_KEY = "sk_sandbox_other"
Finding = dict[str, str]


class Shell:
    """A shell on a machine where our command is on the PATH, and a browser agrees to every login."""

    def __init__(self, base_url: str) -> None:
        folder = Path.home() / "bin"
        folder.mkdir()
        script = folder / "lium-mcp"
        # Nobody sits here to say yes.
        script.write_text(
            '#!/bin/sh\ncase "$1" in install) set -- "$@" --yes;; esac\n'
            f'exec {shlex.quote(sys.executable)} -m lium_mcp "$@"\n'
        )
        script.chmod(0o755)
        browser = folder / "browser.py"
        browser.write_text("import sys, urllib.request\nurllib.request.urlopen(sys.argv[1], b'answer=agree')\n")
        self.variables = environment(
            PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
            LIUM_API_KEY=KEY,
            LIUM_BASE_URL=base_url,
            LIUM_MCP_MAX_PODS="3",
            HTTPS_PROXY="http://127.0.0.1:9",
            BROWSER=f"{sys.executable} {browser} %s",
        )

    async def look(self, *options: str, after: str = "") -> list[Finding]:
        """What the doctor finds, after this line of a shell."""
        line = f"{after}\nexec lium-mcp doctor --json {shlex.join(options)} >&3"
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"exec 3>&1 >&2; {line}"),
            env=self.variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert out, err.decode()
        findings: list[Finding] = json.loads(out)["findings"]
        return findings


@pytest.fixture
async def shell(sandbox: Sandbox) -> AsyncIterator[Shell]:
    async with served(Wire(sandbox)) as wire:
        yield Shell(wire.base_url)


def wrong(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one["level"] in ("warning", "broken")]


async def mended(shell: Shell, *options: str) -> Finding:
    """Find one thing that is wrong, do what mends it, and find nothing wrong; returns what was found."""
    found = wrong(await shell.look(*options))
    assert len(found) == 1, found
    assert found[0]["run"], found
    assert wrong(await shell.look(*options, after=found[0]["run"])) == [], found
    return found[0]


SETTINGS = {
    "no key": ({"LIUM_API_KEY": ""}, "No API key is set"),
    "a key that Lium refuses": ({"LIUM_API_KEY": "sk_wrong"}, "does not accept the API key"),
    "a key in two pairs of quotes": ({"LIUM_API_KEY": "'\"sk_sandbox\"'"}, "LIUM_API_KEY: it holds a quotation mark"),
    "words that stand for a key": ({"LIUM_API_KEY": "YOUR_API_KEY"}, "LIUM_API_KEY holds no key"),
    "a misspelt limit": ({"LIUM_MCP_MAX_POD": "3"}, "LIUM_MCP_MAX_POD: there is no such setting; LIUM_MCP_MAX_PODS is"),
    "a misspelt key": ({"LIUM_API_KEY": "", "LIUM_APIKEY": KEY}, "LIUM_APIKEY: there is no such setting"),
    "an empty setting": ({"LIUM_MCP_READ_ONLY": ""}, "LIUM_MCP_READ_ONLY: it is empty"),
    "a policy file that is not there": ({"LIUM_MCP_POLICY": "/nowhere/policy.toml"}, "LIUM_MCP_POLICY: "),
    "a workspace that is a placeholder": ({"LIUM_API_KEY": "", "LIUM_WORKSPACE": "${WORKSPACE}"}, "LIUM_WORKSPACE: "),
    "an address of another kind": ({"LIUM_BASE_URL": "ftp://lium.io"}, "LIUM_BASE_URL: "),
    "a ledger in a file of the system": (
        {"LIUM_MCP_STATE_URL": "sqlite:////proc/version"},
        "Nothing is rented without",
    ),
    "a ledger that is the root": ({"LIUM_MCP_STATE_URL": "sqlite:////"}, "Nothing is rented without it"),
    "a ledger where nothing can be": ({"LIUM_MCP_STATE_URL": "sqlite:////proc/none/a.db"}, "/proc cannot be written"),
    "a ledger of no kind": ({"LIUM_MCP_STATE_URL": "mysql://here"}, "LIUM_MCP_STATE_URL: "),
}


@pytest.mark.parametrize("cause", SETTINGS)
async def test_what_mends_a_setting_does(shell: Shell, cause: str) -> None:
    variables, said = SETTINGS[cause]
    shell.variables |= variables
    found = wrong(await shell.look())
    assert len(found) == 1, found
    assert found[0]["level"] == "broken"
    assert said in found[0]["what"]
    assert found[0]["run"], found
    left = wrong(await shell.look(after=found[0]["run"]))
    # Without the address Lium itself would be asked, which no test does; without a workspace there is no key yet.
    expected = {"an address of another kind": {"lium"}, "a workspace that is a placeholder": {"key"}}.get(cause, set())
    assert {one["area"] for one in left} == expected, left


CONFIGS = {
    "no INI": "api_key = sk_sandbox\n",
    "a section twice": "[api]\napi_key = sk_a\n[api]\napi_key = sk_b\n",
    "a key with a name": "[api]\napi_key = LIUM_API_KEY=sk_sandbox_own\n",
    "a key that Lium does not know": "[api]\napi_key = sk_gone_for_long\n",
    "a placeholder": "[api]\napi_key = <your Lium API key>\n",
}


@pytest.mark.parametrize("cause", CONFIGS)
async def test_what_mends_the_file_of_the_official_client_does(shell: Shell, cause: str) -> None:
    del shell.variables["LIUM_API_KEY"]
    path = Path.home() / ".lium" / "config.ini"
    path.parent.mkdir()
    path.write_text(CONFIGS[cause])
    found = await mended(shell)
    assert str(path) in found["what"] + found["cure"] + found["run"] or "does not accept" in found["what"]


async def test_a_folder_in_the_place_of_that_file_is_put_away(shell: Shell) -> None:
    del shell.variables["LIUM_API_KEY"]
    (Path.home() / ".lium" / "config.ini").mkdir(parents=True)
    await mended(shell)


async def test_the_workspace_that_is_chosen_is_named_where_its_key_is_missing(shell: Shell) -> None:
    shell.variables |= {"LIUM_API_KEY": "", "LIUM_WORKSPACE": "team"}
    [found] = wrong(await shell.look())
    assert found["run"] == "lium keys create NAME --workspace team --save"


@pytest.mark.parametrize("option", ["--max-hours", "--state-url"])
async def test_what_was_typed_is_named_as_it_was_typed(shell: Shell, option: str) -> None:
    [found] = wrong(await shell.look(option, "many"))
    assert found["what"].startswith(f"{option}: ")
    assert f"correct {option} where it was typed, or leave it out" in found["cure"]


def ssh_key(name: str, passphrase: str | None = None) -> Path:
    path = Path.home() / ".ssh" / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path, passphrase=passphrase)
    key.write_public_key(f"{path}.pub")
    return path


async def test_an_ssh_key_that_is_not_there_is_made(shell: Shell) -> None:
    shutil.rmtree(Path.home() / ".ssh")
    await mended(shell)
    shell.variables["LIUM_SSH_KEY_PATH"] = str(Path.home() / "keys of mine" / "lium")
    await mended(shell)


@pytest.mark.parametrize(("passphrase", "verb"), [("wrong", "correct"), ("", "set")])
async def test_a_passphrase_that_does_not_open_the_key_is_told(shell: Shell, passphrase: str, verb: str) -> None:
    path = ssh_key("locked", "right")
    shell.variables |= {"LIUM_SSH_KEY_PATH": str(path), "LIUM_SSH_KEY_PASSPHRASE": passphrase}
    [found] = wrong(await shell.look())
    assert f"{verb} LIUM_SSH_KEY_PASSPHRASE" in found["cure"]
    assert found["run"] == f"ssh-add {path}"
    assert wrong(await shell.look(after="export LIUM_SSH_KEY_PASSPHRASE=right")) == []


async def test_a_file_that_is_no_private_key_is_not_overwritten(shell: Shell) -> None:
    path = ssh_key("odd")
    path.write_text("no key")
    shell.variables["LIUM_SSH_KEY_PATH"] = str(path)
    [found] = wrong(await shell.look())
    assert found["cure"] == f"name a private key instead of {path}: LIUM_SSH_KEY_PATH=/path/to/key"
    path.unlink()
    [found] = wrong(await shell.look())
    assert f"put the private half of {path}.pub at {path}" in found["cure"]
    assert found["run"] == ""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def test_the_other_scheme_is_told_both_ways(
    shell: Shell, sandbox: Sandbox, certificates: tuple[Path, ssl.SSLContext]
) -> None:
    plain = shell.variables["LIUM_BASE_URL"]
    authority, context = certificates
    shell.variables |= {"HTTPS_PROXY": "", "SSL_CERT_FILE": str(authority), "LIUM_MCP_TIMEOUT_SECONDS": "2"}
    shell.variables["LIUM_BASE_URL"] = plain.replace("http:", "https:")
    found = await mended(shell)
    assert "speaks no TLS" in found["what"]
    async with over_tls(sandbox, context) as base_url:
        shell.variables["LIUM_BASE_URL"] = base_url.replace("https:", "http:")
        found = await mended(shell)
        assert "speaks TLS" in found["what"]


@pytest.mark.parametrize("proxy", [Proxy(silent=True), Proxy("403 Forbidden")], ids=["hangs", "refuses"])
async def test_a_proxy_that_stands_in_the_way_is_gone_past(
    shell: Shell, sandbox: Sandbox, certificates: tuple[Path, ssl.SSLContext], proxy: Proxy
) -> None:
    authority, context = certificates
    async with over_tls(sandbox, context) as base_url, proxying(proxy) as proxy_url:
        shell.variables |= {"LIUM_BASE_URL": base_url, "SSL_CERT_FILE": str(authority), "HTTPS_PROXY": proxy_url}
        shell.variables["LIUM_MCP_TIMEOUT_SECONDS"] = "1"
        found = wrong(await shell.look())
        assert all(one["area"] in ("lium", "limits") for one in found), found
        [lium] = [one for one in found if one["area"] == "lium"]
        assert "HTTPS_PROXY" in lium["cure"]
        assert wrong(await shell.look(after=lium["run"])) == []


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("GPU_TYPES", "H1oo", "perhaps to H100"),
        ("GPU_TYPES", "H100,RTX9999", "no GPU of the market is RTX9999"),
        ("COUNTRIES", "XX", "there is no country XX"),
        ("COUNTRIES", "UK", "perhaps to GB"),
    ],
)
async def test_a_limit_that_nothing_meets_is_told(shell: Shell, limit: str, value: str, said: str) -> None:
    shell.variables[f"LIUM_MCP_ALLOW_{limit}"] = value
    [found] = wrong(await shell.look())
    assert found["level"] == "warning", "the market changes"
    assert said in found["what"] + found["cure"]
    assert f"LIUM_MCP_ALLOW_{limit}" in found["cure"]
    shell.variables[f"LIUM_MCP_ALLOW_{limit}"] = {"GPU_TYPES": "H100", "COUNTRIES": "US"}[limit]
    assert wrong(await shell.look()) == []


def put(host_file: str, name: str = "lium", **entry: Any) -> Path:
    file = Path.home() / host_file
    file.parent.mkdir(parents=True, exist_ok=True)
    servers = json.loads(file.read_text())["mcpServers"] if file.exists() else {}
    file.write_text(json.dumps({"mcpServers": {**servers, name: entry}}))
    return file


def ours(*options: str, **env: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-m", "lium_mcp", *options], "env": {"PYTHONPATH": str(ROOT), **env}}


async def test_an_entry_that_lacks_the_key_alone_is_mended_by_a_login(shell: Shell) -> None:
    base_url = shell.variables["LIUM_BASE_URL"]
    put(".codeium/windsurf/mcp_config.json", **ours(LIUM_BASE_URL=base_url, LIUM_API_KEY="<your Lium API key>"))
    found = await mended(shell)
    assert "refuses calls" in found["what"]
    assert found["run"] == "unset LIUM_API_KEY; lium-mcp login"


@pytest.mark.parametrize("program", ["/nowhere/venv/bin/lium-mcp", "lium-mcp-of-old"])
async def test_an_entry_whose_program_is_gone_is_written_anew(shell: Shell, program: str) -> None:
    put(".cursor/mcp.json", command=program, args=["-m", "lium_mcp", "--sandbox"])
    [found] = wrong(await shell.look())
    assert f"there is no program {program}" in found["what"]
    assert found["run"] == "lium-mcp install cursor"
    left = wrong(await shell.look(after=found["run"]))
    assert [one["what"] for one in left if "no program" in one["what"]] == []


async def test_an_entry_of_another_name_is_to_be_taken_out_first(shell: Shell) -> None:
    file = put(".cursor/mcp.json", "gpus", command="/nowhere/lium-mcp")
    [found] = wrong(await shell.look())
    assert f"take gpus in {file} out" in found["cure"]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (".cursor/mcp.json", '{"mcpServers": {'),
        (".cursor/mcp.json", '{"mcpServers": {},}'),
        (".config/Code - Insiders/User/mcp.json", "\udc80"),
    ],
)
async def test_the_broken_file_of_a_host_is_put_away(shell: Shell, place: str, text: str) -> None:
    file = Path.home() / place
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    [found] = wrong(await shell.look())
    assert str(file) in found["cure"]
    assert not [one for one in wrong(await shell.look(after=found["run"])) if "cannot be used" in one["what"]]
    assert (file.parent / "mcp.json.old").read_bytes() == text.encode("utf-8", "surrogateescape")
