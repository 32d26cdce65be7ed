"""Installing Jupyter in a pod: ordered once, and waited for."""

from typing import Final

from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.failures import Failure
from lium_mcp.results import Result
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import after_change
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.services.pods.pod_states import differ
from lium_mcp.services.polling import OrderedChange, Poller

_OVER: Final = ("SUCCESS", "FAILED")
_OLD: Final = (
    "Lium accepted it, but still shows the Jupyter of before: no sign of the new one was seen. Call get_pod in a "
    "minute for its jupyter_url. Another install_jupyter would install it once more."
)


class Jupyter(Result):
    """Jupyter in a pod."""

    outcome: Outcome
    pod_id: str
    url: str | None = None
    next: str | None = None


async def install(account: Account, poller: Poller, target: Pod, port: int, *, wait_seconds: float) -> Jupyter:
    """Install Jupyter at an internal port of a pod, or wait for an installation that is under way.

    Raises:
        Failure: the pod does not expose the port.
        LiumError: Lium refused.
    """

    async def read() -> PodDetail:
        return await account.lium.pods.get(target.id)

    state = before = await read()
    change: OrderedChange[PodDetail] | None = None
    # One under way is waited for: to start it again would start its wait again.
    if _status(state) in (*_OVER, ""):
        if state.open_ports is not None and port not in state.open_ports:
            ports = ", ".join(map(str, sorted(state.open_ports))) or "none"
            raise Failure(
                "port_not_exposed",
                f"Pod {target.pod_name} ({target.id}) does not expose port {port}. Its internal ports: {ports}.",
                "Choose one of those that nothing uses, or rent with a template that exposes the port.",
            )
        await account.lium.pods.install_jupyter(target.id, port=port)
        if _status(before):
            change = OrderedChange(lambda now: _is_another(before, now))
        with after_change(f"Jupyter is being installed in {target.pod_name}."):
            state = await read()
    newest = await poller.until(
        state,
        read,
        lambda state: _status(state) in _OVER,
        wait_seconds=wait_seconds,
        describe=lambda state: f"Jupyter is {state.jupyter_installation_status or 'starting'}",
        change=change,
    )
    if change is not None and not change.is_seen:
        return Jupyter(outcome="pending", pod_id=target.id, next=_OLD)
    status = _status(newest)
    if status == "SUCCESS":
        return Jupyter(outcome="done", pod_id=target.id, url=newest.jupyter_url)
    if status == "FAILED":
        return Jupyter(outcome="failed", pod_id=target.id, next="Check that the pod exposes the port, then try again.")
    return Jupyter(outcome="pending", pod_id=target.id, next="Call install_jupyter again to wait on.")


def _is_another(before: PodDetail, now: PodDetail) -> bool:
    return (
        differ(_status(before), _status(now))
        or differ(before.jupyter_url, now.jupyter_url)
        or differ(before.updated_at, now.updated_at)
    )


def _status(pod: PodDetail) -> str:
    return (pod.jupyter_installation_status or "").upper()
