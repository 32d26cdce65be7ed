"""Values as people paste them: blanks, quotes, a byte order mark, placeholders that a host has not filled in.

Variables, files and headers are cleaned here, in one way. No sentence of this file repeats a value: it may be a secret.
"""

import codecs
import ipaddress
import json
import os
import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

KEY_PREFIX: Final = "sk_"
"""What every key of Lium's begins with, as far as anybody knows."""
UNFILLED: Final = "it is a placeholder that nothing has filled in"
# Somebody meant to set something, and a default may allow more than that.
EMPTY: Final = "it is empty; give it a value or leave it out"
NAMES_NOTHING: Final = "it names nothing; name something or leave it out"
_BLANKS: Final = " \t\r\n\v\f\u00a0\u200b\ufeff"
_QUOTES: Final = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")
# Placeholders that hosts fill in, and those that documentation shows where a reader's own value goes.
_BRACED: Final = re.compile(r"\$?\{\{[^{}]*\}\}|\$?\{[^{}]*\}")
_PLACEHOLDER: Final = re.compile(
    rf"{_BRACED.pattern}|\$(env:)?[A-Z_][A-Z0-9_]*|%[A-Z_][A-Z0-9_]*%|<[^<>]*>|\[[^\[\]]*key[^\[\]]*\]", re.IGNORECASE
)
_EXAMPLE: Final = re.compile(
    r"(sk[_-])?((your|insert|paste|replace|enter)([_ -][a-z]+)+|(lium[_ -])?(api[_ -])?key([_ -]here)?|"
    r"change[_ -]?me|to[_ -]?do|x{3,}|\.{3}|\u2026)",
    re.IGNORECASE,
)
_VARIABLE: Final = re.compile(r"\$\{?\w+\}?|%\w+%")
_KEY_TEXT: Final = re.compile(r"-----BEGIN |(ssh|ecdsa|sk)-\S+ +AAAA")
_ASSIGNMENT: Final = re.compile(r"(export |set |\$env:)?\s*[A-Z_-]*key\s*[=:]", re.IGNORECASE)
_IPV6: Final = r"\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]"
# A name with a dot at its end is the same as without.
_HOST: Final = re.compile(rf"([A-Za-z0-9._-]*[A-Za-z0-9_-]|{_IPV6})\.?(?::([0-9]{{1,5}}))?")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")


class NotOfItsKindError(ValueError):
    """A value is not of the kind that a setting takes, or an entry of it is not."""

    def __init__(self, entry: str = "") -> None:
        super().__init__(entry)
        self.entry = entry


class SettingsError(Exception):
    """Settings cannot be used.

    Attributes:
        problems: Each names a setting and what it takes, and repeats no value that may be secret.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def cleaned(text: str) -> str:
    """The value without blanks around it and without one pair of quotes; empty where it is a placeholder."""
    text = _unwrapped(text)
    return "" if _PLACEHOLDER.fullmatch(text) else text


def cleaned_key(text: str) -> str:
    """The same for an API key, for which documentation shows words too, as YOUR_API_KEY."""
    text = cleaned(text)
    return "" if _EXAMPLE.fullmatch(text) else text


def cleaned_password(text: str) -> str:
    """The same for a password, which may be `$ecret` or `<s3cret>`."""
    text = _unwrapped(text)
    return "" if _BRACED.fullmatch(text) else text


def is_placeholder(text: str) -> bool:
    """Whether something stands there, but nothing that was filled in."""
    return bool(_unwrapped(text)) and not cleaned_key(text)


def _unwrapped(text: str) -> str:
    text = text.strip(_BLANKS)
    if text[:1] + text[-1:] in _QUOTES and len(text) > 1:
        text = text[1:-1].strip(_BLANKS)
    return text


def key_problem(text: str) -> str | None:
    """Why a cleaned text cannot be an API key, told by its shape alone; None where it may be one."""
    scheme, _, rest = text.partition(" ")
    if rest and scheme.casefold() == "bearer":
        return "it begins with Bearer: the key alone is needed"
    if _ASSIGNMENT.match(text):
        return "it holds a name before the key: the key alone is needed"
    if any(mark in text for mark in ("\u2026", "...", "***", "\u2022\u2022")):
        return "it is a shortened key, as a page shows it: the whole one is needed"
    if any(char.isspace() for char in text):
        return "it holds a blank or a line break, which no key has"
    if any(mark in text for mark in "\"'\u201c\u201d"):
        return "it holds a quotation mark, which no key has: the key alone is needed"
    if not all("!" <= char <= "~" for char in text):
        return "it holds characters that no key has"
    return None


def key_oddness(text: str) -> str:
    """A sentence on a text that may be a key and does not begin as Lium's do; empty where it does."""
    return "" if text.startswith(KEY_PREFIX) else f"It does not begin with {KEY_PREFIX}, as Lium's keys do."


