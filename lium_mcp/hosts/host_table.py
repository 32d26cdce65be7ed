"""The hosts, once: everything that install, doctor and the ready-made configs know of them.

In seconds, or milliseconds where the host counts so: a call may wait 600 s, and hosts cut what takes longer than they
are told.
"""

from typing import Any, Final

from lium_mcp.hosts.host_facts import ENTRY_NAME, Host, OwnTool, Part

_CALL_SECONDS: Final = 660
_SUMMARY: Final = "Rent, run and watch Lium GPU pods"
_STARTED: Final[dict[str, Any]] = {"command": Part.COMMAND, "args": Part.ARGUMENTS, "env": Part.VARIABLES}
_TYPED: Final[dict[str, Any]] = {"type": "stdio", **_STARTED}
_AT: Final[dict[str, Any]] = {"url": Part.URL, "headers": Part.HEADERS}
_AT_HTTP: Final[dict[str, Any]] = {"type": "http", **_AT}
_OF_CURSOR: Final = "${env:LIUM_API_KEY}"
_CODE: Final = "{applications}/Code/User"


def _vs_code(name: str, title: str, program: str, folder: str) -> Host:
    return Host(
        name=name,
        title=title,
        programs=(program,),
        folders=(f"{{applications}}/{folder}/User",),
        user=(f"{{applications}}/{folder}/User/mcp.json",),
        project=(".vscode/mcp.json",),
        reads_comments=True,
        servers="servers",
        stdio=_TYPED,
        http=_AT_HTTP,
        stdio_key="${input:lium_api_key}",
        http_key="${input:lium_api_key}",
        asks_key=True,
        inputs=({"id": "lium_api_key", "type": "promptString", "description": "Lium API key", "password": True},),
        own_tool=OwnTool(add=("--add-mcp", "{json}"), scopes=("user",), names_entry=True),
        restart="run 'MCP: List Servers' in its command palette, and start lium",
    )


_CODEX_LIMITS: Final = {"startup_timeout_sec": 60, "tool_timeout_sec": _CALL_SECONDS}

