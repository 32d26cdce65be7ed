"""What a person is asked before something is destroyed: the target by id, what is lost, when it was last backed up.

Each function takes the account and the arguments of its tool, and pins the target: after a yes the tool gets the id
that was named in the question, whatever the name means by then. What is asked before a rent is in
`rents/rent_questions.py`, and of backups in `backups/backup_questions.py`.
"""

from collections.abc import Sequence
from typing import Any

from lium_mcp.api.pods.models import Pod
from lium_mcp.api.templates import Template
from lium_mcp.failures import Failure
from lium_mcp.figures import counted, in_usd
from lium_mcp.guard.commitments import hours_left
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy, PolicyRefused
from lium_mcp.remote.ssh_addresses import refuse_unready, until_it_runs
from lium_mcp.results import state_in_words
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import (
    refuse_unstarted,
)
from lium_mcp.services.backups.final_backup import FinalBackups, RemovalQuestion, earlier_final_backup
from lium_mcp.services.limits_left import check_life
from lium_mcp.services.pods.gpu_resets import refuse_absent_gpus
from lium_mcp.services.pods.idle_removals import (
    ONLY_WITH_A_SERVER,
    WHAT_IS_IDLE,
    IdleState,
    check_watchable,
    has_idle_removal,
    idle_states,
    on_last_backup,
    set_before,
    wanted_removal,
)
from lium_mcp.services.pods.pod_connections import refuse_taken_job
from lium_mcp.services.pods.rented_elsewhere import say_whose
from lium_mcp.services.pods.work_told import say_what_ends, say_what_works
from lium_mcp.services.question_words import (
    backed_up_first,
    last_backup,
    quoted,
    quoted_id,
    read_last_backup,
    the_pod,
    what_ends,
)
from lium_mcp.services.removal_schedules import UNREADABLE_TIME, warn_of_boot
from lium_mcp.services.targets import (
    find_free_volume,
    find_own_template,
    find_pod,
    find_usable_template,
    find_volume,
    refuse_maybe_attached,
)
from lium_mcp.services.templates.template_use import find_reboots, refuse_used


async def ask_to_remove_pod(
    account: Account,
    final_backups: FinalBackups,
    *,
    pod: str,
    final_backup: bool,
    **_: Any,  # noqa: ANN401
) -> Question | None:
    """Before `remove_pod`; also when it goes on with the last backup that an earlier call began, not where it waits."""
    target = await find_pod(account, pod, even_leaving=True)
    if target.is_being_removed:
        return None
    cut_off = frozenset[str]()
    if not final_backup:
        said, cut_off = await read_last_backup(account, target)
        lost = f"Its disk and local volume are lost. {said}"
    elif earlier := await earlier_final_backup(account, final_backups, target):
        # The same words whether it still runs: while the person reads, it may end.
        begun = f", begun {earlier.created_at:%Y-%m-%d %H:%M} UTC," if earlier.created_at else ""
        lost = (
            f"It goes when its last backup{begun} is complete, and stays if that fails. What was written since, or "
            f"lies outside {quoted(target.volume_root)}, is lost."
        )
    else:
        schedule = await account.lium.backup_schedules.get_for_pod(target.id)
        refuse_unstarted(target, schedule)
        lost = backed_up_first(target, schedule)
    lost = " ".join(filter(None, (await say_whose(account, target), await say_what_ends(account, target), lost)))
    return RemovalQuestion(
        f"Remove {the_pod(target)} for good? {lost}", {"pod": target.id}, subject=target, cut_off=cut_off
    )


async def ask_to_reboot_pod(account: Account, *, pod: str, volume: str, **_: Any) -> Question:  # noqa: ANN401 - the tool's other arguments
    """Before `reboot_pod`."""
    target = await find_pod(account, pod)
    refuse_unbootable(target)
    if volume:
        await find_free_volume(account, volume, target)
    return Question(
        f"Reboot {the_pod(target)}? Its processes and all files outside {quoted(target.volume_root)} are lost. "
        f"{await what_ends(account, target)}",
        {"pod": target.id},
        subject=target,
    )


async def ask_to_switch_template(account: Account, policy: Policy, *, pod: str, template: str, **_: Any) -> Question:  # noqa: ANN401 - as above
    """Before `switch_pod_template`."""
    target, wanted = await find_pod(account, pod), await find_usable_template(account, template)
    policy.check_template(wanted.id)
    policy.check_restart(target.pod_name or target.id, hours_left(target, account.lium.now()))
    return Question(
        f"Replace what runs in {the_pod(target)} by template {quoted(wanted.name)} ({quoted_id(wanted.id)})? "
        f"All data in the pod may be lost. {volume_after_switch(target, wanted)} "
        f"{await what_ends(account, target)}",
        {"pod": target.id, "template": wanted.id},
    )


