"""Settings: read once, from the right place, and never guessed."""

from pathlib import Path

import pytest

from lium_mcp.remote.keys import KeySource
from lium_mcp.settings import Settings, load
from lium_mcp.values import SettingsError


def write_config(home: Path, text: str) -> None:
    (home / ".lium").mkdir()
    (home / ".lium" / "config.ini").write_text(text)


@pytest.fixture
def home() -> Path:
    return Path.home()


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_API_KEY", " sk_one ")
    assert load({}).find_api_key() == "sk_one"


@pytest.mark.parametrize(
    "value", ["", "  ", "${LIUM_API_KEY}", "$LIUM_API_KEY", "<your key>", "%LIUM_API_KEY%", "{env:LIUM_API_KEY}"]
)
def test_an_empty_value_or_an_unexpanded_placeholder_is_no_key(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LIUM_API_KEY", value)
    monkeypatch.setenv("LIUM_BASE_URL", value)
    settings = load({})
    assert settings.find_api_key() is None
    assert settings.base_url == "https://lium.io/api"


def test_the_official_clients_config_file_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    write_config(home, "[api]\napi_key = sk_file\n[ssh]\nkey_path = ~/.ssh/other\n")
    assert load({}).find_api_key() == "sk_file"
    monkeypatch.setenv("LIUM_API_KEY", "sk_env")
    assert load({}).find_api_key() == "sk_env"


def test_a_chosen_workspace_uses_its_own_saved_key(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    write_config(
        home, "[api]\napi_key = sk_general\n[workspaces]\nactive = Team\n[workspace.team]\napi_key = sk_team\n"
    )
    assert load({}).find_api_key() == "sk_team"
    monkeypatch.setenv("LIUM_WORKSPACE", "other")
    assert load({}).find_api_key() is None, "another team's key would spend another team's money"


@pytest.mark.parametrize("text", ["not an ini file", "[api", "[api]\napi_key\n", "[a]\nx=1\n[a]\nx=2\n"])
def test_a_broken_config_file_is_no_key(home: Path, text: str) -> None:
    write_config(home, text)
    assert load({}).find_api_key() is None


def test_the_key_shows_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_API_KEY", "sk_secret_value")
    settings = load({})
    assert "sk_secret_value" not in repr(settings)
    assert "sk_secret_value" not in str(settings)
    assert "sk_secret_value" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LIUM_MCP_READ_ONLY", "perhaps"),
        ("LIUM_MCP_TOOLSETS", "pods,clusters-and-more"),
        ("LIUM_MCP_TIMEOUT_SECONDS", "-1"),
        ("LIUM_MCP_LOG_LEVEL", "LOUD"),
        ("LIUM_MCP_SANDBOX_SPEED", "fast"),
    ],
)
def test_a_value_that_cannot_be_read_stops_the_start_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as caught:
        load({})
    assert value not in str(caught.value) or value == "-1"


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_MCP_TOOLSETS", "pods, account")
    monkeypatch.setenv("LIUM_MCP_DENY_TOOLS", "rent_pod,")
    settings = load({})
    assert settings.toolsets == {"pods", "account"}
    assert settings.deny_tools == {"rent_pod"}


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_MCP_READ_ONLY", "1")
    assert load({}).read_only
    assert not load({"read_only": False}).read_only


def test_the_sandbox_uses_its_own_key_and_never_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_API_KEY", "sk_real")
    assert load({"sandbox": True}).find_api_key() == "sk_sandbox"


async def test_the_public_key_is_found_as_the_official_client_finds_it(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    keys = KeySource(lambda: Settings().find_ssh_key_path())
    assert keys.public_path == home / ".ssh" / "id_ed25519.pub"
    (home / ".ssh" / "lium.key.pub").write_text("ssh-ed25519 AAAA\n")
    monkeypatch.setenv("LIUM_SSH_KEY_PATH", "~/.ssh/lium.key")
    assert keys.public_path == home / ".ssh" / "lium.key.pub"
    monkeypatch.setenv("LIUM_SSH_KEY_PATH", "~/.ssh/missing")
    assert keys.public_path == home / ".ssh" / "missing.pub"
    assert await keys.public_text() == "", "another key than the one that was chosen would not let its owner in"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("LIUM_MCP_MAX_PRICE_PER_HOUR", "LIUM_MCP_MAX_PRICE_PER_HOUR_USD"),
        ("lium_mcp_max_pod", "LIUM_MCP_MAX_PODS"),
        ("LIUM_MCP_ALLOW_TEMPLATE", "LIUM_MCP_ALLOW_TEMPLATES"),
        ("LIUM_MCP_API_KEY", ""),
    ],
)
def test_a_variable_that_sets_nothing_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "secret-value")
    with pytest.raises(SettingsError, match=f"{variable}: there is no such setting.*{meant}") as caught:
        load({})
    assert "secret-value" not in str(caught.value)


def test_passwords_of_registries_and_any_spelling_of_a_name_are_no_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_MCP_REGISTRY_DOCKER", "secret")
    monkeypatch.setenv("lium_mcp_max_pods", "3")
    monkeypatch.setenv("LIUM_WORKSPACE", "team")
    assert load({}).max_pods == 3


def test_what_belongs_to_other_programs_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of another service must not go to Lium, nor the key of Lium to another service."""
    monkeypatch.setenv("LIUM_API_KEY", "sk_lium")
    for name in ("API_KEY", "BASE_URL", "SSH_KEY_PATH", "SSH_KEY_PASSPHRASE", "SSH_AGENT"):
        monkeypatch.setenv(name, "http://127.0.0.1/other")
    settings = load({})
    assert settings.find_api_key() == "sk_lium"
    assert settings.base_url == "https://lium.io/api"
    assert (settings.ssh_key_path, settings.ssh_key_passphrase, settings.ssh_agent) == (None, None, None)


@pytest.mark.parametrize("address", ["*", "proxy.example.com", "10.0.0.1/8", "127.0.0.1:80"])
def test_a_proxy_is_trusted_by_its_address_alone(address: str) -> None:
    with pytest.raises(SettingsError, match=r"LIUM_MCP_TRUSTED_PROXY: .*an IP address, or a network"):
        load({"trusted_proxy": f"127.0.0.1,{address}"})


def test_behind_a_proxy_nobody_is_local() -> None:
    assert load({"transport": "http"}).is_local
    for setting in ("trusted_proxy", "allowed_host"):
        assert not load({"transport": "http", setting: "127.0.0.1"}).is_local


def test_a_token_is_kept_where_there_is_a_key_to_guard(home: Path) -> None:
    file = home / ".local/state/lium-mcp/server-token"
    assert load({"transport": "http", "api_key": "sk_one"}).server_token_path == file
    for others in (
        {"transport": "stdio", "api_key": "sk_one"},
        {"transport": "http"},
        {"transport": "http", "sandbox": True, "api_key": "sk_one"},
        {"transport": "http", "api_key": "sk_one", "allowed_host": "gpu.example.com"},
        {"transport": "http", "api_key": "sk_one", "server_token": "t" * 32},
    ):
        assert load(others).server_token_path is None
    token = "t" * 40
    file.parent.mkdir(parents=True)
    file.touch(0o600)
    file.write_text(f"{token}\n")
    settings = load({"transport": "http", "api_key": "sk_one"})
    assert settings.find_server_token() == token
    assert token in settings.find_secrets()
    assert "t" * 32 in load({"server_token": "t" * 32}).find_secrets()
    assert "t" * 32 not in repr(load({"server_token": "t" * 32}))
