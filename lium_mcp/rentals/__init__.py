"""Renting exactly once: the ledger of rents, and the protocol around ``POST .../rent``."""

from lium_mcp.api.wire import key_tag
from lium_mcp.rentals.account_rents import AccountRents
from lium_mcp.rentals.account_worker import AccountWorker
from lium_mcp.rentals.admission import BEING_SETTLED, FindJudge, Judge, RentUnsettled
from lium_mcp.rentals.batches import BatchedRent, NotSent, Wanted
from lium_mcp.rentals.belonging import NamedAnothers, contradiction_of_request, is_anothers, is_its_own, of_its_name
from lium_mcp.rentals.billed_hours import LATE_HOURS, hours_paid_for, most_hours, whole_hours
from lium_mcp.rentals.claimants import read_claimant
from lium_mcp.rentals.entries import (
    BeingRemoved,
    Entry,
    Extension,
    LedgerUnavailable,
    PastCost,
    PodNameTaken,
    PodWork,
    Task,
    TaskKind,
    TaskOver,
    Work,
    WorkKind,
    has_something_left,
    is_expired,
    offered_per_hour_usd,
)
from lium_mcp.rentals.expected import (
    DEARER,
    PRICE_TOLERANCE_USD,
    Expected,
    costs_more,
    shortfalls,
    still_expected,
)
from lium_mcp.rentals.identity import AccountUnknown, Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger
from lium_mcp.rentals.node_refusals import is_of_its_node
from lium_mcp.rentals.orders import ClusterOrder, NodeOrder, Order, Rental, SpecOrder, digest
from lium_mcp.rentals.protocol import Renter, RentSettled
from lium_mcp.rentals.removal_time import REMOVAL_TOLERANCE
from lium_mcp.rentals.settling import REPLAY_WINDOW, NotSentAgain, Readmit
from lium_mcp.rentals.upkeep import unlisted_pod_ids
from lium_mcp.rentals.worker import LEASE, OTHERS_SECONDS, Claim, LeaseLost, NotNow, OwnKey, Step, Worker

__all__ = [
    "BEING_SETTLED",
    "DEARER",
    "LATE_HOURS",
    "LEASE",
    "OTHERS_SECONDS",
    "PRICE_TOLERANCE_USD",
    "REMOVAL_TOLERANCE",
    "REPLAY_WINDOW",
    "AccountRents",
    "AccountUnknown",
    "AccountWorker",
    "BatchedRent",
    "BeingRemoved",
    "Claim",
    "ClusterOrder",
    "Entry",
    "Expected",
    "Extension",
    "FindJudge",
    "Identity",
    "Judge",
    "LazyLedger",
    "LeaseLost",
    "LedgerUnavailable",
    "NamedAnothers",
    "NodeOrder",
    "NotNow",
    "NotSent",
    "NotSentAgain",
    "Order",
    "OwnKey",
    "PastCost",
    "PodNameTaken",
    "PodWork",
    "Readmit",
    "RentSettled",
    "RentUnsettled",
    "Rental",
    "Renter",
    "SpecOrder",
    "Step",
    "Task",
    "TaskKind",
    "TaskOver",
    "Wanted",
    "Work",
    "WorkKind",
    "Worker",
    "contradiction_of_request",
    "costs_more",
    "digest",
    "has_something_left",
    "hours_paid_for",
    "is_anothers",
    "is_expired",
    "is_its_own",
    "is_of_its_node",
    "key_tag",
    "most_hours",
    "of_its_name",
    "offered_per_hour_usd",
    "read_claimant",
    "shortfalls",
    "still_expected",
    "unlisted_pod_ids",
    "whole_hours",
]