def volume_after_switch(pod: Pod, template: Template) -> str:
    """Say what becomes of a pod's local volume when it gets another template; nobody knows which kind its node is."""
    moved = f" and mount it at {quoted(template.volume_root)}" if template.volume_root != pod.volume_root else ""
    return f"Newer nodes keep the local volume {quoted(pod.volume_root)}{moved}, older ones lose it."


async def ask_to_schedule_removal(
    account: Account,
    policy: Policy,
    *,
    pod: str,
    hours_from_now: float | None,
    idle_minutes: int | None,
    final_backup: bool | None,
) -> Question:
    """Before `schedule_pod_removal`."""
    target = await find_pod(account, pod)
    earlier = await set_before(account, target) if idle_minutes is not None else None
    idle = wanted_removal(earlier, hours_from_now=hours_from_now, idle_minutes=idle_minutes, final_backup=final_backup)
    when = list[str]()
    known = [whose] if (whose := await say_whose(account, target)) else []
    if hours_from_now is not None:
        await check_life(account, policy, target, hours_from_now)
        when.append(f"Let Lium remove {the_pod(target)} in {counted(hours_from_now, 'hour')}")
        if warning := warn_of_boot(target):
            known.append(warning)
        elif target.price is not None:
            known.append(f"It costs {in_usd(target.price * hours_from_now)} until then.")
    if idle is not None:
        await check_watchable(account, target, idle)
        whom = "it" if when else the_pod(target)
        when.append(
            f"{'let' if when else 'Let'} lium-mcp remove {whom} once it was idle for {idle.idle_minutes} minutes"
        )
    if hours_from_now is not None or not (idle and idle.final_backup):
        known.append(f"Its disk and local volume are lost then. {await last_backup(account, target)}")
    if hours_from_now is not None and (works := await say_what_works(account, target)):
        known.append(works)
    if said := on_last_backup(earlier, idle, is_named=final_backup is not None):
        known.append(said)
    if idle is not None and idle.final_backup:
        schedule = await account.lium.backup_schedules.get_for_pod(target.id)
        known.append(f"When it is idle: {backed_up_first(target, schedule)}")
    if idle is not None:
        known += [WHAT_IS_IDLE, ONLY_WITH_A_SERVER]
    return Question(f"{', and '.join(when)}? {' '.join(known)}", {"pod": target.id})


async def ask_to_cancel_removal(account: Account, policy: Policy, *, pod: str, only_when_idle: bool) -> Question | None:
    """Before `cancel_pod_removal`; not where no removal is set."""
    target = await find_pod(account, pod)
    idle = (await idle_states(account)).get(target.id, IdleState()).removal
    if not only_when_idle:
        try:
            await check_life(account, policy, target, None)
        except PolicyRefused:
            if idle is None:
                raise
            only_when_idle = True
    at, ends = target.removal_scheduled_at, list[str]()
    if at is not None:
        ends.append(f"at {at:%Y-%m-%d %H:%M} UTC")
    elif target.termination_hours is not None:
        ends.append(f"{target.termination_hours} hours after its start")
    elif target.has_unreadable_removal:
        ends.append(UNREADABLE_TIME)
    cancelled = [] if only_when_idle else list(ends)
    if idle is not None:
        saved = f", after a last backup of {quoted(target.volume_root)}" if idle.final_backup else ""
        cancelled.append(f"once it was idle for {idle.idle_minutes} minutes{saved}")
    if not cancelled:
        if not await has_idle_removal(account, target):
            return None
        cancelled.append("once it was idle")
    left = f"Its removal {ends[0]} stays." if only_when_idle and ends else "It bills until somebody removes it."
    said = " ".join(filter(None, (await say_whose(account, target), left)))
    return Question(f"Cancel the removal of {the_pod(target)} {' and '.join(cancelled)}? {said}", {"pod": target.id})


async def ask_to_reset_gpus(
    account: Account,
    *,
    pod: str,
    gpu_indices: Sequence[int] | None,
    reset_id: str,
    **_: Any,  # noqa: ANN401 - as above
) -> Question | None:
    """Before `reset_pod_gpus`; not where it only waits for a reset."""
    if reset_id:
        return None
    target = await find_pod(account, pod)
    refuse_unbootable(target, "have its GPUs reset")
    refuse_absent_gpus(target, gpu_indices)
    return Question(f"Reset the GPUs of {the_pod(target)}? All its processes stop; its files stay.", {"pod": target.id})


