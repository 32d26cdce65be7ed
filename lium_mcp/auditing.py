"""The audit trail: which account did what that spends or destroys, by which tool, on what, and what came of it.

A record says that an act began, before anything of it is sent; what was sent, and how that ended; what was rented; and
how the act ended. None holds an argument, a name or a text: ids, codes and figures only. A server starts the trail;
other programs have none.
"""

import json
import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

TRAIL: Final = "lium_mcp.audit"
"""The logger whose records are the trail."""

log = logging.getLogger(TRAIL)

_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MOST: Final = 100
_MOST_ACCOUNTS: Final = 10_000
_BY_ITSELF: Final = "server"


@dataclass(slots=True)
class Act:
    """What is done for one call, or for one task between calls.

    Attributes:
        by: The tool, the kind of task, or `upkeep` of earlier rents.
        task_id: The task, where it is for one.
        id: Stands in all records of the act.
        has_begun: Whether that is recorded.
        confirmed: Whether a person said yes to it.
    """

    by: str
    task_id: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    has_begun: bool = False
    confirmed: bool = False

    def begin(self, key_tag: str | None, arguments: Mapping[str, object] | None = None) -> None:
        """Record that it begins; of the arguments, the ids."""
        if not self.has_begun:
            self.has_begun = True
            self._record("began", key_tag, ids=_ids_in(arguments or {}))

    def sent(self, route: str, ids: Mapping[str, str], outcome: str, key_tag: str | None) -> None:
        """Record a request that changes something: by its method and template, with its status, or `unknown`."""
        self._record("sent", key_tag, route=route, ids=_ids_in(ids), outcome=outcome)

    def rented(self, pod_ids: Iterable[str], key_tag: str | None, **figures: float | None) -> None:
        """Record that pods bill now."""
        self._record("rented", key_tag, ids={"pod_id": list(pod_ids)}, figures=_known(figures))

    def end(self, key_tag: str | None, outcome: str, result: object = None) -> None:
        """Record how it ended: with the ids and the sums of money in its result."""
        ids, figures = _ids_in(result), _sums_in(result)
        self._record("ended", key_tag, outcome=outcome, confirmed=self.confirmed, ids=ids, figures=figures)

    def _record(self, event: str, key_tag: str | None, **values: Any) -> None:  # noqa: ANN401 - any JSON values
        if not _kept:
            return
        account = _accounts.get(key_tag or "")
        about = {"event": event, "act": self.id, "by": self.by, "task_id": self.task_id}
        fields = _known({**about, "account": account, "key_tag": key_tag, **values})
        words = " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in fields.items())
        log.info("%s", words, extra={"fields": fields})


_kept = False
_accounts: dict[str, str] = {}
_act: ContextVar[Act | None] = ContextVar("_act", default=None)


def keep_trail() -> None:
    """Keep the trail from now on, whatever else is logged."""
    global _kept  # noqa: PLW0603 - as the log, it is the process's
    log.setLevel(logging.INFO)
    _kept = True


def note_account(key_tag: str, account: str) -> None:
    """Name the account of a key in records to come."""
    while len(_accounts) >= _MOST_ACCOUNTS:
        del _accounts[next(iter(_accounts))]
    _accounts[key_tag] = account


@contextmanager
def acting(by: str, task_id: str | None = None) -> Iterator[Act]:
    """Let what is sent in the block belong to an act."""
    act = Act(by, task_id)
    token = _act.set(act)
    try:
        yield act
    finally:
        _act.reset(token)


def current_act() -> Act:
    """The act that this belongs to; where nobody said, one of the server's own."""
    return _act.get() or Act(_BY_ITSELF)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {}, [])}


def _ids_in(value: object) -> dict[str, list[str]]:
    """The ids in arguments or a result, by the names of their fields."""
    found: dict[str, list[str]] = {}
    for name, item in _leaves(value):
        if isinstance(item, str) and _ID.fullmatch(item) and item not in found.setdefault(name, []):
            found[name].append(item)
    return _known(found)


def _sums_in(value: object) -> dict[str, list[float]]:
    """The sums of money in a result, by the names of their fields."""
    found: dict[str, list[float]] = {}
    for name, item in _leaves(value):
        if name.endswith("_usd") and isinstance(item, int | float):
            found.setdefault(name, []).append(item)
    return found


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The values in JSON that hold no other, each with the name of its field; so many of a list at most."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value[:_MOST]:
            yield from _leaves(item, name)
    else:
        yield name, value
