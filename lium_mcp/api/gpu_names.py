"""GPU names: the short type inside a full machine name, and what a person's shorthand matches.

The rules are those of the official client, so that `4090`, `rtx pro 6000` and `H100` select the same nodes there
and here; beyond them, a maker's name before the type is left out. Knows nothing of HTTP.
"""

import re
import string
from collections.abc import Iterable

# In this order: "RTX PRO 6000" must be tried before a plain RTX number, and both before the letter families.
_TYPE_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"(RTX)\s*(PRO)\s*(\d{4}D?)", r"(RTX)\s*(\d{4})", r"([HBL]\d{2,3}S?)", r"(A\d{2,4})")
)
_ALIASES = {
    "PRO6000": "RTXPRO6000",
    "RTX6000PRO": "RTXPRO6000",
    "6000PRO": "RTXPRO6000",
    "PRO6000D": "RTXPRO6000D",
}
_MAKERS = re.compile(r"(?:(?:NVIDIA|GEFORCE|AMD)[\s_-]+)+", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s_-]+")


def holds_model_number(machine_name: str) -> bool:
    """Tell whether a machine name holds a model number of a family we know."""
    return any(pattern.search(machine_name) for pattern in _TYPE_PATTERNS)


def short_gpu_type(machine_name: str) -> str:
    """Return the short type of a full name: `NVIDIA GeForce RTX 4090` is `RTX4090`."""
    for pattern in _TYPE_PATTERNS:
        if match := pattern.search(machine_name):
            return "".join(match.groups()).upper()
    words = machine_name.split()
    return words[-1] if words else "Unknown"


def normalize_gpu_name(text: str) -> str:
    """Return a person's spelling in the form that names are compared in."""
    key = _SEPARATORS.sub("", text).upper()
    return _ALIASES.get(key, key)


def gpu_type_matches(wanted: str, gpu_type: str) -> bool:
    """Tell whether a person's shorthand names a short type.

    A bare number names a whole trailing model number: `100` is `H100` and `A100`, `90` is nothing.
    """
    wanted, have = normalize_gpu_name(_without_maker(wanted)), normalize_gpu_name(gpu_type)
    if not wanted or not have:
        return False
    return wanted == have or (wanted.isdigit() and wanted == _model_number(have))


def matching_machine_names(wanted: str, machine_names: Iterable[str]) -> list[str]:
    """Return the full names whose short type the shorthand names, in their order."""
    return [name for name in machine_names if gpu_type_matches(wanted, short_gpu_type(name))]


def machine_name_contains(wanted: str, machine_name: str) -> bool:
    """Tell whether `wanted` is a run of two or more whole words of a full machine name.

    One word is left to `gpu_type_matches`: as a substring, `90` would find a 4090.
    """
    needle, words = _words(wanted), _words(machine_name)
    if len(needle) < 2:  # noqa: PLR2004 - "two or more words", as above
        return False
    return any(words[start : start + len(needle)] == needle for start in range(len(words) - len(needle) + 1))


def _without_maker(wanted: str) -> str:
    wanted = wanted.lstrip()
    maker = _MAKERS.match(wanted)
    return wanted[maker.end() :] if maker else wanted


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text.upper()) if word]


def _model_number(gpu_type: str) -> str:
    # Slices, not a pattern: the text may come from the wire at any length and a regex would backtrack.
    stem = gpu_type.rstrip(string.ascii_uppercase)
    return stem[len(stem.rstrip(string.digits)) :]
