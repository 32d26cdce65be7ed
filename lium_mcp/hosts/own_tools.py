"""Lets a host add or remove our entry with its own command, which knows its file best."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from lium_mcp.hosts.config_changes import Change
from lium_mcp.hosts.host_entries import read_entry
from lium_mcp.hosts.host_facts import ENTRY_NAME, OwnTool
from lium_mcp.hosts.host_machine import Machine

_LIMIT_SECONDS: Final = 60
_MOST_CHARACTERS: Final = 400


def own_command(change: Change, machine: Machine) -> list[str] | None:
    """The command that makes a change; None where the host has none that could, or is not on the PATH.

    An entry that is there already is changed in the file, where what a person has added to it stays.
    """
    tool = change.host.own_tool
    if tool is None or change.scope not in tool.scopes:
        return None
    program = machine.find_program(change.host.programs[0])
    # The command interpreter of Windows would read the words as its own.
    if program is None or program.suffix in (".cmd", ".bat"):
        return None
    if change.entry is None:
        words = [word.format(scope=change.scope) for word in tool.remove]
    else:
        words = _adding(tool, change, change.entry) if change.there is None else []
    return [str(program), *words] if words else None


def _adding(tool: OwnTool, change: Change, entry: Mapping[str, Any]) -> list[str]:
    """The words that add an entry; none where the command cannot say all of it."""
    found = read_entry(change.host, entry)
    if found is None or ("{command}" in tool.add and found.url):
        return []
    named = {"name": ENTRY_NAME, **entry} if tool.names_entry else entry
    words: list[str] = []
    for word in tool.add:
        match word:
            case "{json}":
                words.append(json.dumps(named, ensure_ascii=False))
            case "{scope}":
                words.append(change.scope)
            case "{command}":
                # What follows is the server's, and no option of the host.
                words += [found.command[0], *(["--"] if found.command[1:] else []), *found.command[1:]]
            case "{variables}":
                words += [
                    part for name, value in found.variables.items() for part in (tool.variable, f"{name}={value}")
                ]
            case _:
                words.append(word)
    return words


def run_own_command(command: list[str], machine: Machine) -> str:
    """Run it; return what is wrong, nothing where it said that all is well."""
    try:
        done = subprocess.run(  # noqa: S603 - a program of the PATH, with words of the table and of the person
            command,
            cwd=machine.project,
            env=dict(machine.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {_LIMIT_SECONDS} seconds"
    except OSError as error:
        return error.strerror or "it cannot be started"
    said = " ".join(done.stdout.decode(errors="replace").split())[-_MOST_CHARACTERS:]
    return "" if done.returncode == 0 else said or f"its exit status is {done.returncode}"
