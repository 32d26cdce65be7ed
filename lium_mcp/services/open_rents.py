"""The pods of an account, and the rents of which nobody knows yet what became of them."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import (
    REPLAY_WINDOW,
    Entry,
    LedgerUnavailable,
    contradiction_of_request,
    has_something_left,
    unlisted_pod_ids,
)
from lium_mcp.results import Result, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import not_sent_again

log = logging.getLogger(__name__)

_TOLD_FOR: Final = timedelta(days=1)


class UnsettledRent(Result):
    """A rent of which nobody knows yet whether it made a pod, or whose pod has to go or went by a look."""

    name: str
    since: UtcTime
    status: str
    next: str


async def list_with_rents(account: Account, read_only: bool) -> tuple[Rows[Pod], list[UnsettledRent]]:
    """Settle the rents that an earlier call or process left open, and return the pods and the rents still unsettled.

    A server that only reads settles none.
    """
    try:
        entries, _ = await account.rents.standing()
        pods = None if any(map(has_something_left, entries)) else await account.lium.pods.lately()
        if pods is None or any(unlisted_pod_ids(entry, pods) for entry in entries):
            if read_only:
                pods = await account.lium.pods.list()
            else:
                pods, entries = await account.renter.look()
    except LedgerUnavailable as error:
        log.warning("The ledger of rents cannot be read: %s", error)
        return await account.lium.pods.lately(), []
    rows = [row for entry in entries if (row := _unsettled(account, entry, pods)) is not None]
    return pods, rows + await _lately_given_back(account)


async def find_given_back(account: Account, named: str) -> tuple[str, str] | None:
    """The pod of a rent that goes by this id, or lately went by this name, and why a look gave it back.

    None where none did.
    """
    with suppress(LedgerUnavailable):
        for entry in await account.rents.given_back():
            if named in entry.pod_ids:
                return named, _reason(entry)
            if named == entry.pod_name and _is_recent(account, entry):
                return entry.pod_ids[0], _reason(entry)
    return None


async def pods_given_back(account: Account) -> dict[str, str]:
    """Why a look gave pods back, by their ids; also while the call that rented one still waits for it."""
    with suppress(LedgerUnavailable):
        entries = await account.rents.given_back()
        return {pod_id: entry.given_back_because or "" for entry in entries for pod_id in entry.pod_ids}
    return {}


async def _lately_given_back(account: Account) -> list[UnsettledRent]:
    """Rents whose pods a look gave back: no call may have said why."""
    with suppress(LedgerUnavailable):
        return [
            UnsettledRent(name=entry.pod_name, since=entry.created_at, status=entry.status, next=_reason(entry))
            for entry in await account.rents.given_back()
            if not entry.is_open and _is_recent(account, entry)
        ]
    return []


def _is_recent(account: Account, entry: Entry) -> bool:
    return entry.closed_at is None or account.lium.now() - entry.closed_at < _TOLD_FOR


def _reason(entry: Entry) -> str:
    pods = " and ".join(entry.pod_ids)
    return f"lium-mcp gave pod {pods} back: {entry.given_back_because}."


def _unsettled(account: Account, entry: Entry, pods: Sequence[Pod]) -> UnsettledRent | None:
    status: str = entry.status
    if entry.status == "removing":
        advice = f"Its pod must go ({entry.given_back_because or entry.note}): remove_pod if it stays."
    elif not entry.is_unsettled:
        unlisted = unlisted_pod_ids(entry, pods)
        if not unlisted and not entry.missing_count:
            return None
        status = "not_listed"
        if not unlisted:
            named = f"{len(entry.pod_ids)} of its {entry.pod_count} pods"
            advice = f"Lium named {named}, and does not list the others: they may bill. Call list_pods again."
        else:
            advice = (
                f"Lium does not list its pod {unlisted[0]} now, nor say that it is gone: it may bill. Call get_pod."
            )
    elif (why := entry.not_sent_again_because) is not None:
        advice = f"It may have made a pod that bills. {not_sent_again(why)}"
    elif account.lium.now() - entry.created_at < REPLAY_WINDOW:
        advice = "It may have made a pod that bills. Call list_pods again in a minute; nothing is rented until then."
    else:
        advice = (
            "Lium no longer tells what became of it. A person has to look at lium.io whether such a pod was made and "
            "billed, and then close it with: lium-mcp rentals close"
        )
    if entry.is_unsettled:
        advice = " ".join([advice, *_others_of_its_name(entry, pods)])
    return UnsettledRent(name=entry.pod_name, since=entry.created_at, status=status, next=advice)


def _others_of_its_name(entry: Entry, pods: Sequence[Pod]) -> list[str]:
    """Say which pods have an unsettled rent's name and are not what it asked for."""
    named = [pod for pod in pods if pod.pod_name == entry.pod_name and pod.is_alive]
    return [
        f"Pod {pod.id} has its name and is another's, since {why}: it was left alone."
        for pod in named
        if (why := contradiction_of_request(entry, pod)) is not None
    ]
