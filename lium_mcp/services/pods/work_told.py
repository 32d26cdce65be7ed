"""What a removal on request would end in a pod: a person reads it in the question, a model hears of it before."""

from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import rate_in_usd
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.at_work import LEFT_BY_A_COMMAND, in_words, job_in_words, seen_at_work

ToldWork = dict[str, tuple[frozenset[str], datetime]]
"""What models were told that a removal would end, by pod, and when."""

_HOLDS_FOR: Final = timedelta(minutes=10)
_MOST_NAMED: Final = 5


async def say_what_ends(account: Account, pod: Pod) -> str:
    """Say in a sentence what a removal ends in a pod, as far as it can be read; nothing where nothing is known."""
    seen = await seen_at_work(account, pod)
    named = [*map(job_in_words, seen.running), *map(in_words, seen.work.going_on)]
    if not named and seen.left_by_commands:
        named.append(LEFT_BY_A_COMMAND)
    return f"It ends what works in the pod: {_listed(named)}." if named else ""


async def refuse_untold(account: Account, told: ToldWork, pod: Pod) -> None:
    """Refuse a removal about which nobody was asked, once, where something works in the pod.

    Raises:
        Failure: it does, and this was not said within the last minutes.
    """
    now, seen = account.lium.now(), await seen_at_work(account, pod)
    works = frozenset([*map(job_in_words, seen.running), *map(in_words, seen.work.going_on)])
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


def _listed(named: list[str]) -> str:
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
