"""Settings: read once, from the right place, and never guessed."""

from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from lium_mcp.remote.key_source import KeySource
from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings, registry_password
from lium_mcp.settings_reading import load
from lium_mcp.settings_table import SETTINGS
from lium_mcp.values import SettingsError
from tests.harness import Failure


def write_config(home: Path, text: str, encoding: str = "utf-8") -> Path:
    file = home / ".lium" / "config.ini"
    file.parent.mkdir()
    file.write_text(text, encoding=encoding)
    return file


@pytest.fixture
def home() -> Path:
    return Path.home()


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_API_KEY", " sk_one ")
    assert load({}).find_api_key() == "sk_one"


PLACEHOLDERS = [
    "${LIUM_API_KEY}", "${LIUM_API_KEY:-}", "${env:LIUM_API_KEY}", "${input:lium_api_key}", "${{ secrets.LIUM }}",
    "$LIUM_API_KEY", "$env:LIUM_API_KEY", "{{LIUM_API_KEY}}", "{env:LIUM_API_KEY}", "%LIUM_API_KEY%", "<your key>",
    "[your API key]", '"${LIUM_API_KEY}"',
]  # fmt: skip
EXAMPLES = [
    "YOUR_API_KEY",
    "your-lium-api-key-here",
    "sk_your_key",
    "LIUM_API_KEY",
    "sk_...",
    "sk_xxxxxxxx",
    "changeme",
]


@pytest.mark.parametrize("value", ["", "  ", '""', *PLACEHOLDERS])
def test_an_empty_value_or_an_unexpanded_placeholder_is_no_key(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LIUM_API_KEY", value)
    monkeypatch.setenv("LIUM_BASE_URL", value)
    settings = load({})
    assert settings.find_api_key() is None
    assert settings.base_url == "https://lium.io/api"


@pytest.mark.parametrize("value", [*PLACEHOLDERS, *EXAMPLES])
async def test_that_a_placeholder_stands_where_the_key_should_be_is_said_where_one_is_needed(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("LIUM_API_KEY", value)
    async with Client(build_server(load({"state_url": "sqlite://"}))) as client:
        refused = Failure(await client.call_tool("list_pods", {}))
    assert refused.code == "api_key_missing"
    assert "LIUM_API_KEY holds no key: it is a placeholder that nothing has filled in." in refused.text
    assert "lium.io (Settings, API keys)" in refused.text


@pytest.mark.parametrize("value", ['"sk_one"', "'sk_one'", " sk_one\n", "\ufeffsk_one", "\u201csk_one\u201d"])
def test_a_key_is_read_as_it_is_pasted(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LIUM_API_KEY", value)
    assert load({}).find_api_key() == "sk_one"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Bearer sk_s3cret", "it begins with Bearer"),
        ("LIUM_API_KEY=sk_s3cret", "it holds a name before the key"),
        ("export LIUM_API_KEY='sk_s3cret'", "it holds a name before the key"),
        ("X-API-Key: sk_s3cret", "it holds a name before the key"),
        ("sk_s3cret...f00", "it is a shortened key"),
        ("sk_s3cret\u2026", "it is a shortened key"),
        ("sk_****************", "it is a shortened key"),
        ("sk_s3cret sk_other", "it holds a blank"),
        ("sk_s3\u200bcret", "it holds characters that no key has"),
    ],
)
def test_what_cannot_be_a_key_is_told_by_its_shape(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv("LIUM_API_KEY", value)
    with pytest.raises(SettingsError, match=f"^LIUM_API_KEY: {said}") as caught:
        load({})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["LIUM_MCP_ALLOW_GPU_TYPES", "LIUM_MCP_POLICY", "LIUM_MCP_STATE_URL"])
@pytest.mark.parametrize(("value", "said"), [("${X}", "it is a placeholder"), ('""', "it is empty")])
def test_a_placeholder_where_money_is_guarded_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: {said}"):
        load({})


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("[api]\napi_key = sk_file\n", "utf-8-sig"),
        ("[api]\r\napi_key = sk_file\r\n", "utf-16"),
        ('[api]\napi_key = "sk_file"\n', "utf-8"),
    ],
)
def test_the_config_file_is_read_as_editors_write_it(home: Path, text: str, encoding: str) -> None:
    write_config(home, text, encoding)
    assert load({}).find_api_key() == "sk_file"


