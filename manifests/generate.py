"""Write every ready-made config under manifests/ from one source (``make manifests``).

Nothing here is written by hand twice: names and commands are source.toml's, the shapes of entries the table of hosts',
the version and the Python pyproject.toml's, what users are asked for the settings'. A test compares all of it with what
is checked in.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from lium_mcp.hosts.host_entries import KEY_TO_FILL_IN, Wish, make_entry
from lium_mcp.hosts.host_facts import KEY_VARIABLE, Part
from manifests.source import HERE, PROJECT, VERSION, Asked, Host, Source, asked, read

REGISTRY_SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"


def files(source: Source, readme: str) -> dict[str, str]:
    """Make the text of every generated file, by its path under manifests/; `readme` is the README to update."""
    made = {host.file: _written(host.file, host_config(source, host), host.note) for host in source.host}
    made["server.json"] = _json(registry_entry(source))
    readme = with_generated(readme, "hosts", _table(source))
    made["README.md"] = with_generated(readme, "links", _links(source))
    return made


def server_entry(source: Source, host: Host) -> dict[str, Any]:
    """Make the part of a host's config that starts our server."""
    facts = host.facts
    has_reference = facts.stdio_key or Part.FORWARDED in facts.stdio.values()
    by_hand = {} if has_reference else {KEY_VARIABLE: KEY_TO_FILL_IN}
    return make_entry(facts, Wish(command=(source.command, *source.args), variables=by_hand))


def host_config(source: Source, host: Host) -> dict[str, Any]:
    """Make a host's whole config file."""
    return {**_beside(host), host.facts.servers: {source.server: server_entry(source, host)}}


def _beside(host: Host) -> dict[str, Any]:
    """What else the file needs."""
    return dict(host.facts.beside) | ({"inputs": [*host.facts.inputs]} if host.facts.inputs else {})


def registry_entry(source: Source) -> dict[str, Any]:
    """Make server.json, what the MCP Registry is told."""
    package = {
        "registryType": "pypi",
        "identifier": PROJECT["name"],
        "version": VERSION,
        "runtimeHint": source.command,
        "transport": {"type": "stdio"},
        "environmentVariables": [_registry_input(item) for item in asked(source)],
    }
    return {
        "$schema": REGISTRY_SCHEMA,
        "name": f"io.github.{source.owner}/{PROJECT['name']}",
        "title": source.title,
        "description": source.summary,
        "version": VERSION,
        "repository": {"url": source.repository, "source": "github"},
        "packages": [package],
    }


def _registry_input(item: Asked) -> dict[str, Any]:
    told: dict[str, Any] = {"name": item.variable, "description": item.description}
    match item.kind:
        case "secret":
            # Not required: without it the server reads the marketplace, or what the official client's file has.
            return told | {"isSecret": True}
        case "boolean":
            return told | {"format": "boolean", "default": str(item.default).lower()}
        case "file":
            return told | {"format": "filepath"}
        case _:
            return told | ({"default": item.default} if item.default else {})


def cursor_link(source: Source) -> str:
    """Make the link that installs the server in Cursor: the inner server object as base64, without a key."""
    host = _host(source, "Cursor")
    config = base64.b64encode(json.dumps(server_entry(source, host)).encode()).decode()
    return f"https://cursor.com/en/install-mcp?name={source.server}&config={quote(config, safe='')}"


def vscode_link(source: Source) -> str:
    """Make the link that installs the server in VS Code: name, server and inputs in one object."""
    host = _host(source, "VS Code")
    config = {"name": source.server, **server_entry(source, host), **_beside(host)}
    return f"vscode:mcp/install?{quote(json.dumps(config), safe='')}"


def _host(source: Source, name: str) -> Host:
    return next(host for host in source.host if host.name == name)


def _table(source: Source) -> str:
    rows = ["| host | file | where it goes | how the key gets in | how it was tested |", "|---|---|---|---|---|"]
    named = [(item, f"[{item.file}]({item.file})") for item in source.host] + [
        (item, item.file) for item in source.other
    ]
    rows += [f"| {item.name} | {file} | {item.goes_to} | {item.key_comes} | {item.tested} |" for item, file in named]
    return "\n".join(rows)


def _links(source: Source) -> str:
    return (
        f"[Add to Cursor]({cursor_link(source)})\n\n"
        "GitHub does not follow links of the VS Code kind: paste this one into a browser.\n\n"
        f"```text\n{vscode_link(source)}\n```"
    )


def with_generated(text: str, marker: str, content: str) -> str:
    """Return a document with another content between the two comments that name a part of it."""
    before, rest = text.split(f"<!-- {marker}:begin -->\n")
    _, after = rest.split(f"<!-- {marker}:end -->")
    return f"{before}<!-- {marker}:begin -->\n{content}\n<!-- {marker}:end -->{after}"


def _written(file: str, config: Mapping[str, Any], note: str) -> str:
    return _toml(config, note) if file.endswith(".toml") else _json(config)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _toml(config: Mapping[str, Any], note: str) -> str:
    """Write plain values, then tables of tables of such; JSON's strings, numbers and lists are TOML, too."""
    lines = [f"# {line}" for line in note.splitlines()]
    tables = {name: value for name, value in config.items() if isinstance(value, Mapping)}
    lines += [*_settings({name: value for name, value in config.items() if name not in tables}), ""]
    for table, entries in tables.items():
        for name, entry in entries.items():
            lines += [f"[{table}.{name}]", *_settings(entry), ""]
    return "\n".join(lines)


def _settings(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in values.items()]


def main() -> None:
    """Write every generated file."""
    for path, text in files(read(), (HERE / "README.md").read_text()).items():
        target = HERE / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    main()
