"""Makes the plan of a rent from a wish: which node, which template, at what price, within which limits.

Everything that can be refused is refused here, before money is spent. A plan is made once: a person is asked about it,
and after the answer only what may have moved is read again.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from lium_mcp.api.errors import NoExecutorMatches
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.gpu_names import gpu_names, is_matched_more_loosely, matching_machine_names, short_gpu_type
from lium_mcp.api.rent_requests import RentBySpecRequest
from lium_mcp.api.templates import Template
from lium_mcp.countries import Countries
from lium_mcp.failures import Failure
from lium_mcp.figures import counted, is_above, rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Ask, Policy, PolicyRefused
from lium_mcp.rentals import (
    PRICE_TOLERANCE_USD,
    Expected,
    NodeOrder,
    Order,
    SpecOrder,
    most_hours,
)
from lium_mcp.services.accounts import Account
from lium_mcp.services.rents.default_template import default_template
from lium_mcp.services.rents.node_choice import (
    Offers,
    find_offers,
    pick_node,
    prefer_others,
    price_node,
    say_failed,
    use_cheapest,
)
from lium_mcp.services.rents.pod_contents import Contents, find_contents, node_order, spec_request
from lium_mcp.services.rents.quotes import PricedRental, find_node
from lium_mcp.services.rents.rent_terms import ceiling_per_hour_usd
from lium_mcp.services.rents.request_total import Total, most_usd
from lium_mcp.services.rents.total_ceiling import say_cut_short, whole_cost_usd, within_total
from lium_mcp.services.rents.wish import Wish

# What Lium can be told where it picks the node, as it is meant here.
_CARRIED: Final = frozenset(
    {
        "gpu_type",
        "max_usd_per_gpu_hour",
        "max_usd_per_hour",
        "min_download_mbps",
        "country",
        "docker_in_docker",
    }
)
_NOT_ENCRYPTED: Final = (
    "Its local volume will not be encrypted, since Lium may refuse to restore into an encrypted one at the start. For "
    "an encrypted one, leave backup_id out and call restore_backup once the pod runs."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """An order that may be placed, and what it comes to.

    Attributes:
        wish: What was asked for.
        total: What may be spent in all, for it or for its share of several pods; None for whatever its hours cost.
        hours: Until Lium removes it, by what was asked for, what may be spent, and the limits; None for never.
        price_per_hour_usd: For all GPUs, as it is now; None where Lium picks the node and nothing
            needs to know it before the rent, or where nobody knows it.
        node: The node as the market lists it; where Lium picks it, the one that it should take.
        template: What runs there; None where Lium picks it.
        warnings: What to know before it is rented.
        balance_usd: The balance when the person was asked about it; None where nobody was, or Lium does not say it.
    """

    wish: Wish
    total: Total | None
    hours: float | None
    order: Order
    gpu_count: int
    price_per_hour_usd: float | None
    node: Executor
    template: Template | None
    warnings: tuple[str, ...] = ()
    balance_usd: float | None = None

    @property
    def ask(self) -> Ask:
        """What it would add to what the account is committed to."""
        return Ask(self.price_per_hour_usd, most_hours(self.hours) if self.hours else None)

    @property
    def most_usd(self) -> float | None:
        """The most that it costs until Lium removes it; None where nobody knows."""
        return most_usd(self.price_per_hour_usd, self.hours)

    @property
    def left_of_total_usd(self) -> float | None:
        """What is left of the total that may be spent in the worst case; None where none was said."""
        return None if self.total is None else self.total.left_after(self.most_usd)

    @property
    def is_pinned(self) -> bool:
        """Whether Lium picks the node, and is told a lower ceiling than the caller's: the price that was admitted."""
        order, ceiling = self.order, self.wish.for_one_node.max_usd_per_gpu
        return isinstance(order, SpecOrder) and order.request.max_price_per_gpu_hour != ceiling


