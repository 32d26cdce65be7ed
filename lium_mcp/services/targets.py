"""Finds the one thing that a caller's name means. Two matches are an error, never a guess."""

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from typing import Protocol, TypeVar

from lium_mcp.api.errors import InvalidRequest, LiumError, NotFound
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.api.templates import Template
from lium_mcp.api.volumes import Volume
from lium_mcp.failures import Failure
from lium_mcp.rentals import Entry, LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.services.removed_pods import (
    PodRemoved,
    RemovedPod,
    find_removed,
    find_removed_by_id,
    is_kept_by_record,
)
from lium_mcp.text import quotation

_MOST_NAMED_IN_AN_ERROR = 10
_LIKE = 0.6
_MOST_LIKE = 3
_MOST_QUOTED = 60
_WHERE_PODS_ARE = "list_pods shows pods; rent_pod rents one."
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def huid(self) -> str: ...


T = TypeVar("T", bound=_Named)


async def find_pod(account: Account, named: str, *, even_leaving: bool = False, to_read: bool = False) -> Pod:
    """The pod with this id, or the only one with this name or huid.

    It is handed out: from now on the call that rents it may not take it away.

    Args:
        account: Whose pods are meant.
        named: What the caller calls it.
        even_leaving: Whether one that is being removed will do; a list that leaves it out needs its id.
        to_read: Whether only its id is needed, to read something of it: then a list of two seconds ago will do.

    Raises:
        Failure: there is none, or there are several, or it is being removed.
        LiumError: the pods could not be listed.
    """
    pods = await (account.lium.pods.lately() if to_read else account.lium.pods.list())
    try:
        pod = _only(pods, named, "pod", _WHERE_PODS_ARE)
    except Failure as failure:
        if failure.code != "pod_not_found":
            raise
        if to_read:
            return await find_pod(account, named, even_leaving=even_leaving)
        try:
            pod = await _find_unlisted(account, named, failure)
        except Failure as unlisted:
            raise await _say_more(account, pods, named, unlisted) from None
        if pod.id == named:
            _only([pod, *pods], named, "pod", _WHERE_PODS_ARE)
    if pod.is_being_removed and not even_leaving:
        raise Failure(
            "pod_being_removed",
            f"Pod {pod.pod_name} ({pod.id}) is being removed.",
            "Nothing is left to do with it: get_pod with its id shows its end. rent_pod rents another.",
        )
    await account.rents.hand_out_pod(pod.id)
    return pod


async def _say_more(account: Account, pods: Sequence[Pod], named: str, failure: Failure) -> Failure:
    """Return the failure, or a better one where such a pod was removed, or the id is of a node."""
    if failure.code != "pod_not_found" or isinstance(failure, PodRemoved):
        return failure
    if not is_id(named):
        removed = await find_removed(account, named)
        return PodRemoved(named, removed, failure.advice) if removed else failure
    gone = await find_removed_by_id(account, named)
    return PodRemoved(named, [gone], failure.advice) if gone else await _say_if_node(account, pods, named, failure)


async def _say_if_node(account: Account, pods: Sequence[Pod], named: str, failure: Failure) -> Failure:
    """Return the failure, or a better one where the id is of a node: several pods may run there, or none."""
    there = [pod for pod in pods if named in (pod.executor_id, pod.executor.id if pod.executor else None)]
    if not there:
        try:
            await account.lium.executors.quote(named, hours=1)  # the only route that reads one node
        except LiumError:
            return failure
    runs = f"On it runs: {listed(there)}. Name that." if there else f"No pod of yours runs on it. {_WHERE_PODS_ARE}"
    return Failure("not_a_pod", f"{named} is the id of a node (executor), not of a pod.", runs)


