"""The marketplace: which nodes there are, what they cost now, and how many GPUs other renters leave.

Prices and the other renters' demand are functions of the seed and of the time since the sandbox started, so nothing
has to be stored or replayed. What the sandbox's own accounts rent is a plain count per node. This file knows nothing of
pods, accounts or HTTP.
"""

import copy
import functools
import math
import random
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

from pydantic import JsonValue

from lium_mcp.sandbox.market_data import (
    DESKTOP_CPUS,
    DRIVERS,
    GPU_TYPES,
    LOOKALIKES,
    PLACES,
    SERVER_CPUS,
    City,
    GpuModel,
)
from lium_mcp.sandbox.seeded import fraction, identifier

PRICE_STEP_SECONDS: Final = 600
PRICE_TREND_SECONDS: Final = 6 * 3600
PRICE_SWING: Final = 0.08
DEMAND_PERIOD_SECONDS: Final = (1800, 4 * 3600)
BUSY_SHARE: Final = 0.45
KIB_PER_GIB: Final = 1024 * 1024

# GPU type, kind of network, members: whole hosts on one RDMA fabric, free unless an account of the sandbox rents them
FABRICS: Final = (("NVIDIA H100 80GB HBM3", "infiniband", 4), ("NVIDIA H200", "roce", 3))

Split = Literal["split", "whole", "unsaid"]


@dataclass
class Node:
    """One host. Most fields never change; the last ones do, from `notice` on, with a cache of rows among them."""

    id: str
    index: int
    gpu: GpuModel
    gpu_count: int
    base_price: float
    split: Split
    min_gpu_count: int | None
    tier: str | None
    place: City
    cpu_model: str
    cpu_count: int
    ram_kib: int
    ram_reserve_kib: int
    disk_kib: int
    disk_free_kib: int
    upload_mbps: float
    download_mbps: float
    driver: str
    cuda: float
    sysbox: bool
    port_count: int
    reliability: float
    frequent_failures: bool
    power_limited: bool
    gaps: frozenset[str]
    always_free: bool
    fabric_id: str | None = None
    notice: str | None = None
    rows: dict[bool, dict[str, JsonValue]] = field(default_factory=dict, repr=False)
    taken_by_us: int = 0
    off_market_until: datetime | None = None
    taken_until: datetime | None = None

    def __copy__(self) -> "Node":
        # Each sandbox copies hundreds, and the usual way takes five times as long.
        twin = object.__new__(Node)
        vars(twin).update(vars(self))
        return twin

    @property
    def address(self) -> str:
        """A documentation address (RFC 5737), so that nothing real is ever dialled."""
        return f"203.0.113.{1 + self.index % 254}"

    @property
    def smallest_split(self) -> int:
        """The fewest GPUs that a rent may take here."""
        return self.gpu_count if self.min_gpu_count is None else self.min_gpu_count


