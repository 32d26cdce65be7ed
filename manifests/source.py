"""What the manifests are made from: source.toml, pyproject.toml and the settings, read once and checked."""

import tomllib
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from lium_mcp import __version__
from lium_mcp.settings_table import SETTINGS, Setting

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
VERSION: Final = __version__
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME: Final[str] = PROJECT["name"]

Kind = Literal["secret", "number", "boolean", "file"]
_KINDS: Final[dict[str, Kind]] = {
    "key": "secret",
    "number": "number",
    "count": "number",
    "flag": "boolean",
    "path": "file",
}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Table):
    """How a setting is asked for: its name to people, a value as an example, what it is for if not in its own words."""

    title: str
    example: str = ""
    about: str = ""


class Source(_Table):
    """The whole of source.toml, which explains each."""

    owner: str
    published: bool
    remote: str = ""
    title: str
    summary: str
    asked: dict[str, Question]
    notes: dict[str, str]

    @property
    def command(self) -> tuple[str, ...]:
        """What a host starts: a command that is there today."""
        return ("uvx", NAME) if self.published else (NAME,)

    @property
    def repository(self) -> str:
        """Where the project is published."""
        return f"https://github.com/{self.owner}/{NAME}"

    @property
    def registry_name(self) -> str:
        """What the MCP Registry calls the server, and looks for in the README on PyPI and the labels of the image."""
        return f"io.github.{self.owner}/{NAME}"

    @property
    def image(self) -> str:
        """The container image of this version; names of images are in small letters."""
        return f"ghcr.io/{self.owner.lower()}/{NAME}:{VERSION}"

    @property
    def icon(self) -> str:
        """Where the icon of this version can be fetched."""
        return f"https://raw.githubusercontent.com/{self.owner}/{NAME}/v{VERSION}/manifests/icon.png"


class Asked(NamedTuple):
    """A setting that people are asked for when they install.

    Attributes:
        field: Its name.
        kind: What is asked for.
        title: How it is called.
        description: What it is for.
        example: A value as an example; empty where none helps.
        setting: The rest.
    """

    field: str
    kind: Kind
    title: str
    description: str
    example: str
    setting: Setting


def read() -> Source:
    """Read source.toml."""
    return Source.model_validate(tomllib.loads((HERE / "source.toml").read_text()))


def asked(source: Source) -> list[Asked]:
    """Describe the settings to ask for, as the settings themselves do."""
    found = []
    for name, question in source.asked.items():
        setting = SETTINGS[name]
        about = question.about.strip() or setting.about
        found.append(Asked(name, _KINDS[setting.kind], question.title, about, question.example, setting))
    return found
