"""Lets rents of one account leave: names must be free, earlier rents settled, and limits leave room for all of them.

What several servers admit is judged and written by each in one transaction, so that together they pass no limit.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from lium_mcp.api.changes import noted_changes, noting_changes
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.entries import Entry, Extension, PodNameTaken
from lium_mcp.rentals.identity import Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.orders import Rental
from lium_mcp.rentals.settling import Settler
from lium_mcp.rentals.upkeep import Upkeep

# For rents in flight on other servers; many hosts end a call after 60 s.
_OTHERS_LIMIT_SECONDS: Final = 30.0
_OTHERS_PAUSE_SECONDS: Final = 1.0
# For a pod of the same name that is being removed.
_REMOVAL_LIMIT_SECONDS: Final = 6.0

BEING_SETTLED: Final = (
    "Another rent was under way or being settled, and may have made a pod that bills: call list_pods."
)

Judge = Callable[[Rows[Pod], Sequence[Entry], Sequence[Extension]], None]
"""Raises where living pods, open rents and admitted extensions, of whatever server, leave no room for the rents."""

FindJudge = Callable[[Sequence[Entry]], Awaitable[Judge]]
"""Reads what the judge of these rents has to know besides living pods and open rents.

It is called after these were read, so that what ends meanwhile counts twice rather than not at all. No other server on
the ledger is admitted between the verdict and the writing of the rows.
"""


class RentUnsettled(Exception):
    """Earlier rents of the account may have made pods that nobody knows of yet; nothing was sent.

    Attributes:
        entries: These rents; none where other servers rented one after the other all the time.
        in_flight: Whether servers still wait for the answers to them, or are about to send them.
    """

    def __init__(self, entries: Sequence[Entry], *, in_flight: bool = False) -> None:
        super().__init__("An earlier rent is not settled")
        self.entries = entries
        self.in_flight = in_flight


class _InFlight(Exception):
    """The account's rents have changed just now, or another server waits for the answer to one."""


async def allow(_entries: Sequence[Entry]) -> Judge:
    """Return a judge that allows everything."""
    return lambda _pods, _open, _extensions: None


def note_being_settled() -> None:
    """Note that the call at hand cannot say, if it fails, that nothing was rented."""
    noted_changes().append(BEING_SETTLED)


