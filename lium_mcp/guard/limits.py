"""The limits themselves: a typed model, read from the settings, from a team's policy file, or from both."""

import re
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lium_mcp.api.gpu_names import is_gpu_name
from lium_mcp.setting_words import problem_with
from lium_mcp.settings_table import SETTINGS
from lium_mcp.values import NAMES_NOTHING, NotOfItsKindError, as_number, decoded, file_problems, listed

PolicyMode = Literal["enforce", "shadow"]
_MAX_FILE_BYTES: Final = 2**20
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}")
_ID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
# Stands in a list that allows nothing, and is no real name: an empty list would allow everything.
_NOTHING: Final = "(none)"
_NUMBERS: Final = ("max_price_per_hour_usd", "max_pods", "max_hours", "max_burn_per_hour_usd", "budget_usd")


class PolicyFileError(Exception):
    """A policy file cannot be read; the sentence says where and what it takes."""


def _names(value: Any) -> Any:  # noqa: ANN401 - whatever a file or a variable held
    if isinstance(value, frozenset):
        return value  # read already, and empty where nothing was set
    parts = listed(value) if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError('a list of names is needed, as ["A", "B"]')
    names = frozenset(part.strip() for part in parts if part.strip())
    if not names:
        # It would allow everything, and who writes it may mean to allow nothing.
        raise ValueError(NAMES_NOTHING)
    return names


def _day(value: Any) -> Any:  # noqa: ANN401 - as above
    # A bare number would be read as seconds since 1970.
    if not (isinstance(value, date) or value is None or (isinstance(value, str) and _DAY.fullmatch(value.strip()))):
        raise NotOfItsKindError
    return value


def _each(is_one: Callable[[str], object]) -> AfterValidator:
    """Refuse a list of which an entry is nothing of its kind: it would refuse every rent, and nobody would see why."""

    def check(names: frozenset[str]) -> frozenset[str]:
        for name in sorted(names):
            if name != _NOTHING and not is_one(name):
                raise NotOfItsKindError(name)
        return names

    return AfterValidator(check)


UsdLimit = Annotated[float, BeforeValidator(as_number), Field(allow_inf_nan=False)]
Names = Annotated[frozenset[str], BeforeValidator(_names)]


def from_table(name: str) -> Any:  # noqa: ANN401 - what pydantic makes a field of
    """The field of a setting, as the table has it."""
    setting = SETTINGS[name]
    alias = None if setting.variable.startswith("LIUM_MCP_") else setting.variable
    return Field(
        default=setting.default, validation_alias=alias, description=setting.about, ge=setting.low, le=setting.high
    )


class Limits(BaseModel):
    """What may be spent and rented. Each limit that is None, and each list that was left out, allows everything."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    max_price_per_hour_usd: UsdLimit | None = from_table("max_price_per_hour_usd")
    max_pods: Annotated[int, BeforeValidator(as_number)] | None = from_table("max_pods")
    max_hours: Annotated[float, BeforeValidator(as_number)] | None = from_table("max_hours")
    max_burn_per_hour_usd: UsdLimit | None = from_table("max_burn_per_hour_usd")
    budget_usd: UsdLimit | None = from_table("budget_usd")
    budget_since: Annotated[date, BeforeValidator(_day)] | None = from_table("budget_since")
    allow_gpu_types: Annotated[Names, _each(is_gpu_name)] = from_table("allow_gpu_types")
    allow_countries: Annotated[Names, _each(_COUNTRY.fullmatch)] = from_table("allow_countries")
    allow_templates: Annotated[Names, _each(_ID.fullmatch)] = from_table("allow_templates")

    def tightened(self, other: "Limits") -> "Limits":
        """Both sets of limits at once: what either refuses is refused.

        Raises:
            ValueError: one budget is for the present month and the other since a day: which is longer depends on today.
        """
        lowest = {name: _lower(getattr(self, name), getattr(other, name)) for name in _NUMBERS}
        # Of two periods the longer one counts more of what was spent.
        both = [limits for limits in (self, other) if limits.budget_usd is not None or limits.budget_since is not None]
        sinces = [limits.budget_since for limits in both]
        if None in sinces and any(sinces):
            raise ValueError("budget_since: a budget there and one in the settings need the same first day")
        since = min((day for day in sinces if day is not None), default=None)
        allowed = {
            name: _both(getattr(self, name), getattr(other, name))
            for name in ("allow_gpu_types", "allow_countries", "allow_templates")
        }
        return Limits(**lowest, budget_since=since, **allowed)

    def in_force(self) -> dict[str, Any]:
        """Those that are set, by their names, with a day as text."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.isoformat() if isinstance(value, date) else value
            for name, value in values.items()
            if value not in (None, frozenset())
        }

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return self != Limits()


def _lower(first: float | None, second: float | None) -> float | None:
    return min((value for value in (first, second) if value is not None), default=None)


def _both(first: frozenset[str], second: frozenset[str]) -> frozenset[str]:
    if not first or not second:
        return first or second
    common = {name.casefold() for name in first} & {name.casefold() for name in second}
    return frozenset(common) or frozenset({_NOTHING})


class _File(Limits):
    mode: PolicyMode | None = None


def _problem_in_file(found: Any) -> str:  # noqa: ANN401 - pydantic's own
    name = found["loc"][0]
    return problem_with(found, SETTINGS["policy_mode" if name == "mode" else name])


def read_policy_file(path: Path) -> tuple[Limits, PolicyMode | None]:
    """Read the limits of a TOML file, whose keys are the names of `Limits`, and its `mode` if it has one.

    Raises:
        PolicyFileError: it cannot be read; nothing of it is taken.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise PolicyFileError(f"{path} is larger than {_MAX_FILE_BYTES} bytes")
        read = _File.model_validate(tomllib.loads(decoded(content)))
    except OSError as error:
        raise PolicyFileError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problems = file_problems(error.errors(), lambda _: _File.model_fields, _problem_in_file)
        raise PolicyFileError(f"{path}: {problems}") from None
    except ValueError as error:
        raise PolicyFileError(f"{path} is not TOML: {error}") from None
    if not read.model_fields_set - {"mode"}:
        raise PolicyFileError(f"{path} sets no limit; one would be a line such as max_pods = 2")
    return Limits(**read.model_dump(exclude={"mode"})), read.mode
