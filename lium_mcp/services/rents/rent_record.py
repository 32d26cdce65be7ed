"""The rents of an account as the ledger has them: what was asked for, what came of it, and at what price."""

from lium_mcp.rentals import Entry, LedgerUnavailable
from lium_mcp.results import Result, UsdRate, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import as_failure

_MOST_ROWS = 100


class RecordedRent(Result):
    """One rent. Its price is what was quoted for all of its pods together."""

    name: str
    status: str
    asked_at: UtcTime
    closed_at: UtcTime | None = None
    pod_ids: list[str] | None = None
    price_per_hour_usd: UsdRate | None = None
    hours: float | None = None
    by_order: bool | None = None
    what_came_of_it: str | None = None


class RentRecord(Result):
    """The newest rents, open ones first; older closed ones are left out."""

    rents: list[RecordedRent]
    note: str


async def read_rent_record(account: Account) -> RentRecord:
    """Read the rents of the account from the ledger.

    Raises:
        Failure: the ledger cannot be read.
        MissingApiKey: there is no account.
    """
    account.lium.check_api_key()
    try:
        entries = await account.rents.newest(_MOST_ROWS)
    except LedgerUnavailable as error:
        raise as_failure(error) from None
    return RentRecord(
        rents=[_recorded(entry) for entry in entries],
        note=f"What the ledger of this server has: closed rents for some weeks, {_MOST_ROWS} rows at most. Pods that "
        "were rented elsewhere are not in it.",
    )


def _recorded(entry: Entry) -> RecordedRent:
    return RecordedRent(
        name=entry.pod_name,
        status=entry.status,
        asked_at=entry.created_at,
        closed_at=entry.closed_at,
        pod_ids=list(entry.pod_ids) or None,
        price_per_hour_usd=entry.price_per_hour_usd,
        hours=entry.hours,
        by_order=True if entry.task_id else None,
        what_came_of_it=entry.note or None,
    )
