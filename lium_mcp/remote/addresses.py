"""Where a pod's SSH server listens."""

from dataclasses import dataclass

from lium_mcp.api import Pod
from lium_mcp.api.pod_models import SshTarget
from lium_mcp.remote.errors import RemoteError


@dataclass(frozen=True, slots=True)
class Address:
    """A pod and where its SSH server listens, as the API says."""

    pod_id: str
    name: str
    target: SshTarget
    template_id: str | None = None

    def __str__(self) -> str:
        return f"{self.name or 'pod'} ({self.pod_id})"


def address_of(pod: Pod) -> Address:
    """Where a running pod listens.

    Raises:
        RemoteError: it does not run, or the API's SSH command is not a plain one.
    """
    if not pod.is_ready:
        raise RemoteError(
            "pod_not_running",
            f"Pod {pod.pod_name} ({pod.id}) is {pod.status or 'in an unknown state'}, and only a running pod has SSH.",
            "Call get_pod to wait until it runs.",
        )
    target = pod.ssh
    if target is None:
        raise RemoteError(
            "ssh_address_invalid",
            f"Lium's SSH command for pod {pod.pod_name} ({pod.id}) is not of the form `ssh user@host -p port`.",
            "Nothing was connected to. Look at the pod on lium.io.",
        )
    return Address(pod.id, pod.pod_name or "", target, pod.template.id if pod.template else None)