async def _find_unlisted(account: Account, named: str, failure: Failure) -> PodDetail:
    """A pod that Lium does not list: a new one, one that a list lacks for a while, or one that is being removed."""
    rented = [entry for entry in await account.rents.open_entries() if named in (entry.pod_name, *entry.pod_ids)]
    ids = [pod_id for entry in rented for pod_id in entry.pod_ids if named in (pod_id, entry.pod_name)]
    if len(ids) != 1:
        if not is_id(named):
            raise failure
        try:
            return await account.lium.pods.get(named)
        except InvalidRequest:
            raise failure from None
        except NotFound:
            if await is_kept_by_record(account, named):
                raise _contradicted(named) from None
            raise failure from None
    try:
        return await account.lium.pods.get(ids[0])
    except NotFound:
        name = rented[0].pod_name
        if rented[0].removal_accepted:  # Lium knew it then, so that it is gone now
            if await is_kept_by_record(account, ids[0]):
                raise _contradicted(ids[0]) from None
            raise PodRemoved(named, [RemovedPod(ids[0], name)], failure.advice) from None
        advice = "Call again in half a minute: a new pod may take that long to be known."
        due = await _removal_due(account, rented[0], ids[0])
        if due is not None and due < account.lium.now():
            advice = f"Its removal time was {due:%Y-%m-%dT%H:%MZ}, as far as is known: most likely it is removed."
        raise Failure(
            "pod_not_known_yet",
            f"Lium accepted the rent of {name} ({ids[0]}) at {rented[0].created_at:%H:%M:%S} UTC and does not show the "
            "pod now.",
            f"{advice} list_pods says once it is gone.",
            effect="Nothing was changed; it may bill.",
        ) from None


def _contradicted(pod_id: str) -> Failure:
    return Failure(
        "pod_not_known_yet",
        f"Lium shows no pod {pod_id} now, but its record of it says that it is not removed.",
        "Call get_pod with this id until it is said to be removed; if it runs again, call remove_pod again.",
        effect="Nothing was changed; it may bill.",
    )


async def _removal_due(account: Account, entry: Entry, pod_id: str) -> datetime | None:
    """When the hours of a rent are over, or a later time that was admitted is, as the ledger knows them."""
    with suppress(LedgerUnavailable):
        _, extensions = await account.rents.standing()
        later = [extension.removal_at for extension in extensions if extension.pod_id == pod_id]
        rented = [] if entry.hours is None else [entry.created_at + timedelta(hours=entry.hours)]
        return max([*rented, *later], default=None)
    return None


async def find_pods(account: Account, named: Sequence[str]) -> list[Pod]:
    """As `find_pod` for several, with one look at the list; a pod that is named twice is returned once.

    Raises:
        Failure: one name means no pod, or several.
        LiumError: the pods could not be listed.
    """
    pods = await account.lium.pods.list()
    found: list[Pod] = []
    for name in named:
        try:
            found.append(_only(pods, name, "pod", _WHERE_PODS_ARE))
        except Failure as failure:
            raise await _say_more(account, pods, name, failure) from None
    return list({pod.id: pod for pod in found}.values())


async def find_pod_detail(account: Account, named: str) -> PodDetail:
    """As `find_pod`, and read in detail; also one that is being removed."""
    pod = await find_pod(account, named, even_leaving=True, to_read=True)
    return pod if isinstance(pod, PodDetail) else await account.lium.pods.get(pod.id)


async def find_pod_or_past(account: Account, named: str) -> tuple[str, Pod | None]:
    """As `find_pod`, with its id before it; also a removed one, by its id, or by a name that only one has had.

    An id that no living pod has is taken for that of a removed one.
    """
    try:
        pod = await find_pod(account, named, even_leaving=True, to_read=True)
    except Failure as failure:
        is_past_id = failure.code == "pod_not_found" and is_id(named)
        return named if is_past_id else _past_id(failure), None
    return pod.id, pod


async def find_pods_or_past(account: Account, named: Sequence[str]) -> dict[str, Pod | None]:
    """As `find_pods`, by their ids; also those that Lium says were removed, also by a name that only one has had."""
    pods = await account.lium.pods.list() if len(named) > 1 else None
    found: dict[str, Pod | None] = {}
    for name in named:
        try:
            if pods is None:
                pod = await find_pod(account, name, even_leaving=True)
            else:
                pod = _only(pods, name, "pod", _WHERE_PODS_ARE)
        except Failure as failure:
            more = failure if pods is None else await _say_more(account, pods, name, failure)
            found.setdefault(_past_id(more), None)
        else:
            found[pod.id] = pod
    return found


