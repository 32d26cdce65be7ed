"""Reads all settings, and says everything that is wrong with them at once.

A variable that is nearly one of ours, or an empty one, is a problem too: a misspelt limit would be no limit, and nobody
would notice.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from lium_mcp.settings import Settings
from lium_mcp.settings_table import OVER_HTTP, SETTINGS, as_option, meant_setting
from lium_mcp.values import SettingsError, home_problem, no_such


def load(overrides: Mapping[str, Any]) -> Settings:
    """Read the settings; what `overrides` holds (the command line) wins over the environment.

    Raises:
        SettingsError: values cannot be read, or variables set nothing: all of them. No value is repeated: it may be
            a secret.
    """
    settings, problems = load_readable(overrides)
    if problems:
        raise SettingsError(*problems)
    return settings


def load_readable(overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Read the settings as far as they can be read, and say what is wrong with the others.

    What cannot be read is left at its default, so with a problem the settings are good for nothing but to say so.
    """
    problems = [*filter(None, [home_problem()]), *_idle_variables()]
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        wrong = {_field_name(str(item["loc"][0])): item["msg"] for item in error.errors(include_input=False)}
        problems += [f"{SETTINGS[name].variable}: {text.removeprefix('Value error, ')}" for name, text in wrong.items()]
        readable = Settings(**{**overrides, **{name: Settings.model_fields[name].default for name in wrong}})
        return readable, as_given(problems, overrides)
    if settings.transport == "stdio":
        problems += [
            f"{SETTINGS[name].variable}: it is for a server over HTTP: add --transport http, or leave it out"
            for name in OVER_HTTP
            if name in overrides
        ]
    if settings.is_local:
        # So that no later call is the first to hear that the config file cannot be read.
        found = problems_of(settings.find_key, settings.find_ssh_key_path)
        problems += [problem for problem in found if problem not in problems]
    return settings, as_given(problems, overrides)


def as_given(problems: Iterable[str], overrides: Mapping[str, Any]) -> list[str]:
    """Name what the command line gave as it was typed there, and not as a variable that nobody has set."""
    options = {f"{SETTINGS[name].variable}:": f"{as_option(name)}:" for name in overrides if name in SETTINGS}
    return [
        " ".join([options.get(first, first), *rest]) for first, *rest in (problem.split(" ") for problem in problems)
    ]


def problems_of(*parts: Callable[[], object]) -> list[str]:
    """Say what each part of the settings finds wrong, every problem once."""
    problems: list[str] = []
    for part in parts:
        try:
            part()
        except SettingsError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return problems


def _idle_variables() -> list[str]:
    """Say which variables of the environment were meant for this server and set nothing."""
    known = {setting.variable for setting in SETTINGS.values()}
    problems = []
    for name, value in sorted(os.environ.items()):
        variable = name.upper()  # as the settings are read
        if variable in known:
            if variable.startswith("LIUM_MCP_") and not value.strip():
                problems.append(f"{name}: it is empty; give it a value or leave it out")
        elif (meant := meant_setting(variable)) is not None:
            problems.append(no_such(name, known, like=meant))
    return problems


def _field_name(location: str) -> str:
    """The field that a location in an error means: by its own name, or by its variable's."""
    return next(name for name in Settings.model_fields if location in (name, SETTINGS[name].variable))
