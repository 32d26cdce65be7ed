"""Containers that started again by themselves: what ran in them is gone, their files stay, and nobody asked for it.

Lium's events may tell of it, in Docker's words. Where they do not, the container itself says since when it runs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod, PodEvent, own_events
from lium_mcp.remote.inside import Inside
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.pod_connections import inside_of
from lium_mcp.text import quotation

# Of the container itself: what runs in it, or beside it for a backup, starts and dies too.
_DOCKERS: Final = re.compile(r"(?:(?:(?:pod|docker)[-_.])?(?:container|docker)[-_.: ]+)?(start|started|die|died|oom)")
_HOST_IS_BACK: Final = re.compile(r"pod-host-reboot-recovery\.recovered")
_ORDERED: Final = re.compile(r"pod-(?:rent|create|reboot|edit|switch-template)\.\w+")
_RESET: Final = re.compile(r"pod-gpu-reset\.\w+")
_ON_ORDER: Final = frozenset({"PENDING", "REBOOT_PENDING", "DELETING"})
# A reset of the GPUs stops what runs, within this.
_RESET_LASTS: Final = timedelta(minutes=10)
# A container starts before Lium says that its pod runs. Later than this after it, it started another time.
_STARTS_WITHIN: Final = timedelta(minutes=10)
_CLOCKS_DIFFER: Final = timedelta(minutes=2)
_EVENTS_SECONDS: Final = 10.0
_QUOTED_CHARACTERS: Final = 120
_KILLED: Final = 137


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The last time that a container started again by itself.

    Attributes:
        at: When; None where Lium does not say it.
        exit_code: How its main process had ended.
        is_oom: Whether it had run out of memory.
        is_of_host: Whether its host had restarted.
        reason: What Lium or its node says of it.
        times: How often this has happened since the container was last started on order.
    """

    at: datetime | None = None
    exit_code: int | None = None
    is_oom: bool = False
    is_of_host: bool = False
    reason: str | None = None
    times: int = 1

    def is_after(self, moment: datetime | None) -> bool:
        """Whether it may have ended what ran at a moment."""
        return moment is None or self.at is None or self.at >= moment - _CLOCKS_DIFFER

    def describe(self) -> str:
        """Say in a sentence what happened, and why."""
        at = f" at {self.at:%Y-%m-%dT%H:%M:%SZ}" if self.at else ""
        times = f" ({self.times} times since it was last started on order)" if self.times > 1 else ""
        said = quotation(self.reason or "", _QUOTED_CHARACTERS)
        return (
            f"The container started again by itself{at}{times}: {self._why()}{f'; Lium says {said}' if said else ''}."
        )

    def _why(self) -> str:
        exited = "" if self.exit_code is None else f" (exit code {self.exit_code})"
        if self.is_oom:
            return f"it had run out of memory{exited}"
        if self.is_of_host:
            return f"its host had restarted{exited}"
        if self.exit_code == _KILLED:
            return f"its main process was killed{exited}, and Lium tells of no lack of memory"
        if self.exit_code == 0:
            return f"its main process had ended{exited}, so its image needs a command that runs on"
        return f"its main process had ended{exited}" if exited else "why is not told"


def find_restart(pod: Pod, events: Sequence[PodEvent], started: datetime | None = None) -> Restart | None:
    """The last time that a pod's container started again by itself since it was last started on order, if it did.

    Args:
        pod: The pod.
        events: What happened to it, oldest first.
        started: When its container says that it started; None if nobody could look.
    """
    history = _History()
    for event in own_events(pod, events):
        history.add(event)
    found, ran_at = history.found, history.ran_at
    if history.died is not None:  # one that died starts again, whether that is told or not
        found = _next(found, history.died)
    if started is None or ran_at is None or started < ran_at + _STARTS_WITHIN:
        return found
    is_known = found is not None and found.is_after(started)
    return found if is_known else _next(found, Restart(at=started))


class _History:
    """Reads events in their order, and keeps what matters for the container that runs after the last."""

    def __init__(self) -> None:
        self.found: Restart | None = None
        self.ran_at: datetime | None = None
        self.died: Restart | None = None
        self._is_oom = False
        self._is_starting = False
        self._reset_until: datetime | None = None

    def add(self, event: PodEvent) -> None:
        kind = (event.sub_event_type or event.event_type).strip().lower()
        if event.state in _ON_ORDER or (_ORDERED.fullmatch(kind) and not event.error):
            self._is_starting, self.ran_at = True, None
        elif event.state == "RUNNING":
            if self._is_starting:  # what a container died of before it was started on order is over
                self.found, self.died, self._is_oom = None, None, False
            self._is_starting = False
            self.ran_at = event.created_at
        elif _RESET.fullmatch(kind) and event.created_at is not None:
            self.ran_at = self._reset_until = event.created_at + _RESET_LASTS
        elif _HOST_IS_BACK.fullmatch(kind):
            self._has_restarted(event, is_of_host=True)
        elif (dockers := _DOCKERS.fullmatch(kind)) and not self._is_ordered(event):
            self._add_dockers(event, dockers[1])

    def _add_dockers(self, event: PodEvent, word: str) -> None:
        if word == "oom":
            self._is_oom = True
        elif word.startswith("die"):
            reason = event.error or event.reason
            self.died = Restart(at=event.created_at, exit_code=event.exit_code, is_oom=self._is_oom, reason=reason)
            self._is_oom = False
        elif self.died is not None:
            self._has_restarted(event, is_of_host=False)

    def _has_restarted(self, event: PodEvent, *, is_of_host: bool) -> None:
        now = replace(self.died or Restart(), at=event.created_at, is_of_host=is_of_host)
        self.found, self.died = _next(self.found, now), None

    def _is_ordered(self, event: PodEvent) -> bool:
        at, until = event.created_at, self._reset_until
        return self._is_starting or (at is not None and until is not None and at < until)


async def look_for_restart(account: Account, pod: Pod) -> Restart | None:
    """The same, of what Lium tells and, where SSH works, the container; None where nobody says so within a bound."""
    events: Sequence[PodEvent] = ()
    try:
        with anyio.fail_after(_EVENTS_SECONDS):
            events = await account.lium.pods.events(pod.id)
    except (LiumError, TimeoutError):
        return None
    inside = await inside_of(account, pod) if pod.is_ready else None
    return find_restart(pod, events, started_at(inside, account.lium.now()) if inside else None)


def restart_warning(pod: Pod, events: Sequence[PodEvent], started: datetime | None) -> str | None:
    """Say that a pod's container started again by itself, and what to do; None where it did not, as far as is known."""
    restart = find_restart(pod, events, started)
    if restart is None:
        return None
    encrypted = (
        " An encrypted volume is not mounted since: what is written now is lost with the container, and reboot_pod "
        "mounts it again."
        if pod.enable_volume_encryption
        else ""
    )
    return f"{restart.describe()} What ran in it is gone, its files stay: start the work again.{encrypted}"


def started_at(inside: Inside, now: datetime) -> datetime | None:
    """When a container started, by Lium's clock; None where it does not say it."""
    return None if inside.age is None else now - inside.age


def _next(before: Restart | None, now: Restart) -> Restart:
    return now if before is None else replace(now, times=before.times + 1)
