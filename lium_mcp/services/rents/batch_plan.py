"""Makes the plan of several pods that one call rents: how many on which nodes, what each costs, and all of them.

Each pod has a plan of its own. They are made together, cheapest first, so that a person is asked once and the limits
judge the sum.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from lium_mcp.api.errors import LiumError
from lium_mcp.api.executors.models import Executor
from lium_mcp.failures import Failure
from lium_mcp.figures import at_most_usd, counted, in_usd, is_above, known_most, known_sum
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Ask, Policy, PolicyRefused
from lium_mcp.rentals import LATE_HOURS, PRICE_TOLERANCE_USD, Entry, NodeOrder, Wanted, costs_more, most_hours
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.node_warnings import node_warnings, spot_warning
from lium_mcp.services.question_words import quoted
from lium_mcp.services.rents.node_choice import (
    MOST_NODES_TRIED,
    find_offers,
    is_of_one_node,
    pick_node,
    prefer_others,
    say_failed,
)
from lium_mcp.services.rents.offers import can_rent, describe_counts, has_price, smallest_gpu_count
from lium_mcp.services.rents.pod_contents import Contents, find_contents
from lium_mcp.services.rents.quotes import find_node
from lium_mcp.services.rents.rent_plan import Plan, expected_of, look_again, plan_on_node
from lium_mcp.services.rents.rent_questions import (
    balance_after,
    basis_of,
    in_all,
    refuse_other_templates,
    what_is_in_it,
)
from lium_mcp.services.rents.request_total import Total, most_usd_of, total_of
from lium_mcp.services.rents.wish import Wish

_MOST_SPARES: Final = 3
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Pods that may be rented together.

    Attributes:
        wish: What was asked for.
        total: What all pods of the request may cost, also those that are there; None for whatever their hours cost.
        hours: Until Lium removes each, by what was asked for and the limits; None for never.
        plans: One for each pod that is missing, cheapest first.
        spares: What may take the place of one that Lium refuses, under another name, for no more.
        balance_usd: The balance when the person was asked about it; None where nobody was, or Lium does not say it.
    """

    wish: Wish
    total: Total | None
    hours: float | None
    plans: tuple[Plan, ...]
    spares: tuple[Plan, ...]
    balance_usd: float | None = None

    @property
    def price_per_hour_usd(self) -> float:
        """What all of them cost."""
        return sum(plan.price_per_hour_usd or 0 for plan in self.plans)

    @property
    def ask(self) -> Ask:
        """What they would add to what the account is committed to, if all lived as long as the longest."""
        return Ask(self.price_per_hour_usd, known_most(plan.ask.hours for plan in self.plans), len(self.plans))

    @property
    def most_usd(self) -> float | None:
        """The most that all of them cost until Lium removes them; None where nobody knows."""
        return known_sum(plan.most_usd for plan in self.plans)


async def make_batch_plan(
    account: Account, policy: Policy, wish: Wish, names: Sequence[str], earlier: Sequence[Entry] = ()
) -> BatchPlan:
    """Find what to rent under these names, which are those of the batch that have no pod yet.

    What may be spent in all is for all pods: what those cost that are gone, and what the `earlier` ones may cost, is
    taken off, and each of the others has a share as its price is.

    Raises:
        Failure: it cannot be rented so, or not so often.
        PolicyRefused: a limit leaves no room for one of them.
        LiumError: the API could not be read.
    """
    hours, total = policy.life(wish.hours), await total_of(account, wish, earlier)
    planner = _Planner(account, policy, wish, hours, await find_contents(account, wish))
    if wish.executor_id:
        node = await find_node(account, wish.executor_id)
        nodes, spares = _shares_of(wish, node, len(names)), 0
    else:
        offers, failed = await find_offers(account, wish.gpu_type), await account.rents.nodes_that_failed()

        async def pick(some: Sequence[Executor]) -> tuple[list[Executor], int]:
            return await _cheapest_planned(planner, policy, wish, some, len(names))

        nodes, spares = await prefer_others(offers.nodes, failed, pick)
        cheapest = nodes
        if failed:
            with suppress(Failure, PolicyRefused):
                cheapest, _ = _cheapest(policy, wish, offers.nodes, len(names))
        planner.warnings = say_failed(failed, cheapest[: len(names)], nodes[: len(names)])
    plans = [await planner.plan(node, name) for node, name in zip(nodes, names, strict=False)]
    per_hour = sum(plan.price_per_hour_usd or 0 for plan in plans)
    if total is not None:
        planner.hours_paid_for = _left_of_total(total, earlier, per_hour, len(plans)) / per_hour
        plans = [await planner.plan(node, name) for node, name in zip(nodes, names, strict=False)]
    dearest = max(plan.price_per_hour_usd or 0 for plan in plans)
    others = await _plan_those_that_fit(planner, nodes[len(names) :][:spares], names[0])
    kept = (plan for plan in others if not costs_more(plan.price_per_hour_usd or 0, dearest))
    longest = known_most(plan.hours for plan in plans)
    return BatchPlan(wish, total, longest, tuple(plans), tuple(kept))


