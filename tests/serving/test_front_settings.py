"""What the front reads of the settings is what the settings are, or nothing."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from lium_mcp.cli.parser import UsageError, make_parser
from lium_mcp.instructions import instructions
from lium_mcp.server import build_server, read_settings, select_tools
from lium_mcp.serving.front_settings import find_offer
from lium_mcp.serving.prepared import read_file
from lium_mcp.settings import Settings
from lium_mcp.settings_table import LIMITS, SETTINGS, TOOLSETS, is_option
from lium_mcp.toolkit.listing import read_listing
from tests.tls import make_certificates

LISTING = read_listing()
NAMES = frozenset(item.name for item in LISTING)
UUID = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"

# Values that people write, plain ones and others, for each kind of setting.
WRITTEN: dict[str, list[str]] = {
    "key": ["sk_abc123", '"sk_abc123"', "sk_your_api_key", "${LIUM_API_KEY}", "sk_", "Bearer sk_1", "sk_1 2", "sk_xxx"],
    "password": ["s3cret", "${input:pass}", "$ecret", " ", "\u00fc"],
    "address": [
        "https://lium.io/api", "https://lium.io", "https://LIUM.io/api/", "http://127.0.0.1:8765/api", "http://lium.io",
        "http://localhost", "https://user@lium.io", "https://lium.io:99999", "lium.io", "https://xn--a.io", "https://a..b",
        "https://-a.io", "https://1.2.3.4", "http://127.0.0.1:0", "https://lium.io/a b", "http://127.0.0.1:",
        "https://a-b.c", "https://xn--zz.io/", f"https://{'a' * 64}.io",
    ],
    "path": ["/etc/key", "~/.ssh/id_ed25519", "~/.ssh/id.pub", "$HOME/key", "$NOT_SET/key", "key", "~no-one/k", "/a b"],
    "folders": ["/etc", "/no/such/folder", "/etc,/var", "~no-one"],
    "choices": ["pods", "pods,account", "pods, account ,", "podz", ",", '["pods"]', "PODS", "clusters"],
    "tools": ["list_gpus", "list_gpus, rent_pod", "list_gpu", ",", '["list_gpus"]', "rent_pod,", "LIST_GPUS"],
    "flag": ["true", "false", "1", "0", "yes", "No", "ON", "TrUe", "2", "maybe", "t", "F"],
    "choice": ["auto", "always", "never", "enforce", "shadow", "stdio", "http", "sse", "INFO", "info", "json", "text"],
    "number": ["0", "1", "2.5", "1e3", "-1", "1_0", "0.05", "720", "721", "45.0", "007", "5.", ".5", "+1", "nan"],
    "count": ["0", "3", "3.0", "-3", "07", "1_0", "65536", "\u0663"],
    "day": ["2026-01-31", "2026-02-28", "2026-13-01", "2026-02-30", "1999-01-01", "26-1-1", "2026-01-01T00:00"],
    "gpu types": ["H100", "RTX4090,A100", "H100 NVL", "h100", "X1", "RTX A6000", "B200", "L40S", "A10", "H1000"],
    "countries": ["US", "US,de", "USA", "U", "1A"],
    "ids": [UUID, UUID.upper(), f"{UUID},{UUID}", "not-an-id", UUID[:-1]],
    "file": ["/no/such/policy.toml"],
    "database": ["sqlite:////tmp/x.db", "postgresql://a@b/c", "mysql://x"],
    "host": ["127.0.0.2"],
    "hosts": ["gpu.example.com", "a b"],
    "url path": ["/lium", "lium"],
    "token": ["x" * 40, "short"],
    "addresses": ["10.0.0.0/8", "x"],
    "login": ["lium", "https://login.example.com", "LIUM"],
    "public address": ["https://gpu.example.com", "gpu.example.com"],
    "secrets": ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "short"],
    "function": ["house.keys:find", "house"],
    "scopes": ["gpu", "gpu,mail"],
    "name": ["lium-mcp-0", "a b"],
}  # fmt: skip
# Of these, so many come first that are always right.
RIGHT = {
    "key": 1, "password": 4, "address": 4, "path": 3, "choices": 2, "tools": 2, "flag": 8, "number": 2, "count": 2,
    "day": 2, "gpu types": 2, "countries": 1, "ids": 2,
}  # fmt: skip
OTHER_VARIABLES = [
    "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "LIUM_WORKSPACE", "LIUM_MCP_", "LIUM_FOO",
    "LIUM_MCP_REGISTRY_X", "MCP_LIUM_MAX_PODS", "XDG_STATE_HOME", "LIUM_MCP_DENY_TOOL\u017f",
]  # fmt: skip
OTHER_VALUES = [
    "http://proxy:80",
    "socks5://a",
    "proxy:8080",
    "",
    "/no/file",
    "team",
    "your-team",
    "http://p:x",
    "rent_pod",
]
ODD = st.text(st.sampled_from("aZ09_-.,:/ \t\n\"'${}<>[]%~=\u00a0\u200b\ufeff\u00e9"), max_size=12)
CONFIGS = [
    "",
    "[api]\napi_key = sk_abc123\n",
    "[api]\napi_key=sk_abc123\n[ssh]\nkey_path = ~/.ssh/id_ed25519\n",
    "[workspaces]\nactive = team\n\n[workspace.team]\napi_key = sk_def456\n",
    "[api]\napi_key = your-api-key\n",
    "[api]\napi_key = sk_a b1\n",
    "api_key = sk_abc123\n",
    "[api]\napi_key = sk_1\napi_key = sk_2\n",
    "[api]\napi_key = sk_1\n[api]\nx = 1\n",
    "[api]\n  api_key = sk_1\n",
    "[api]\napi_key = sk_1\n  continued\n",
    "[ssh]\nkey_path = $NOT_SET/key\n",
    "[DEFAULT]\napi_key = sk_1 2\n",
    "[api]\napi_key : sk_1\n",
    "[api\napi_key = sk_1\n",
    "\ufeff[api]\napi_key = sk_1\n",
    "# a comment\n[api]\n; another\napi_key = sk_1\n",
    "[api]\nAPI_KEY = Bearer sk_1\n",
    "[api]\r\napi_key = sk_1\r\n",
]


@st.composite
def given_settings(draw: st.DrawFn) -> tuple[list[str], dict[str, str], str | None]:
    """A command line, an environment, and the official client's file."""
    environment: dict[str, str] = {}
    read_there = [
        name for name in sorted(SETTINGS) if SETTINGS[name].kind in {*RIGHT, "choice"} and name != "transport"
    ]
    names = st.sampled_from([*read_there * 5, *sorted(SETTINGS)])
    for name in draw(st.sets(names, max_size=3)):
        variable = SETTINGS[name].variable
        changed = draw(
            st.sampled_from([variable] * 8 + [variable.lower(), variable + "S", variable.replace("_MCP", "")])
        )
        environment[changed] = draw(value_of(name))
    others = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "LIUM_WORKSPACE", "LIUM_MCP_"]
    others += ["LIUM_MCP_REGISTRY_X", "MCP_LIUM_MAX_PODS", "LIUM_FOO", "XDG_STATE_HOME", "LIUM_MCP_DENY_TOOL\u017f"]
    values = [
        "http://proxy:8080",
        "socks5://proxy",
        "proxy:8080",
        "",
        "/no/file",
        "team",
        "your-team",
        "http://p:x",
        "rent_pod",
    ]
    for variable in draw(st.sets(st.sampled_from(others), max_size=2)):
        environment[variable] = draw(st.sampled_from(values))
    words = draw(st.sampled_from([[], [], ["serve"], ["tools"], ["--help"], ["--"], ["serve", "serve"]]))
    for name in draw(st.lists(names, max_size=2)):
        option = f"--{name.replace('_', '-')}"
        forms = [
            [option, draw(value_of(name))],
            [f"{option}={draw(value_of(name))}"],
            [option],
            [option.replace("--", "--no-")],
        ]
        position = draw(st.sampled_from([0, len(words)]))
        words = [*words[:position], *draw(st.sampled_from(forms)), *words[position:]]
    return words, environment, draw(st.sampled_from([*[None] * 12, *CONFIGS[1:4], *CONFIGS]))


