"""What the manifests are made from: source.toml, pyproject.toml and the settings, read once and checked."""

import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, SecretStr

from lium_mcp import __version__
from lium_mcp.hosts.host_facts import Host as HostFacts
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.settings import Settings
from lium_mcp.settings_table import SETTINGS

HERE = Path(__file__).parent
ROOT = HERE.parent
VERSION = __version__
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

Kind = Literal["string", "secret", "boolean", "file"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shipped(_Table):
    """A row of the README's table."""

    name: str
    file: str
    goes_to: str
    key_comes: str
    tested: str


class Host(Shipped):
    """One MCP host, and its name in the table of hosts, which says how its config is cut."""

    host: str
    schema_name: str
    note: str = ""

    @property
    def facts(self) -> HostFacts:
        """What the table knows of it."""
        return HOSTS[self.host]


class Source(_Table):
    """The whole of source.toml."""

    owner: str
    server: str
    title: str
    summary: str
    command: str
    args: list[str]
    asked: dict[str, str]
    other: list[Shipped]
    host: list[Host]

    @property
    def repository(self) -> str:
        """Where the project is published."""
        return f"https://github.com/{self.owner}/{PROJECT['name']}"


class Asked(NamedTuple):
    """A setting that users are asked for when they install."""

    field: str
    variable: str
    kind: Kind
    title: str
    description: str
    default: Any


def read() -> Source:
    """Read source.toml."""
    return Source.model_validate(tomllib.loads((HERE / "source.toml").read_text()))


def asked(source: Source) -> list[Asked]:
    """Describe the settings to ask for, as the settings themselves do."""
    found = []
    for name, title in source.asked.items():
        field = Settings.model_fields[name]
        found.append(
            Asked(
                field=name,
                variable=SETTINGS[name].variable,
                kind=_kind(field.annotation),
                title=title,
                description=field.description or "",
                default=field.get_default(),
            )
        )
    return found


def _kind(annotation: Any) -> Kind:  # noqa: ANN401 - a type form, for which Python has no type
    kinds: dict[Any, Kind] = {bool: "boolean", Path | None: "file", SecretStr | None: "secret", str: "string"}
    return kinds[annotation]
