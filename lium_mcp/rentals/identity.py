"""Which account a key acts for: learned once per key from Lium, and kept in the ledger.

Limits, names and rents belong to the account, a user in a workspace, and not to one of its keys. Neither the key nor
who the user is can be read from what is kept.
"""

import hashlib
from contextlib import suppress
from datetime import UTC, datetime

import anyio

from lium_mcp.api.account import Me
from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import AuthenticationFailed, InvalidRequest, LiumError, PermissionDenied
from lium_mcp.auditing import note_account
from lium_mcp.rentals.entries import LedgerUnavailable
from lium_mcp.rentals.lazy_ledger import LazyLedger


class AccountUnknown(Exception):
    """Lium does not say now which account the key acts for; nothing was sent that spends."""


class Identity:
    """A key, and the account that it acts for.

    Attributes:
        key_tag: Stands for the key in the ledger.
        login_id: The login that is kept and whose key it is: while that counts, a server may act with it between calls,
            and once it has ended nothing is rented with it. None for a key of another kind.
    """

    def __init__(self, lium: LiumClient, ledger: LazyLedger, tag: str, *, login_id: str | None = None) -> None:
        """Take the API client with the key, the ledger, and the tag that stands for the key there."""
        self._lium = lium
        self._ledger = ledger
        self.key_tag = tag
        self.login_id = login_id
        self._account: str | None = None
        self._learning = anyio.Lock()
        self._heard: str | None = None

    @property
    def is_login(self) -> bool:
        """Whether it is the key of a login that is kept."""
        return self.login_id is not None

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
                ledger = self._ledger.open()
                self._account = await ledger.account_of(self.key_tag) or await ledger.note_account(
                    self.key_tag, await self.hear(), now=datetime.now(UTC)
                )
                note_account(self.key_tag, self._account)
            return self._account

    async def recall(self) -> None:
        """Name the account in the audit trail, if the ledger knows it; nobody is asked."""
        if self._account is None and not self._ledger.is_empty:
            with suppress(LedgerUnavailable):
                account = await self._ledger.open().account_of(self.key_tag)
                if account is not None:
                    note_account(self.key_tag, account)

    async def known(self) -> str:
        """The account that the key acts for; where it cannot be learned, the key's tag, which will do for reading.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        try:
            return await self.learn()
        except (AccountUnknown, LiumError):
            return self.key_tag
        except LedgerUnavailable:
            # Perhaps the ledger can be read, and only not written.
            return await self._ledger.open().account_of(self.key_tag) or self.key_tag

    async def me(self) -> Me:
        """Whom the key belongs to (`GET /users/me`); `learn` takes the account from this answer and asks no more.

        Raises:
            LiumError: it cannot be read.
        """
        me = await self._lium.account.me()
        workspace_id = (me.workspace.id if me.workspace else None) or ""
        parts = (self._lium.base_url, me.id, workspace_id)
        self._heard = hashlib.sha256("\n".join(("lium-mcp account", *parts)).encode()).hexdigest()
        return me

    async def hear(self) -> str:
        """The same as `GET /users/me` says it; the ledger is not needed.

        Raises:
            AccountUnknown, LiumError: as `learn`.
        """
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
