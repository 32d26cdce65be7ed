"""Our entry in a host's config: made from what it is to start, and read back from what stands there."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

from lium_mcp.hosts.host_facts import ENTRY_NAME, KEY_HEADER, KEY_VARIABLE, READ_VARIABLES, Host, Part
from lium_mcp.settings_table import SETTINGS

PROGRAM: Final = "lium-mcp"
KEY_TO_FILL_IN: Final = "<your Lium API key>"
"""What stands for the key where a host has no reference to it; the server takes it for no key."""

_REFERENCES: Final = re.compile(
    r"\$\{\{\s*secrets\.(\w+)\s*\}\}|\$\{env:(\w+)\}|\{env:(\w+)\}|\$\{(\w+)(?::-[^}]*)?\}|\$(\w+)"
)
_ASKED: Final = "${input:"
"""What begins a reference to what the host asks a person for."""
_SANDBOX: Final = SETTINGS["sandbox"].variable
_FEW: Final = (
    *("PATH", "HOME", "LOGNAME", "SHELL", "TERM", "USER", "LANG", "TMPDIR"),
    *(
        "APPDATA",
        "HOMEDRIVE",
        "HOMEPATH",
        "LOCALAPPDATA",
        "PROCESSOR_ARCHITECTURE",
        "SYSTEMDRIVE",
        "SYSTEMROOT",
        "TEMP",
    ),
    *("USERNAME", "USERPROFILE", "PATHEXT"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the host is to be told.

    Attributes:
        command: The program and its arguments; empty where the server is at an address.
        url: The address.
        variables: What the program needs in its environment, such as limits.
        needs_key: Whether it needs a key of Lium at all.
        key_saved: Whether one is saved on this machine, where the program finds it by itself.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    needs_key: bool = True
    key_saved: bool = False

    def asks_key(self, host: Host) -> bool:
        """Whether the entry makes the host ask a person for the key."""
        return host.asks_key and self.needs_key and bool(self.url or not self.key_saved)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledEntry:
    """What an entry that is there says.

    Attributes:
        command: The program and its arguments; empty where it names an address.
        url: The address; empty where it starts a program.
        variables: The environment that it sets, with references as they are written.
        forwarded: Variables that the host passes on.
        headers: What is sent to the address, with references as they are written.
        is_on: Whether the host uses it; people switch entries off there.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    forwarded: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    is_on: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it starts this server, as far as its words tell; an address may be any server's."""
        return bool(self.url) or any(names_us(word) for word in self.command)

    @property
    def asks_person(self) -> bool:
        """Whether the host asks a person for something of it."""
        return any(_ASKED in value for value in (*self.variables.values(), *self.headers.values()))

    def sent_headers(self, variables: Mapping[str, str]) -> dict[str, str]:
        """What the host sends to the address, where its environment is `variables`.

        A header that refers to what is not set, or to what a person is asked for, stays out.
        """
        sent = {}
        for name, value in self.headers.items():
            if _ASKED not in value and all(_meant(found) in variables for found in _REFERENCES.finditer(value)):
                sent[name] = _REFERENCES.sub(lambda found: variables[_meant(found)], value)
        return sent

    def environment(
        self, host: Host, variables: Mapping[str, str], *, withheld: Collection[str] = ()
    ) -> dict[str, str]:
        """The environment that the host starts the program with, where its own is `variables`.

        A reference to what is not set stays out: it is empty or unfilled, which the server takes for nothing.

        Args:
            host: Whose entry it is.
            variables: The environment of the host.
            withheld: What of that is not passed on, unless the entry itself refers to it.
        """
        names = variables.keys() if host.passes_all else {*_FEW, *self.forwarded}
        passed = {name: variables[name] for name in names if name in variables and name not in withheld}
        for name, value in self.variables.items():
            if reference := _REFERENCES.fullmatch(value):
                meant = _meant(reference)
                if meant in variables:
                    passed[name] = variables[meant]
                elif name != meant:
                    passed.pop(name, None)
            elif _ASKED in value:
                passed.pop(name, None)
            else:
                passed[name] = value
        return passed


def is_filled_in(text: str) -> bool:
    """Whether a host fills in a part of a text: a variable of its own, or what it asks a person for."""
    return _ASKED in text or _REFERENCES.search(text) is not None


def _meant(reference: re.Match[str]) -> str:
    """The variable that a reference names."""
    name: str = next(filter(None, reference.groups()))
    return name