def _left_of_total(total: Total, earlier: Sequence[Entry], per_hour_usd: float, pods: int) -> float:
    """What is left of a total for the pods that are missing.

    Raises:
        Failure: it does not pay for an hour of them.
    """
    spent, one_hour_usd = most_usd_of(earlier), per_hour_usd * most_hours(1)
    if spent is not None and not is_above(one_hour_usd, total.left_usd - spent):
        return total.left_usd - spent
    lives = "" if not earlier else f", beside {'what' if spent is None else in_usd(spent)} that its other pods may cost"
    raise Failure(
        "total_too_low",
        f"{total} does not pay for one hour of {pods} pods, which costs "
        f"{in_usd(one_hour_usd)} with the {LATE_HOURS * 60:.0f} minutes by which Lium may be late{lives}.",
        "Raise max_total_usd, or ask for fewer pods or cheaper ones.",
    )


async def look_again_at_all(account: Account, policy: Policy, batch: BatchPlan) -> BatchPlan:
    """The plan at its prices of now; all else that was agreed to stays.

    Raises:
        As `look_again`.
    """
    await refuse_other_templates(account, batch.plans)
    seen: dict[str, Plan] = {}
    plans = []
    for plan in batch.plans:
        if plan.node.id not in seen:
            seen[plan.node.id] = await look_again(account, policy, plan)
        plans.append(replace(plan, price_per_hour_usd=seen[plan.node.id].price_per_hour_usd))
    return replace(batch, plans=tuple(plans))


def question_about_batch(batch: BatchPlan) -> Question:
    """What a person is asked before several pods are rented."""
    wish, plans = batch.wish, batch.plans
    each = [at_most_usd(plan.price_per_hour_usd or 0) for plan in plans]
    names = [quoted(plan.wish.name) for plan in plans]
    named = ", ".join(names) if len(names) <= _MOST_NAMED else f"{names[0]} to {names[-1]}"
    types = " or ".join(sorted({plan.node.gpu_type or "a GPU that Lium does not name" for plan in plans}))
    where = f"node {plans[0].node.id}" if wish.executor_id else "the cheapest nodes that fit"
    text = (
        f"Rent {len(plans)} pods ({named}): {plans[0].gpu_count}x {types} each on {where} for at most "
        f"{in_usd(sum(each))} an hour together, the dearest {in_usd(max(each))}? "
    )
    if batch.hours is None:
        text += "They have no removal time: they bill until somebody removes them."
    else:
        lives = [plan.hours or 0 for plan in plans]
        text += f"Lium removes each {counted(batch.hours, 'hour')} after it starts{in_all(lives, each, batch.total)}"
    contents = dict.fromkeys(map(what_is_in_it, plans))
    text += f" {' Or: '.join(contents)}{balance_after(batch.balance_usd, sum(each), batch.hours)}"
    told = Counter(warning for plan in plans for warning in (*_known(plan), *plan.warnings))
    warnings = (of_some(warning, count, len(plans)) for warning, count in told.items())
    return Question(" ".join((text, *warnings)), price_per_hour_usd=sum(each), basis=basis_of(plans), subject=batch)


