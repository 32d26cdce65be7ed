"""Starting a pod over from another template, and what became of its local volume."""

from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.api.templates import Template
from lium_mcp.guard.commitments import hours_left
from lium_mcp.guard.policy import Policy
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import after_change
from lium_mcp.services.pods.dropped_settings import dropped_settings
from lium_mcp.services.pods.pod_connections import replacing_container
from lium_mcp.services.pods.pod_states import ObservedPod, has_restarted, observe
from lium_mcp.services.polling import OrderedChange, Poller
from lium_mcp.services.questions import volume_after_switch


async def switch(
    account: Account, policy: Policy, poller: Poller, target: Pod, chosen: Template, *, wait_seconds: float
) -> ObservedPod:
    """Start a pod over from a template, wait until it runs, and say whether it does.

    Raises:
        PolicyRefused: the limits allow no such template, or no restart.
        LiumError: Lium refused.
    """
    policy.check_template(chosen.id)
    policy.check_restart(target.pod_name or target.id, hours_left(target, account.lium.now()))
    before = await account.lium.pods.get(target.id)
    change = OrderedChange[PodDetail | None](lambda now: has_restarted(before, now))
    await account.rents.forget_template(target.id)
    async with replacing_container(account, target.id):
        await account.lium.pods.switch_template(target.id, template_id=chosen.id)
    with after_change(f"{target.pod_name} is starting from template {chosen.name}."):
        switched = await account.lium.pods.get(target.id)
    observed = await observe(account, poller, switched, change, wait_seconds=wait_seconds)
    runs = observed.pod.template.image if observed.pod.template else None
    if observed.outcome == "done" and None not in (runs, chosen.image) and runs != chosen.image:
        warnings = [
            f"It runs {runs} and not {chosen.name}: the new container did not start, and the old one came back."
        ]
    else:
        warnings = [f"{volume_after_switch(target, chosen)} Look whether it is there before you rely on it."]
        if target.volume_root != chosen.volume_root:
            warnings.append("A backup schedule may still name the old path: list_backups with this pod shows it.")
        warnings += dropped_settings(chosen)
    return observed.model_copy(update={"warnings": warnings})