@dataclass
class Market:
    """All nodes, with prices and free GPUs at a given time."""

    seed: int
    start: datetime
    lookalikes: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gpu_types = GPU_TYPES + LOOKALIKES if self.lookalikes else GPU_TYPES
        self.nodes = {node.id: copy.copy(node) for node in _make_nodes(self.seed, self.gpu_types)}

    def price(self, node: Node, now: datetime) -> Decimal:
        """USD per GPU-hour at this time: a slow trend, small steps every ten minutes."""
        step = int((now - self.start).total_seconds() // PRICE_STEP_SECONDS)
        return _price(self.seed, node.id, node.base_price, step)

    def free_gpus(self, node: Node, now: datetime) -> int:
        """GPUs one could rent now; 0 on a node that rents only whole and is not wholly free."""
        if node.taken_until is not None and now < node.taken_until:
            return 0
        if self.is_paused(node, now):
            return 0
        free = max(node.gpu_count - node.taken_by_us - self._demand(node, now), 0)
        return free if free >= node.smallest_split else 0

    def listed(self, now: datetime) -> list[Node]:
        """Nodes that can be rented now, in an order that changes, as the API promises none."""
        epoch = int((now - self.start).total_seconds() // PRICE_STEP_SECONDS)
        free = [node for node in self.nodes.values() if self.free_gpus(node, now) > 0]
        return sorted(free, key=lambda node: fraction(self.seed, "order", epoch, node.id))

    def is_paused(self, node: Node, now: datetime) -> bool:
        """Whether the node's provider has taken it off the market."""
        return node.off_market_until is not None and now < node.off_market_until

    def _demand(self, node: Node, now: datetime) -> int:
        if node.always_free:
            return 0
        if node.gpu.sold_out:
            return node.gpu_count
        period, shift = _rhythm(self.seed, node.id)
        bucket = int(((now - self.start).total_seconds() + shift) // period)
        if fraction(self.seed, "busy", node.id, bucket) >= BUSY_SHARE:
            return 0
        if node.min_gpu_count is None:
            return node.gpu_count
        return 1 + int(fraction(self.seed, "share", node.id, bucket) * node.gpu_count)


@functools.lru_cache(maxsize=1 << 14)
def _price(seed: int, node_id: str, base_price: float, step: int) -> Decimal:
    bucket, position = divmod(step * PRICE_STEP_SECONDS / PRICE_TREND_SECONDS, 1)
    before = fraction(seed, "trend", node_id, int(bucket))
    after = fraction(seed, "trend", node_id, int(bucket) + 1)
    trend = 2 * (before + (after - before) * position) - 1
    price = base_price * (1 + PRICE_SWING * trend)
    return Decimal(str(round(price, 2 if price >= 1 else 3)))


@functools.lru_cache(maxsize=1 << 12)
def _rhythm(seed: int, node_id: str) -> tuple[float, float]:
    """How many seconds a node's demand stays the same, and how many of the first ones lie before the start."""
    shortest, longest = DEMAND_PERIOD_SECONDS
    period = shortest + (longest - shortest) * fraction(seed, "period", node_id)
    return period, period * fraction(seed, "shift", node_id)


@functools.cache
def short_type(machine_name: str) -> str:
    """Return the short GPU name that users type (H100, RTX4090, RTXPRO6000) for a full one."""
    patterns = (r"RTX PRO (\d{4}D?)", r"RTX (\d{4})", r"\b([HBL]\d{2,3}S?)\b", r"\b(A\d{2,4})\b")
    prefixes = ("RTXPRO", "RTX", "", "")
    for pattern, prefix in zip(patterns, prefixes, strict=True):
        if found := re.search(pattern, machine_name):
            return prefix + found[1]
    return machine_name.rpartition(" ")[2]


def distance_miles(node: Node, lat: float, lon: float) -> float:
    """Great-circle distance from a point to the node's city."""
    a, b = math.radians(lat), math.radians(node.place.lat)
    chord = (
        math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(math.radians(node.place.lon - lon) / 2) ** 2
    )
    return 2 * 3958.8 * math.asin(math.sqrt(min(1.0, chord)))


@functools.lru_cache(maxsize=16)
def _make_nodes(seed: int, gpu_types: tuple[GpuModel, ...]) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for gpu in gpu_types:
        nodes += [_make_node(seed, gpu, number, len(nodes) + number) for number in range(gpu.nodes)]
    for name, kind, size in FABRICS:
        hosts = [node for node in nodes if node.gpu.name == name and node.gpu_count == max(node.gpu.host_sizes)]
        for node in hosts[:size]:
            node.fabric_id = f"hot:{kind}:0x3:0x7fff:{name}:{node.gpu_count}"
            node.place, node.always_free = hosts[0].place, True
    return tuple(nodes)


def _make_node(seed: int, gpu: GpuModel, number: int, index: int) -> Node:
    rng = random.Random(f"{seed}:{gpu.name}:{number}")  # noqa: S311 - a simulated market, not a secret

    def chance(share: float) -> bool:
        return rng.random() < share

    count = gpu.host_sizes[number % len(gpu.host_sizes)]
    always_free = number < gpu.always_free
    split: Split = rng.choices(("split", "whole", "unsaid"), (6, 3, 1))[0]
    smallest = None
    if split == "split" or (split == "unsaid" and chance(0.5)):
        smallest = rng.choice([size for size in (1, 1, 2, 4) if size <= count])
    cpu_model, cpu_count = rng.choice(SERVER_CPUS if gpu.server_class else DESKTOP_CPUS)
    blackwell = gpu.name.startswith("NVIDIA B") or "Blackwell" in gpu.name or "5090" in gpu.name
    driver, cuda = rng.choice(DRIVERS[:2] if blackwell else DRIVERS)
    ram_kib = int(count * rng.choice((48, 64, 96, 128, 192)) * KIB_PER_GIB * (1.2 if gpu.server_class else 0.7))
    disk_kib = rng.choice((900, 1800, 3600, 7200, 14000)) * KIB_PER_GIB
    download = round(rng.lognormvariate(6.9, 0.7), 1)
    gap_kinds = (
        "cpu",
        "ram",
        "disk",
        "ports",
        "location",
        "cuda",
        "network",
        "reliability",
        "interconnect",
        "gpu_details",
    )
    return Node(
        id=identifier(seed, "node", gpu.name, number),
        index=index,
        gpu=gpu,
        gpu_count=count,
        base_price=gpu.price_usd * rng.uniform(0.9, 1.25),
        split=split,
        min_gpu_count=smallest,
        tier=rng.choices(("secure", "spot", None), (13, 6, 1))[0],
        place=rng.choice(PLACES),
        cpu_model=cpu_model,
        cpu_count=cpu_count,
        ram_kib=ram_kib,
        ram_reserve_kib=min(32 * KIB_PER_GIB, ram_kib // 16),
        disk_kib=disk_kib,
        disk_free_kib=int(disk_kib * rng.uniform(0.5, 0.93)),
        upload_mbps=round(download * rng.uniform(0.4, 0.95), 1),
        download_mbps=download,
        driver=driver,
        cuda=cuda,
        sysbox=chance(0.6),
        port_count=rng.randint(20, 500),
        reliability=round(rng.uniform(82, 99.9), 1),
        frequent_failures=not always_free and chance(0.07),
        power_limited=chance(0.06),
        gaps=frozenset(rng.sample(gap_kinds, 2)) if chance(0.12) and not always_free else frozenset(),
        always_free=always_free,
    )


def take_for_another_renter(node: Node, now: datetime, *, minutes: int = 30) -> None:
    """Let somebody else have the whole node for a while."""
    node.taken_until = now + timedelta(minutes=minutes)


def take_off_market(node: Node, now: datetime, *, minutes: int = 60) -> None:
    """Let the provider withdraw the node for a while."""
    node.off_market_until = now + timedelta(minutes=minutes)