async def question_about_update(account: Account, target: Template) -> Question:
    """What a person is asked before a template is changed."""
    use = await find_reboots(account.lium, target)
    lost = [f"These reboot at once and lose their processes: {'; '.join(map(the_pod, use.pods))}."] if use.pods else []
    if use.maybe:
        lost.append(f"Whether these run on it and reboot too is not known: {'; '.join(map(the_pod, use.maybe))}.")
    elif use.unknown:
        lost.append(f"Whether other pods run on it and reboot too is not known: {use.unknown}.")
    text = " ".join(lost or ["No pod runs on it."])
    return Question(f"Change template {quoted(target.name)} ({quoted_id(target.id)})? {text}", {"template": target.id})


async def ask_to_delete_template(account: Account, *, template: str) -> Question:
    """Before `delete_template`."""
    target = await find_own_template(account, template)
    await refuse_used(account.lium, target)
    return Question(
        f"Delete template {quoted(target.name)} ({quoted_id(target.id)}) for good?", {"template": target.id}
    )


async def ask_to_delete_volume(account: Account, *, volume: str) -> Question:
    """Before `delete_volume`."""
    target = await find_volume(account, volume)
    refuse_maybe_attached(target, await account.lium.pods.list())
    size = f"{target.measured_size_gb:.1f} GB" if target.measured_size_gb is not None else ""
    files = f"{target.measured_file_count} files" if target.measured_file_count is not None else ""
    measured = " in ".join(filter(None, (size, files)))
    how_much = f": {measured}" if measured else "; Lium has not measured it yet"
    return Question(
        f"Delete volume {quoted(target.name)} ({quoted_id(target.id)}) for good? All data on it is lost{how_much}.",
        {"volume": target.id},
    )


async def ask_to_start_job(account: Account, *, pod: str, name: str, then: str, **_: Any) -> Question | None:  # noqa: ANN401
    """Before `start_job`, where the job's end is to remove the pod."""
    if then != "backup_and_remove":
        return None
    target = await find_pod(account, pod)
    refuse_unready(target)
    await refuse_taken_job(account, target, name)
    saved = backed_up_first(target, await account.lium.backup_schedules.get_for_pod(target.id))
    known = " ".join(filter(None, (await say_whose(account, target), saved)))
    return Question(
        f"Remove {the_pod(target)} for good when job {quoted(name)} ends? {known}",
        {"pod": target.id},
    )


async def ask_to_remove_cluster(account: Account, *, cluster_id: str, **_: Any) -> Question:  # noqa: ANN401 - as above
    """Before `remove_cluster`."""
    pods = await account.lium.pods.list()
    members = [pod for pod in pods if pod.cluster_id == cluster_id]
    if not members and not pods.skipped:
        raise Failure(
            "not_found",
            f"No pod of yours belongs to cluster {quoted_id(cluster_id)}.",
            "Take the cluster_id that rent_cluster answered. One that was just rented may be listed a minute later.",
        )
    named = "; ".join(map(the_pod, members)) or "Lium lists no members now"
    text = f"Remove every pod of cluster {quoted_id(cluster_id)} for good, with all data in them? {named}."
    known = [f"Of {quoted(pod.pod_name)}: {await what_ends(account, pod)}" for pod in members]
    return Question(" ".join((text, *known)))


async def ask_to_delete_ssh_key(account: Account, *, key_id: str) -> Question:
    """Before `delete_ssh_key`."""
    key = next((key for key in await account.lium.ssh_keys.list() if key.id == key_id), None)
    if key is None:
        raise Failure("not_found", "The account has no SSH key of this key_id.", "list_ssh_keys shows the ids of keys.")
    return Question(f"Remove SSH key {quoted(key.name or '')} ({quoted_id(key_id)}) from the account?")


def refuse_unbootable(pod: Pod, cannot: str = "be rebooted") -> None:
    """Refuse to reboot a pod that is not there to be rebooted, or what else it cannot then.

    Raises:
        Failure: it is not.
    """
    if not pod.is_billing:
        raise Failure(
            "pod_not_running",
            f"Pod {pod.pod_name} ({pod.id}) is {state_in_words(pod.status)} and cannot {cannot}.",
            until_it_runs(pod),
        )
