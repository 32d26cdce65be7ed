"""Write every ready-made config from one source (``make manifests``).

Nothing is written by hand twice: names and words are source.toml's, the shapes of entries the table of hosts', the
version and the Python pyproject.toml's, what users are asked for the settings'. A test compares all of it with what is
checked in.
"""

import json
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any, Final

from ruamel.yaml import YAML

from lium_mcp.hosts.documents import Document, Edit
from lium_mcp.hosts.host_entries import KEY_TO_FILL_IN
from lium_mcp.hosts.host_facts import KEY_VARIABLE, Host, Part
from lium_mcp.hosts.host_machine import Machine, Place, Platform
from manifests import icon
from manifests.directories import (
    catalog_entry,
    glama_entry,
    registry_entry,
    smithery_entry,
    smithery_questions,
)
from manifests.host_files import SHIPPED, host_files, path_of, variants
from manifests.links import links
from manifests.plugin_files import FOLDER, ICON, plugin_configs, plugin_skills, skills_told, start_told
from manifests.source import HERE, ROOT, Source, read

_PLATFORMS: Final[dict[Platform, str]] = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}
_WIDTH: Final = 1000
_SINGLE_QUOTES: Final = re.compile(r"(?<= )'([^'\"\\]*)'$", re.MULTILINE)
_MARKER: Final = re.compile(r"^<!-- mcp-name: .* -->\n", re.MULTILINE)
_HEADING: Final = re.compile(r"^# .*\n", re.MULTILINE)


def files(source: Source) -> dict[str, str]:
    """Make the text of every generated file, and of every document that is so in part, by its path in the project."""
    made = {f"manifests/{path}": text for path, text in host_files(source)}
    made["manifests/server.json"] = as_json(registry_entry(source))
    made["manifests/catalog/server.yaml"] = as_yaml(catalog_entry(source))
    made["manifests/smithery.json"] = as_json(smithery_questions(source))
    made["manifests/icon.svg"] = icon.svg()
    made["smithery.yaml"] = as_yaml(smithery_entry())
    made["glama.json"] = as_json(glama_entry(source))
    made |= {path: as_json(config) for path, config in plugin_configs(source)} | dict(plugin_skills())
    plugin = with_generated((ROOT / FOLDER / "README.md").read_text(), "skills", skills_told())
    made[f"{FOLDER}/README.md"] = with_generated(plugin, "start", start_told(source))
    own = with_generated((HERE / "README.md").read_text(), "hosts", "\n".join(_table()))
    own = with_generated(own, "start", start_told(source))
    made["manifests/README.md"] = with_generated(own, "links", "\n".join(_links(source)))
    made["README.md"] = _with_marker((ROOT / "README.md").read_text(), source)
    made["pyproject.toml"] = _with_addresses((ROOT / "pyproject.toml").read_bytes(), source)
    return made


def as_json(value: Mapping[str, Any]) -> str:
    """Write JSON as it is checked in."""
    return json.dumps(value, indent=2) + "\n"


def as_yaml(value: Mapping[str, Any]) -> str:
    """Write YAML as Docker's catalog takes it: as Prettier would."""
    writer, out = YAML(), StringIO()
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.width = _WIDTH
    writer.dump(dict(value), out)
    return _SINGLE_QUOTES.sub(r'"\1"', out.getvalue())


def _with_marker(readme: str, source: Source) -> str:
    """The README with the comment by which the registry knows, from PyPI, whose package this is."""
    marker = f"<!-- mcp-name: {source.registry_name} -->\n"
    if _MARKER.search(readme):
        return _MARKER.sub(marker, readme)
    return _HEADING.sub(lambda heading: f"{heading[0]}\n{marker}", readme, count=1)


def _with_addresses(pyproject: bytes, source: Source) -> str:
    addresses = {
        "Homepage": source.repository,
        "Documentation": f"{source.repository}#readme",
        "Changelog": f"{source.repository}/blob/main/CHANGELOG.md",
        "Issues": f"{source.repository}/issues",
    }
    edits = [Edit(("project", "urls", name), address) for name, address in addresses.items()]
    return Document(pyproject, "toml").edited(edits).decode()


def _table() -> Iterator[str]:
    yield "| host | ready-made | where it goes | where the key comes from |"
    yield "|---|---|---|---|"
    for host in SHIPPED.values():
        ready = ", ".join(f"[{variant}]({path_of(host, variant)})" for variant in variants(host))
        yield f"| {host.title} | {ready} | {where(host)} | {_where_key_comes_from(host)} |"


def where(host: Host) -> str:
    """Where a host's file is, for the person and for a project."""
    by_platform = {name: _shown(host.user[0], platform) for platform, name in _PLATFORMS.items()}
    places = dict.fromkeys(by_platform.values())
    told = [
        f"{', '.join(name for name, at in by_platform.items() if at == place)}: " * (len(places) > 1) + f"`{place}`"
        for place in places
    ]
    in_project = [f"in a project `{place}`" for place in host.project[:1]]
    return "; ".join([*told, *in_project])


def _shown(place: Place, platform: Platform) -> str:
    home = "/home"
    path = Machine(platform, {"HOME": home, "USERPROFILE": home, "APPDATA": "%APPDATA%"}, HERE).path(place)
    return str(path).replace(home, "~", 1)


def _where_key_comes_from(host: Host) -> str:
    if host.asks_key:
        return "the host asks for it, and keeps it"
    if host.stdio_key or Part.FORWARDED in host.stdio.values():
        return f"`{KEY_VARIABLE}`, which the file names"
    return f"`{KEY_VARIABLE}`, which the host passes on" if host.passes_all else f"what you put for `{KEY_TO_FILL_IN}`"


def _links(source: Source) -> Iterator[str]:
    """Write what can be clicked, and as text what GitHub would not follow: it knows https alone."""
    for link in links(source):
        title = SHIPPED[link.host].title
        is_followed = link.url.startswith("https:")
        yield f"[Add to {title}]({link.url})\n" if is_followed else f"{title}:\n\n```text\n{link.url}\n```\n"


def with_generated(text: str, marker: str, content: str) -> str:
    """Return a document with another content between the two comments that name a part of it."""
    before, rest = text.split(f"<!-- {marker}:begin -->\n")
    _, after = rest.split(f"<!-- {marker}:end -->")
    return f"{before}<!-- {marker}:begin -->\n{content}\n<!-- {marker}:end -->{after}"


def main() -> None:
    """Write every generated file."""
    for path, text in files(read()).items():
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for target in (HERE / "icon.png", ROOT / FOLDER / ICON):
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(icon.png())


if __name__ == "__main__":
    main()
