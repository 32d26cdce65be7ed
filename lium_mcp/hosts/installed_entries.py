"""Which hosts this machine has, and what their files say of our server."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lium_mcp.hosts.documents import Document, Unreadable
from lium_mcp.hosts.host_entries import InstalledEntry, looks_ours, read_entry
from lium_mcp.hosts.host_facts import ENTRY_NAME, Host, Scope
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS

_MOST_BYTES: Final = 2**24


class ConfigUnusable(Exception):
    """The file of a host cannot be read or changed; the text names it and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What the file of a host says.

    Attributes:
        path: The file, or where it would be.
        entries: The entries for this server, by their names.
        is_odd: Whether something of our name is there that is no entry which the host could use.
        problem: Why the file cannot be read; empty where it can, and where there is none.
    """

    path: Path
    entries: Mapping[str, InstalledEntry] = field(default_factory=dict)
    is_odd: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An entry of ours, and where it stands.

    Attributes:
        name: Its name there.
        path: The file.
    """

    host: Host
    name: str
    path: Path
    scope: Scope
    found: InstalledEntry

    @property
    def title(self) -> str:
        """What a person knows it by."""
        where = "" if self.scope == "user" else ", in this project"
        return f"{self.host.title}{where} ({self.name})"

    @property
    def place(self) -> str:
        """Where a person finds it."""
        return f"{self.name} in {self.path}"


def is_here(host: Host, machine: Machine) -> bool:
    """Whether this machine has the host, as far as its programs and folders tell."""
    if any(machine.find_program(program) for program in host.programs):
        return True
    return any((folder := machine.path(place)) is not None and folder.is_dir() for place in host.folders)


def config_file(host: Host, machine: Machine, scope: Scope) -> Path | None:
    """The file of a host; None where it has none on this platform, or none for projects."""
    places = [path for place in host.places(scope) if (path := machine.path(place)) is not None]
    known = next((path for path in places if path.is_file()), None)
    # A host with several places has its own folder at the one that it uses.
    return known or next((path for path in places if path.parent.is_dir()), places[0] if places else None)


def read_config_file(path: Path, host: Host) -> tuple[bytes | None, Document]:
    """The bytes of a host's file, None where there is none, and what it says.

    Raises:
        ConfigUnusable: it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigUnusable(f"{path}: it is no file; nothing was changed")
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            raise ConfigUnusable(f"{path}: it is larger than any settings of {host.title}; nothing was changed")
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, Document(b"", host.file_format)
    except (OSError, RuntimeError) as error:
        raise ConfigUnusable(f"{path}: it cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        document = Document(data, host.file_format)
    except Unreadable as error:
        raise ConfigUnusable(f"{path}: {error}; mend it first, nothing was changed") from None
    if document.has_comments and not host.reads_comments:
        raise ConfigUnusable(
            f"{path}: it has comments or trailing commas, which {host.title} does not read; mend it first, nothing was "
            "changed"
        )
    return data, document


def read_installed(host: Host, machine: Machine, scope: Scope) -> Installed | None:
    """What the file of a host says of this server; None where it has no such file on this platform."""
    path = config_file(host, machine, scope)
    if path is None:
        return None
    try:
        _, document = read_config_file(path, host)
    except ConfigUnusable as error:
        return Installed(path=path, problem=str(error))
    servers = document.value((host.servers,))
    if servers is not None and not isinstance(servers, list if host.is_list else dict):
        return Installed(path=path, problem=f"{path}: what stands under {host.servers} is no {_kind(host)} of servers")
    named = {}
    if host.is_list and isinstance(servers, list):
        named = {str(entry.get("name")): entry for entry in servers if isinstance(entry, dict)}
    elif isinstance(servers, dict):
        named = servers
    read = {name: entry for name, found in named.items() if (entry := read_entry(host, found)) is not None}
    return Installed(
        path=path,
        entries={name: entry for name, entry in read.items() if looks_ours(name, entry)},
        is_odd=ENTRY_NAME in named and ENTRY_NAME not in read,
    )


def read_hosts(machine: Machine) -> Iterator[tuple[Host, list[tuple[Scope, Installed]]]]:
    """What the files of each host say, each file once: several hosts share one, and the home may be the project too."""
    seen: set[Path] = set()
    for host in HOSTS.values():
        installed = []
        for scope in host.scopes:
            found = read_installed(host, machine, scope)
            if found is not None and (path := Path(os.path.realpath(found.path))) not in seen:
                seen.add(path)
                installed.append((scope, found))
        yield host, installed


def found_entries(host: Host, installed: Iterable[tuple[Scope, Installed]]) -> list[FoundEntry]:
    """The entries of ours in the files of a host."""
    return [
        FoundEntry(host, name, found.path, scope, entry)
        for scope, found in installed
        for name, entry in found.entries.items()
    ]


def entries_in_use(machine: Machine) -> list[FoundEntry]:
    """The entries of ours that hosts use, as far as their files can be read."""
    found: list[FoundEntry] = []
    with suppress(OSError):
        for host, installed in read_hosts(machine):
            found += [entry for entry in found_entries(host, installed) if entry.found.is_on]
    return found


def _kind(host: Host) -> str:
    return "list" if host.is_list else "table"
