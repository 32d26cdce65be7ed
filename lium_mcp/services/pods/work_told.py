"""What a removal or a new container would end in pods: a person reads it in the question, a model is told before."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import rate_in_usd
from lium_mcp.rentals import LedgerUnavailable, digest
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.at_work import LEFT_BY_A_COMMAND, in_words, job_in_words, seen_at_work

ToldWork = dict[str, tuple[frozenset[str], datetime]]
"""What models were told that would end, by what was to be done with which pod, and when; each has an id of its own."""

_HOLDS_FOR: Final = timedelta(minutes=10)
_LOOK_SECONDS: Final = 5.0
_MOST_NAMED: Final = 5
_SAVE: Final = ("backup_and_remove", "download_and_remove")


async def say_what_ends(account: Account, pod: Pod) -> str:
    """Say in a sentence what ends with a pod, as far as it can be read; nothing where nothing is known.

    Its backups that run are no part of that: the questions say more of them.
    """
    named = list((await _works(account, pod, backups=False)).values())
    return f"It ends what works in the pod: {_listed(named)}." if named else ""


async def say_what_works(account: Account, pod: Pod) -> str:
    """Say in a sentence what works in a pod now, which may or may not end before the pod does."""
    named = list((await _works(account, pod, backups=True)).values())
    return f"In it work now: {_listed(named)}." if named else ""


async def refuse_untold(
    account: Account, told: ToldWork, pods: Sequence[Pod], *, what: str = "remove", backups: bool = False
) -> None:
    """Refuse what nobody was asked about, once, where something that works in a pod would end with it.

    Args:
        account: Whose pods they are.
        told: What this server's models were told before; other servers note it in the ledger.
        pods: The pods that are to go, or to start anew.
        what: What is to be done with them: the verb.
        backups: Whether backups count that run, which nobody else tells of.

    Raises:
        Failure: something works in one, and this was not said within the last minutes.
    """
    now = account.lium.now()
    sentences, costs, is_new = [], [], False
    for pod in pods:
        works = await _works(account, pod, backups=backups)
        said, said_at = told.pop(f"{what} {pod.id}", (frozenset[str](), now))
        if not works:
            continue
        told[f"{what} {pod.id}"] = frozenset(works), now
        is_new_here = not works.keys() <= said or now - said_at > _HOLDS_FOR
        is_new = is_new or (is_new_here and await _is_said_first(account, f"{what} {pod.id}", works))
        sentences.append(f"in {pod.pod_name} ({pod.id}): {_listed(list(works.values()))}")
        if pod.price is not None and pod.is_billing:
            costs.append(pod.price)
    if is_new:
        which = "the pod" if len(pods) == 1 else "the pods"
        bills = f" It bills {rate_in_usd(sum(costs))} an hour." if costs else ""
        raise Failure(
            "pod_at_work",
            f"Something works there, and would end: {'; '.join(sentences)}.",
            f"Wait for it (get_job with wait_seconds), or end it with stop_job. To {what} {which} all the same, call "
            f"again within {_HOLDS_FOR // timedelta(minutes=1)} minutes.",
            effect=f"Nothing was changed.{bills}",
        )


async def _is_said_first(account: Account, what: str, works: Collection[str]) -> bool:
    """Whether no other server of the ledger has said the same within the last minutes, as far as is known."""
    with suppress(LedgerUnavailable):
        until = account.lium.now() + _HOLDS_FOR
        return await account.rents.notes.claim(f"told {what} {digest(sorted(works))}", until=until)
    return True


async def _works(account: Account, pod: Pod, *, backups: bool) -> dict[str, str]:
    """What works in a pod, and what was to save what a job has made and has not yet; by what tells it from others."""
    seen = await seen_at_work(account, pod)
    works = {f"job {job.name} {job.started_at}": job_in_words(job) for job in seen.running}
    works |= {f"work {work.id}": in_words(work) for work in seen.work.going_on}
    running = {job.name for job in seen.running}
    with suppress(LedgerUnavailable):
        for task in await account.rents.tasks("follow_up"):
            if task.closed_at is None and task.subject == pod.id and task.name not in running:
                then = task.payload.get("then") or "what is to follow"
                works[f"task {task.id}"] = f"{then} after job {task.name}, not done yet"
        for task in await account.rents.tasks("job_run"):
            then, progress = task.payload["order"].get("then"), task.progress
            is_saving = progress.get("state") == "following" and then in _SAVE
            if task.closed_at is None and progress.get("pod_id") == pod.id and is_saving:
                works[f"task {task.id}"] = f"{then} of run {task.name}, not done yet"
    with suppress(LiumError), anyio.move_on_after(_LOOK_SECONDS):
        restores = await account.lium.restores.list(pod.id)
        works |= {f"restore {run.id}": f"restore {run.id}" for run in restores if not run.is_final}
        if backups:
            saved = await account.lium.backups.list(pod_id=pod.id)
            works |= {f"backup {run.id}": f"backup {run.id}" for run in saved if not run.is_final}
    if not works and seen.left_by_commands:
        works["left"] = LEFT_BY_A_COMMAND
    return works


def _listed(named: Sequence[str]) -> str:
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
