"""What mends a setting that cannot be used, told by what the problem is about: each names its setting first."""

import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from lium_mcp.cli.checks.findings import Code, Finding, broken
from lium_mcp.cli.key_cures import log_in
from lium_mcp.cli.shell_lines import in_turn, let_read, put_aside, set_as, set_to, unset
from lium_mcp.hosts.host_facts import KEY_VARIABLE
from lium_mcp.official_config import config_path
from lium_mcp.values import home_problem

_AREA: Final = "settings"
_MEANT: Final = re.compile(r"there is no such setting; (\w+) is one$")
_SAVED: Final = re.compile(r"(?P<key>api_key|key_path) under \[(?P<section>[^\]]+)\] in ")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Cure(NamedTuple):
    code: Code
    words: str
    run: str = ""


def settings_finding(problem: str, variables: Mapping[str, str]) -> Finding:
    """The finding for a problem of the settings."""
    cure = _cure(problem, variables)
    return broken(cure.code, _AREA, problem, cure.words, cure.run)


def _cure(problem: str, variables: Mapping[str, str]) -> _Cure:
    name, _, reason = problem.partition(": ")
    if name == "HOME":
        import pwd  # noqa: PLC0415 - Windows has none, and no such variable

        line = set_to("HOME", pwd.getpwuid(os.getuid()).pw_dir)
        return _Cure("home_missing", "set HOME to your home folder, here and where a host sets it", line)
    if name.startswith("--"):
        words = f"correct {name} where it was typed, or leave it out; the entry of a host has it among its arguments"
        return _Cure("option_wrong", words)
    if saved := _SAVED.match(problem):
        return _of_saved(saved["key"], saved["section"], variables)
    if home_problem() is None and problem.startswith(str(config_path())):
        return _of_file(reason, variables)
    if meant := _MEANT.search(problem):
        line = in_turn(set_as(meant[1], name), unset(name))
        return _Cure("variable_misspelt", f"call it {meant[1]}, here and where a host sets it", line)
    if name.upper() == KEY_VARIABLE:
        words = f"set {name} to the key alone, here and where a host sets it, or log in"
        return _Cure("variable_wrong", words, log_in(variables))
    if _VARIABLE.fullmatch(name):
        words = f"correct {name}, here and where a host sets it, or take it away"
        return _Cure("variable_wrong", words, unset(name))
    return _Cure("variable_wrong", f"correct {name}")


def _of_saved(key: str, section: str, variables: Mapping[str, str]) -> _Cure:
    where = f"{key} under [{section}] in {config_path()}"
    if key == "api_key":
        return _Cure("saved_value_wrong", f"get another key, or correct {where}", log_in(variables, force=True))
    words = f"correct {where}, or take that line out; LIUM_SSH_KEY_PATH names a key too"
    return _Cure("saved_value_wrong", words)


def _of_file(reason: str, variables: Mapping[str, str]) -> _Cure:
    path = config_path()
    if "cannot be read" in reason:
        return _Cure("saved_file_unreadable", "let yourself read it", let_read(path))
    # A login does not touch what it cannot read.
    words = f"correct {path} in an editor, or put it away and log in"
    return _Cure("saved_file_broken", words, in_turn(put_aside(path), log_in(variables)))