def value_of(name: str) -> st.SearchStrategy[str]:
    setting = SETTINGS[name]
    written = WRITTEN[setting.kind]
    right = st.sampled_from([*setting.choices, *written[: RIGHT.get(setting.kind, 1)]][: len(setting.choices) or None])
    return right | right | right | st.sampled_from([*written, ""]) | ODD


Told = tuple[set[str], str | None]
"""The tools that a server offers, and its instructions."""


def really_told(words: list[str]) -> Told | None:
    """What the server over standard input and output tells that is started so; None where there is none."""
    try:
        options: dict[str, Any] = vars(make_parser().parse_args(words))
    except (UsageError, SystemExit):
        return None
    if options.pop("command") not in {None, "serve"}:
        return None
    settings, problems = read_settings(options)
    if problems or settings.transport != "stdio":
        return None
    return {item.name for item in select_tools(settings)}, build_server(settings).instructions


def found(words: list[str], environment: dict[str, str]) -> Told | None:
    offer = find_offer(words, environment, NAMES, read_file)
    if offer is None:
        return None
    tools = {item.name for item in LISTING if offer.has(item.name, item.toolset, reads_only=item.read_only)}
    return tools, instructions(frozenset(tools), offer.limits)


def both(words: list[str], environment: dict[str, str], config: str | None) -> tuple[Told | None, Told | None]:
    with TemporaryDirectory() as home:
        if config is not None:
            file = Path(home) / ".lium" / "config.ini"
            file.parent.mkdir()
            file.write_bytes(config.encode())
        with patch.dict(os.environ, {"HOME": home, **environment}, clear=True):
            return found(words, dict(os.environ)), really_told(words)


