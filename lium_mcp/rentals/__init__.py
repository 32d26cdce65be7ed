"""Renting a pod exactly once: what happens around ``POST .../rent``."""

from lium_mcp.rentals.protocol import ClusterOrder, NodeOrder, Order, PodNameTaken, Rental, Renter, SpecOrder

__all__ = ["ClusterOrder", "NodeOrder", "Order", "PodNameTaken", "Rental", "Renter", "SpecOrder"]
