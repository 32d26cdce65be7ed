"""What `lium-mcp doctor` says to do is done here, in a shell as a person has it: what was wrong is then gone."""

import os
import pwd
import shutil
import ssl
from pathlib import Path

import asyncssh
import pytest

from lium_mcp.sandbox import Sandbox
from tests.cli.doctor_shell import KEY, Shell, mended, mends, wrong
from tests.tls import Proxy, make_certificates, over_tls, proxying

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
@mends("key_missing", "key_refused", "variable_wrong", "variable_misspelt", "ledger_unusable")
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
@mends("saved_file_broken", "saved_value_wrong", "key_refused")
async def test_what_mends_the_file_of_the_official_client_does(shell: Shell, cause: str) -> None:
    del shell.variables["LIUM_API_KEY"]
    path = Path.home() / ".lium" / "config.ini"
    path.parent.mkdir()
    path.write_text(CONFIGS[cause])
    path.chmod(0o600)
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


@mends("ssh_key_missing")
async def test_an_ssh_key_that_is_not_there_is_made(shell: Shell) -> None:
    shutil.rmtree(Path.home() / ".ssh")
    await mended(shell)
    named = Path.home() / "keys of mine" / "lium"
    shell.variables["LIUM_SSH_KEY_PATH"] = str(named)
    found = await mended(shell)
    assert found["cure"].startswith(f"make {named}, which LIUM_SSH_KEY_PATH names, or ")
    assert found["run"].startswith("mkdir -p ")
    shell.variables["LIUM_SSH_KEY_PATH"] = str(named.with_name("another"))
    assert (await mended(shell))["run"].startswith("ssh-keygen "), "the folder is there"


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


@mends("other_scheme")
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


@mends("proxy_in_the_way", "silent")
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


@mends("key_open_to_others")
async def test_a_file_with_a_key_that_others_can_read_is_closed(shell: Shell) -> None:
    del shell.variables["LIUM_API_KEY"]
    path = Path.home() / ".lium" / "config.ini"
    path.parent.mkdir()
    path.parent.chmod(0o755)  # whatever umask an earlier test has left
    path.write_text(f"[api]\napi_key = {KEY}\n")
    path.chmod(0o644)
    found = await mended(shell)
    assert (found["level"], KEY in found["what"]) == ("warning", False)
    assert path.stat().st_mode & 0o777 == 0o600
    for mode, folder in ((0o644, 0o700), (0o600, 0o755)):
        path.chmod(mode)
        path.parent.chmod(folder)
        assert wrong(await shell.look()) == []


@mends("key_odd")
async def test_a_key_that_does_not_begin_as_they_do_is_replaced_by_a_login(shell: Shell) -> None:
    shell.variables["LIUM_API_KEY"] = "0123456789abcdef"
    found = {one["code"]: one for one in wrong(await shell.look())}
    assert found.keys() == {"key_odd", "key_refused"}
    assert "0123456789" not in str(found)
    assert wrong(await shell.look(after=found["key_odd"]["run"])) == []


@mends("limits_shadow")
async def test_limits_that_refuse_nothing_are_let_refuse(shell: Shell) -> None:
    shell.variables["LIUM_MCP_POLICY_MODE"] = "shadow"
    await mended(shell)


@mends("home_missing")
async def test_a_home_that_is_empty_is_named(shell: Shell) -> None:
    home = shell.variables["HOME"]
    shell.variables["HOME"] = ""
    [found] = wrong(await shell.look())
    theirs = pwd.getpwuid(os.getuid()).pw_dir
    assert found["run"] == f"export HOME={theirs}", "which no test looks into"
    assert wrong(await shell.look(after=found["run"].replace(theirs, home))) == []
    shell.mended.add("home_missing")
