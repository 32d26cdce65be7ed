"""Whether a call asks for the same pods as an earlier one did, under other names, since it counts them otherwise."""

import re

from lium_mcp.failures import Failure
from lium_mcp.services.accounts import Account
from lium_mcp.services.rents.wish import Wish


async def refuse_counted_otherwise(account: Account, wish: Wish) -> None:
    """Refuse a call whose pods would be rented beside those of the same call with another count, as if none were there.

    With a count they are numbered, and without one the pod has the very name.

    Raises:
        Failure: there are such pods.
    """
    numbered = re.compile(rf"{re.escape(wish.name)}-\d+")
    others = [
        entry.pod_name
        for entry in await account.rents.open_entries()
        if entry.asked == wish.digest
        and (entry.pod_name == wish.name if wish.is_batch else numbered.fullmatch(entry.pod_name))
    ]
    if others:
        names = " and ".join(dict.fromkeys((wish.pod_names[0], wish.pod_names[-1])))
        raise Failure(
            "pod_name_taken",
            f"The same request with another count has rented {', '.join(sorted(others))}, which lives: {names} would "
            "be rented beside it.",
            f"For as many as before, give that count again: 1 is for the pod named {wish.name}, and more are numbered. "
            "For these beside it, choose another name.",
        )
