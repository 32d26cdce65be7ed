"""Which account a key acts for: learned once per key from Lium, and kept in the ledger.

Limits, names and rents belong to the account, a user in a workspace, and not to one of its keys. Neither the key nor
who the user is can be read from what is kept.
"""

import hashlib
import hmac
from datetime import UTC, datetime

import anyio

from lium_mcp.api.account import Me
from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import AuthenticationFailed, InvalidRequest, LiumError, PermissionDenied
from lium_mcp.rentals.entries import LedgerUnavailable
from lium_mcp.rentals.journal import Journal


class AccountUnknown(Exception):
    """Lium does not say now which account the key acts for; nothing was sent that spends."""


def key_tag(key: str, base_url: str) -> str:
    """What a key is called in the ledger: it tells one key at one address from another, and gives away neither."""
    return hmac.new(key.encode(), f"lium-mcp account at {base_url}".encode(), hashlib.sha256).hexdigest()


class Identity:
    """A key, and the account that it acts for."""

    def __init__(self, lium: LiumClient, journal: Journal, tag: str) -> None:
        """Take the API client with the key, where the ledger is, and what the key is called there."""
        self._lium = lium
        self._journal = journal
        self.key_tag = tag
        self._account: str | None = None
        self._learning = anyio.Lock()
        self._heard: str | None = None

    async def learn(self) -> str:
        """The account that the key acts for: as the ledger has it, else as `GET /users/me` says it now.

        A key that may not read that (403) is an account of its own.

        Raises:
            AccountUnknown: Lium does not say it now.
            LiumError: there is no key, or Lium does not know it.
            LedgerUnavailable: the ledger cannot be read, or cannot keep it.
        """
        async with self._learning:
            if self._account is None:
                ledger = self._journal.open()
                self._account = await ledger.account_of(self.key_tag) or await ledger.note_account(
                    self.key_tag, await self._ask(), now=datetime.now(UTC)
                )
            return self._account

    async def known(self) -> str:
        """The account that the key acts for, as far as can be said for reading: else the key stands for itself.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        try:
            return await self.learn()
        except (AccountUnknown, LiumError):
            return self.key_tag
        except LedgerUnavailable:
            # It may only be that nothing can be written there.
            return await self._journal.open().account_of(self.key_tag) or self.key_tag

    async def me(self) -> Me:
        """Whom the key belongs to (`GET /users/me`), which need not be asked once more to learn the account.

        Raises:
            LiumError: it cannot be read.
        """
        me = await self._lium.account.me()
        workspace_id = (me.workspace.id if me.workspace else None) or ""
        parts = (self._lium.base_url, me.id, workspace_id)
        self._heard = hashlib.sha256("\n".join(("lium-mcp account", *parts)).encode()).hexdigest()
        return me

    async def _ask(self) -> str:
        try:
            if self._heard is None:
                await self.me()
        except PermissionDenied:
            return self.key_tag
        except (InvalidRequest, AuthenticationFailed):
            raise
        except LiumError as error:
            raise AccountUnknown(str(error)) from error
        return self._heard or self.key_tag
