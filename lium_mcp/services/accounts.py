"""An account: whose money a call spends, and what this server may use for it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lium_mcp.api.account import Me
from lium_mcp.api.client import LiumClient
from lium_mcp.remote import PodAccess
from lium_mcp.remote.key_source import KeySource
from lium_mcp.rentals import AccountRents, AccountWorker, Renter
from lium_mcp.text import in_a_line


@dataclass(frozen=True)
class Account:
    """Whose money a call spends: an API client with a key, and the renter of that account.

    Attributes:
        make_renter: Makes the renter.
        ssh_keys: The caller's own SSH key on this machine; None for callers elsewhere.
        registry_password: Reads a registry password from this server's environment; None for callers elsewhere.
        pod_access: Logs in to pods with this machine's SSH key; None for callers elsewhere.
        worker: Has done what is to be done between calls; None for callers elsewhere who have not logged in, and where
            nothing may be done.
        no_orders_because: Why this server carries out none of the account's standing orders; None where it does.
    """

    lium: LiumClient
    make_renter: Callable[[], Renter]
    ssh_keys: KeySource | None
    registry_password: Callable[[str], str | None] | None = None
    pod_access: PodAccess | None = None
    worker: AccountWorker | None = None
    no_orders_because: str | None = None

    @cached_property
    def renter(self) -> Renter:
        """What rents for the account. It is made when it is needed: over HTTP there is an account for each call."""
        return self.make_renter()

    @property
    def rents(self) -> AccountRents:
        """The account's rents as the ledger has them."""
        return self.renter.rents


def named(owner: Me) -> str:
    """Words for an account that its owner knows it by, on one line: anybody may call themselves anything."""
    names = " ".join(filter(None, (owner.name, f"<{owner.email}>" if owner.email else ""))) or f"account {owner.id}"
    workspace = owner.workspace.name or owner.workspace.id if owner.workspace else None
    return in_a_line(f"{names}, workspace {workspace}" if workspace else names)