def of_some(warning: str, count: int, pods: int) -> str:
    """A warning of so many of several pods."""
    return warning if count == pods else f"Of {count} of them: {warning}"


def _known(plan: Plan) -> list[str]:
    """What speaks against its node, as far as the node is sure by the time of the answer."""
    if plan.wish.executor_id:
        return node_warnings(plan.node)
    return [warning] if (warning := spot_warning(plan.node)) else []


def wanted_of(policy: Policy, agreed: Question | None, plan: Plan) -> Wanted:
    """What is ordered for one of the pods, and what it must be to be kept."""
    own = agreed
    if agreed is not None and agreed.price_per_hour_usd is not None and plan.price_per_hour_usd is not None:
        # A sum was agreed to: one pod may not take the share of another.
        own = replace(agreed, price_per_hour_usd=plan.price_per_hour_usd + PRICE_TOLERANCE_USD)
    return Wanted(
        order=plan.order,
        price_per_hour_usd=plan.price_per_hour_usd,
        hours=plan.hours,
        expected=expected_of(policy, own, plan),
    )


class Spares:
    """What may take the place of what Lium refused."""

    def __init__(self, spares: Sequence[Plan], make_wanted: Callable[[Plan], Wanted]) -> None:
        """Take the spare plans, and what makes an order of one."""
        self._left = list(spares)
        self._make_wanted = make_wanted
        self._refused: set[str] = set()
        self.taken: dict[str, Plan] = {}

    def find_another(self, wanted: Wanted, _: LiumError) -> Wanted | None:
        """As `rentals.FindAnother`: on another node, for no more."""
        order = wanted.order
        if not isinstance(order, NodeOrder):
            return None
        self._refused.add(order.executor_id)
        for spare in self._left:
            price = spare.price_per_hour_usd or 0
            if spare.node.id not in self._refused and not costs_more(price, wanted.price_per_hour_usd):
                self._left.remove(spare)
                plan = _named(spare, order.request.pod_name)
                self.taken[plan.wish.name] = plan
                return self._make_wanted(plan)
        return None


class _Planner:
    """Plans pods on nodes; what is the same for several of them is asked for once."""

    def __init__(self, account: Account, policy: Policy, wish: Wish, hours: float | None, contents: Contents) -> None:
        self._account = account
        self._policy = policy
        self._wish = wish
        self._hours = hours
        self._contents = contents
        self.warnings: tuple[str, ...] = ()
        # So many hours of each pod are paid for in all, once that is known.
        self.hours_paid_for: float | None = None
        self._plans: dict[tuple[str, float | None], Plan] = {}
        self._by_machine: dict[tuple[str, str | None], Contents] = {}

    async def plan(self, node: Executor, name: str) -> Plan:
        key = node.id, self.hours_paid_for
        if key not in self._plans:
            self._plans[key] = await self._plan(node)
        plan = self._plans[key]
        return _named(replace(plan, warnings=(*plan.warnings, *self.warnings)), name)

    async def _plan(self, node: Executor) -> Plan:
        driver = node.specs.gpu.driver if node.specs and node.specs.gpu else None
        contents = self._by_machine.get((node.machine_name, driver), self._contents)
        share = None
        if self.hours_paid_for is not None:
            priced = self._plans.get((node.id, None)) or await self._plan_within(None, contents, node)
            share = Total(self.hours_paid_for * (priced.price_per_hour_usd or 0))
        plan = await self._plan_within(share, contents, node)
        self._by_machine[node.machine_name, driver] = replace(contents, template=plan.template)
        return plan

    async def _plan_within(self, total: Total | None, contents: Contents, node: Executor) -> Plan:
        return await plan_on_node(self._account, self._policy, self._wish, total, self._hours, contents, node)