def home_problem() -> str | None:
    """Why the home folder cannot be used, where keys and settings of all programs are; None where it can."""
    named = os.environ.get("HOME")
    if os.name != "posix" or named is None or named.startswith("/"):
        return None
    return "HOME: it is " + ("empty" if not named else "no whole path") + "; set it to your home folder"


def no_such(name: str, known: Collection[str], *, like: str, kind: str = "setting") -> str:
    """Say that there is no setting, option or the like of a name, and which one was perhaps meant."""
    begun = [longer for longer in known if longer.startswith(like)]
    close = [min(begun, key=len)] if begun else get_close_matches(like, known, n=1)
    return f"{name}: there is no such {kind}" + (f"; {close[0]} is one" if close else "")


def file_problems(
    found: Iterable[Any], keys: Callable[[tuple[int | str, ...]], Collection[str]], words: Callable[[Any], str]
) -> str:
    """Say what is wrong with the keys of a file, each by its place, and which key was perhaps meant.

    Args:
        found: The errors of a pydantic model, with their inputs.
        keys: The keys that there are where one stands.
        words: Says what is wrong with the value of one that there is.
    """
    problems = []
    for item in found:
        place = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            problems.append(no_such(place, keys(item["loc"]), like=str(item["loc"][-1]).lower(), kind="key"))
        else:
            problems.append(f"{place}: {words(item)}")
    return "; ".join(problems)


def decoded(content: bytes, errors: Literal["strict", "replace"] = "strict") -> str:
    """The text of a file that any editor may have written: in UTF-8, or with a byte order mark in UTF-16.

    Raises:
        UnicodeError: it is no text.
    """
    return without_mark(content, errors).decode("utf-8", errors)


def without_mark(content: bytes, errors: Literal["strict", "replace"] = "replace") -> bytes:
    """The content in UTF-8 without a byte order mark; what such a mark says to be UTF-16 is turned into UTF-8.

    Raises:
        UnicodeError: it has that mark and is no UTF-16.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors).encode()
    return content.removeprefix(codecs.BOM_UTF8)


def key_file(text: str) -> Path:
    """The path of a private SSH key, given the path of either half.

    Raises:
        ValueError: it cannot be a path.
    """
    if _KEY_TEXT.match(text):
        raise ValueError("it holds a key, where the path of the private key's file is needed")
    path = expanded(text)
    return path.with_suffix("") if path.suffix == ".pub" else path


def expanded(text: str) -> Path:
    """A path with `~` and variables of the environment filled in.

    Raises:
        ValueError: it names a variable that is not set, or a user that there is not.
    """
    text = os.path.expandvars(text)
    if _VARIABLE.search(text):
        raise ValueError("it names a variable that is not set")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("it names a user whose home directory is not known") from None


def listed(text: str) -> list[str]:
    """The entries of a list that is written with commas or in JSON, without blanks around them and empty ones.

    Raises:
        ValueError: it is neither, or has no entry.
    """
    entries: object = text.split(",")
    if text.startswith("[") and not re.match(_IPV6, text):
        try:
            entries = json.loads(text)
        except ValueError:
            entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError('a list is needed, as A,B or as ["A", "B"]')
    named = [entry.strip() for entry in entries if entry.strip()]
    if not named:
        raise ValueError(NAMES_NOTHING)
    return named


def is_decimal(text: str) -> bool:
    """Whether a text is a number as people write one, in digits alone: `1_0`, `0x10` and `1e1` may be slips."""
    return _DECIMAL.fullmatch(text.strip()) is not None


def as_number(value: object) -> object:
    """A value that is to be a number, for pydantic to read.

    Raises:
        NotOfItsKindError: it is a truth, or a text that is not in plain digits.
    """
    if isinstance(value, bool) or (isinstance(value, str) and not is_decimal(value)):
        raise NotOfItsKindError
    return value


def split_host(name: str) -> tuple[str, str | None]:
    """Split a name under which clients call: the host without a dot at its end, and the port if there is one.

    Raises:
        ValueError: it is no such name.
    """
    found = _HOST.fullmatch(name)
    if found is None:
        raise ValueError("a host name such as gpu.example.com is needed, with a port or none, and nothing else")
    return found[1], found[2]


def is_loopback(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def url_path(text: str) -> str:
    """The path without a slash at its end; empty where nothing is below one.

    Raises:
        ValueError: it is no path.
    """
    prefix = text.rstrip("/")
    if not _PATH.fullmatch(prefix):
        raise ValueError("a path such as /lium is needed")
    return prefix