async def make_plan(
    account: Account,
    policy: Policy,
    wish: Wish,
    total: Total | None,
    *,
    priced: bool,
    admits: Callable[[Executor], bool] | None = None,
) -> Plan:
    """Find what to rent.

    Args:
        account: Whose money is spent.
        policy: The limits that hold.
        wish: What is asked for.
        total: What may be spent in all.
        priced: Whether the price has to be known, also where Lium picks the node.
        admits: Which nodes may be taken where none is named; None for any, also one that Lium picks.

    Raises:
        Failure: it cannot be rented so.
        PolicyRefused: a limit leaves no room for it.
        LiumError: the API could not be read.
    """
    hours = policy.life(wish.hours)
    contents = await find_contents(account, wish)

    async def plan_on(node: Executor) -> Plan:
        return await plan_on_node(account, policy, wish, total, hours, contents, node)

    if wish.executor_id:
        return await plan_on(await find_node(account, wish.executor_id))
    offers = await find_offers(account, wish.gpu_type)
    nodes = [node for node in offers.nodes if admits is None or admits(node)]
    if not nodes:
        raise Failure("no_gpu_matches", "No other node of this kind is on offer.", "Watch with list_gpus.")
    failed = await account.rents.nodes_that_failed()
    if admits is None and not any(node.id in failed for node in nodes):
        left_to_lium = await _leave_to_lium(account, policy, wish, hours, contents, offers, priced=priced)
        if left_to_lium is not None:
            return left_to_lium

    async def plan_on_one_of(some: Sequence[Executor]) -> Plan:
        return await use_cheapest(policy, wish, some, plan_on)

    plan = await prefer_others(nodes, failed, plan_on_one_of)
    cheapest = [plan.node]
    with suppress(Failure, PolicyRefused):
        cheapest.append(pick_node(policy, wish, nodes))
    return replace(plan, warnings=(*plan.warnings, *say_failed(failed, cheapest, [plan.node])))


async def plan_on_node(
    account: Account,
    policy: Policy,
    wish: Wish,
    total: Total | None,
    hours: float | None,
    contents: Contents,
    node: Executor,
) -> Plan:
    """The plan of a pod on a chosen node, for so many hours at most.

    Raises:
        As `make_plan`.
    """
    policy.check_gpu_type(node.gpu_name, node.vram_gb_per_gpu)
    policy.check_country(node.country_code)
    quoted = await _price(account, wish, node, hours)
    if total is not None:
        hours, quoted = await within_total(total, quoted, hours, lambda hours: _price(account, wish, node, hours))
    policy.check_price(quoted.price_per_hour_usd)
    template = contents.template or await default_template(account, node)
    policy.check_template(template.id)
    order = node_order(wish, hours, node, quoted.gpu_count, contents, template)
    plain = (_NOT_ENCRYPTED,) if wish.backup_id and template.supports_volume_encryption is True else ()
    warnings = (*contents.warnings, *say_cut_short(wish.hours, hours), *plain)
    return Plan(wish, total, hours, order, quoted.gpu_count, quoted.price_per_hour_usd, node, template, warnings)


async def look_again(account: Account, policy: Policy, plan: Plan) -> Plan:
    """The plan at its price of now; all else that was agreed to stays. Whether its node is still free, the rent shows.

    Where Lium would pick another node now, the plan is made anew.

    Raises:
        As `make_plan`.
    """
    node, order = plan.node, plan.order
    if isinstance(order, SpecOrder):
        chosen = await account.lium.executors.select_by_spec(
            _at_most(order.request, plan.wish.for_one_node.max_usd_per_gpu)
        )
        if chosen.selected_executor is None or chosen.selected_executor.id != node.id:
            again = await make_plan(account, policy, plan.wish, plan.total, priced=True)
            return replace(again, balance_usd=plan.balance_usd)
        price = chosen.price_per_hour
        order = SpecOrder(_pinned(order.request, price, plan.wish))
    else:
        priced = await _price(account, plan.wish, node, plan.hours)
        if not priced.is_quoted:  # so the price is that of the listing
            node = await find_node(account, node.id)
            priced = await _price(account, plan.wish, node, plan.hours)
        _refuse_above_total(plan, priced)
        price = priced.price_per_hour_usd
    policy.check_price(price)
    return replace(plan, node=node, order=order, price_per_hour_usd=price)


def _refuse_above_total(plan: Plan, priced: PricedRental) -> None:
    total, hours = plan.total, plan.hours
    if total is not None and hours is not None and is_above(whole_cost_usd(priced, hours), total.left_usd):
        raise Failure(
            "price_changed",
            f"It costs {rate_in_usd(priced.price_per_hour_usd, 4)} an hour now, for which {total} does "
            f"not pay {counted(hours, 'hour')}.",
            "Call again: it is planned for fewer hours then.",
        )


