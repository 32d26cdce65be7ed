"""The plugin: one folder that hosts install, with the server and the skills (``make manifests``).

Claude Code, Codex and Gemini CLI each read a manifest of their own in it; others that know the format Agent Plugins 1.0
read `plugin.json` and `mcp.json`. A marketplace at the root of the project says where the folder is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lium_mcp.hosts.host_entries import Wish, make_entry
from lium_mcp.hosts.host_facts import ENTRY_NAME, KEY_VARIABLE
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.skills import FILE_NAME, read_skills
from manifests.source import PROJECT, VERSION, Asked, Source, asked

FOLDER: Final = "manifests/plugin"
ICON: Final = "assets/icon.png"
_SCHEMAS: Final = "https://agent-plugins.org/schemas/1.0.0"
_KEY_OPTION: Final = "api_key"
_CODEX_SERVERS: Final = "codex.mcp.json"


def plugin_configs(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Make every config of the plugin: where it is in the project, and what it holds."""
    yield ".claude-plugin/marketplace.json", _claude_marketplace(source)
    yield ".agents/plugins/marketplace.json", _codex_marketplace(source)
    yield f"{FOLDER}/.claude-plugin/plugin.json", _claude(source)
    yield f"{FOLDER}/.codex-plugin/plugin.json", _codex(source)
    yield f"{FOLDER}/{_CODEX_SERVERS}", _codex_servers(source)
    yield f"{FOLDER}/gemini-extension.json", _gemini(source)
    yield f"{FOLDER}/plugin.json", {"$schema": f"{_SCHEMAS}/plugin.schema.json", **_described(source)}
    yield (
        f"{FOLDER}/mcp.json",
        {"$schema": f"{_SCHEMAS}/mcp.schema.json", **_servers({"type": "stdio", **_start(source)})},
    )


def plugin_skills() -> Iterator[tuple[str, str]]:
    """The skills, which are the server's own, where the plugin has them."""
    for skill in read_skills():
        yield f"{FOLDER}/skills/{skill.name}/{FILE_NAME}", skill.text


def skills_told() -> str:
    """What the plugin's page says of each skill."""
    return "\n".join(f"- `{skill.name}`: {skill.title}." for skill in read_skills())


def start_told(source: Source) -> str:
    """What the plugin's page says of the command that the hosts start."""
    if source.published:
        return (
            "The hosts start `uvx lium-mcp`, so [uv](https://docs.astral.sh/uv/) has to be there, and nothing else; a "
            "command that is named below is typed so too, as in `uvx lium-mcp login`."
        )
    return "The hosts start `lium-mcp`, which `uv tool install .` puts on the path. (The package is not on PyPI yet.)"


def _about(source: Source) -> dict[str, Any]:
    return {"name": ENTRY_NAME, "version": VERSION, "description": source.summary}


def _described(source: Source) -> dict[str, Any]:
    repository = {"repository": source.repository} if source.published else {}
    author = {"author": {"name": PROJECT["authors"][0]["name"]}}
    return _about(source) | author | repository | {"license": PROJECT["license"], "keywords": PROJECT["keywords"]}


def _start(source: Source) -> dict[str, Any]:
    command, *arguments = source.command
    return {"command": command, "args": arguments}


def _servers(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"mcpServers": {ENTRY_NAME: entry}}


def _key(source: Source) -> Asked:
    return next(item for item in asked(source) if item.field == _KEY_OPTION)


def _claude_marketplace(source: Source) -> dict[str, Any]:
    entry = {"source": f"./{FOLDER}", **_about(source)}
    owner = {"name": PROJECT["authors"][0]["name"]}
    return {"name": ENTRY_NAME, "owner": owner, "metadata": {"description": source.summary}, "plugins": [entry]}


def _codex_marketplace(source: Source) -> dict[str, Any]:
    entry = {
        "name": ENTRY_NAME,
        "source": {"source": "local", "path": f"./{FOLDER}"},
        "policy": {"installation": "AVAILABLE", "authentication": "ON_INSTALL"},
        "category": "Productivity",
    }
    return {"name": ENTRY_NAME, "interface": {"displayName": source.title}, "plugins": [entry]}


def _claude(source: Source) -> dict[str, Any]:
    key = _key(source)
    # The option would take the place of the variable, also where nobody has filled it in.
    default = f"${{{KEY_VARIABLE}:-}}"
    option = {"type": "string", "title": key.title, "description": key.description, "sensitive": True}
    entry = _start(source) | {"env": {KEY_VARIABLE: f"${{user_config.{_KEY_OPTION}}}"}}
    options = {_KEY_OPTION: option | {"required": False, "default": default}}
    return _described(source) | {"icon": ICON, "userConfig": options} | _servers(entry)


def _codex(source: Source) -> dict[str, Any]:
    return _about(source) | {"skills": "./skills", "mcpServers": f"./{_CODEX_SERVERS}"}


def _codex_servers(source: Source) -> dict[str, Any]:
    return _servers(make_entry(HOSTS["codex"], Wish(command=source.command)))


def _gemini(source: Source) -> dict[str, Any]:
    key = _key(source)
    question = {"name": key.title, "description": key.description, "envVar": KEY_VARIABLE, "sensitive": True}
    entry = make_entry(HOSTS["gemini-cli"], Wish(command=source.command))
    return _about(source) | _servers(entry) | {"settings": [question]}