def _past_id(failure: Failure) -> str:
    """The id of the only removed pod that is meant.

    Raises:
        Failure: the given one, where none is, or several are.
    """
    if isinstance(failure, PodRemoved) and len(failure.pods) == 1:
        return failure.pods[0].pod_id
    raise failure


async def find_volume(account: Account, named: str) -> Volume:
    """The volume with this id, or the only one with this name or huid.

    Raises:
        Failure: there is none, or there are several.
        LiumError: the volumes could not be listed.
    """
    return _only(await account.lium.volumes.list(), named, "volume", "create_volume makes one.")


async def find_free_volume(account: Account, named: str, pod: Pod | None = None) -> Volume:
    """As `find_volume`, and mounted in no pod but `pod`: one pod at a time has a volume.

    Raises:
        Failure: there is none or several, or another pod has it mounted.
        LiumError: the volumes or pods could not be listed.
    """
    volume = await find_volume(account, named)
    refuse_attached(volume, await account.lium.pods.list(), "attached", unless=pod)
    return volume


def refuse_attached(volume: Volume, pods: Sequence[Pod], purpose: str, *, unless: Pod | None = None) -> None:
    """Refuse what needs a volume that no other pod has mounted.

    Raises:
        Failure: a pod has it mounted.
    """
    holder = volume_holder(volume, pods)
    if holder is not None and (unless is None or holder.id != unless.id):
        raise Failure(
            "volume_in_use",
            f"Volume {volume.name} ({volume.id}) is mounted in pod {holder.pod_name} ({holder.id}) and cannot be "
            f"{purpose}.",
            "One pod at a time has a volume, and only the removal of that pod frees it: remove_pod keeps the volume "
            "with its data. Do that first, or use another volume.",
        )


def refuse_maybe_attached(volume: Volume, pods: Rows[Pod]) -> None:
    """Refuse to delete a volume that a pod has mounted, or may have.

    Raises:
        Failure: a pod has it mounted, or what Lium says of the pods does not tell.
    """
    refuse_attached(volume, pods, "deleted")
    unnamed = next((pod for pod in pods if pod.volume_ids and names(pod.volume_ids, volume.id) is None), None)
    if unnamed is not None:
        missing = f"Lium does not say which volume pod {unnamed.pod_name} ({unnamed.id}) has mounted"
    elif pods.skipped:
        missing = "part of Lium's list of pods could not be read"
    elif pods and not any(pod.says_volume for pod in pods):  # where one says it, silence means that there is none
        missing = "Lium says of no pod whether it has a volume"
    else:
        return
    raise Failure(
        "volume_use_unknown",
        f"Whether a pod has volume {volume.name} ({volume.id}) mounted is not known: {missing}.",
        "Try again in a minute. If that lasts, a person can look on lium.io and delete it there.",
    )


def volume_holder(volume: Volume, pods: Sequence[Pod]) -> Pod | None:
    """The pod that has a volume mounted, if the key sees it."""
    return next((pod for pod in pods if names(pod.volume_ids, volume.id)), None)


def names(ids: Collection[str], wanted: str) -> bool | None:
    """Whether one of these ids, in lower case, is that of a thing; None where none of them can be an id."""
    if wanted.casefold() in ids:
        return True
    return False if any(map(is_id, ids)) else None


async def find_template(account: Account, named: str) -> Template:
    """The template with this id, or the only one of the account's own with this name or huid.

    Other people choose the names of their templates, so those are taken by id only.

    Raises:
        Failure: there is none, or there are several.
        LiumError: the templates could not be read.
    """
    templates = await account.lium.templates.list()
    meant = [template for template in templates if named in (template.id, template.name, template.huid)]
    if len(meant) == 1 and meant[0].id == named:
        return meant[0]
    owner = (await account.lium.account.me()).id
    own = [template for template in templates if owner == template.user_id or template.id == named]
    try:
        return _only(
            own, named, "template", "Those of other publishers are named by id, which list_templates(search=...) shows."
        )
    except Failure as failure:
        if failure.code == "template_not_found" and not is_id(named):
            failure.advice += _like_it([template for template in templates if template.user_id != owner], named)
        raise