def expected_of(policy: Policy, agreed: Question | None, plan: Plan) -> Expected:
    """What the pod must be to be kept."""
    wish, limits = plan.wish, policy.limits
    per_gpu = wish.max_usd_per_gpu_hour
    own = [per_gpu * plan.gpu_count] if per_gpu is not None else []
    own += [wish.max_usd_per_hour] if wish.max_usd_per_hour is not None else []
    if plan.total is not None and plan.hours is not None:
        own.append(plan.total.left_usd / most_hours(plan.hours))
    is_bound = not policy.shadow
    is_chosen = isinstance(plan.order, NodeOrder)
    wanted = Countries.of(wish.country)
    allowed = {name.upper() for name in limits.allow_countries} if is_bound else set()
    return Expected(
        executor_ids=(wish.executor_id,) if wish.executor_id else (),
        gpu_types=tuple(gpu_names(wish.gpu_type)) or ((plan.node.gpu_name,) if plan.node.gpu_name else ()),
        allowed_gpu_types=tuple(sorted(limits.allow_gpu_types)) if is_bound else (),
        gpu_count=plan.gpu_count,
        min_vram_gb=wish.min_vram_gb,
        min_ram_gb=wish.min_ram_gb,
        min_cuda=wish.min_cuda,
        min_download_mbps=wish.min_download_mbps,
        is_memory_listed=is_chosen,
        countries=tuple(sorted((wanted.allowed & allowed if allowed else wanted.allowed) or allowed)),
        excluded_countries=tuple(sorted(wanted.excluded)),
        tier=wish.tier,
        nvlink=wish.nvlink,
        docker_in_docker=wish.docker_in_docker,
        template_id=plan.order.request.template_id if is_chosen or plan.template else None,
        template_image=plan.template.image if plan.template else None,
        ceiling_per_hour_usd=ceiling_per_hour_usd(policy, agreed, plan.price_per_hour_usd, min(own, default=None)),
        ceiling_per_gpu_hour_usd=per_gpu,
        is_agreed=agreed is not None,
    )


async def _leave_to_lium(
    account: Account,
    policy: Policy,
    wish: Wish,
    hours: float | None,
    contents: Contents,
    offers: Offers,
    *,
    priced: bool,
) -> Plan | None:
    """Let Lium pick the node, where its reading of the request is ours; None where the node is to be picked here.

    A restore needs a path in the template's volume, so the template has to be known before the rent, and what a total
    pays for depends on the node. Lium takes no
    lists of countries or GPUs, has other units for sizes, may match names more loosely, and drops what it does not
    know in silence.
    """
    if not await may_be_left_to_lium(account, policy, wish):
        return None
    shorts = {short_gpu_type(name) for name in matching_machine_names(wish.gpu_type, offers.machine_names)}
    if len(shorts) != 1 or is_matched_more_loosely(wish.gpu_type, offers.machine_names):
        return None
    policy.check_template(contents.template.id if contents.template else None)
    request = spec_request(wish, hours, contents, shorts.pop())
    if not priced and not policy.limits.any:
        node = pick_node(policy, wish, offers.nodes)
        return Plan(
            wish, None, hours, SpecOrder(request), request.gpu_count, None, node, contents.template, contents.warnings
        )
    try:
        chosen = await account.lium.executors.select_by_spec(request)
    except NoExecutorMatches:
        return None  # what it lacks is said in our own units
    taken = chosen.selected_executor
    listed = next((node for node in offers.nodes if taken and node.id == taken.id), None)
    if taken is None or listed is None or not wish.for_one_node.fit(listed):
        return None
    if taken.gpu_name and not taken.is_gpu(wish.gpu_type):
        return None
    price = chosen.price_per_hour
    policy.check_price(price)
    if priced or (policy.limits.any and not policy.shadow):
        request = _pinned(request, price, wish)
    order, count = SpecOrder(request), request.gpu_count
    return Plan(wish, None, hours, order, count, price, listed, contents.template, contents.warnings)


async def may_be_left_to_lium(account: Account, policy: Policy, wish: Wish) -> bool:
    """Whether Lium may pick the node, as far as wish and limits go. It knows how nodes split that do not say so."""
    if not _is_carried(wish) or policy.limits.allow_countries or policy.limits.allow_gpu_types:
        return False
    return await account.lium.supports("rent_by_spec")


def _is_carried(wish: Wish) -> bool:
    """Whether a request for which Lium picks the node says all of a wish."""
    countries = Countries.of(wish.country)
    is_one_country = len(countries.allowed) == 1 and not countries.excluded
    is_placed = not wish.country or is_one_country
    is_own = bool(wish.backup_id) or wish.max_total_usd is not None
    return bool(wish.gpu_type) and not is_own and set(wish.given) <= _CARRIED and is_placed


def _pinned(request: RentBySpecRequest, price_per_hour_usd: float | None, wish: Wish) -> RentBySpecRequest:
    """The request with the found price as its ceiling: if the node is taken, Lium would try a dearer one."""
    if price_per_hour_usd is None:
        return _at_most(request, wish.for_one_node.max_usd_per_gpu)
    ceilings = (price_per_hour_usd / request.gpu_count + PRICE_TOLERANCE_USD, wish.for_one_node.max_usd_per_gpu)
    return _at_most(request, min(ceiling for ceiling in ceilings if ceiling is not None))


def _at_most(request: RentBySpecRequest, usd_per_gpu_hour: float | None) -> RentBySpecRequest:
    return request.model_copy(update={"max_price_per_gpu_hour": usd_per_gpu_hour})


async def _price(account: Account, wish: Wish, node: Executor, hours: float | None) -> PricedRental:
    return await price_node(account, wish, node, is_named=bool(wish.executor_id), hours=hours or 1)