def _named(plan: Plan, name: str) -> Plan:
    """The plan for a pod of this name."""
    assert isinstance(plan.order, NodeOrder)  # noqa: S101 - what a batch rents is always on a chosen node
    request = plan.order.request.model_copy(update={"pod_name": name})
    return replace(plan, wish=plan.wish.of_one(name), order=NodeOrder(plan.order.executor_id, request))


def _shares_of(wish: Wish, node: Executor, pods: int) -> list[Executor]:
    """A node, once for each of its pods.

    Raises:
        Failure: it has too few free GPUs.
    """
    count = wish.gpu_count or smallest_gpu_count(node)
    left, room = node, 0
    while room < pods and can_rent(left, count):
        left, room = _less(left, count), room + 1
    if room < pods:
        raise Failure(
            "gpu_count_not_rentable",
            f"Node {node.id} has room for {room} of {pods} pods with {count} GPUs each: {describe_counts(node)}.",
            "Ask for fewer pods or fewer GPUs, or leave executor_id out, so that they go to several nodes.",
        )
    return [node] * pods


def _cheapest(policy: Policy, wish: Wish, nodes: Sequence[Executor], pods: int) -> tuple[list[Executor], int]:
    """The nodes of the cheapest pods, each as often as it takes one, and then spare ones; how many of these there are.

    Raises:
        Failure: there is no room for so many.
        PolicyRefused: a limit is why.
    """
    picked: list[Executor] = []
    left, count = list(nodes), wish.gpu_count or 1
    while len(picked) < pods + _MOST_SPARES:
        try:
            node = pick_node(policy, wish, left)
        except Failure:
            if not picked:
                raise
            break
        except PolicyRefused:
            if len(picked) < pods:
                raise
            break
        if len(picked) >= pods and _is_dearer(node, picked):
            break
        picked.append(node)
        left = [_less(other, count) if other.id == node.id else other for other in left]
    if len(picked) < pods:
        raise Failure(
            "no_gpu_matches",
            f"There is room for {len(picked)} of {pods} such pods now.",
            f"Ask for {len(picked)}, relax a filter or the ceiling, or watch with list_gpus.",
        )
    return picked, len(picked) - pods


async def _cheapest_planned(
    planner: _Planner, policy: Policy, wish: Wish, nodes: Sequence[Executor], pods: int
) -> tuple[list[Executor], int]:
    """As `_cheapest`, without nodes that by their quotes do not fit.

    Raises:
        As `_cheapest`; where too few fit, as the first one that did not.
    """
    left, refused = list(nodes), None
    for _ in range(MOST_NODES_TRIED):
        try:
            picked, spares = _cheapest(policy, wish, left, pods)
        except (Failure, PolicyRefused):
            if refused is None:
                raise
            break
        unfit = set[str]()
        for node in picked[:pods]:
            try:
                await planner.plan(node, wish.pod_names[0])
            except (Failure, PolicyRefused) as error:
                if not is_of_one_node(error):
                    raise
                refused = refused or error
                unfit.add(node.id)
        if not unfit:
            return picked, spares
        left = [node for node in left if node.id not in unfit]
        if not left:
            break
    assert refused is not None  # noqa: S101 - each turn ends with one
    raise refused


async def _plan_those_that_fit(planner: _Planner, nodes: Sequence[Executor], name: str) -> list[Plan]:
    plans = []
    for node in nodes:
        try:
            plans.append(await planner.plan(node, name))
        except (Failure, PolicyRefused) as error:
            if not is_of_one_node(error):
                raise
    return plans


def _is_dearer(node: Executor, picked: Sequence[Executor]) -> bool:
    return not has_price(node) or (node.price_per_gpu or 0) > max(other.price_per_gpu or 0 for other in picked)


def _less(node: Executor, gpu_count: int) -> Executor:
    """A node with so many GPUs fewer free; with none where it does not say how many are."""
    free = node.available_gpu_count
    return node.model_copy(update={"available_gpu_count": 0 if free is None else max(free - gpu_count, 0)})
