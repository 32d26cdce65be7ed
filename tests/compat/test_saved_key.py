"""A key that we save is the official client's too, and it goes on to write its file as before."""

import subprocess
from pathlib import Path

import pytest

from lium_mcp.official_config import OfficialConfig
from lium_mcp.saved_key import remove_key, save_key
from tests.compat.driver import Official, OfficialError
from tests.compat.simulated import Simulated

BEFORE = "# mine\n[ui]\ntheme = dark\n\n[api]\napi_key = sk_revoked\n"


@pytest.fixture
def keyless(official: Official, sandbox_server: Simulated, monkeypatch: pytest.MonkeyPatch) -> Official:
    """The official client without a key in its environment, in a home that is ours too."""
    official.point_at(sandbox_server.base_url, api_key=None)
    monkeypatch.setenv("HOME", str(official.home))
    return official


def lium(official: Official, *arguments: str) -> str:
    variables = {name: value for name, value in official.variables.items() if name != "LIUM_API_KEY"}
    command = official.environment.lium(*arguments)
    done = subprocess.run(
        command, env=variables, cwd=official.home, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("before", ["", BEFORE])
def test_the_official_client_uses_the_key_that_we_save(keyless: Official, before: str) -> None:
    (keyless.home / ".lium" / "config.ini").write_text(before)
    with pytest.raises(OfficialError):
        keyless.sdk("balance")

    save_key("sk_sandbox", replaces="sk_revoked")

    assert keyless.sdk("balance") == 100
    assert "from config:" in lium(keyless, "config", "get", "api.api_key")
    assert remove_key()
    with pytest.raises(OfficialError):
        keyless.sdk("balance")


def test_the_official_client_writes_on_in_the_file_that_we_wrote(keyless: Official) -> None:
    save_key("sk_sandbox", replaces=None)
    lium(keyless, "config", "set", "ui.theme", "light")
    assert OfficialConfig().key("").text == "sk_sandbox"
    save_key("sk_sandbox_other", replaces="sk_sandbox")
    assert lium(keyless, "config", "get", "ui.theme").splitlines()[0] == "light"
    assert keyless.sdk("balance") == 100
    assert Path.home() == keyless.home
