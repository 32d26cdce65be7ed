"""What speaks against a node besides its figures, said where one chooses and when one rents."""

from typing import Any

from lium_mcp.api.executors.models import Executor
from lium_mcp.api.pods.models import Pod
from lium_mcp.results import Result
from lium_mcp.text import quotation

_MOST_QUOTED_CHARACTERS = 200
_SPOT = (
    "This is a spot node: it may be taken back at any time, with all that is in the pod and without a refund. Keep "
    "what matters in a volume or in backups."
)


class NodeFlaws(Result):
    """What speaks against a node, in a list; what is absent does not hold, or is not known."""

    often_fails_to_start: bool | None = None
    power_capped: bool | None = None
    maintenance: str | None = None


def flaws(node: Executor) -> dict[str, Any]:
    """The fields of `NodeFlaws`."""
    return {
        "often_fails_to_start": node.frequent_rent_failures or None,
        "power_capped": node.gpu_power_limited or None,
        "maintenance": maintenance(node),
    }


def node_warnings(node: Executor) -> list[str]:
    """What to know before renting on a node; empty where nothing speaks against it."""
    warnings = [_SPOT] if is_spot(node) else []
    if node.frequent_rent_failures:
        warnings.append("Pods often fail to start on this node.")
    if node.gpu_power_limited:
        watts, usual = node.gpu_power_limit_w, node.gpu_power_limit_default_w
        figures = f" of {watts} W each, where {usual} W are usual" if watts and usual else ""
        warnings.append(f"Its GPUs run under a power cap{figures}: they are slower than others of their kind.")
    if notice := maintenance(node):
        warnings.append(f"Maintenance of this node is announced: {notice}.")
    return warnings


def is_spot(node: Executor) -> bool:
    """Whether the provider may take the node back at any time."""
    return (node.tier or "").casefold() == "spot"


def spot_warning(node: Executor | None) -> str | None:
    """Warn whoever has a pod on a node that may be taken back."""
    return _SPOT if node is not None and is_spot(node) else None


def maintenance(announced: Executor | Pod) -> str | None:
    """Quote what a provider announces about a node, or to whoever has a pod on it."""
    notice = announced.notice_period
    if notice is None and isinstance(announced, Pod) and announced.executor is not None:
        notice = announced.executor.notice_period
    said = quotation(notice or "", _MOST_QUOTED_CHARACTERS)
    return f"the provider says {said}" if said else None
