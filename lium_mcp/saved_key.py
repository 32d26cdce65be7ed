"""Saves a key where the official client keeps its own, and removes it: one line of a file that is a person's.

All else in the file stays as it is, comments too. A new content takes the place of the old one at once, readable by its
owner alone, and never that of a content which was not read before. What others could have put there is not written to.
"""

import os
import re
import stat
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path
from typing import Final

from lium_mcp import own_files
from lium_mcp.official_config import config_path, read_config
from lium_mcp.values import SettingsError, cleaned_key, decoded

# No such key has what an INI file, or an interpolation in one, could read in another way.
_KEY: Final = re.compile(r"[A-Za-z0-9_.~+/=-]{4,512}")
_HEADER: Final = re.compile(r"\[(?P<name>.+)\]")
_OPTION: Final = re.compile(r"api_key\s*[=:]", re.IGNORECASE)
_SECTION: Final = "api"
_MOST_TRIES: Final = 3
_PRIVATE: Final = 0o600


class OtherKeySaved(SettingsError):
    """Another key is saved there than the one that may be replaced."""


def save_key(key: str, *, replaces: str | None) -> Path | None:
    """Save a key, and keep the file as it was beside it where a key is replaced.

    Args:
        key: The key.
        replaces: The key that may be replaced, as the file has it; None where none may be.

    Returns:
        Where the file as it was is kept; None where no key was replaced.

    Raises:
        OtherKeySaved: another key is saved there; it stays.
        SettingsError: it cannot be saved.
    """
    if not _KEY.fullmatch(key):
        raise SettingsError(f"{config_path()}: what Lium gave as a key cannot be one, so it was not saved")
    return _change(key, replaces)[1]


def remove_key() -> bool:
    """Remove the saved key, and nothing else.

    Returns:
        Whether there was one.

    Raises:
        SettingsError: it cannot be removed.
    """
    return config_path().exists() and _change(None, None)[0]


def _change(key: str | None, replaces: str | None) -> tuple[bool, Path | None]:
    """Write the key, or none; return whether something stood there, and where it is kept if it was another key."""
    try:
        for _ in range(_MOST_TRIES):
            target = _own_target()
            before = own_files.read(target)
            content = before.data
            config = read_config(content)
            was_there = config.has_section(_SECTION) and config.has_option(_SECTION, "api_key")
            saved = cleaned_key(config.get(_SECTION, "api_key", fallback=""))
            if key is None and not was_there:
                return False, None
            if key is None and "api_key" in config.defaults():
                raise SettingsError(_of_all_sections(content))
            if key is not None and saved and saved not in (key, replaces):
                raise OtherKeySaved(f"{config_path()}: another key is saved there")
            backup = own_files.keep(target, before) if key is not None and saved and saved != key else None
            # A file with a key is for its owner alone, whatever it was.
            if own_files.replace(target, _with_key(content, key), replace(before, mode=_PRIVATE)):
                own_files.forget_older(target)
                return was_there, backup
            if backup is not None:
                backup.unlink()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "its links lead nowhere"
        raise SettingsError(f"{config_path()}: it cannot be written: {reason}") from None
    raise SettingsError(f"{config_path()}: another program keeps changing it; nothing was changed")


def _of_all_sections(content: bytes) -> str:
    lines = decoded(content).splitlines()
    header = next((at for at, line in enumerate(lines) if line.strip() == "[DEFAULT]"), len(lines))
    number = next((at for at, line in enumerate(lines, 1) if at > header and _OPTION.match(line.strip())), 0)
    return (
        f"{config_path()}: api_key stands under [DEFAULT] (line {number}), and so for all sections; nothing was "
        "changed: take that line out in an editor, and log out again"
    )


def _own_target() -> Path:
    """The file to write, behind links, in a folder that is the user's own and closed to others."""
    path = config_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder, target = path.parent.resolve(), path.resolve()
    for place in (folder, target.parent, target):
        if not place.exists():
            continue
        found = place.stat()
        if not hasattr(os, "getuid"):
            continue  # elsewhere a home is closed to others by itself, and modes say nothing
        if found.st_uid != os.getuid():
            raise SettingsError(f"{place}: it belongs to another user, so no key is written there")
        if found.st_mode & stat.S_IWOTH:
            raise SettingsError(f"{place}: every user of this machine can change it, so no key is written there")
    if target.exists() and not target.is_file():
        raise SettingsError(f"{target}: it is no file")
    if not path.parent.is_symlink():  # what a link leads to may hold other things too
        folder.chmod(0o700)
    return target


def _with_key(content: bytes, key: str | None) -> bytes:
    """The file with this key, or with none, and with every other line as it was.

    Raises:
        SettingsError: that would change something else too.
    """
    text = decoded(content)
    changed = _edited(text, key).encode()
    before, after = _values(read_config(content)), _values(read_config(changed))
    of_api = before.setdefault(_SECTION, {}) if key is not None else before.get(_SECTION, {})
    of_api.pop("api_key", None)
    if key is not None:
        of_api["api_key"] = key
    if before != after:
        raise SettingsError(
            f"{config_path()}: the line api_key under [{_SECTION}] cannot be changed without changing others too; "
            "change it by hand"
        )
    return changed


def _values(config: ConfigParser) -> dict[str, dict[str, str]]:
    return {name: dict(config.items(name)) for name in config.sections()}


def _edited(text: str, key: str | None) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    new = [] if key is None else [f"api_key = {key}{end}"]
    header = next((at for at, line in enumerate(lines) if _names_section(line)), None)
    if header is None:
        if not new:
            return text
        gap = end if lines and lines[-1].strip() else ""
        return "".join([_ended(text, end), gap, f"[{_SECTION}]{end}", *new])
    lines[header] = _ended(lines[header], end)
    following = range(header + 1, len(lines))
    close = next((at for at in following if _HEADER.match(lines[at].strip())), len(lines))
    first = next((at for at in range(header + 1, close) if _OPTION.match(lines[at].strip())), None)
    if first is None:
        return "".join([*lines[: header + 1], *new, *lines[header + 1 :]])
    last = first + 1
    # A value goes on in lines that are further in.
    while last < close and lines[last].strip() and _indent(lines[last]) > _indent(lines[first]):
        last += 1
    return "".join([*lines[:first], *new, *lines[last:]])


def _names_section(line: str) -> bool:
    found = _HEADER.match(line.strip())
    return found is not None and found["name"] == _SECTION


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _ended(text: str, end: str) -> str:
    return text if not text or text.endswith(("\n", "\r")) else f"{text}{end}"
