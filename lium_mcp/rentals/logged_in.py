"""Whether somebody is logged in for an account: what servers do for callers who log in belongs to the account.

Logins are kept by the clocks of this ledger's servers, and not by Lium's.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from lium_mcp.rentals.tables import ACCOUNTS, GRANTS


def of_account(account: ColumnElement[Any] | str) -> ColumnElement[bool]:
    """The condition that a login counts and is an account's, which includes those kept when only the key was known."""
    keys = select(ACCOUNTS.c.key_tag).where(ACCOUNTS.c.account == account).correlate_except(ACCOUNTS)
    return (GRANTS.c.until > datetime.now(UTC)) & or_(GRANTS.c.account == account, GRANTS.c.account.in_(keys))


def has_login(account: ColumnElement[Any]) -> ColumnElement[bool]:
    """The condition that an account has a login that counts."""
    return select(GRANTS.c.id).where(of_account(account)).correlate_except(GRANTS).exists()
