"""What comes before a rent: a plan to ask a person about, the question, and whether all is still as it was shown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from lium_mcp.api.executors.models import Executor
from lium_mcp.figures import at_most_usd, counted, in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.rentals import LATE_HOURS, digest, most_hours, whole_hours
from lium_mcp.services.accounts import Account
from lium_mcp.services.limits_left import refuse_beyond_limits
from lium_mcp.services.pods.node_warnings import node_warnings, spot_warning
from lium_mcp.services.question_words import quoted
from lium_mcp.services.rents.balance_needed import NewPod, read_bearing_balance
from lium_mcp.services.rents.rent_plan import Plan, look_again, make_plan
from lium_mcp.services.rents.request_total import Total
from lium_mcp.services.rents.wish import Wish
from lium_mcp.services.targets import find_usable_template
from lium_mcp.services.templates.what_runs import digest_of_what_runs, plain_digest, refuse_changed_template

_IN_DOLLARS_FROM_USD: Final = 100.0


async def plan_to_ask(
    account: Account,
    policy: Policy,
    wish: Wish,
    total: Total | None,
    asked: Question | None,
    *,
    admits: Callable[[Executor], bool] | None = None,
) -> Plan:
    """Plan a rent that a person is to be asked about, or look again at the plan that they have been asked about.

    `admits` is as in `make_plan`.

    Raises:
        Failure, PolicyRefused, LiumError, LedgerUnavailable: as `make_plan`, and where the limits leave no room
            now or the balance does not bear it, since what is refused is no question.
        PodNameTaken, RentUnsettled, AccountUnknown: as `Renter.refuse_in_vain`.
    """
    if asked is not None and isinstance(asked.subject, Plan):
        await refuse_other_templates(account, [asked.subject])
        return await look_again(account, policy, asked.subject)
    plan = await make_plan(account, policy, wish, total, priced=True, admits=admits)
    await refuse_beyond_limits(account, policy, plan.ask)
    balance_usd = await read_bearing_balance(account, [NewPod(plan.node, plan.gpu_count, plan.price_per_hour_usd)])
    await account.renter.refuse_in_vain(wish.pod_names)
    return replace(plan, balance_usd=balance_usd)


def question_about(plan: Plan) -> Question:
    """What a person is asked before a rent."""
    wish, node = plan.wish, plan.node
    price = None if plan.price_per_hour_usd is None else at_most_usd(plan.price_per_hour_usd)
    # Where the caller left the choice to the market, it may fall on another node by the time of the answer.
    where, known = "the cheapest node that fits", list[str]()
    if wish.executor_id:
        where = f"node {node.id} ({quoted(node.country_code or 'country unknown')})"
        known = node_warnings(node)
    elif warning := spot_warning(node):
        known = [warning]
    cost = f"at most {in_usd(price)} an hour" if price is not None else "a price that Lium does not say"
    text = f"Rent pod {quoted(wish.name)}: {plan.gpu_count}x {node.gpu_type} on {where} for {cost}? "
    if plan.hours is None:
        text += "It has no removal time: it bills until somebody removes it."
    else:
        text += f"Lium removes it {counted(plan.hours, 'hour')} after it starts"
        text += "." if price is None else in_all([plan.hours], [price], plan.total)
    text += f" {what_is_in_it(plan)}{balance_after(plan.balance_usd, price, plan.hours)}"
    words = " ".join((text, *known, *plan.warnings))
    return Question(words, price_per_hour_usd=price, basis=basis_of([plan]), subject=plan)


def basis_of(plans: Iterable[Plan]) -> str:
    """What a yes to plans is based on beyond the words of the question: what the templates run that were named."""
    return digest([plan.template and plain_digest(plan.template) for plan in plans if plan.wish.template])


def what_is_in_it(plan: Plan) -> str:
    """Say what goes into a pod: its template, and the volume and the backup that were named."""
    template, wish = plan.template, plan.wish
    runs = (
        f"template {quoted(template.name)} ({template.id})" if template is not None else "a default template of Lium's"
    )
    sentences = [f"It runs {runs}."]
    if wish.volume:
        sentences.append(f"Volume {quoted(wish.volume)} is attached.")
    if wish.backup_id:
        sentences.append(f"Backup {quoted(wish.backup_id)} is restored into it.")
    return " ".join(sentences)


def in_all(hours: Sequence[float], prices_per_hour_usd: Sequence[float], total: Total | None = None) -> str:
    """Say, as the end of a sentence on their removal, what rentals cost together, and the most that they cost."""
    lives = list(zip(hours, prices_per_hour_usd, strict=True))
    about = at_most_usd(sum(price * life for life, price in lives))
    most = at_most_usd(sum(price * most_hours(life) for life, price in lives))
    if total is not None:
        about, most = min(about, total.left_usd), min(most, total.left_usd)
    if all(whole_hours(life) == life for life in hours):
        return f": at most {in_usd(most)} in all, even {LATE_HOURS * 60:.0f} minutes late."
    return f", for about {in_usd(about)}: at most {in_usd(most)} in all, since Lium takes whole hours at the rent."


def balance_after(balance_usd: float | None, price_per_hour_usd: float | None, hours: float | None) -> str:
    """Say what the balance is and will be, as far as Lium says it."""
    if balance_usd is None:
        return ""
    now = f" The balance is about {_about(balance_usd)}"
    if price_per_hour_usd is None or hours is None:
        return f"{now}."
    return f"{now}, and about {_about(balance_usd - price_per_hour_usd * hours)} after that."


def _about(usd: float) -> str:
    """A sum that moves by cents all the time: in dollars where those are enough, so that a question stays the same."""
    return f"${usd:.0f}" if usd >= _IN_DOLLARS_FROM_USD else in_usd(-at_most_usd(-usd))


async def refuse_other_templates(account: Account, plans: Sequence[Plan]) -> None:
    """Refuse plans whose named template does not run any more what it ran when a person was asked about them.

    Raises:
        Failure: it does not, or is gone.
        LiumError: it cannot be read.
    """
    named = {plan.template.id: plan.template for plan in plans if plan.template is not None and plan.wish.template}
    for template_id, template in named.items():
        now = await find_usable_template(account, template_id)
        refuse_changed_template(account, digest_of_what_runs(account, template), template_id, now)
