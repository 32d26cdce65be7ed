"""What is said when the connection to a pod broke while something was under way."""

from lium_mcp.failures import Failure


def connection_lost(pod: str) -> Failure:
    """Say that whether it took effect is not known."""
    return Failure(
        "connection_lost",
        f"The SSH connection to {pod} was lost.",
        "Look at the state on the pod before doing it again; get_pod shows whether the pod still runs.",
        effect="Whether what was under way took effect is not known.",
    )
