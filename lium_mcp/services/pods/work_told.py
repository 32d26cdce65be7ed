"""What a removal on request would end in a pod: a person reads it in the question, a model hears of it before."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import rate_in_usd
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.at_work import LEFT_BY_A_COMMAND, AtWork, in_words, job_in_words, seen_at_work

ToldWork = dict[str, tuple[frozenset[str], datetime]]
"""What models were told that a removal would end, by pod, and when."""

_HOLDS_FOR: Final = timedelta(minutes=10)
_MOST_NAMED: Final = 5
_SAVE: Final = ("backup_and_remove", "download_and_remove")


async def say_what_ends(account: Account, pod: Pod) -> str:
    """Say in a sentence what a removal ends in a pod, as far as it can be read; nothing where nothing is known."""
    seen = await seen_at_work(account, pod)
    named = await _named(account, pod, seen)
    if not named and seen.left_by_commands:
        named.append(LEFT_BY_A_COMMAND)
    return f"It ends what works in the pod: {_listed(named)}." if named else ""


async def refuse_untold(account: Account, told: ToldWork, pod: Pod) -> None:
    """Refuse a removal about which nobody was asked, once, where something works in the pod.

    Raises:
        Failure: it does, and this was not said within the last minutes.
    """
    now, seen = account.lium.now(), await seen_at_work(account, pod)
    works = frozenset(await _named(account, pod, seen))
    said, said_at = told.get(pod.id, (frozenset[str](), now))
    is_new = not works <= said or now - said_at > _HOLDS_FOR
    told.pop(pod.id, None)
    if works:
        told[pod.id] = works, now
    if works and is_new:
        price = f" and bills {rate_in_usd(pod.price)} an hour" if pod.price is not None and pod.is_billing else ""
        raise Failure(
            "pod_at_work",
            f"Something works in {pod.pod_name} ({pod.id}), and would end with it: {_listed(sorted(works))}.",
            "Wait for it (get_job with wait_seconds), end it with stop_job, or set schedule_pod_removal. To remove the "
            f"pod all the same, call again within {_HOLDS_FOR // timedelta(minutes=1)} minutes.",
            effect=f"The pod was not removed{price}.",
        )


async def _named(account: Account, pod: Pod, seen: AtWork) -> list[str]:
    """What works in a pod, and what was to save what a job has made and has not yet."""
    named = [*map(job_in_words, seen.running), *map(in_words, seen.work.going_on)]
    running = {job.name for job in seen.running}
    with suppress(LedgerUnavailable):
        named += [
            f"{task.payload.get('then') or 'what is to follow'} after job {task.name}, not done yet"
            for task in await account.rents.tasks("follow_up")
            if task.closed_at is None and task.subject == pod.id and task.name not in running
        ]
        for task in await account.rents.tasks("job_run"):
            then, progress = task.payload["order"].get("then"), task.progress
            is_saving = progress.get("state") == "following" and then in _SAVE
            if task.closed_at is None and progress.get("pod_id") == pod.id and is_saving:
                named.append(f"{then} of run {task.name}, not done yet")
    return named


def _listed(named: list[str]) -> str:
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
