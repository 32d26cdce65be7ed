"""The rents and tasks of one account as the ledger has them: what is read of them, and noted about rents and pods.

It asks Lium for nothing but whose the key is. What is noted once money was spent must not hide a pod: where the ledger
fails, that is logged, and a later look settles it.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lium_mcp.api.pods.models import Pod
from lium_mcp.auditing import current_act
from lium_mcp.rentals.account_notes import AccountNotes
from lium_mcp.rentals.entries import (
    FAILED_TO_START,
    UNSETTLED,
    Entry,
    Extension,
    LedgerUnavailable,
    PastCost,
    PodNameTaken,
    PodWork,
    Status,
    Task,
    TaskKind,
    has_something_left,
)
from lium_mcp.rentals.expected import expected_after, still_expected
from lium_mcp.rentals.identity import Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.orders import Rental

if TYPE_CHECKING:
    from lium_mcp.rentals.work_log import WorkLog

log = logging.getLogger(__name__)

# A node on which a pod failed to start so lately may fail again; later, Lium has checked it.
_LATELY: Final = timedelta(hours=2)
# One that refused a rent is still listed for a while, and may be free again soon.
_MINUTES_AGO: Final = timedelta(minutes=10)
# The call of a rent waits for at most ten minutes, and settles the rent before.
_LONGEST_CALL: Final = timedelta(minutes=15)


class AccountRents:
    """The rents of the account that a key acts for.

    Attributes:
        notes: What the servers of the ledger note of the account for one another.
    """

    def __init__(self, ledger: LazyLedger, identity: Identity, now: Callable[[], datetime]) -> None:
        """Take the ledger, the key and its account, and Lium's clock."""
        self._ledger = ledger
        self._identity = identity
        self._now = now
        self.notes: Final = AccountNotes(ledger, identity, now)

    async def learn_account(self) -> str:
        """The account that the key acts for: as the ledger has it, else as Lium says it now.

        Raises:
            AccountUnknown, LiumError, LedgerUnavailable: as `Identity.learn`.
        """
        return await self._identity.learn()

    # read

    async def standing(self) -> tuple[list[Entry], list[Extension]]:
        """The account's open rents and admitted extensions, as the ledger has them.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return [], []
        return await self._ledger.open().standing(await self._identity.known())

    async def open_entries(self) -> list[Entry]:
        """The account's open rents, as the ledger has them; none where it cannot be read."""
        with suppress(LedgerUnavailable):
            return (await self.standing())[0]
        return []

    async def has_something_left(self, pod: Pod) -> bool:
        """Whether something is left to do for the rent of this pod, or for one that may have made it.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries, _ = await self.standing()
        return any(
            has_something_left(entry)
            for entry in entries
            if pod.id in entry.pod_ids or (entry.is_unsettled and entry.pod_name == pod.pod_name)
        )

    async def has_removal_to_set(self, pod_id: str) -> bool:
        """Whether the removal time that this pod's rent asked for is still to be set or made exact.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries, _ = await self.standing()
        return any(pod_id in entry.pod_ids and not entry.removal_is_set for entry in entries)

    async def newest(self, limit: int) -> list[Entry]:
        """The account's newest rents, open ones first.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        return await self._ledger.open().newest(limit, await self._identity.known())

    async def given_back(self) -> list[Entry]:
        """The account's rents, newest first, whose pods were given back by a look after the rent's call.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        return await self._ledger.open().given_back(await self._identity.known())

    async def nodes_that_failed(self) -> dict[str, str]:
        """The nodes that lately refused a rent, or on which a pod failed to start, each with what happened there.

        None where the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return {}
        with suppress(LedgerUnavailable):
            account, now = await self._identity.known(), self._now()
            entries = await self._ledger.open().failed_on_nodes(account, now - _LATELY)
            refused = (entry for entry in entries if entry.created_at >= now - _MINUTES_AGO)
            nodes = {entry.refusing_node_id: "it refused a rent minutes ago" for entry in refused}
            nodes |= {entry.failed_node_id: "a pod failed to start there lately" for entry in entries}
            return {node_id: happened for node_id, happened in nodes.items() if node_id}
        return {}

    async def removed(self, pod_name: str) -> list[Entry]:
        """The account's rents of a name whose pods were removed, newest first.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        return await self._ledger.open().removed(await self._identity.known(), pod_name)

    async def gone(self, pod_names: Sequence[str], since: datetime) -> list[Entry]:
        """The account's rents of some names whose pods go now, or were closed since a moment, newest first.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        return await self._ledger.open().gone(await self._identity.known(), pod_names, since)

    def refuse_unmakeable(self) -> None:
        """Refuse, before anybody is asked, what has to be written down where no ledger can be made.

        Raises:
            LedgerUnavailable: none can.
        """
        self._ledger.refuse_unmakeable()

    async def tasks(self, kind: TaskKind) -> list[Task]:
        """The tasks of a kind that this key made, newest first, closed ones too; of a login's, that any login made.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        account, tasks = await self._identity.known(), self._ledger.tasks()
        if self._identity.is_login:
            return await tasks.of_logins(account, kind)
        return await tasks.of_key(account, self._identity.key_tag, kind)

    async def is_ordered(self, pod_name: str) -> bool:
        """Whether a standing order of this name, of whichever key of the account, may still rent.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return False
        try:
            await self._ledger.open().refuse_ordered(await self._identity.known(), [pod_name], now=self._now())
        except PodNameTaken:
            return True
        return False

    async def made_for(self, task: Task, asked: str, since: datetime) -> list[Entry]:
        """The rents that are for a task, or by which calls asked for the same pod since a moment, newest first.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        return await self._ledger.open().made_for(task, asked, since)

    async def cancel(self, task: Task, note: str) -> bool:
        """Close a task, so that nothing is rented for it any more; False where it is over, or something may have been.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        return await self._ledger.tasks().cancel(task, now=self._now(), note=note)

    async def removed_since(self, moment: datetime) -> list[PastCost]:
        """The costs of the account's rents whose pods were removed since a moment.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return []
        return await self._ledger.open().closed_since(await self._identity.known(), moment)

    # work in pods

    @property
    def work_log(self) -> "WorkLog":
        """What servers do in pods while somebody waits for it."""
        return self._ledger.work_log()

    async def work_in(self, pod_id: str) -> PodWork:
        """What servers on this ledger do in a pod now, and what they began there last.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        return PodWork() if self._ledger.is_empty else await self.work_log.of_pod(pod_id, now=self._now())

    # lives that were made longer

    async def admit_extension(self, extension: Extension, judge: Callable[..., None]) -> None:
        """Write that a pod may live until a later time, unless `judge` raises when it sees open rents and extensions.

        Meanwhile no server on the ledger admits anything else for the account.

        Raises:
            AccountUnknown: Lium does not say which account the key acts for.
            LoginEnded: the login that the key is of has ended.
            LedgerUnavailable: it could not be kept.
        """
        account, login_id = await self._identity.learn(), self._identity.login_id
        await self._ledger.open().admit_extension(account, extension, judge, login_id=login_id)

    async def forget_extension(self, pod_id: str) -> None:
        """Delete a pod's admitted extension: Lium refused it, or the pod is to end earlier."""
        if self._ledger.is_empty:
            return
        try:
            await self._ledger.open().forget_extension(await self._identity.known(), pod_id)
        except LedgerUnavailable as error:
            # Until it is out of date, the pod counts for more than it should.
            log.warning("The ledger cannot drop the later removal time of pod %r: %s", pod_id, error)

    # noted about a rent

    async def note(
        self,
        entry: Entry,
        status: Status,
        *,
        only_from: Collection[Status] | None = None,
        only_if: Mapping[str, Any] | None = None,
        **values: Any,  # noqa: ANN401 - columns of the ledger
    ) -> bool:
        """Write what became of a rent, unless another server has written something else meanwhile.

        A ledger that fails must not hide a pod, so the failure is only logged, and the rent is settled again later.

        Returns:
            False where something else was written.
        """
        known = UNSETTLED if entry.is_unsettled else {entry.status}
        if status == "rented" and (pod_ids := values.get("pod_ids")):
            figures = {"price_per_hour_usd": entry.price_per_hour_usd, "hours": entry.hours}
            current_act().rented(pod_ids, entry.key_tag, **figures)
        try:
            return await self._ledger.open().change(
                entry, status, now=self._now(), only_from=only_from or known, only_if=only_if, **values
            )
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note that the rent of %r is %s: %s", entry.pod_name, status, error)
            return True

    async def begin(self, admitted: Entry, begun: Entry) -> bool:
        """Write that a rent which waited for its turn leaves now.

        Returns:
            False where it must not: it was closed meanwhile, or nothing could be written.

        Raises:
            LoginEnded: the login that it is for has ended.
        """
        values: dict[str, Any] = {"created_at": begun.created_at, "known_pod_ids": list(begun.known_pod_ids)}
        try:
            return await self._ledger.open().change(
                admitted,
                "sending",
                now=self._now(),
                only_from={"admitted"},
                login_id=self._identity.login_id,
                **values,
            )
        except LedgerUnavailable as error:
            log.warning("The rent of %r does not leave, since the ledger cannot note it: %s", admitted.pod_name, error)
            return False

    async def disclaim(self, entry: Entry, pod_ids: Collection[str]) -> None:
        """Note that the pods which Lium named for a rent are another's, so that its outcome is unknown again."""
        log.error("Pods %r, which Lium named for the rent of %r, are another's", list(pod_ids), entry.pod_name)
        known = sorted({*entry.known_pod_ids, *pod_ids})
        await self.note(
            entry,
            "unknown",
            only_from={"sending", "unknown", "rented", "removing"},
            pod_ids=[],
            kept_pod_ids=[],
            known_pod_ids=known,
            confirmed=False,
            removal_accepted=False,
            settled_at=None,
        )

    async def note_unwanted(self, entry: Entry) -> None:
        """Note that the call of a rent was cancelled: a pod that nobody knows of yet is removed once it is known."""
        try:
            await self._ledger.open().mark_unwanted(entry)
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note that the rent of %r is unwanted: %s", entry.pod_name, error)

    async def hand_out(self, entry: Entry) -> bool:
        """Note that another call is told of a rent's pods, so that the end of their own call does not remove them.

        Returns:
            False where they are not there any more.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        ledger = self._ledger.open()
        return await ledger.change(entry, "rented", now=self._now(), only_from={"rented"}, handed_out=True)

    # noted about a pod, by the rent that made it

    async def hand_out_pod(self, pod_id: str) -> None:
        """Note that another call than the one that rented a pod works with it: that one's end no longer removes it."""
        for entry in await self.open_entries():
            is_its_call_over = self._now() - entry.created_at > _LONGEST_CALL
            if pod_id in entry.pod_ids and not entry.handed_out and not is_its_call_over:
                with suppress(LedgerUnavailable):
                    await self.hand_out(entry)

    async def note_checked(self, pods: Sequence[Pod]) -> None:
        """Note that a rent's pods, as these rows show them, were held against what was asked for and allowed.

        Where nobody had priced it, they say what it costs.
        """

        def checked(entry: Entry) -> dict[str, Any] | None:
            prices = [pod.price for pod in pods]
            values: dict[str, Any] = {"expected": expected_after(entry, pods)}
            if entry.price_per_hour_usd is None and None not in prices and len(pods) == entry.ordered_count:
                values["price_per_hour_usd"] = sum(price or 0 for price in prices)
            return values if any(getattr(entry, name) != value for name, value in values.items()) else None

        await self._change(pods[0].id, checked)

    async def forget_template(self, pod_id: str) -> None:
        """Note that another template is chosen for a pod: nobody holds it against the first one any more."""

        def without(entry: Entry) -> dict[str, Any] | None:
            left = still_expected(entry).without_template().to_json() or None
            return None if left == entry.expected else {"expected": left}

        await self._change(pod_id, without)

    async def forget_removal_time(self, pod_id: str) -> None:
        """Note that the removal time that this pod's rent asked for needs no setting: it is set, or replaced."""

        def kept(entry: Entry) -> dict[str, Any] | None:
            return None if entry.removal_is_set else {"kept_pod_ids": sorted({*entry.kept_pod_ids, pod_id})}

        await self._change(pod_id, kept)

    async def note_failed_to_start(self, pod: Pod) -> None:
        """Note that a rent's pod did not come to run, and on which node, so that the next one is tried elsewhere."""
        if node_id := pod.node_id:
            note = f"{FAILED_TO_START}{node_id}"
            await self._change(pod.id, lambda entry: {"note": note} if entry.status == "rented" else None)

    async def note_must_go(self, pod_id: str, reason: str) -> None:
        """Note that the pods of this pod's rent must go, and why."""
        await self._change(pod_id, lambda _: {"status": "removing", "note": reason})

    async def note_doubtful(self, pod_id: str) -> None:
        """Note that the pods of this pod's rent must go once Lium says that they are its own."""
        await self._change(pod_id, lambda _: {"unwanted": True})

    async def disown(self, rental: Rental) -> bool:
        """Note that the pods of a cancelled call must go; False where another call was told of them."""
        try:
            ledger = self._ledger.open()
            for entry in await ledger.open_entries(await self._identity.known()):
                if rental.pod_id in entry.pod_ids:
                    values: dict[str, Any] = {"note": "the call was cancelled", "unwanted": True}
                    now, only_if = self._now(), {"handed_out": False}
                    return await ledger.change(entry, "removing", now=now, only_if=only_if, **values)
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note that pods %r must go: %s", rental.pod_ids, error)
        return True

    async def note_accepted(self, pod_id: str) -> None:
        """Note that Lium has accepted to remove all pods of this pod's rent."""
        await self._change(pod_id, lambda _: {"removal_accepted": True})

    async def note_removal(self, pod_id: str) -> None:
        """Note that Lium has accepted to remove a pod; its name is free once Lium says that it is gone."""

        def without(entry: Entry) -> dict[str, Any]:
            others = [other for other in entry.pod_ids if other != pod_id]
            if others:
                return {"pod_ids": others, "pod_count": entry.pod_count - 1}
            note = entry.note if entry.failed_node_id else "removed on request"
            return {"status": "removing", "removal_accepted": True, "note": note, "pod_count": 1}

        await self._change(pod_id, without)

    async def note_gone(self, pod_id: str) -> None:
        """Note that Lium itself says that a pod is gone, if it had accepted to remove it."""
        await self._change(pod_id, lambda entry: {"status": "removed"} if entry.removal_accepted else None)

    async def _change(self, pod_id: str, decide: Callable[[Entry], dict[str, Any] | None]) -> None:
        """Change the open rent that made a pod, if the ledger has one and `decide` names columns of it to set."""
        try:
            entries, _ = await self.standing()
            for entry in entries:
                if pod_id not in entry.pod_ids or (values := decide(entry)) is None:
                    continue
                # A change that leaves the status as it is yields to one that has changed it meanwhile.
                only_from = None if "status" in values else {entry.status}
                values = {"status": entry.status} | values
                await self._ledger.open().change(entry, now=self._now(), only_from=only_from, **values)
        except LedgerUnavailable as error:
            log.critical("The ledger cannot note what became of pod %r: %s", pod_id, error)
