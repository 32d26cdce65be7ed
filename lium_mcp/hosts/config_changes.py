"""What installing or uninstalling would change in a host's file, and the change itself.

A change is planned, shown, and then made: the file as it was is kept beside it, and a new one takes its place at once,
with the same mode, behind links, and only where nobody has changed it meanwhile.
"""

import difflib
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from lium_mcp import own_files
from lium_mcp.hosts.before_install import Origin, keep, read_origin
from lium_mcp.hosts.documents import GONE, Document, Edit, Unreadable
from lium_mcp.hosts.entry_settings import with_kept_options
from lium_mcp.hosts.host_entries import (
    InstalledEntry,
    Wish,
    looks_ours,
    make_entry,
    merged,
    read_entry,
)
from lium_mcp.hosts.host_facts import ENTRY_NAME, Host, Item, Scope, Steps
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.installed_entries import ConfigUnusable, config_file, read_config_file

_SHARED: Final = 0o644
_CHANGED: Final = "another program has changed it meanwhile; nothing was changed"
_HARMLESS: Final = r"""(?:[${<]|[A-Z][A-Z_]+["'])"""
"""What begins a reference, what is to be filled in, or the name of a variable."""
_WORD: Final = r"""(?i:true|false|null|none|yes|no|on|off|~)(?:[\s,\]}]|$)"""
"""A word of the format: it may say that something is a password, and is none."""
_SECRET: Final = re.compile(
    r"""\$\{[^}]*\}|((?i:key|token|secret|passw|auth)[\w-]*["']?\s*[:=,]\s*(\[\s*)?)"""
    rf"""(?(2)(?!["']?{_HARMLESS})[^\]]+|"""
    rf"""(?:"(?!{_HARMLESS})[^"]+"|'(?!{_HARMLESS})[^']+'|(?!{_HARMLESS}|{_WORD})[^\s"',\[\]{{}}]+))"""
)
"""What follows a name of that kind, a whole list of it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a host's file.

    Attributes:
        host: Whose file.
        scope: For the person, or for the project.
        path: The file.
        before: It as it is; None where there is none.
        after: It as it would be; None where it would go, or where a person has to change it.
        entry: Our entry as it would be; None where it would go.
        there: Our entry as it is; None where there is none.
        by_hand: What a person has to put there, and where; empty where it can be written.
    """

    host: Host
    scope: Scope
    path: Path
    before: bytes | None
    after: bytes | None
    entry: Mapping[str, Any] | None
    there: InstalledEntry | None
    by_hand: str = ""

    @property
    def is_nothing(self) -> bool:
        """Whether all is as wanted."""
        return self.before == self.after and not self.by_hand

    def diff(self) -> list[str]:
        """The change as lines, in which what looks like another program's secret is not shown."""
        old, new = ((data or b"").decode(errors="replace").splitlines() for data in (self.before, self.after))
        lines = difflib.unified_diff(old, new, str(self.path), str(self.path), lineterm="", n=1)
        return [_SECRET.sub(lambda found: f"{found[1]}(not shown)" if found[1] else found[0], line) for line in lines]

    def make(self) -> Path | None:
        """Make it; return where the file as it was is kept, None where there was none.

        Raises:
            ConfigUnusable: it cannot be made.
        """
        with _telling(self.path):
            return _make(self)

    def keep(self) -> Path | None:
        """Keep the file as it is beside itself; None where there is none.

        Raises:
            ConfigUnusable: it is another one meanwhile, or cannot be kept.
        """
        with _telling(self.path):
            target, found = _unchanged(self)
            return None if found.stamp is None else keep(target, found, self.host)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Name the file that the system does not let be written.

    Raises:
        ConfigUnusable: it does not.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "its links lead nowhere"
        raise ConfigUnusable(f"{path}: it cannot be written: {reason}") from None


