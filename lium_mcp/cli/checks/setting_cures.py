"""What mends a setting that cannot be used, told by what the problem is about: each names its setting first."""

import os
import re
import shlex
from collections.abc import Mapping
from typing import Final, NamedTuple

from lium_mcp.cli.checks.findings import Finding, broken
from lium_mcp.cli.key_cures import log_in
from lium_mcp.hosts.host_facts import KEY_VARIABLE
from lium_mcp.official_config import config_path
from lium_mcp.values import home_problem

_AREA: Final = "settings"
_MEANT: Final = re.compile(r"there is no such setting; (\w+) is one$")
_SAVED: Final = re.compile(r"(?P<key>api_key|key_path) under \[(?P<section>[^\]]+)\] in ")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Cure(NamedTuple):
    words: str
    run: str = ""


def settings_finding(problem: str, variables: Mapping[str, str]) -> Finding:
    """The finding for a problem of the settings."""
    cure = _cure(problem, variables)
    return broken(_AREA, problem, cure.words, cure.run)


def _cure(problem: str, variables: Mapping[str, str]) -> _Cure:
    name, _, reason = problem.partition(": ")
    if name == "HOME":
        import pwd  # noqa: PLC0415 - Windows has none, and no such variable

        home = shlex.quote(pwd.getpwuid(os.getuid()).pw_dir)
        return _Cure("set HOME to your home folder, here and where a host sets it", f"export HOME={home}")
    if name.startswith("--"):
        return _Cure(
            f"correct {name} where it was typed, or leave it out; the entry of a host has it among its arguments"
        )
    if saved := _SAVED.match(problem):
        return _of_saved(saved["key"], saved["section"], variables)
    if home_problem() is None and problem.startswith(str(config_path())):
        return _of_file(reason, variables)
    if meant := _MEANT.search(problem):
        return _Cure(f"call it {meant[1]}, here and where a host sets it", f'export {meant[1]}="${name}"; unset {name}')
    if name.upper() == KEY_VARIABLE:
        return _Cure(f"set {name} to the key alone, here and where a host sets it, or log in", log_in(variables))
    if _VARIABLE.fullmatch(name):
        return _Cure(f"correct {name}, here and where a host sets it, or take it away", f"unset {name}")
    return _Cure(f"correct {name}")


def _of_saved(key: str, section: str, variables: Mapping[str, str]) -> _Cure:
    where = f"{key} under [{section}] in {config_path()}"
    if key == "api_key":
        return _Cure(f"get another key, or correct {where}", log_in(variables, force=True))
    return _Cure(f"correct {where}, or take that line out; LIUM_SSH_KEY_PATH names a key too")


def _of_file(reason: str, variables: Mapping[str, str]) -> _Cure:
    path = config_path()
    quoted = shlex.quote(str(path))
    if "cannot be read" in reason:
        return _Cure("let yourself read it", f"chmod u+r {quoted}")
    # A login does not touch what it cannot read.
    return _Cure(
        f"correct {path} in an editor, or put it away and log in", f"mv {quoted} {quoted}.old; {log_in(variables)}"
    )
