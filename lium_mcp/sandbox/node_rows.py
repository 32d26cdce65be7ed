"""How a node looks on the wire: the summary and the full row, and what the public feed shows.

Real listings have holes: a few nodes send numbers as strings, or leave out parts of their scrape or make them null. The
market marks these nodes; this file makes the holes.
"""

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox.market import Market, Node
from lium_mcp.sandbox.seeded import fraction, identifier
from lium_mcp.sandbox.simulated_clock import iso_zulu

Row = dict[str, JsonValue]

# the market's name for a hole, the part of the specs that has it
SPEC_PARTS: Final = {
    "cpu": "cpu",
    "ram": "ram",
    "disk": "hard_disk",
    "network": "network",
    "ports": "available_port_count",
}


def listing_row(market: Market, node: Node, now: datetime, *, full: bool) -> Row:
    """Build the row of GET /executors for a node that is free now."""
    row = host_row(node, now, full=full)
    row["price_per_gpu"] = float(market.price(node, now))
    row["available_gpu_count"] = market.free_gpus(node, now)
    if node.split != "unsaid":
        row["min_gpu_count_for_rental"] = node.min_gpu_count
    return row


def host_row(node: Node, now: datetime, *, full: bool) -> Row:
    """Build the part of the row that describes the host, whoever rents it; it has no usable price."""
    if full not in node.rows:
        node.rows[full] = _fixed_row(node, full=full)
    row = node.rows[full].copy()
    row["last_verified_at"] = _minutes_before(now, 5 + node.index % 50)
    if node.notice is not None:
        row["notice_period"] = node.notice
    return row


@functools.lru_cache(maxsize=256)
def _minutes_before(now: datetime, minutes: int) -> str:
    return iso_zulu(now - timedelta(minutes=minutes))


def _fixed_row(node: Node, *, full: bool) -> Row:
    gaps = node.gaps
    watts = int(node.gpu.power_w * 0.8) if node.power_limited else node.gpu.power_w
    return {
        "id": node.id,
        "machine_name": node.gpu.name,
        "price_per_gpu": 0,
        "gpu_count": str(node.gpu_count) if "gpu_details" in gaps else node.gpu_count,
        "tier": node.tier,
        "max_cuda_version": None if "cuda" in gaps else node.cuda,
        "effective_upload_speed_mbps": None if "network" in gaps else node.upload_mbps,
        "effective_download_speed_mbps": None if "network" in gaps else node.download_mbps,
        "location": None if "location" in gaps else _location(node, full=full),
        "nvlink": None if "interconnect" in gaps else _has_nvlink(node),
        "interconnect": None if "interconnect" in gaps else _interconnect(node, full=full),
        "gpu_power_limited": node.power_limited,
        "gpu_power_limit_w": watts,
        "gpu_power_limit_default_w": node.gpu.power_w,
        "frequent_rent_failures": node.frequent_failures,
        "reliability_score": None if "reliability" in gaps else node.reliability,
        "specs": _specs(node, full=full),
    }


def public_row(market: Market, node: Node, now: datetime) -> Row:
    """Build the row of the public feed."""
    return {
        "id": node.id,
        "gpu_model": node.gpu.name,
        "gpu_count": node.gpu_count,
        "available_gpu_count": market.free_gpus(node, now),
        "country_code": None if "location" in node.gaps else node.place.code,
        "price_per_node_hour": float(market.price(node, now) * node.gpu_count),
        "cpu_count": None if "cpu" in node.gaps else node.cpu_count,
        "ram_gb": None if "ram" in node.gaps else round(node.ram_kib / 2**20),
        "gpu_memory_gb": round(node.gpu.memory_mib / 1024),
    }


def _has_nvlink(node: Node) -> bool:
    return node.gpu.nvlink_links is not None and node.gpu_count > 1


def _location(node: Node, *, full: bool) -> Row:
    place = node.place
    row: Row = {
        "country": place.country,
        "country_code": place.code,
        "city": place.city,
        "lat": place.lat,
        "lon": place.lon,
    }
    if full:
        row |= {"iso_code": place.code, "region": None, "region_name": None, "zip": None, "timezone": place.timezone}
    return row