def _like_it(foreign: Sequence[Template], named: str) -> str:
    """Say which templates of others have nearly this name; a name with much else in it may be an instruction."""
    rated = [(_likeness(template.name, named), template) for template in foreign]
    like = [template for rate, template in sorted(rated, key=lambda pair: -pair[0]) if rate >= _LIKE][:_MOST_LIKE]
    if not like:
        return ""
    shown = "; ".join(f"{template.id}, called {quotation(template.name, _MOST_QUOTED)}" for template in like)
    return f" Of other publishers there are, by id: {shown}. get_template shows what is in one."


async def find_usable_template(account: Account, named: str) -> Template:
    """As `find_template`, for a pod to start from it.

    Raises:
        Failure: also where it failed the platform's check.
    """
    template = await find_template(account, named)
    if template.has_failed:
        raise Failure(
            "template_failed",
            f"Template {template.name} ({template.id}) failed Lium's check ({template.status}), so no pod starts "
            "from it.",
            "get_template says why. Correct it with update_template, or choose another with list_templates.",
        )
    return template


async def find_own_template(account: Account, named: str) -> Template:
    """As `find_template`, among the account's own only."""
    templates, owner = await account.lium.templates.list(), (await account.lium.account.me()).id
    return _own(
        templates, owner, named, "Templates of other owners are named by id, and only their owners change them."
    )


def _own(templates: Sequence[Template], owner: str, named: str, advice: str) -> Template:
    mine = [template for template in templates if template.user_id == owner]
    return _only(mine, named, "template", advice)


def _only(items: Sequence[T], named: str, noun: str, advice: str) -> T:
    by_id = [item for item in items if item.id == named][:1]
    by_name = [item for item in items if item.id != named and named in (_name(item), item.huid)]
    # An id whose thing is gone must not become the name of another thing, which anybody may have given it.
    matches = [] if is_id(named) and not by_id else [*by_id, *by_name]
    if len(matches) == 1:
        return matches[0]
    if by_id:
        huid = by_id[0].huid
        raise Failure(
            "ambiguous_name",
            f"{named} is the id of {noun} {_name(by_id[0]) or '(unnamed)'} and the name of others: {listed(by_name)}.",
            f"Name the {noun} by what it alone has: an id, a name, or a huid"
            + (f" ({huid} for the first)." if huid else "."),
        )
    if matches:
        raise Failure(
            "ambiguous_name",
            f"{len(matches)} {noun}s of yours are named {named}: {listed(matches)}.",
            f"Name the {noun} by its id.",
        )
    raise Failure(
        f"{noun}_not_found",
        f"No {noun} of yours is named {named}." + ("" if items else f" The account has no {noun}s."),
        f"There are: {listed(_nearest_first(items, named))}. {advice}" if items else advice,
    )


def _likeness(name: str, word: str) -> float:
    return SequenceMatcher(None, name.casefold(), word.casefold()).ratio()


def _nearest_first(items: Sequence[T], named: str) -> list[T]:
    """Sort things by how like their names are to a word, those with the word in it first."""
    word = named.casefold()
    return sorted(items, key=lambda item: (word not in _name(item).casefold(), -_likeness(_name(item), named)))


def is_id(named: str) -> bool:
    """Whether a text can only be an id."""
    return _UUID.fullmatch(named) is not None


def _name(item: _Named) -> str:
    return item.pod_name if isinstance(item, Pod) else str(getattr(item, "name", ""))


def listed(items: Sequence[_Named]) -> str:
    """Things by name and id, as far as a sentence holds them."""
    shown = ", ".join(f"{_name(item) or '(unnamed)'} ({item.id})" for item in items[:_MOST_NAMED_IN_AN_ERROR])
    left = len(items) - _MOST_NAMED_IN_AN_ERROR
    return f"{shown} and {left} more" if left > 0 else shown
