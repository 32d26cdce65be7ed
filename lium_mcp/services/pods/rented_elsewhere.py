"""Whose the pods are that this ledger did not rent: a colleague's look like one's own in the list of a workspace."""

from collections.abc import Iterable
from contextlib import suppress

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import AccountUnknown, LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.text import quotation, shortened

_MOST_CHARACTERS = 60


async def keys_of_others(account: Account, pods: Iterable[Pod]) -> dict[str, str]:
    """The names of the API keys that rented the pods which no open rent of the ledger has, by pod id.

    Those of which Lium names no key (GET /pods: `api_key_name`), such as what was rented in a browser, are not in it.
    """
    named = {pod.id: pod.api_key_name.strip() for pod in pods if pod.api_key_name and pod.api_key_name.strip()}
    with suppress(AccountUnknown, LiumError, LedgerUnavailable):  # then whose each is gets said of all
        for entry in await account.rents.open_entries() if named else ():
            for pod_id in entry.pod_ids:
                named.pop(pod_id, None)
    return {pod_id: shortened(name, _MOST_CHARACTERS) for pod_id, name in named.items()}


async def say_whose(account: Account, pod: Pod) -> str:
    """Say to a person which key has rented a pod; empty where the ledger rented it, or Lium names no key."""
    name = (await keys_of_others(account, [pod])).get(pod.id)
    return f"It was rented with API key {quotation(name, _MOST_CHARACTERS)}." if name else ""