def make_entry(host: Host, wish: Wish) -> dict[str, Any]:
    """Make an entry.

    Raises:
        ValueError: the host knows no entry with an address.
    """
    if wish.url:
        if not host.http:
            raise ValueError(f"{host.title} takes no address from its file")
        headers = {KEY_HEADER: host.http_key or KEY_TO_FILL_IN} if wish.needs_key else {}
        parts = {
            Part.URL: wish.url,
            Part.HEADERS: headers,
            Part.HEADER_VARIABLES: {KEY_HEADER: KEY_VARIABLE} if wish.needs_key else {},
            Part.FORWARDED: [KEY_VARIABLE] if wish.needs_key else [],
        }
        return dict(_filled(host.http, parts))
    program, *arguments = wish.command
    has_reference = host.stdio_key and wish.needs_key and (wish.asks_key(host) or not host.asks_key)
    key = {KEY_VARIABLE: host.stdio_key} if has_reference else {}
    parts = {
        Part.COMMAND: program,
        Part.ARGUMENTS: arguments,
        Part.COMMAND_LINE: list(wish.command),
        Part.VARIABLES: key | dict(wish.variables),
        Part.FORWARDED: [name for name in READ_VARIABLES if wish.needs_key or name != KEY_VARIABLE],
    }
    return dict(_filled(host.stdio, parts))


def read_entry(host: Host, entry: object) -> InstalledEntry | None:
    """Read an entry; None where it is none that the host could use."""
    if not isinstance(entry, dict):
        return None
    # What the official clients write into the same files may be one level deeper.
    flat = entry | entry["transport"] if isinstance(entry.get("transport"), dict) else entry
    is_on = flat.get("disabled") is not True and flat.get("enabled") is not False
    found = dict(_found(host.http, flat))
    if isinstance(found.get(Part.URL) or flat.get("url"), str):
        of_variables = _texts(found.get(Part.HEADER_VARIABLES))
        headers = _texts(found.get(Part.HEADERS)) | {name: f"${{{value}}}" for name, value in of_variables.items()}
        return InstalledEntry(url=found.get(Part.URL) or flat["url"], headers=headers, is_on=is_on)
    found = dict(_found(host.stdio, flat))
    arguments, forwarded = found.get(Part.ARGUMENTS) or [], found.get(Part.FORWARDED) or []
    if not isinstance(arguments, list) or not isinstance(forwarded, list):
        return None
    command = found.get(Part.COMMAND_LINE) or [found.get(Part.COMMAND), *arguments]
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command) or not command:
        return None
    return InstalledEntry(
        command=tuple(command),
        variables=_texts(found.get(Part.VARIABLES)),
        forwarded=tuple(name for name in forwarded if isinstance(name, str)),
        is_on=is_on,
    )


def merged(host: Host, there: object, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry over the one that is there, which keeps what a person added: variables, headers, settings of the host.

    Where another program is started there, or the server is reached in another way, nothing of it is kept.
    """
    before = read_entry(host, there)
    now = read_entry(host, entry)
    if (
        before is None
        or now is None
        or not isinstance(there, dict)
        or not before.is_ours
        or bool(before.url) != bool(now.url)
    ):
        return entry
    kept = {name: _without_sandbox(value, name, host) for name, value in there.items() if name != "transport"}
    return kept | {name: _over(kept.get(name), value, name, host) for name, value in entry.items()}


def _without_sandbox(there: object, name: str, host: Host) -> object:
    """Variables without the one that makes Lium a simulated one: each call chooses that anew, by an option."""
    if not isinstance(there, dict) or Part.VARIABLES not in _parts_at(host, name):
        return there
    return {variable: text for variable, text in there.items() if str(variable).upper() != _SANDBOX}


def _over(there: object, value: object, name: str, host: Host) -> object:
    if isinstance(there, dict) and isinstance(value, dict):
        # A key that a person has put in the place of a reference stays.
        return value | there | {key: text for key, text in value.items() if key not in (KEY_VARIABLE, KEY_HEADER)}
    is_own = any(part in (Part.COMMAND, Part.ARGUMENTS, Part.COMMAND_LINE, Part.URL) for part in _parts_at(host, name))
    return value if is_own or there is None else there


def _parts_at(host: Host, name: str) -> list[object]:
    return [shape.get(name) for shape in (host.stdio, host.http)]


def _filled(shape: Mapping[str, Any], parts: Mapping[Part, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in shape.items():
        if isinstance(value, Part):
            # Hosts want the list of arguments, be it empty; the rest is left out where it says nothing.
            if parts.get(value) or value is Part.ARGUMENTS:
                yield name, parts[value]
        elif isinstance(value, dict):
            if inner := dict(_filled(value, parts)):
                yield name, inner
        else:
            yield name, value.copy() if isinstance(value, list) else value


def _found(shape: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[tuple[Part, Any]]:
    for name, value in shape.items():
        there = entry.get(name)
        if isinstance(value, Part):
            yield value, there
        elif isinstance(value, dict) and isinstance(there, dict):
            yield from _found(value, there)


def _texts(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}


def names_us(word: str) -> bool:
    """Whether a word of a command is our program, by whatever path."""
    names = {PurePosixPath(word).name, PureWindowsPath(word).name}
    return bool(names & {PROGRAM, f"{PROGRAM}.exe", "lium_mcp"})


def looks_ours(name: str, entry: InstalledEntry) -> bool:
    """Whether an entry of this name is for this server: by its words, or by its name where they at least mention it."""
    if entry.url:
        return name == ENTRY_NAME
    if entry.is_ours:
        return True
    return name == ENTRY_NAME and any(ours in word for word in entry.command for ours in (PROGRAM, "lium_mcp"))
