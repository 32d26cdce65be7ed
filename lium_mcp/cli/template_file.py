"""The file of ``lium-mcp templates sync``: what it may say, and what is wrong with one that says something else."""

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lium_mcp.text import clean
from lium_mcp.values import decoded, file_problems

_MOST_FILE_BYTES: Final = 2**20
_IMAGE: Final = re.compile(r"[a-zA-Z0-9][\w./:@-]*", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a key takes, by what pydantic finds of a value that is something else.
_TAKES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "it is missing",
        "string_type": "it takes text, in quotes",
        "string_too_short": "it is empty",
        "string_too_long": "it takes {max_length} characters at most",
        "int_type": "it takes a whole number, without quotes",
        "greater_than_equal": "it takes a number from {ge} up",
        "less_than_equal": "it takes a number up to {le}",
        "bool_type": "it takes true or false, without quotes",
        "list_type": "it takes a list, in brackets",
        "too_short": "it names nothing; name something or leave it out",
        "dict_type": 'it takes names and values, as {{ NAME = "value" }}',
        "model_type": "it takes a table, as [[template]] begins one",
        "literal_error": "it takes {expected}",
    }
)


def _printable(text: str) -> str:
    if clean(text) != text or text.strip() != text or "\n" in text:
        raise ValueError("begins or ends with a blank, or holds control or invisible characters")
    return text


def _image(name: str) -> str:
    if not _IMAGE.fullmatch(name):
        raise ValueError("is not the name of an image, as pytorch/pytorch:2.8.0 is one")
    return name


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("is not the name of a variable")
    return name


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("is not an absolute path")
    return path


TextLine = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]
VariableName = Annotated[str, AfterValidator(_variable)]


class WantedTemplate(BaseModel):
    """One template as the file wants it. `environment_from` takes values from variables of the CI's environment."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    name: Annotated[TextLine, Field(max_length=100)]
    image: Annotated[TextLine, AfterValidator(_image)]
    description: str = ""
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] = [22, 8000]
    volumes: Annotated[list[Annotated[str, AfterValidator(_absolute)]], Field(min_length=1)] = ["/workspace"]
    environment: dict[VariableName, str] = Field(default_factory=dict, repr=False)
    environment_from: dict[VariableName, VariableName] = Field(default_factory=dict)
    startup_commands: str = Field(default="", repr=False)
    entrypoint: str = Field(default="", repr=False)
    private: bool = True
    category: Literal["DOCKER", "PYTORCH", "NVIDIA", "TENSOR_FLOW", "OPEN_AI", "UBUNTU"] = "UBUNTU"
    registry_credential: str = ""

    @model_validator(mode="after")
    def _one_source_for_each_variable(self) -> "WantedTemplate":
        if twice := sorted(self.environment.keys() & self.environment_from.keys()):
            raise ValueError(f"both environment and environment_from set {', '.join(twice)}")
        return self


class WantedFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    template: list[WantedTemplate] = []


class BadFile(Exception):
    """The file cannot be used; the sentence says what is wrong with it."""


def read_file(path: Path) -> WantedFile:
    """Read a file of templates.

    Raises:
        BadFile: it is no such file; the field is named.
    """
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise BadFile(f"{path} is larger than {_MOST_FILE_BYTES} bytes")
        wanted = WantedFile.model_validate(tomllib.loads(decoded(path.read_bytes())))
    except UnicodeError as error:
        raise BadFile(f"{path}: it is not UTF-8 text") from error
    except (OSError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadFile(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
    except ValidationError as error:
        problems = file_problems(error.errors(include_input=False), _keys_at, _problem)
        raise BadFile(f"{path}: {problems}") from None
    names = [template.name for template in wanted.template]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadFile(f"{path}: named twice: {', '.join(twice)}")
    return wanted


def _keys_at(place: tuple[int | str, ...]) -> Collection[str]:
    return (WantedFile if len(place) == 1 else WantedTemplate).model_fields


def _problem(found: Any) -> str:  # noqa: ANN401 - pydantic's own
    if found["loc"] == ("template",):
        return "[[template]], in two pairs of brackets, begins each one"
    takes = _TAKES.get(found["type"])
    return takes.format_map(found.get("ctx", {})) if takes else str(found["msg"]).removeprefix("Value error, ")
