"""What an entry of ours sets of the settings of its server: by the options on its command line, and by its variables.

Nothing is started for it, so it is what stands there: what a host passes on besides, nobody knows before it does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import Final

from lium_mcp.guard.limits import Limits, PolicyFileError, read_policy_file
from lium_mcp.hosts.host_entries import InstalledEntry, Wish, names_us
from lium_mcp.settings_table import LIMITS, SETTINGS, TRUE
from lium_mcp.values import expanded

_SETTING_OF: Final = {setting.variable: name for name, setting in SETTINGS.items()}


def settings_of(entry: InstalledEntry) -> dict[str, str]:
    """The settings of an entry as text, by their names; an option wins over a variable."""
    given = {_SETTING_OF[name.upper()]: text for name, text in entry.variables.items() if name.upper() in _SETTING_OF}
    for name, (option, *values) in _options(entry.command):
        if name in SETTINGS:
            _, _, value = option.partition("=")
            is_flag = SETTINGS[name].kind == "flag"
            given[name] = str(not option.startswith("--no-")).lower() if is_flag else value or " ".join(values)
    return given


def is_simulated(entry: InstalledEntry) -> bool:
    """Whether what it starts has a simulated Lium, and no money to lose."""
    return settings_of(entry).get("sandbox", "").lower() in TRUE


def may_spend_all(entry: InstalledEntry) -> bool:
    """Whether what it starts acts for a real account, and nothing in the entry bounds what that spends."""
    given = settings_of(entry)
    is_bounded = given.get("read_only", "").lower() in TRUE or not given.keys().isdisjoint({*LIMITS, "policy"})
    return not (entry.url or is_bounded or is_simulated(entry))


def limits_of(entry: InstalledEntry) -> Limits | None:
    """The limits that an entry sets; None where nobody knows without asking its server."""
    if entry.url:
        return None
    given = settings_of(entry)
    try:
        limits = Limits.model_validate({name: given[name] for name in LIMITS if name in given})
        return limits.tightened(read_policy_file(expanded(given["policy"]))[0]) if "policy" in given else limits
    except (ValueError, PolicyFileError):
        return None


def options_of(entry: InstalledEntry) -> dict[str, str]:
    """The options on the command line of an entry as they are written, by the names that their settings would have."""
    return {name: words[0].partition("=")[0] for name, words in _options(entry.command) if words[0].startswith("--")}


def with_kept_options(wish: Wish, there: InstalledEntry | None) -> Wish:
    """The wish with the options that an earlier entry of ours has on its command line: they may be limits.

    Those that the wish sets anew are not kept, and neither is `--sandbox`, which each call chooses.
    """
    if there is None or not wish.command:
        return wish
    anew = {_SETTING_OF.get(name) for name in wish.variables} | {"sandbox"}
    kept = [word for name, words in _options(there.command) if name not in anew for word in words]
    return replace(wish, command=(*wish.command, *kept))


def _options(command: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The options behind our program, each with the words of its value, by the names of their settings."""
    # `uvx --from` names it twice.
    behind = dropwhile(names_us, dropwhile(lambda word: not names_us(word), command))
    words: list[str] = []
    for word in (word for word in behind if word != "serve"):
        if word.startswith("--") and words:
            yield _name(words[0]), words
            words = []
        words.append(word)
    if words:
        yield _name(words[0]), words


def _name(option: str) -> str:
    return option.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