@pytest.mark.parametrize("pasted", ['"{}"', "'{}'", " {} "])
@pytest.mark.parametrize("path", ["~/.ssh/lium key", "$HOME/.ssh/lium key", "${HOME}/.ssh/lium key"])
def test_a_path_is_read_as_it_is_pasted(monkeypatch: pytest.MonkeyPatch, home: Path, path: str, pasted: str) -> None:
    write_config(home, f"[ssh]\nkey_path = {pasted.format(path)}\n")
    assert load({}).find_ssh_key_path() == home / ".ssh" / "lium key"
    monkeypatch.setenv("LIUM_SSH_KEY_PATH", pasted.format(path))
    assert load({}).find_ssh_key_path() == home / ".ssh" / "lium key"
    monkeypatch.setenv("LIUM_SSH_KEY_PATH", "$NO_SUCH_HOME/.ssh/lium")
    with pytest.raises(SettingsError, match=r"^LIUM_SSH_KEY_PATH: it names a variable that is not set"):
        load({})


def test_the_ssh_key_may_be_named_by_its_public_half(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("LIUM_SSH_KEY_PATH", "~/.ssh/lium.ed25519.pub")
    assert load({}).find_ssh_key_path() == home / ".ssh" / "lium.ed25519"


@pytest.mark.parametrize("value", ["-----BEGIN OPENSSH PRIVATE KEY-----\ns3cret", "ssh-ed25519 AAAAs3cret me@host"])
def test_a_key_in_the_place_of_its_path_is_told_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, value: str, home: Path
) -> None:
    monkeypatch.setenv("LIUM_SSH_KEY_PATH", value)
    with pytest.raises(SettingsError, match=r"^LIUM_SSH_KEY_PATH: it holds a key, where the path") as caught:
        load({})
    assert "s3cret" not in str(caught.value)


def test_a_password_may_look_like_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("LIUM_SSH_KEY_PASSPHRASE", "LIUM_MCP_REGISTRY_DOCKER")
    for pasted, meant in [("'$ecret'", "$ecret"), ("<s3cret>", "<s3cret>"), ("${SECRET}", None)]:
        for name in names:
            monkeypatch.setenv(name, pasted)
        settings = load({})
        passphrase = settings.ssh_key_passphrase
        assert [passphrase and passphrase.get_secret_value(), registry_password(names[1])] == [meant, meant]
        assert (meant in settings.find_secrets()) == (meant is not None)


async def test_a_refused_key_is_told_with_the_place_that_it_is_from(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    write_config(home, "[api]\napi_key = old-key-of-a-file\n")
    new_key, new_login = "make a new key at lium.io (Settings, API keys)", "run `lium-mcp login --force`"
    for place, odd, cure in (("api_key under [api] in ", True, new_login), ("LIUM_API_KEY", False, new_key)):
        settings = load({"base_url": "http://127.0.0.1/api", "state_url": "sqlite://"})
        async with Client(build_server(settings, transport=sandbox.transport())) as client:
            refused = Failure(await client.call_tool("list_pods", {}))
        assert refused.code == "api_key_refused"
        assert place in refused.text
        assert cure in refused.text
        assert ("does not begin with sk_" in refused.text) == odd
        assert "old-key" not in refused.text
        monkeypatch.setenv("LIUM_API_KEY", "sk_0000revoked")


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"sk_s3cret not an ini file", "this is no INI file that can be read (line 1)"),
        (b"[api\napi_key = sk_s3cret", "this is no INI file that can be read (line 1)"),
        (b"[api]\napi_key sk_s3cret\n", "this is no INI file that can be read (line 2)"),
        (b"[a]\nx=sk_s3cret\n[a]\nx=2\n", "this is no INI file that can be read (line 3)"),
        (b"[api]\napi_key = sk_s3cret\xff\n", "this is no INI file that can be read;"),
        (b"[api]\napi_key = ${LIUM_API_KEY}\n", "it is a placeholder"),
        (b"[api]\napi_key = sk_s3cret and more\n", "it holds a blank"),
        (b"[ssh]\nkey_path = $NO_SUCH_HOME/key\n", "it names a variable that is not set"),
    ],
)
def test_a_broken_config_file_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch, home: Path, content: bytes, said: str
) -> None:
    file = write_config(home, "")
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load({})
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(caught.value.problems) == 1
    monkeypatch.setenv("LIUM_API_KEY", "sk_one")
    monkeypatch.setenv("LIUM_SSH_KEY_PATH", "~/.ssh/lium")
    assert load({}).find_api_key() == "sk_one", "nothing of the file is needed"


