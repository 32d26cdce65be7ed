"""Where a pod's SSH server listens, and what to do about a pod that does not run."""

import ipaddress
from dataclasses import dataclass
from typing import Final

from lium_mcp.api.pods.models import Pod, SshTarget
from lium_mcp.failures import Failure

# The addresses for examples of RFC 5737, which no network has: a simulation without SSH gives them to its pods.
_NOWHERE: Final = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))


@dataclass(frozen=True, slots=True)
class Address:
    """A pod, and where its SSH server listens by the API's word."""

    pod_id: str
    name: str
    target: SshTarget
    template_id: str | None = None

    def __str__(self) -> str:
        return f"{self.name or 'pod'} ({self.pod_id})"


def until_it_runs(pod: Pod) -> str:
    """Say what to do about a pod that does not run."""
    if pod.state == "DELETING":
        return "It is being removed: rent another one."
    if pod.runs:
        return "It bills. Call get_pod to wait for its SSH address; if that lasts, see get_pod_logs."
    if pod.is_terminal:
        return f"It does not run, and get_pod shows why. {after_failure(pod, has_run=not pod.has_not_started)}"
    return "Call get_pod to wait until it runs."


def after_failure(pod: Pod, *, has_run: bool) -> str:
    """Say what to do with a pod that failed. One that has run may hold data that is nowhere else."""
    if not has_run:
        return "Remove it with remove_pod."
    again = "try reboot_pod again, or " if pod.is_billing else ""
    return (
        f"Its local volume may hold data that no backup has (list_backups): {again}take one with create_backup. "
        "remove_pod loses what is not backed up; with final_backup it makes a backup first."
    )


def address_of(pod: Pod) -> Address:
    """Return where a running pod listens.

    Raises:
        Failure: it does not run, or the API's SSH command is not a plain one or leads nowhere.
    """
    refuse_unready(pod)
    target = pod.ssh
    if target is None:
        raise Failure(
            "ssh_address_invalid",
            f"Lium's SSH command for pod {pod.pod_name} ({pod.id}) is not of the form `ssh user@host -p port`.",
            "Nothing was connected to. Look at the pod on lium.io.",
        )
    if _is_nowhere(target.host):
        raise Failure(
            "ssh_unreachable",
            f"Pod {pod.pod_name} ({pod.id}) is said to be at {target.host}, an address for examples that nobody has.",
            "This Lium is simulated without SSH: nothing can be done in its pods.",
        )
    return Address(pod.id, pod.pod_name or "", target, pod.template.id if pod.template else None)


def refuse_unready(pod: Pod) -> None:
    """Refuse work in a pod that does not run.

    Raises:
        Failure: it does not, or Lium names no address of it.
    """
    if not pod.is_ready:
        why = "Lium names no SSH address for it yet" if pod.runs else "only a running pod has SSH"
        raise Failure(
            "no_ssh_address" if pod.runs else "pod_not_running",
            f"Pod {pod.pod_name} ({pod.id}) is {pod.status or 'in an unknown state'}, and {why}.",
            until_it_runs(pod),
        )


def _is_nowhere(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _NOWHERE)
