"""The failure that is raised when the connection to a pod breaks while something is under way."""

from lium_mcp.failures import Failure


def connection_lost(pod: str) -> Failure:
    """Return the failure, which says that nobody knows whether what was under way took effect."""
    return Failure(
        "connection_lost",
        f"The SSH connection to {pod} was lost.",
        "Look at the state on the pod before doing it again; get_pod shows whether the pod still runs.",
        effect="Whether what was under way took effect is not known.",
    )
