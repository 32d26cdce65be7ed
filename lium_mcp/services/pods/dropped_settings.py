"""The settings of a template that Lium's newer nodes drop without a word: the container starts without them.

One list for whoever makes, changes, switches to or rents with a template. What is advised in place of a setting works
on older nodes too. No value of a variable and no text of a command is repeated, since they may hold secrets.
"""

import re
import shlex
from collections.abc import Collection, Mapping
from itertools import pairwise
from posixpath import basename, normpath
from typing import Final

from lium_mcp.api.templates import Template, TemplateChanges, TemplateCreate
from lium_mcp.failures import Failure

MOST_PORTS: Final = 200
SSH_PORT: Final = 22

_DROPPED_VARIABLE: Final = re.compile(r"PATH|LD_.*|PYTHONPATH|NODE_PATH|RUBYLIB|PERL5LIB", re.DOTALL)
_SYSTEM_PATHS: Final = ("/etc", "/proc", "/sys", "/dev", "/bin", "/sbin")
# Lium may put files of its own there.
_RESERVED_PATH: Final = "/run/lium"
_SHARED_MEMORY: Final = re.compile(r"\d+[kmg]", re.IGNORECASE)

_QUOTED: Final = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_OPERATOR: Final = re.compile(r"[|&;<>()\n]|(?<!\S)~(?=[/\s]|$)|(?<!\S)#")
_EXPANSION: Final = re.compile(r"\$[A-Za-z_0-9{(?@*!#$]|`")
_OF_SHELLS_ONLY: Final = re.compile(
    r"cd|export|source|\.|alias|set|exec|eval|trap|ulimit|umask|[A-Za-z_]\w*=.*", re.DOTALL
)
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ash"})
_RUNS_A_SCRIPT: Final = re.compile(r"-[A-Za-z]*c")


def dropped_settings(settings: Template | TemplateCreate | TemplateChanges) -> list[str]:
    """Say which of these settings Lium would drop, each with what to do instead."""
    shared_memory = settings.shm_size if isinstance(settings, Template) else None
    found = (
        *_of_ports(settings.internal_ports or ()),
        *_of_volumes(settings.volumes or ()),
        *_of_environment(settings.environment or {}),
        _of_startup(settings.startup_commands or ""),
        _of_entrypoint(settings.entrypoint or ""),
        f"Newer nodes ignore a shm_size that is not digits and k, m or g, as {shared_memory[:20]} is."
        if shared_memory and not _SHARED_MEMORY.fullmatch(shared_memory)
        else None,
    )
    return [sentence for sentence in found if sentence is not None]


def refuse_dropped_settings(settings: TemplateCreate | TemplateChanges) -> None:
    """Refuse settings of which Lium would drop something.

    Raises:
        Failure: it would.
    """
    if sentences := dropped_settings(settings):
        raise Failure("invalid_argument", " ".join(sentences), "Correct it and call again.")


def _of_ports(ports: Collection[int]) -> list[str]:
    count = len({SSH_PORT, *ports})
    return [f"A node opens at most {MOST_PORTS} ports, not {count}: name fewer."] if count > MOST_PORTS else []


def _of_volumes(paths: Collection[str]) -> list[str]:
    first, *others = [path[:100] for path in paths] or [""]
    sentences = []
    if others:
        sentences.append(
            f"Newer nodes mount one volume, {first}, and not {', '.join(others)[:200]}: use directories in it."
        )
    if not first:
        return sentences
    plain = normpath(first)
    system = next((name for name in _SYSTEM_PATHS if name in plain), None)
    if not first.startswith("/") or ".." in first.split("/") or not plain.strip("/"):
        sentences.append(f"volume_path {first} is not a plain absolute path: take one like /workspace.")
    elif system is not None:
        sentences.append(f"Newer nodes mount it at /root if volume_path has {system} in it: take one like /workspace.")
    elif f"{plain}/".startswith(f"{_RESERVED_PATH}/") or f"{_RESERVED_PATH}/".startswith(f"{plain}/"):
        sentences.append(f"Lium puts files of its own into {_RESERVED_PATH}: take a volume_path like /workspace.")
    return sentences


def _of_environment(variables: Mapping[str, str]) -> list[str]:
    empty = sorted(name for name, value in variables.items() if not value.strip())
    paths = sorted(name for name in variables if _DROPPED_VARIABLE.fullmatch(name))
    sentences = []
    if nameless := [name for name in variables if not name.strip()]:
        sentences.append(f"{len(nameless)} variable of environment has no name.")
    if paths:
        sentences.append(
            f"Newer nodes drop {', '.join(paths)[:200]} from environment: set it in the image, or begin "
            "startup_commands with env NAME=value."
        )
    if empty := [name for name in empty if name.strip() and name not in paths]:
        sentences.append(
            f"Newer nodes drop what is without a value in environment: leave out {', '.join(empty)[:200]}."
        )
    return sentences


def _of_startup(text: str) -> str | None:
    text = text.strip()
    words = _split(text)
    if words is None:
        return "startup_commands has a quote that does not end, and newer nodes drop all of it then: close the quote."
    syntax = _shell_syntax(text, words)
    if syntax is None:
        return None
    return (
        f"Newer nodes split startup_commands into words and use no shell, so {syntax} would do nothing: write "
        "bash -c '...' around it."
    )


def _of_entrypoint(text: str) -> str | None:
    words = _split(text)
    if words is None:
        return "entrypoint has a quote that does not end: close the quote."
    if len(words) > 1:
        return "Newer nodes keep the first word of entrypoint only: put its arguments into startup_commands."
    return None


def _split(text: str) -> list[str] | None:
    try:
        return shlex.split(text)
    except ValueError:
        return None


def _shell_syntax(text: str, words: list[str]) -> str | None:
    """Name what only a shell would understand of a command, outside quotes and outside a script given to a shell."""
    if operator := _OPERATOR.search(_QUOTED.sub("_", text)):
        return "a line break" if operator[0] == "\n" else f"its {operator[0]}"
    if words and _OF_SHELLS_ONLY.fullmatch(words[0]):
        return "its first word, which is for shells only,"
    if any(basename(word) in _SHELLS and _RUNS_A_SCRIPT.fullmatch(after) for word, after in pairwise(words)):
        return None
    # In double quotes a shell would still put values in.
    expanded = _QUOTED.sub(lambda quoted: quoted[0].replace("\\$", "") if quoted[0].startswith('"') else "_", text)
    return f"its {expansion[0][0]}" if (expansion := _EXPANSION.search(expanded)) else None