def test_a_workspace_that_nothing_has_filled_in_is_no_choice(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    write_config(home, "[api]\napi_key = sk_general\n")
    monkeypatch.setenv("LIUM_WORKSPACE", "${LIUM_WORKSPACE}")
    with pytest.raises(SettingsError, match=r"^LIUM_WORKSPACE: it is a placeholder"):
        load({})


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
        ("LIUM_MCP_SANDBOX_SPEED", "1e1"),
        ("LIUM_MCP_TIMEOUT_SECONDS", "1_0"),
        ("LIUM_MCP_PORT", "8_000"),
        ("LIUM_MCP_SANDBOX_SEED", "0x10"),
    ],
)
def test_a_value_that_cannot_be_read_stops_the_start_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: (.*: )?it takes ") as caught:
        load({})
    assert (f"{value}: " in str(caught.value)) == (len(value) <= 20)


@pytest.mark.parametrize("secret", ["sk_s3cret", "s3cret/with+signs=", "s3cret-longer-than-any-word"])
@pytest.mark.parametrize("variable", ["LIUM_MCP_READ_ONLY", "LIUM_MCP_MAX_PODS", "LIUM_MCP_ALLOW_GPU_TYPES"])
def test_what_may_be_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch, variable: str, secret: str) -> None:
    monkeypatch.setenv(variable, secret)
    with pytest.raises(SettingsError, match=f"^{variable}: it takes ") as caught:
        load({})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("toolsets", "gpu_types", "folders"),
    [
        ("pods, account", "A100 80GB,rtx 4090,", "/, /usr"),
        ('["pods", "account"]', ' ["A100 80GB", "rtx 4090", ""] ', '["/", "/usr"]'),
    ],
)
def test_a_list_is_written_with_commas_or_in_json(
    monkeypatch: pytest.MonkeyPatch, toolsets: str, gpu_types: str, folders: str
) -> None:
    monkeypatch.setenv("LIUM_MCP_TOOLSETS", toolsets)
    monkeypatch.setenv("LIUM_MCP_ALLOW_GPU_TYPES", gpu_types)
    monkeypatch.setenv("LIUM_MCP_LOCAL_DIRS", folders)
    settings = load({})
    assert settings.toolsets == {"pods", "account"}
    assert settings.allow_gpu_types == {"A100 80GB", "rtx 4090"}
    assert [str(path) for path in settings.local_dirs] == ["/", "/usr"]


@pytest.mark.parametrize("value", ["[::1]", "[::1]:8000,gpu.example.com", '["[::1]:8000"]'])
def test_an_address_in_brackets_is_no_list_in_json(value: str) -> None:
    assert any("::1" in name for name in load({"transport": "http", "allowed_host": value}).allowed_host)