def plan_install(host: Host, machine: Machine, scope: Scope, wish: Wish) -> Change:
    """Plan what makes the host know this server.

    Raises:
        ConfigUnusable: the host has no such file here, or it cannot be read or changed.
    """
    path = _file(host, machine, scope)
    before, document = read_config_file(path, host)
    there = document.value(host.entry_path())
    found = read_entry(host, there)
    if there is not None and (found is None or not looks_ours(ENTRY_NAME, found)):
        raise ConfigUnusable(
            f"{path}: an entry named {ENTRY_NAME} is there, and starts something else; give that another name first"
        )
    try:
        entry = merged(host, there, make_entry(host, _by_the_same_name(with_kept_options(wish, found), found)))
    except ValueError as error:
        raise ConfigUnusable(f"{error}, and is told of one in the app") from None
    edits = [Edit((name,), value) for name, value in host.beside.items() if document.value((name,)) is None]
    if wish.asks_key(host):
        inputs = {("inputs", Item("id", item["id"])): dict(item) for item in host.inputs}
        edits += [Edit(steps, item) for steps, item in inputs.items() if document.value(steps) is None]
    edits += _differences(host.entry_path(), there, entry)
    return _planned(host, scope, path, before, document, edits, entry, found)


def _by_the_same_name(wish: Wish, there: InstalledEntry | None) -> Wish:
    """The wish with the name that the entry has for the same program, which may have several."""
    if there is None or not there.command or not wish.command:
        return wish
    name, *_ = there.command
    program, *arguments = wish.command
    is_same = os.path.realpath(name) == os.path.realpath(program)
    return replace(wish, command=(name, *arguments)) if is_same else wish


def plan_uninstall(host: Host, machine: Machine, scope: Scope, *, is_taken_out: bool = False) -> Change:
    """Plan what takes our entry away, with what came into the file with it, and nothing else.

    Args:
        host: Whose file.
        machine: Where the host is.
        scope: For the person, or for the project.
        is_taken_out: Whether the host's own command has taken the entry out just now, and may have left the rest.

    Raises:
        ConfigUnusable: as above, or the entry of our name is for another server.
    """
    path = _file(host, machine, scope)
    before, document = read_config_file(path, host)
    there = document.value(host.entry_path())
    if there is None and not is_taken_out:
        return Change(host=host, scope=scope, path=path, before=before, after=before, entry=None, there=None)
    found = read_entry(host, there)
    if there is not None and (found is None or not looks_ours(ENTRY_NAME, found)):
        raise ConfigUnusable(
            f"{path}: the entry of that name does not start lium-mcp; take it away by hand if it is to go"
        )
    with _telling(path):
        origin = read_origin(path.resolve(), host)
    edits = [*_taking_out(host, document, origin.document)]
    change = _planned(host, scope, path, before, document, edits, None, found)
    if change.by_hand or change.after is None or before is None:
        return change
    if there is not None and _is_as_installed(host, document, origin, before):
        return replace(change, after=origin.data)
    is_empty = change.after.removeprefix(BOM_UTF8).strip() in (b"", b"{}")
    return replace(change, after=None) if is_empty and origin.data is None else change


def _file(host: Host, machine: Machine, scope: Scope) -> Path:
    path = config_file(host, machine, scope)
    if path is None and scope not in host.scopes:
        raise ConfigUnusable(f"{host.title} has no file for the servers of a project; leave --scope out")
    if path is None:
        raise ConfigUnusable(f"{host.title} has no file of servers on {machine.platform}")
    return path


def _planned(
    host: Host,
    scope: Scope,
    path: Path,
    before: bytes | None,
    document: Document,
    edits: list[Edit],
    entry: Mapping[str, Any] | None,
    there: InstalledEntry | None,
) -> Change:
    after, by_hand = before, ""
    if edits and document.has_comments:
        after, by_hand = None, _by_hand(host, edits, entry)
    elif edits:
        try:
            after = document.edited(edits)
        except (Unreadable, TypeError, KeyError, AttributeError) as error:
            raise ConfigUnusable(
                f"{path}: {error if isinstance(error, Unreadable) else 'it is not built as expected'}; "
                "nothing was changed"
            ) from None
    return Change(
        host=host, scope=scope, path=path, before=before, after=after, entry=entry, there=there, by_hand=by_hand
    )