@given(given_settings())
@example((["--toolsets", "pods"], {"LIUM_MCP_TOOLSETS": "account"}, None))
@example((["--read-only", "serve", "--no-read-only"], {}, None))
@example(([], {"LIUM_MCP_READ_ONLY": "true", "lium_mcp_read_only": "false"}, None))
@example((["--policy-mode", "shadow"], {"LIUM_MCP_MAX_PODS": "2"}, None))
@example((["--no-stateless"], {}, None))
@example(([], {"LIUM_BASE_URL": "https://lium.io:99999", "HTTPS_PROXY": "http://proxy:8080"}, None))
@examples(max_examples=400)
def test_what_the_front_finds_is_what_the_settings_say(case: tuple[list[str], dict[str, str], str | None]) -> None:
    ours, real = both(*case)
    assert ours is None or ours == real


USUAL: list[tuple[list[str], dict[str, str], str | None]] = [
    ([], {}, None),
    (["serve"], {"LIUM_API_KEY": "sk_0A1b2C"}, None),
    (["--sandbox"], {"SSH_AUTH_SOCK": "/run/user/1000/keyring/ssh", "LANG": "C.UTF-8"}, None),
    ([], {"LIUM_BASE_URL": "https://lium.io/api", "LIUM_SSH_KEY_PATH": "~/.ssh/id_ed25519"}, None),
    (
        [],
        {"LIUM_SSH_KEY_PASSPHRASE": "correct horse", "LIUM_MCP_LOG_LEVEL": "DEBUG", "LIUM_MCP_LOG_FORMAT": "json"},
        None,
    ),
    (["--toolsets", "pods,account", "--read-only"], {}, None),
    (
        [],
        {"LIUM_MCP_TOOLSETS": "pods, clusters", "LIUM_MCP_DENY_TOOLS": "rent_pod", "LIUM_MCP_READ_ONLY": "true"},
        None,
    ),
    (
        [],
        {"LIUM_MCP_ALLOW_TOOLS": "list_gpus,rent_pod", "LIUM_MCP_CONFIRM": "always", "LIUM_MCP_POLICY_MODE": "shadow"},
        None,
    ),
    (["--max-pods=3"], {"LIUM_MCP_MAX_PRICE_PER_HOUR_USD": "2.50", "LIUM_MCP_MAX_HOURS": "24"}, None),
    (
        [],
        {"LIUM_MCP_BUDGET_USD": "100", "LIUM_MCP_BUDGET_SINCE": "2026-11-01", "LIUM_MCP_MAX_BURN_PER_HOUR_USD": "5"},
        None,
    ),
    (
        [],
        {
            "LIUM_MCP_ALLOW_GPU_TYPES": "H100,RTX4090",
            "LIUM_MCP_ALLOW_COUNTRIES": "US",
            "LIUM_MCP_ALLOW_TEMPLATES": UUID,
        },
        None,
    ),
    (
        [],
        {"HTTPS_PROXY": "http://proxy.example:3128", "LIUM_MCP_TIMEOUT_SECONDS": "20", "LIUM_MCP_SANDBOX_SEED": "3"},
        None,
    ),
    ([], {}, CONFIGS[1]),
    ([], {}, CONFIGS[2]),
    ([], {}, CONFIGS[3]),
]


