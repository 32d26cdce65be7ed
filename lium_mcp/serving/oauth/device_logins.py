"""Lium's own login behind one of ours: the person agrees on Lium's page, and the key that comes of it is kept sealed.

The answer that has the key may be given once only, so from there to the ledger nothing is cancelled.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import anyio

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import AuthenticationFailed, LiumError, MissingScope
from lium_mcp.failures import Failure
from lium_mcp.guard.sealing import Seal
from lium_mcp.rentals import Identity, LazyLedger, key_tag
from lium_mcp.rentals.grants import Grant, Login
from lium_mcp.services.accounts import named
from lium_mcp.services.logging_in import POLL_SECONDS, OpenLogin, begin_login, fetch_key
from lium_mcp.serving.oauth.tickets import digest
from lium_mcp.text import shortened

log = logging.getLogger(__name__)

# An answer that has the key comes with a question whose it is.
_KEEP_SECONDS: Final = 40.0
# So long a grant waits for its client to come for the tokens.
_FETCHED_WITHIN: Final = timedelta(minutes=5)
_MOST_NAME_CHARACTERS: Final = 200
_UNTOLD: Final = "an account that Lium did not tell"
# A client waits meanwhile for the tokens of a renewal.
_TELL_SECONDS: Final = 2.0


class DeviceLogins:
    """Takes logins from the person's consent to a grant.

    Args:
        lium: The API client without a key.
        ledger: Where logins are.
        seal: Seals what is worth a key.
        clock: The time.
    """

    def __init__(self, lium: LiumClient, ledger: LazyLedger, seal: Seal, clock: Clock) -> None:
        self._lium = lium
        self._ledger = ledger
        self._seal = seal
        self._clock = clock

    async def begin(self, login: Login, browser: str) -> bool:
        """Begin a login at Lium, for the browser in which the person consented; False where that was done before.

        Raises:
            Failure, LiumError: Lium begins none.
            LedgerUnavailable: it cannot be kept.
        """
        opened = await begin_login(self._lium)
        sealed = self._seal.seal({"page": opened.page, "session_id": opened.session_id, "site": opened.site})
        first_look = self._clock.now() + timedelta(seconds=POLL_SECONDS)
        values = {"status": "waiting", "browser": digest(browser), "sealed": sealed, "next_look_at": first_look}
        return await self._ledger.grants().change_login(login, **values)

    def opened(self, login: Login) -> OpenLogin | None:
        """Lium's side of a login that waits; None where it cannot be read any more."""
        values = self._seal.open(login.sealed) if login.sealed else None
        return OpenLogin(values["page"], values["session_id"], values["site"]) if values else None

    async def look(self, login: Login) -> None:
        """Ask Lium whether the person has agreed, unless it was asked just now; whatever it says is kept.

        Raises:
            LedgerUnavailable: it cannot be kept.
        """
        now = self._clock.now()
        if login.next_look_at is None or now < login.next_look_at:
            return
        next_look = now + timedelta(seconds=POLL_SECONDS)
        opened = self.opened(login)
        if opened is None or not await self._ledger.grants().change_login(login, next_look_at=next_look):
            return
        with anyio.move_on_after(_KEEP_SECONDS, shield=True):
            try:
                key = await fetch_key(self._lium, opened, self._clock, limit_seconds=0)
                await self._keep(login, key)
            except Failure as failure:
                if failure.code != "login_unanswered":
                    await self._end(login, "refused" if failure.code == "login_refused" else "failed")
            except AuthenticationFailed:
                await self._end(login, "failed")
            except LiumError as error:
                log.info("Lium could not be asked about a login: %s", type(error).__name__)

    async def _keep(self, login: Login, key: str) -> None:
        owner, account = await self._whose(key)
        now = self._clock.now()
        grant = Grant(
            id=str(uuid4()),
            client_id=login.client_id,
            client_name=_client_of(login),
            account=account,
            sealed=self._seal.seal({"key": key, "owner": owner}),
            created_at=now,
            renewed_at=now,
            until=now + _FETCHED_WITHIN,
        )
        await self._ledger.grants().agree(login, grant)
        log.info("A person logged in: login %s of account %s", grant.id, account[:8])

    async def tell(self, opened: Mapping[str, str], account: str) -> tuple[Mapping[str, str], str]:
        """What is sealed of a grant, and its account; Lium is asked whose the key is where it did not tell before."""
        if opened["owner"] != _UNTOLD:
            return opened, account
        with suppress(AuthenticationFailed, TimeoutError), anyio.fail_after(_TELL_SECONDS):
            owner, account = await self._whose(opened["key"])
            return {**opened, "owner": owner}, account
        return opened, account

    async def _whose(self, key: str) -> tuple[str, str]:
        """Whose a key is, in words, and the account that it acts for.

        Raises:
            AuthenticationFailed: Lium does not take it.
        """
        acting = self._lium.for_key(key, "this login")
        identity = Identity(acting, self._ledger, key_tag(key, acting.base_url))
        try:
            owner = named(await identity.me())
        except AuthenticationFailed:
            raise
        except MissingScope:
            owner = "a key that may not read its account"
        except LiumError:
            owner = _UNTOLD
        return owner, await identity.known()

    async def _end(self, login: Login, status: str) -> None:
        ended = {"status": status, "sealed": None, "next_look_at": None}
        newest = await self._ledger.grants().login(login.ticket, now=self._clock.now())
        if newest is not None:
            await self._ledger.grants().change_login(newest, **ended)


def _client_of(login: Login) -> str:
    """What the operator is shown of a client: how it calls itself, and which site says so too."""
    name, document = str(login.request["client_name"]), login.request.get("client_document")
    return shortened(f"{name} ({urlsplit(document).netloc})".strip(), _MOST_NAME_CHARACTERS) if document else name
