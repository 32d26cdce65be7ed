"""Renting exactly once: the ledger of rents, and the protocol around ``POST .../rent``."""

from lium_mcp.rentals.entries import Entry, LedgerUnavailable
from lium_mcp.rentals.expected import PRICE_TOLERANCE_USD, Expected, costs_more
from lium_mcp.rentals.journal import Journal
from lium_mcp.rentals.orders import ClusterOrder, NodeOrder, Order, Rental, SpecOrder, Terms, digest
from lium_mcp.rentals.protocol import Judge, PodNameTaken, Renter, RentUnsettled, needs_attention
from lium_mcp.rentals.removal import whole_hours
from lium_mcp.rentals.settling import DEARER, REPLAY_WINDOW, is_alive, is_gone

__all__ = [
    "DEARER",
    "PRICE_TOLERANCE_USD",
    "REPLAY_WINDOW",
    "ClusterOrder",
    "Entry",
    "Expected",
    "Journal",
    "Judge",
    "LedgerUnavailable",
    "NodeOrder",
    "Order",
    "PodNameTaken",
    "RentUnsettled",
    "Rental",
    "Renter",
    "SpecOrder",
    "Terms",
    "costs_more",
    "digest",
    "is_alive",
    "is_gone",
    "needs_attention",
    "whole_hours",
]