@pytest.mark.parametrize("case", USUAL, ids=str)
def test_usual_settings_do_not_cost_the_first_second(case: tuple[list[str], dict[str, str], str | None]) -> None:
    ours, real = both(*case)
    assert ours is not None
    assert ours == real


@pytest.mark.parametrize(
    ("variables", "is_usual"),
    [
        ({"SSL_CERT_FILE": "{folder}/company-ca.pem"}, True),
        ({"SSL_CERT_FILE": "{folder}/company-ca.pem", "SSL_CERT_DIR": "/no/folder"}, True),
        ({"SSL_CERT_DIR": "{folder}"}, True),
        ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": "{folder}"}, True),
        ({"SSL_CERT_FILE": "/no/file", "SSL_CERT_DIR": "{folder}"}, False),
        ({"SSL_CERT_FILE": "{folder}"}, False),
        ({"SSL_CERT_FILE": "{folder}/empty.pem"}, False),
        ({"SSL_CERT_FILE": "{folder}/server.key"}, False),
        ({"SSL_CERT_DIR": "{folder}/company-ca.pem"}, False),
        ({"SSL_CERT_FILE": "~/company-ca.pem"}, False),
        ({"ssl_cert_file": "{folder}/company-ca.pem"}, False),
    ],
    ids=str,
)
def test_the_certificates_of_a_company_do_not_cost_the_first_second(variables: dict[str, str], is_usual: bool) -> None:
    with TemporaryDirectory() as folder:  # pytest's is named after the test, and so not plainly
        make_certificates(Path(folder))
        (Path(folder) / "empty.pem").touch()
        ours, real = both([], {name: value.format(folder=folder) for name, value in variables.items()}, None)
    assert (ours is not None) == is_usual
    assert ours is None or ours == real


def test_the_model_has_the_settings_of_the_table() -> None:
    assert Settings.model_fields.keys() == SETTINGS.keys()
    assert [name for name in SETTINGS if name in LIMITS] == list(LIMITS)
    assert WRITTEN.keys() == {setting.kind for setting in SETTINGS.values()}
    assert SETTINGS["toolsets"].choices == TOOLSETS
    assert {name for name in SETTINGS if not is_option(name)} == {
        "api_key", "base_url", "ssh_key_path", "ssh_key_passphrase", "ssh_agent", "server_token", "oauth_keys",
        "state_keys",
    }  # fmt: skip
