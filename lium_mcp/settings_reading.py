"""Reads all settings, and says everything that is wrong with them at once.

A variable that is nearly one of ours, or an empty one, is a problem too: a misspelt limit would be no limit, and nobody
would notice.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from lium_mcp.setting_words import problem_with
from lium_mcp.settings import Settings
from lium_mcp.settings_table import OVER_HTTP, SETTINGS, as_option, meant_setting
from lium_mcp.values import EMPTY, SettingsError, home_problem, no_such


def load(overrides: Mapping[str, Any]) -> Settings:
    """Read the settings; what `overrides` holds (the command line) wins over the environment.

    Raises:
        SettingsError: values cannot be read, or variables set nothing: all of them. No value is repeated that may be
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
    problems = [*filter(None, [home_problem()]), *idle_variables(os.environ)]
    empty = [name for name, value in overrides.items() if value == ""]
    problems += [f"{SETTINGS[name].variable}: {EMPTY}" for name in empty]
    filled = {name: value for name, value in overrides.items() if name not in empty}
    try:
        settings = Settings(**filled)
    except ValidationError as error:
        wrong = {_field_name(str(item["loc"][0])): item for item in error.errors()}
        problems += [f"{SETTINGS[name].variable}: {problem_with(item, SETTINGS[name])}" for name, item in wrong.items()]
        readable = Settings(**{**filled, **{name: Settings.model_fields[name].default for name in wrong}})
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


def are_about(problems: Iterable[str], names: Iterable[str]) -> bool:
    """Whether one of these settings has a problem, so that what depends on it is not judged yet."""
    said = tuple(f"{word}:" for name in names for word in (SETTINGS[name].variable, as_option(name)))
    return any(problem.startswith(said) for problem in problems)


def idle_variables(variables: Mapping[str, str]) -> list[str]:
    """Say which of these variables were meant for this server and set nothing."""
    known = {setting.variable for setting in SETTINGS.values()}
    problems = []
    for name, value in sorted(variables.items()):
        variable = name.upper()  # as the settings are read
        if variable in known:
            if variable.startswith("LIUM_MCP_") and not value:
                problems.append(f"{name}: {EMPTY}")
        elif (meant := meant_setting(variable)) is not None:
            problems.append(no_such(name, known, like=meant))
    return problems


def _field_name(location: str) -> str:
    """The field that a location in an error means: by its own name, or by its variable's."""
    return next(name for name in Settings.model_fields if location in (name, SETTINGS[name].variable))