class Admission:
    """Admits the rents of one account, with one key.

    Attributes:
        settled: Rents that earlier calls had lost and that turned out to have pods, in the order in which they did.
    """

    def __init__(
        self,
        lium: LiumClient,
        clock: Clock,
        ledger: LazyLedger,
        identity: Identity,
        rents: AccountRents,
        settler: Settler,
        upkeep: Upkeep,
    ) -> None:
        """Act with a key; `clock` is for pauses."""
        self._lium = lium
        self._clock = clock
        self._ledger = ledger
        self._identity = identity
        self._rents = rents
        self._settler = settler
        self._upkeep = upkeep
        self.settled: list[Entry] = []

    async def bring_up_to_date(self, account: str, pods: Rows[Pod], *, in_background: bool = False) -> list[Entry]:
        """Attend to every open rent of the account, given its pods; return those that are still open.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries = await self._ledger.open().open_entries(account)
        if any(entry.is_unsettled for entry in entries):
            note_being_settled()
        with noting_changes():  # the call at hand was to do none of this
            await self._upkeep.attend(entries, pods, in_background=in_background)
        after = await self._ledger.open().open_entries(account)
        unsettled = {entry.id for entry in entries if entry.is_unsettled}
        self.settled += [entry for entry in after if entry.id in unsettled and entry.status == "rented"]
        return after

    async def match(self, entries: Sequence[Entry], pods: Sequence[Pod], pod_name: str, asked: str) -> Rental | None:
        """What an earlier call with the same request rented under a name; None where a rent may be written for it.

        Raises:
            PodNameTaken: a pod of that name lives, and another request rented it.
            LedgerUnavailable: nothing could be written.
        """
        named = next((entry for entry in entries if entry.pod_name == pod_name), None)
        if named is not None and _is_under_way(named):
            return None
        if (
            named is not None
            and named.status == "rented"
            and named.asked == asked
            and await self._rents.hand_out(named)
        ):
            return Rental(tuple(named.pod_ids), named.confirmed, named, earlier=True)
        taken = [pod.id for pod in pods if pod.pod_name == pod_name and pod.is_alive]
        if named is not None or taken:
            removing = named is not None and (named.status == "removing" or named.asked == asked)
            raise PodNameTaken(pod_name, list(named.pod_ids) if named else taken, removing=removing)
        return None

    async def admit(self, wanted: Sequence[Entry], find_judge: FindJudge) -> list[Entry | Rental]:
        """Write rents into the ledger once they may be sent: all that are missing together, or none.

        Returns:
            For each that was wanted: its row, or what an earlier call with the same request rented.

        Raises:
            PodNameTaken: a pod of one of the names lives, and another request rented it, or a standing order waits.
            RentUnsettled: an earlier rent is not settled.
            AccountUnknown: Lium does not say which account the key acts for.
            LoginEnded: the login that the key is of has ended.
            LedgerUnavailable: they could not be written down.
            LiumError: the pods could not be listed.
        """
        account = await self._identity.learn()
        started = self._clock.monotonic()
        while True:
            pods = await self._lium.pods.list()
            entries = await self.bring_up_to_date(account, pods)
            try:
                rentals = [await self.match(entries, pods, entry.pod_name, entry.asked) for entry in wanted]
            except PodNameTaken as taken:
                if not taken.removing or self._clock.monotonic() - started > _REMOVAL_LIMIT_SECONDS:
                    raise
                await self._clock.sleep(_OTHERS_PAUSE_SECONDS)
                continue
            known = [pod.id for pod in pods]
            now = self._lium.now()
            missing = [
                replace(entry, account=account, known_pod_ids=known, created_at=now)
                for entry, rental in zip(wanted, rentals, strict=True)
                if rental is None
            ]
            try:
                rows = iter(await self._write(missing, pods, await find_judge(missing)) if missing else ())
            except _InFlight:
                left_seconds = _OTHERS_LIMIT_SECONDS - (self._clock.monotonic() - started)
                await self._wait_for_others(account, left_seconds)
            else:
                return [rental or next(rows) for rental in rentals]

    async def admit_instead(self, entry: Entry, own_ids: Sequence[str], find_judge: FindJudge) -> Entry:
        """Write a rent in place of one that was refused, while others that were admitted with that await their turns.

        Raises:
            RentUnsettled: a rent is not settled, or one of another call is under way.
            LedgerUnavailable: it could not be written down.
            LiumError: the pods could not be listed.
        """
        pods = await self._lium.pods.list()
        entry = replace(entry, known_pod_ids=[pod.id for pod in pods], created_at=self._lium.now())
        judge = await find_judge([entry])

        def check(entries: Sequence[Entry], extensions: Sequence[Extension]) -> None:
            others = [other for other in entries if other.is_unsettled or other.pod_name == entry.pod_name]
            others += [other for other in entries if other.status == "admitted" and other.id not in own_ids]
            if others:
                raise RentUnsettled(others, in_flight=True)
            judge(pods, entries, extensions)

        [admitted] = await self._ledger.open().admit([entry], check, login_id=self._identity.login_id)
        return admitted

    def refuse_lost(self, entries: Sequence[Entry]) -> None:
        """Refuse further rents while the answer to one of these is lost.

        Raises:
            RentUnsettled: it is.
        """
        if lost := [entry for entry in entries if entry.is_unsettled and not self._settler.is_in_flight(entry)]:
            raise RentUnsettled(lost)

    async def _write(self, wanted: Sequence[Entry], pods: Rows[Pod], judge: Judge) -> list[Entry]:
        names = {entry.pod_name for entry in wanted}

        def check(entries: Sequence[Entry], extensions: Sequence[Extension]) -> None:
            self.refuse_lost(entries)
            if any(_is_under_way(other) or other.pod_name in names for other in entries):
                raise _InFlight
            judge(pods, entries, extensions)

        return await self._ledger.open().admit(wanted, check, login_id=self._identity.login_id)

    async def _wait_for_others(self, account: str, seconds: float) -> None:
        """Wait, without asking Lium, until no server waits for the answer to a rent of the account.

        Raises:
            RentUnsettled: one still waits when the time is over.
        """
        ends_at = self._clock.monotonic() + seconds
        while True:
            entries = await self._ledger.open().open_entries(account)
            in_flight = [entry for entry in entries if self._settler.is_in_flight(entry)]
            if self._clock.monotonic() >= ends_at:
                raise RentUnsettled(in_flight, in_flight=True)
            if not in_flight:
                return
            await self._clock.sleep(_OTHERS_PAUSE_SECONDS)


def _is_under_way(entry: Entry) -> bool:
    return entry.is_unsettled or entry.status == "admitted"
