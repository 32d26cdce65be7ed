"""A finding: what was looked at, how it is, and the command or setting that mends it."""

from dataclasses import dataclass
from typing import Final, Literal

Code = Literal[
    "version_not_asked", "version_old",
    "option_wrong", "variable_misspelt", "variable_wrong", "home_missing",
    "saved_value_wrong", "saved_file_unreadable", "saved_file_broken",
    "key_missing", "key_odd", "key_open_to_others", "key_refused", "scope_missing", "balance_unknown", "balance_low",
    "slow", "silent", "clock_wrong", "certificate_refused", "proxy_login_refused", "proxy_in_the_way",
    "name_unknown", "nothing_listens", "unreachable", "other_scheme", "not_lium", "lium_failed",
    "ssh_key_missing", "ssh_key_locked", "ssh_key_unreadable", "ssh_key_is_none", "ssh_key_half",
    "ledger_unusable", "ledger_damaged",
    "limits_none", "limits_shadow", "limits_not_read", "limit_meets_nothing",
    "hosts_not_read", "host_file_is_none", "host_file_unreadable", "host_file_broken",
    "entry_unusable", "entries_several", "entry_off", "entry_of_project", "entries_not_tried",
    "entry_address_wrong", "entry_address_fails", "entry_does_not_start",
    "entry_key_refused", "entry_calls_refused", "entry_other_key", "entry_limits_none",
]  # fmt: skip
"""What is found that is not well, for programs. Each has a cure."""
Level = Literal["ok", "untried", "warning", "broken"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "untried", "warning", "broken")


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is.

    Attributes:
        area: What it belongs to, as a heading.
        level: Whether it is well, was not tried, is worth a look, or keeps the server from working.
        what: How it is, in a sentence; no secret is in it.
        cure: What mends it, or shows how it is; empty where all is well.
        run: A line for a shell that does so; empty where there is none.
        code: What it is, for programs; None where all is well.
    """

    area: str
    level: Level
    what: str
    cure: str = ""
    run: str = ""
    code: Code | None = None


def ok(area: str, what: str) -> Finding:
    """Something that is well."""
    return Finding(area, "ok", what)


def untried(code: Code, area: str, what: str, how: str, run: str = "") -> Finding:
    """Something of which nobody knows how it is, with how to find out."""
    return Finding(area, "untried", what, how, run, code)


def warning(code: Code, area: str, what: str, cure: str, run: str = "") -> Finding:
    """Something that works, and not as well as it could."""
    return Finding(area, "warning", what, cure, run, code)


def broken(code: Code, area: str, what: str, cure: str, run: str = "") -> Finding:
    """Something that keeps the server, or its pods, from working."""
    return Finding(area, "broken", what, cure, run, code)
