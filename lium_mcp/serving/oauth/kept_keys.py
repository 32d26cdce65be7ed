"""What goes on after the calls of those who have logged in, and with which key: that of a login which is kept.

Work belongs to an account of the ledger. It is done with the key of the login that asked for it, and once that has
ended, with the newest of the account's that works, by whichever server opens it. Once nobody is logged in for the
account any more, or Lium has refused the keys for an hour, it ends, and that is told.
"""

import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import anyio

from lium_mcp.api.errors import LOGIN_OVER_HTTP, LiumError
from lium_mcp.auditing import acting, note_account
from lium_mcp.guard.sealing import Seal
from lium_mcp.rentals import (
    AccountUnknown,
    Claim,
    Entry,
    LazyLedger,
    LedgerUnavailable,
    NotNow,
    Task,
    TaskKind,
    is_expired,
)
from lium_mcp.rentals.grants import Grant
from lium_mcp.services.accounts import Account
from lium_mcp.serving.callers import Accounts

log = logging.getLogger(__name__)

_RESTS: Final = timedelta(minutes=10)
"""How long a key is left alone that Lium has refused: perhaps it was Lium's fault."""
_WITHDRAWN_AFTER: Final = timedelta(hours=1)
_REMEMBERED: Final = timedelta(days=1)
_UNOPENED_SECONDS: Final = 600.0
_NOTE_SECONDS: Final = 5.0
# Of several servers, one attends to an account's rents at a time; another does so soon after it has died.
_ATTENDED_FOR: Final = timedelta(seconds=12)
_ATTENDED_AT_ONCE: Final = 8
_ENDED: Final = "login_ended"


@dataclass(slots=True)
class _Login:
    """A login whose key is open here: as long as it is used, what its account remembers of earlier looks holds on."""

    grant_id: str
    owner: str
    account: Account
    used_at: float
    refused_since: datetime | None = None
    rests_until: datetime | None = None