def _interconnect(node: Node, *, full: bool) -> Row | None:
    if node.gpu_count == 1:
        return None
    pairs = node.gpu_count * (node.gpu_count - 1) // 2
    wired = _has_nvlink(node)
    row: Row = {
        "gpu_count": node.gpu_count,
        "gpu_pairs": pairs,
        "nvlink": wired,
        "nvlink_links": node.gpu.nvlink_links,
        "nvlink_pairs": pairs if wired else 0,
        "p2p": wired,
        "pcie_class": None if wired else "NODE",
    }
    if full:
        link = f"NV{node.gpu.nvlink_links}" if wired else "NODE"
        size = range(node.gpu_count)
        row["matrix"] = [["X" if a == b else link for b in size] for a in size]
        row["p2p_pairs"] = pairs
        row["p2p_ok_pairs"] = pairs if wired else 0
        row["nvlink_active_links"] = node.gpu.nvlink_links
    return row


def _specs(node: Node, *, full: bool) -> Row:
    gaps = node.gaps
    # The node's own last sample, near the platform's average, which the row shows too.
    sample = 0.85 + 0.3 * fraction("speed", node.id)
    network: Row = {
        "upload_speed": round(node.upload_mbps * sample, 1),
        "download_speed": round(node.download_mbps * sample, 1),
    }
    specs: Row = {
        "gpu": {
            "count": node.gpu_count,
            "driver": node.driver,
            "details": [] if "gpu_details" in gaps else _cards(node, full=full),
        },
        "cpu": {"count": node.cpu_count, "model": node.cpu_model},
        "ram": {"total": node.ram_kib, "pod_reserve": node.ram_reserve_kib},
        "hard_disk": {"total": node.disk_kib, "free": node.disk_free_kib},
        "network": network,
        "available_port_count": node.port_count,
        "sysbox_runtime": node.sysbox,
    }
    for gap, name in SPEC_PARTS.items():
        if gap in gaps:
            # Where a part of the scrape failed, one node leaves it out and the next has null figures in it.
            if node.index % 2:
                part = specs[name]
                specs[name] = dict.fromkeys(part) if isinstance(part, dict) else None
            else:
                del specs[name]
    if full:
        _add_scrape(specs, node)
    return specs


def _cards(node: Node, *, full: bool) -> list[JsonValue]:
    headline: Row = {"name": node.gpu.name, "capacity": node.gpu.memory_mib}
    if not full:
        return [headline]
    return [
        headline
        | {
            "cuda": str(node.cuda),
            "uuid": gpu_uuid(node, card),
            "power_limit": node.gpu.power_w,
            "graphics_speed": 1980,
            "memory_speed": 2619,
            "pcie": 5,
            "pcie_speed": 16,
        }
        for card in range(node.gpu_count)
    ]


def _add_scrape(specs: Row, node: Node) -> None:
    for name, total_kib in (("ram", node.ram_kib), ("hard_disk", node.disk_kib)):
        part = specs.get(name)
        if isinstance(part, Mapping) and part["total"] is not None:
            free = node.disk_free_kib if name == "hard_disk" else node.ram_kib - node.ram_reserve_kib
            specs[name] = {**part, "free": free, "used": total_kib - free}
    specs["os"] = "Ubuntu 22.04.5 LTS"
    specs["docker"] = {"version": "27.5.1", "containers": []}
    specs["md5_checksums"] = {
        f"lib{name}.so": identifier("md5", name, node.driver).replace("-", "")
        for name in ("nvidia-ml", "cuda", "cudart", "nccl", "nvrtc", "cublas", "cudnn", "cufft", "curand", "cusparse")
    }
    specs["disk_health"] = {
        "read_only_mounts": [],
        "write_probe": "ok",
        "kernel_io_errors": 0,
        "kernel_io_error_lines": [],
        "block_io_errors": {},
        "nvme_states": {"nvme0": "live"},
        "smart": {"nvme0": {"passed": True, "percentage_used": node.index % 40}},
    }


def gpu_uuid(node: Node, card: int) -> str:
    """Name one card of a node as nvidia-smi does."""
    return f"GPU-{identifier('card', node.id, card)}"