def _differences(steps: Steps, there: object, wanted: object) -> Iterator[Edit]:
    if isinstance(there, dict) and isinstance(wanted, dict):
        yield from (Edit((*steps, name), GONE) for name in there if name not in wanted)
        for name, value in wanted.items():
            yield from _differences((*steps, name), there.get(name), value)
    elif there != wanted:
        yield Edit(steps, wanted)


def _by_hand(host: Host, edits: list[Edit], entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "\n".join(f"take away {'.'.join(map(_said, edit.steps))}" for edit in edits)
    whole = Document(b"", host.file_format)
    others = [edit for edit in edits if edit.steps[: len(host.entry_path())] != host.entry_path()]
    return whole.edited([*others, Edit(host.entry_path(), dict(entry))]).decode().rstrip()


def _said(step: object) -> str:
    return step.value if isinstance(step, Item) else str(step)


def _taking_out(host: Host, document: Document, origin: Document) -> Iterator[Edit]:
    """What takes our entry out, and what came with it: what `origin` does not have, and nobody has changed or uses."""
    servers = document.value((host.servers,))
    others = [entry for entry in _entries(servers) if entry is not document.value(host.entry_path())]
    # Where a person has to do it, they are told of what has our name.
    by_hand = document.has_comments
    if servers is not None and not others and not by_hand and origin.value((host.servers,)) is None:
        yield Edit((host.servers,), GONE)
    elif document.value(host.entry_path()) is not None:
        yield Edit(host.entry_path(), GONE)
    if not (host.is_list and others):
        beside = {name: value for name, value in host.beside.items() if origin.value((name,)) is None}
        yield from (Edit((name,), GONE) for name, value in beside.items() if document.value((name,)) == value)
    unused = [*_unused_inputs(host, document, origin, str(others))]
    inputs = document.value(("inputs",))
    if unused and not by_hand and len(unused) == len(inputs) and origin.value(("inputs",)) is None:
        yield Edit(("inputs",), GONE)
    else:
        yield from (Edit(steps, GONE) for steps in unused)


def _entries(servers: object) -> list[object]:
    return list(servers.values()) if isinstance(servers, dict) else servers if isinstance(servers, list) else []


def _unused_inputs(host: Host, document: Document, origin: Document, others: str) -> Iterator[Steps]:
    for item in host.inputs:
        steps = ("inputs", Item("id", item["id"]))
        is_ours = document.value(steps) == item and origin.value(steps) is None
        if is_ours and f"${{input:{item['id']}}}" not in others:
            yield steps


def _is_as_installed(host: Host, document: Document, origin: Origin, before: bytes) -> bool:
    """Whether a file is still, byte for byte, what an install makes of the one that there was."""
    came_along: dict[Steps, Any] = {(name,): value for name, value in host.beside.items()}
    came_along |= {("inputs", Item("id", item["id"])): dict(item) for item in host.inputs}
    edits = [
        Edit(steps, value)
        for steps, value in came_along.items()
        if document.value(steps) is not None and origin.document.value(steps) is None
    ]
    edits.append(Edit(host.entry_path(), document.value(host.entry_path())))
    try:
        return origin.document.edited(edits) == before
    except (Unreadable, TypeError, KeyError, AttributeError):
        return False


def _make(change: Change) -> Path | None:
    target, found = _unchanged(change)
    if found.stamp is not None and not os.access(target, os.W_OK):
        raise ConfigUnusable(f"{change.path}: it is write-protected; nothing was changed")
    backup = None if found.stamp is None else keep(target, found, change.host)
    if change.after is None:
        target.unlink()
        return backup
    # What a project has is for all who work on it.
    mode = _SHARED if found.stamp is None and change.scope == "project" else found.mode
    if not own_files.replace(target, change.after, replace(found, mode=mode)):
        if backup is not None:
            backup.unlink()
        raise ConfigUnusable(f"{change.path}: {_CHANGED}")
    return backup


def _unchanged(change: Change) -> tuple[Path, own_files.Content]:
    """The file itself, behind links, as it was when the change was planned.

    Raises:
        ConfigUnusable: it is another one now.
    """
    target = change.path.resolve()
    found = own_files.read(target)
    if (None if found.stamp is None else found.data) != change.before:
        raise ConfigUnusable(f"{change.path}: {_CHANGED}")
    return target, found