_TABLE: Final = (
    Host(
        name="claude-code",
        title="Claude Code",
        programs=("claude",),
        folders=("{home}/.claude",),
        user=("{claude}/.claude.json",),
        project=(".mcp.json",),
        stdio=_TYPED,
        http=_AT_HTTP,
        stdio_key="${LIUM_API_KEY:-}",
        http_key="${LIUM_API_KEY}",
        own_tool=OwnTool(
            add=("mcp", "add-json", ENTRY_NAME, "{json}", "-s", "{scope}"),
            remove=("mcp", "remove", ENTRY_NAME, "-s", "{scope}"),
        ),
        restart="start a new session; /mcp shows it",
    ),
    Host(
        name="claude-desktop",
        title="Claude Desktop",
        folders=("{applications}/Claude",),
        user=("{applications}/Claude/claude_desktop_config.json",),
        stdio=_STARTED,
        passes_all=False,
        restart="quit Claude Desktop, and open it again",
    ),
    Host(
        name="cursor",
        title="Cursor",
        programs=("cursor",),
        folders=("{home}/.cursor",),
        user=("{home}/.cursor/mcp.json",),
        project=(".cursor/mcp.json",),
        stdio=_STARTED,
        http=_AT,
        stdio_key=_OF_CURSOR,
        http_key=_OF_CURSOR,
        restart="look at Settings, MCP: lium is listed there",
    ),
    _vs_code("vscode", "VS Code", "code", "Code"),
    _vs_code("vscode-insiders", "VS Code Insiders", "code-insiders", "Code - Insiders"),
    _vs_code("vscodium", "VSCodium", "codium", "VSCodium"),
    Host(
        name="codex",
        title="Codex",
        programs=("codex",),
        folders=("{codex}",),
        user=("{codex}/config.toml",),
        project=(".codex/config.toml",),
        file_format="toml",
        servers="mcp_servers",
        # By itself Codex waits a second for a server, and starts its model without the tools of one that was slower.
        beside={"mcp_optional_startup_grace_ms": 5000},
        stdio={**_STARTED, "env_vars": Part.FORWARDED, **_CODEX_LIMITS},
        http={"url": Part.URL, "env_http_headers": Part.HEADER_VARIABLES, **_CODEX_LIMITS},
        passes_all=False,
        restart="start a new session; /mcp shows it",
        hint="`codex exec` asks nobody, and so calls only what reads. To let it call all of our tools without a "
        f'question, put default_tools_approval_mode = "approve" into [mcp_servers.{ENTRY_NAME}]',
    ),
    Host(
        name="gemini-cli",
        title="Gemini CLI",
        programs=("gemini",),
        folders=("{home}/.gemini",),
        user=("{home}/.gemini/settings.json",),
        project=(".gemini/settings.json",),
        reads_comments=True,
        # `gemini mcp list` waits five seconds by itself.
        stdio={**_STARTED, "timeout": 1000 * _CALL_SECONDS},
        http={"httpUrl": Part.URL, "headers": Part.HEADERS, "timeout": 1000 * _CALL_SECONDS},
        stdio_key="$LIUM_API_KEY",
        http_key="$LIUM_API_KEY",
        passes_all=False,
        own_tool=OwnTool(
            add=(
                *("mcp", "add", "-s", "{scope}", "--timeout", str(1000 * _CALL_SECONDS), "{variables}"),
                *(ENTRY_NAME, "{command}"),
            ),
            remove=("mcp", "remove", "-s", "{scope}", ENTRY_NAME),
            variable="-e",
        ),
        restart="start it again, in a folder that it trusts; /mcp shows it",
    ),
    Host(
        name="opencode",
        title="opencode",
        programs=("opencode",),
        folders=("{xdg}/opencode",),
        user=("{xdg}/opencode/opencode.json", "{xdg}/opencode/opencode.jsonc"),
        project=("opencode.json", "opencode.jsonc"),
        reads_comments=True,
        servers="mcp",
        stdio={
            "type": "local",
            "command": Part.COMMAND_LINE,
            "environment": Part.VARIABLES,
            "enabled": True,
            "timeout": 1000 * _CALL_SECONDS,
        },
        http={"type": "remote", **_AT, "oauth": False, "enabled": True, "timeout": 1000 * _CALL_SECONDS},
        stdio_key="{env:LIUM_API_KEY}",
        http_key="{env:LIUM_API_KEY}",
        restart="start it again; `opencode mcp list` shows it",
    ),
    Host(
        name="windsurf",
        title="Windsurf",
        programs=("windsurf",),
        folders=("{home}/.codeium/windsurf",),
        user=("{home}/.codeium/windsurf/mcp_config.json",),
        stdio=_STARTED,
        http={"serverUrl": Part.URL, "headers": Part.HEADERS},
        stdio_key=_OF_CURSOR,
        http_key=_OF_CURSOR,
        restart="refresh the servers in Cascade's settings",
    ),
    Host(
        name="zed",
        title="Zed",
        programs=("zed",),
        folders=({"linux": "{xdg}/zed", "macos": "{home}/.config/zed", "windows": "{applications}/Zed"},),
        user=(
            {
                "linux": "{xdg}/zed/settings.json",
                "macos": "{home}/.config/zed/settings.json",
                "windows": "{applications}/Zed/settings.json",
            },
        ),
        project=(".zed/settings.json",),
        reads_comments=True,
        servers="context_servers",
        stdio=_STARTED,
        http=_AT,
        restart="look at the agent panel's settings: lium is listed there",
    ),
    Host(
        name="cline",
        title="Cline",
        programs=("cline",),
        folders=(f"{_CODE}/globalStorage/saoudrizwan.claude-dev", "{home}/.cline"),
        user=(
            f"{_CODE}/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
            "{home}/.cline/data/settings/cline_mcp_settings.json",
        ),
        stdio={**_STARTED, "disabled": False, "autoApprove": [], "timeout": _CALL_SECONDS},
        http={"type": "streamableHttp", **_AT, "disabled": False, "autoApprove": [], "timeout": _CALL_SECONDS},
        restart="open Cline's MCP servers: it reads the file by itself",
    ),
    Host(
        name="roo",
        title="Roo Code",
        folders=(f"{_CODE}/globalStorage/rooveterinaryinc.roo-cline",),
        user=(f"{_CODE}/globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json",),
        project=(".roo/mcp.json",),
        stdio={**_STARTED, "disabled": False, "alwaysAllow": [], "timeout": _CALL_SECONDS},
        http={"type": "streamable-http", **_AT, "disabled": False, "alwaysAllow": [], "timeout": _CALL_SECONDS},
        restart="open Roo's MCP servers: it reads the file by itself",
    ),
    Host(
        name="goose",
        title="Goose",
        programs=("goose",),
        folders=({"linux": "{xdg}/goose", "macos": "{home}/.config/goose", "windows": "{applications}/Block/goose"},),
        user=(
            {
                "linux": "{xdg}/goose/config.yaml",
                "macos": "{home}/.config/goose/config.yaml",
                "windows": "{applications}/Block/goose/config/config.yaml",
            },
        ),
        file_format="yaml",
        servers="extensions",
        stdio={
            "enabled": True,
            "type": "stdio",
            "name": ENTRY_NAME,
            "description": _SUMMARY,
            "cmd": Part.COMMAND,
            "args": Part.ARGUMENTS,
            "envs": Part.VARIABLES,
            "timeout": _CALL_SECONDS,
        },
        http={
            "enabled": True,
            "type": "streamable_http",
            "name": ENTRY_NAME,
            "description": _SUMMARY,
            "uri": Part.URL,
            "headers": Part.HEADERS,
            # From Goose's keyring, where `goose configure` puts it.
            "env_keys": Part.FORWARDED,
            "timeout": _CALL_SECONDS,
        },
        http_key="${LIUM_API_KEY}",
        restart="start a new session",
    ),
    Host(
        name="lm-studio",
        title="LM Studio",
        programs=("lms",),
        folders=("{home}/.lmstudio", "{home}/.cache/lm-studio"),
        user=("{home}/.lmstudio/mcp.json", "{home}/.cache/lm-studio/mcp.json"),
        stdio=_STARTED,
        http=_AT,
        passes_all=False,
        restart="switch lium on in the Program tab",
    ),
    Host(
        name="continue",
        title="Continue",
        programs=("cn",),
        folders=("{home}/.continue",),
        user=(f"{{home}}/.continue/mcpServers/{ENTRY_NAME}.yaml",),
        project=(f".continue/mcpServers/{ENTRY_NAME}.yaml",),
        file_format="yaml",
        is_list=True,
        beside={"name": "Lium", "version": "1.0.0", "schema": "v1"},
        stdio={"name": ENTRY_NAME, **_STARTED},
        http={
            "name": ENTRY_NAME,
            "type": "streamable-http",
            "url": Part.URL,
            "requestOptions": {"headers": Part.HEADERS},
        },
        http_key="${{ secrets.LIUM_API_KEY }}",
        passes_all=False,
        restart="it reads the file by itself; its tools are for agent mode",
    ),
    Host(
        name="copilot-cli",
        title="Copilot CLI",
        programs=("copilot",),
        folders=("{copilot}",),
        user=("{copilot}/mcp-config.json",),
        project=(".github/mcp.json",),
        # With many tools it would show its model their names alone.
        stdio={"type": "local", **_STARTED, "tools": ["*"], "deferTools": "never"},
        http={**_AT_HTTP, "tools": ["*"], "deferTools": "never"},
        stdio_key="${LIUM_API_KEY}",
        http_key="${LIUM_API_KEY}",
        restart="start a new session; /mcp show lists it",
    ),
    Host(
        name="jetbrains",
        title="JetBrains Junie",
        programs=("junie",),
        folders=("{home}/.junie", "{applications}/JetBrains"),
        user=("{home}/.junie/mcp/mcp.json",),
        project=(".junie/mcp/mcp.json",),
        stdio=_STARTED,
        http=_AT,
        passes_all=False,
        restart="look at Settings, Tools, Junie, MCP Settings",
        hint="AI Assistant keeps its servers in the IDE: the same JSON goes into Settings, Tools, AI Assistant, Model "
        "Context Protocol (MCP)",
    ),
)

HOSTS: Final[dict[str, Host]] = {host.name: host for host in _TABLE}
"""The hosts by the name that people type."""
