"""Rent by specification: which free nodes satisfy a set of constraints, and which constraint left none.

A figure the node does not report counts as not meeting its floor.
"""

from collections.abc import Callable
from datetime import datetime

from pydantic import JsonValue

from lium_mcp.sandbox.bodies import RentBySpecBody
from lium_mcp.sandbox.market import Market, Node, short_type
from lium_mcp.sandbox.refusals import Refusal


def candidates_for(
    market: Market, now: datetime, body: RentBySpecBody, count: int, *, loosely: bool = False
) -> list[Node] | Refusal:
    """Return the nodes that satisfy every constraint, best first, or the refusal that names the one that left none.

    With ``loosely``, any GPU type fits whose name contains the wanted one.
    """
    nodes = market.listed(now)
    for constraint, accepts, best in _constraints(market, now, body, count, loosely=loosely):
        kept = [node for node in nodes if accepts(node)]
        if not kept:
            message = f"{constraint}: none of {len(nodes)} nodes qualifies; {best(nodes)}"
            refusal: dict[str, JsonValue] = {
                "success": False,
                "code": "no_executor_matches_spec",
                "constraint": constraint.partition("=")[0],
                "message": message,
                "candidates_before": len(nodes),
            }
            return Refusal(409, refusal)
        nodes = kept
    return sorted(nodes, key=lambda node: (market.price(node, now), -node.download_mbps, -node.reliability, node.id))


_Constraint = tuple[str, Callable[[Node], bool], Callable[[list[Node]], str]]


def _constraints(
    market: Market, now: datetime, body: RentBySpecBody, count: int, *, loosely: bool
) -> list[_Constraint]:
    wanted = body.gpu_type.upper().replace(" ", "").replace("_", "").replace("-", "")

    def is_type(node: Node) -> bool:
        full = node.gpu.name.upper().replace(" ", "").replace("-", "")
        if loosely:
            return wanted in full
        return wanted in {short_type(node.gpu.name), full}

    def has_gpus(node: Node) -> bool:
        return node.smallest_split <= count <= market.free_gpus(node, now) and (
            node.min_gpu_count is not None or count == node.gpu_count
        )

    def sizes(nodes: list[Node]) -> str:
        counts = sorted({market.free_gpus(node, now) for node in nodes})
        return f"rentable GPU counts are {', '.join(map(str, counts))}" if counts else "nothing is on offer"

    found: list[_Constraint] = [
        (f"gpu_type={body.gpu_type}", is_type, lambda _: "no such GPU is free"),
        (f"gpu_count={count}", has_gpus, sizes),
    ]
    floors: list[tuple[str, float | None, Callable[[Node], float | None]]] = [
        ("min_vram_gb", body.min_vram_gb, lambda n: _known(n, "gpu_details", n.gpu.memory_mib / 1024)),
        ("min_cpus", body.min_cpus, lambda n: _known(n, "cpu", n.cpu_count)),
        ("min_ram_gb", body.min_ram_gb, lambda n: _known(n, "ram", max(1, (n.ram_kib - n.ram_reserve_kib) / 2**20))),
        ("min_disk_gb", body.min_disk_gb, lambda n: _known(n, "disk", n.disk_free_kib / 2**20)),
        ("min_download_mbps", body.min_download_mbps, lambda n: _known(n, "network", n.download_mbps)),
        ("min_ports", body.min_ports, lambda n: _known(n, "ports", n.port_count)),
    ]
    found.extend(_floor(name, floor, figure) for name, floor, figure in floors if floor is not None)
    if (ceiling := body.max_price_per_gpu_hour) is not None:
        found.append(
            (
                f"max_price_per_gpu_hour={ceiling}",
                lambda node: float(market.price(node, now)) <= ceiling,
                lambda nodes: f"best on offer is {min(market.price(node, now) for node in nodes)}",
            )
        )
    if (country := body.country) is not None:
        found.append(
            (
                f"country={country}",
                lambda node: "location" not in node.gaps and node.place.code == country.upper(),
                lambda nodes: f"on offer: {', '.join(sorted({node.place.code for node in nodes}))}",
            )
        )
    if body.docker_in_docker:
        found.append(("docker_in_docker=true", lambda node: node.sysbox, lambda _: "no such host"))
    return found


def _known(node: Node, gap: str, figure: float) -> float | None:
    return None if gap in node.gaps else figure


def _floor(name: str, floor: float, figure: Callable[[Node], float | None]) -> _Constraint:
    def accepts(node: Node) -> bool:
        value = figure(node)
        return value is not None and value >= floor

    def best(nodes: list[Node]) -> str:
        values = [value for value in map(figure, nodes) if value is not None]
        return f"best on offer is {max(values):g}" if values else "no node reports it"

    return f"{name}={floor:g}", accepts, best