@pytest.mark.parametrize(
    "name", ["H100", "h100 nvl", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX", "80GB", "TITAN V", "MI300X"]
)
def test_a_gpu_type_is_allowed_under_any_of_its_names(name: str) -> None:
    assert load({"allow_gpu_types": name}).allow_gpu_types == {name}


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
        ("LIUM_MCP_API_KEY", "; LIUM_API_KEY is one"),
        ("LIUM_APIKEY", "; LIUM_API_KEY is one"),
        ("LIUM_API_URL", "; LIUM_BASE_URL is one"),
        ("LIUM_MCP_BUDGET", "; LIUM_MCP_BUDGET_USD is one"),
        ("LIUM_MCP_MAX_PRICE", "LIUM_MCP_MAX_PRICE_PER_HOUR_USD"),
        ("LIUM_MAX_PODS", "LIUM_MCP_MAX_PODS"),
        ("LIUMMCP_MAX_PODS", "LIUM_MCP_MAX_PODS"),
        ("LIUM_READ_ONLY", "LIUM_MCP_READ_ONLY"),
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
    with pytest.raises(SettingsError, match=r"--trusted-proxy: .*an IP address, or a network"):
        load({"trusted_proxy": f"127.0.0.1,{address}"})


def test_behind_a_proxy_nobody_is_local() -> None:
    assert load({"transport": "http"}).is_local
    for proxied in ({"trusted_proxy": "127.0.0.1"}, {"allowed_host": "127.0.0.1"}, {"path_prefix": "/lium"}):
        assert not load({"transport": "http"} | proxied).is_local


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(
            ("allowed_host", value)
            for value in ("https://gpu.example.com", "*", "gpu.example.com/mcp", "::1", "a:x", "a..")
        ),
        *(("path_prefix", value) for value in ("lium", "https://gpu.example.com/lium", "//evil.example.com", "/a?b")),
    ],
)
def test_what_is_no_host_name_and_no_path_stops_the_start(setting: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"--{setting.replace('_', '-')}: .*such as .* is needed"):
        load({"transport": "http", setting: value})


@pytest.mark.parametrize("option", ["host", "port", "allowed_host", "path_prefix", "trusted_proxy", "oauth"])
def test_what_is_for_a_server_over_http_is_refused_on_the_command_line_of_another(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    value = {"port": "8000", "path_prefix": "/lium", "oauth": "lium"}.get(option, "127.0.0.1")
    with pytest.raises(SettingsError, match=rf"--{option.replace('_', '-')}: .*--transport http"):
        load({option: value})
    load({"transport": "sse", option: value})
    monkeypatch.setenv(f"LIUM_MCP_{option.upper()}", value)
    load({})  # an environment may be that of several servers


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


VALID = {
    "max_price_per_hour_usd": "2.5", "max_pods": "3", "max_hours": "24", "max_burn_per_hour_usd": "5",
    "budget_usd": "100", "budget_since": "2026-11-01", "allow_gpu_types": "H100,A100", "allow_countries": "US,DE",
    "allow_templates": "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", "api_key": "sk_abc123", "base_url": "https://lium.io/api",
    "ssh_key_path": "~/.ssh/id_ed25519", "ssh_key_passphrase": "s3cret", "ssh_agent": "/run/agent", "local_dirs": "/,~",
    "toolsets": "pods,account", "allow_tools": "list_gpus,rent_pod", "deny_tools": "rent_pod", "read_only": "true",
    "policy": "/etc/policy.toml", "policy_mode": "shadow", "confirm": "always", "state_url": "sqlite:////srv/x.db",
    "transport": "http", "host": "127.0.0.2", "port": "9000", "allowed_host": "gpu.example.com",
    "path_prefix": "/lium", "server_token": "t" * 40, "trusted_proxy": "10.0.0.0/8", "timeout_seconds": "20",
    "state_keys": "k" * 40, "replica": "gpu-1", "stateless": "true",
    "calls_at_once": "20", "calls_per_minute": "300", "metrics_port": "9464", "shutdown_delay_seconds": "5",
    "drain_seconds": "25",
    "oauth": "https://login.example.com", "public_url": "https://gpu.example.com/lium",
    "oauth_keys": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "oauth_hook": "house:find", "oauth_scopes": "gpu",
    "oauth_registered_only": "true",
    "log_level": "DEBUG", "log_format": "json", "audit_file": "/dev/null",
    "sandbox": "true", "sandbox_speed": "10", "sandbox_seed": "3",
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("pasted", ['"{}"', "'{}'", " {}\t", "\ufeff{}", "\u201c{}\u201d"])
def test_every_setting_is_read_as_it_is_pasted(monkeypatch: pytest.MonkeyPatch, name: str, pasted: str) -> None:
    def read(text: str) -> Any:
        monkeypatch.setenv(SETTINGS[name].variable, text)
        return getattr(Settings(), name)

    plain = read(VALID[name])
    assert plain != SETTINGS[name].default or name == "base_url"
    assert read(pasted.format(VALID[name])) == plain