class KeptKeys:
    """Whose work is done for those who have logged in; see `Whose`."""

    def __init__(self, ledger: LazyLedger, seal: Seal, accounts: Accounts) -> None:
        """Take where logins and work are kept, what opens keys, and what acts with them."""
        self._ledger = ledger
        self._seal = seal
        self._accounts = accounts
        self._open: dict[str, _Login] = {}
        self._told: set[str] = set()

    # tasks

    async def is_any_due(self, kinds: Collection[TaskKind], *, now: datetime) -> bool:
        """As `Whose.is_any_due`; what nobody can do any more is ended before."""
        for task in await self._ledger.login_work().end_without_login(now=now):
            _tell_of_task(task)
        return await self._ledger.tasks().is_any_due(kinds, now=now, by_login=True)

    async def claim(
        self, kinds: Collection[TaskKind], *, now: datetime, lease: timedelta, without: Collection[str]
    ) -> Task | None:
        """As `Whose.claim`."""
        return await self._ledger.tasks().claim(None, kinds, now=now, lease=lease, without=without)

    def is_own(self, task: Task) -> bool:
        """As `Whose.is_own`: who has logged in for the account may see what others asked for who have."""
        return task.by_login

    @asynccontextmanager
    async def acting(self, claim: Claim) -> AsyncIterator[None]:
        """As `Whose.acting`."""
        task = claim.task
        logins, is_all = await self._logins_of(task.account)
        usable = [login for login in logins if login.rests_until is None]
        if not usable:
            await self._leave(claim, logins, is_all=is_all)
            raise NotNow("no login of its account can be used", seconds=_UNOPENED_SECONDS)
        login = next((one for one in usable if one.account.renter.key_tag == task.key_tag), usable[0])
        async with self._as(login):
            yield

    async def _leave(self, claim: Claim, logins: Sequence[_Login], *, is_all: bool) -> None:
        """Leave a task for later that no login can be used for now."""
        now = self._accounts.now()
        rest_until = [login.rests_until for login in logins if login.rests_until is not None]
        if is_all and rest_until:
            await claim.leave_until(min(rest_until))
        elif not is_all:
            # Another server may open them; perhaps none ever will.
            owner = claim.task.account[:8]
            log.warning("No key in LIUM_MCP_OAUTH_KEYS opens a login of account %s: another server has to do it", owner)
            if is_expired(claim.task.payload, now):
                await claim.finish("expired", "its time is over, and no server could open a login of its account")

    # rents

    async def attend(self) -> None:
        """Do once what is left to do for the rents of those who have logged in; tell of what nobody can do any more.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._ledger.is_empty:
            return
        self._forget_unused()
        work = self._ledger.login_work()
        for entry in await work.rents_without_login(without=self._told):
            await self._tell_of_rent(entry)
        accounts, limiter = await work.accounts_with_rents_left(), anyio.CapacityLimiter(_ATTENDED_AT_ONCE)

        async def attend_to(owner: str) -> None:
            async with limiter:
                try:
                    await self._attend_to(owner)
                except (AccountUnknown, LiumError, LedgerUnavailable) as error:
                    log.warning("Rents of account %s could not be attended to for now: %s", owner[:8], error)
                except Exception:
                    log.exception("Rents of account %s: this server failed", owner[:8])  # the others go on

        async with anyio.create_task_group() as group:
            for owner in accounts:
                group.start_soon(attend_to, owner)

    async def _attend_to(self, owner: str) -> None:
        now = self._accounts.now()
        if not await self._ledger.notes().claim(f"{owner} attended to", now=now, until=now + _ATTENDED_FOR):
            return
        entries = await self._ledger.open().open_entries(owner)
        logins, _ = await self._logins_of(owner)
        # A rent whose answer was lost is asked for again with its own key alone.
        lost = {entry.key_tag for entry in entries if entry.is_unsettled}
        usable = [login for login in logins if login.rests_until is None]
        for login in usable:
            if login is usable[0] or login.account.renter.key_tag in lost:
                async with self._as(login):
                    with acting("upkeep"):
                        await login.account.renter.attend(in_background=True)

    # keys

    async def _logins_of(self, owner: str) -> tuple[list[_Login], bool]:
        """The logins of an account that are open here, the newest first, and whether these are all."""
        grants = await self._ledger.grants().of_account(owner)
        for ended in [login for login in self._open.values() if login.owner == owner]:
            if all(grant.id != ended.grant_id for grant in grants):
                del self._open[ended.grant_id]
        logins = [login for grant in grants if (login := self._opened(owner, grant)) is not None]
        now = self._accounts.now()
        for login in logins:
            noted = await self._ledger.notes().read(_refusals_of(login), now=now)
            login.refused_since = datetime.fromisoformat(noted["since"]) if noted else None
            rests_until = datetime.fromisoformat(noted["at"]) + _RESTS if noted else now
            login.rests_until = rests_until if rests_until > now else None
        return logins, len(logins) == len(grants)

    def _opened(self, owner: str, grant: Grant) -> _Login | None:
        login = self._open.get(grant.id)
        if login is None:
            opened = self._seal.open(grant.sealed)
            if opened is None:
                return None
            account = self._accounts.of_login(grant.id, opened["key"], LOGIN_OVER_HTTP)
            login = self._open[grant.id] = _Login(grant.id, owner, account, 0)
        login.used_at = anyio.current_time()
        return login

    def _forget_unused(self) -> None:
        """Keep no key open for which nothing was done lately."""
        since = anyio.current_time() - _RESTS.total_seconds()
        self._open = {grant_id: login for grant_id, login in self._open.items() if login.used_at > since}

    @asynccontextmanager
    async def _as(self, login: _Login) -> AsyncIterator[None]:
        """Act with the key of a login, and note where Lium refuses it."""
        began = login.account.lium.now()
        with self._accounts.acting_for(login.account):
            try:
                yield
            finally:
                with anyio.move_on_after(_NOTE_SECONDS, shield=True):
                    await self._note_refusal(login, began)

    async def _note_refusal(self, login: _Login, began: datetime) -> None:
        """Note that Lium refuses a key, or does no more; one that it has refused for long was withdrawn."""
        now, refused_at = self._accounts.now(), login.account.lium.key_refused_at
        name, since = _refusals_of(login), login.refused_since
        try:
            if refused_at is None and since is not None:
                await self._ledger.notes().keep(name, None, now=now, until=now)
            if refused_at is None or refused_at < began:
                return
            if since is not None and now - since >= _WITHDRAWN_AFTER:
                await self._ledger.grants().end(login.grant_id)
                log.warning("Login %s has ended: Lium has refused its key since %s", login.grant_id, since)
                return
            noted = {"since": (since or now).isoformat(), "at": now.isoformat()}
            await self._ledger.notes().keep(name, noted, now=now, until=now + _REMEMBERED)
            log.warning("Lium refuses the key of login %s; it is tried again later", login.grant_id)
        except LedgerUnavailable as error:
            log.warning("The ledger cannot note how Lium takes the key of login %s: %s", login.grant_id, error)

    # telling

    async def _tell_of_rent(self, entry: Entry) -> None:
        """Tell once, of all servers, of a rent for which something is left to do that nobody can."""
        now = self._accounts.now()
        told = f"nobody is logged in for rent {entry.id}"
        if await self._ledger.notes().claim(told, now=now, until=now + timedelta(days=90)):
            log.error(
                "Rent %s (%s, pods %s) is not done with, and nobody is logged in for its account any more: look at "
                "lium.io what bills",
                entry.id,
                entry.status,
                ", ".join(entry.pod_ids) or "not known",
            )
            with acting("upkeep") as act:
                act.begin(entry.key_tag, {"pod_id": list(entry.pod_ids)})
                act.end(entry.key_tag, _ENDED)
        self._told.add(entry.id)


def _refusals_of(login: _Login) -> str:
    return f"refusals of login {login.grant_id}"


def _tell_of_task(task: Task) -> None:
    note_account(task.key_tag, task.account)
    log.warning("Task %s %s has ended: %s", task.kind, task.id, task.note)
    with acting(task.kind, task.id) as act:
        act.begin(task.key_tag)
        act.end(task.key_tag, "ok" if task.status == "done" else _ENDED, task.progress)
