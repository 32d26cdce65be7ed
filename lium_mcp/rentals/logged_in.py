"""Whether a login counts, and whether somebody is logged in for an account: what is done between calls belongs to that.

Logins are kept by the clocks of this ledger's servers, and not by Lium's.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, or_, select

from lium_mcp.api.errors import LoginEnded
from lium_mcp.rentals.tables import ACCOUNTS, GRANTS


def of_account(account: ColumnElement[Any] | str) -> ColumnElement[bool]:
    """The condition that a login counts and is an account's, which includes those kept when only the key was known."""
    keys = select(ACCOUNTS.c.key_tag).where(ACCOUNTS.c.account == account).correlate_except(ACCOUNTS)
    return (GRANTS.c.until > datetime.now(UTC)) & or_(GRANTS.c.account == account, GRANTS.c.account.in_(keys))


def has_login(account: ColumnElement[Any]) -> ColumnElement[bool]:
    """The condition that an account has a login that counts."""
    return select(GRANTS.c.id).where(of_account(account)).correlate_except(GRANTS).exists()


def refuse_ended(connection: Connection, login_id: str | None) -> None:
    """Refuse what a login is for that has ended, where it is for one; it does not end before the transaction does.

    Raises:
        LoginEnded: it has.
    """
    stands = select(GRANTS.c.id).where(GRANTS.c.id == login_id, GRANTS.c.until > datetime.now(UTC))
    if login_id is not None and connection.execute(stands.with_for_update(read=True)).first() is None:
        raise LoginEnded
