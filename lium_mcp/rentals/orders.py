"""What can be rented, and what comes of a rent. Orders go into the ledger as JSON and come back as they were."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lium_mcp.api.clusters import ClusterRentRequest
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest
from lium_mcp.rentals.entries import Entry


@dataclass(frozen=True, slots=True)
class NodeOrder:
    """Rent GPUs of one chosen node."""

    executor_id: str
    request: RentRequest

    def body(self) -> dict[str, Any]:
        """The body that is sent."""
        return self.request.body()


@dataclass(frozen=True, slots=True)
class SpecOrder:
    """Let the API pick the cheapest node that fits."""

    request: RentBySpecRequest

    def body(self) -> dict[str, Any]:
        """The body that is sent."""
        return self.request.body(dry_run=False)


@dataclass(frozen=True, slots=True)
class ClusterOrder:
    """Rent several whole nodes of one fabric, all or none."""

    request: ClusterRentRequest

    def body(self) -> dict[str, Any]:
        """The body that is sent."""
        return self.request.body()


Order = NodeOrder | SpecOrder | ClusterOrder


@dataclass(frozen=True, slots=True)
class Rental:
    """Pods that bill now: one, or the members of a cluster.

    Attributes:
        pod_ids: Never empty.
        confirmed: The API named these pods as the answer to our request. False: they were found by name after the
            answer was lost, so they could in theory be somebody else's.
        entry: Its row in the ledger, as of when the pods became known.
        earlier: An earlier call with the same request rented them; this call sent nothing.
        was_lost: The answer to the first request was lost in this call, and what it rented was found out after.
    """

    pod_ids: tuple[str, ...]
    confirmed: bool
    entry: Entry
    earlier: bool = False
    was_lost: bool = False

    @property
    def rented_at(self) -> datetime:
        """When the request was about to leave."""
        return self.entry.created_at

    @property
    def pod_id(self) -> str:
        """The pod, or the first member of a cluster."""
        return self.pod_ids[0]


def pod_count(order: Order) -> int:
    """How many pods an order makes."""
    return len(order.request.executor_uuids) if isinstance(order, ClusterOrder) else 1


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A digest of a JSON value; equal values have equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_json(order: Order) -> dict[str, Any]:
    """Write an order for the ledger, with a digest of the body that is sent for it."""
    written: dict[str, Any] = {"request": order.request.model_dump(mode="json"), "body": digest(order.body())}
    if isinstance(order, NodeOrder):
        return written | {"kind": "node", "executor_id": order.executor_id}
    return written | {"kind": "spec" if isinstance(order, SpecOrder) else "cluster"}


def from_json(written: dict[str, Any]) -> Order | None:
    """Read an order back; None where this version of the program would not send exactly what was sent."""
    order: Order
    try:
        if written["kind"] == "node":
            order = NodeOrder(written["executor_id"], RentRequest.model_validate(written["request"]))
        elif written["kind"] == "spec":
            order = SpecOrder(RentBySpecRequest.model_validate(written["request"]))
        else:
            order = ClusterOrder(ClusterRentRequest.model_validate(written["request"]))
    except (KeyError, ValueError):
        return None
    return order if digest(order.body()) == written.get("body") else None
