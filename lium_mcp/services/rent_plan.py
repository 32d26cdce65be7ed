"""Makes the plan of a rent from a wish: which node, which template, at what price, within which limits.

Everything that can be refused is refused here, before money is spent. A plan is made once: a person is asked about it,
and after the answer only what may have moved is read again.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from lium_mcp.api.backups import Backup
from lium_mcp.api.errors import LiumError, NoExecutorMatches
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.gpu_names import gpu_names, is_matched_more_loosely, matching_machine_names, models_of, short_gpu_type
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest
from lium_mcp.api.templates import Template
from lium_mcp.failures import Failure
from lium_mcp.figures import is_above, rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Ask, Policy
from lium_mcp.rentals import PRICE_TOLERANCE_USD, Expected, NodeOrder, Order, SpecOrder
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import PARTIAL, refuse_incomplete
from lium_mcp.services.default_template import default_template
from lium_mcp.services.login_keys import PodKeys, find_public_keys
from lium_mcp.services.offers import NothingFits, cheapest_fitting, smallest_gpu_count, types_on_offer
from lium_mcp.services.quotes import PricedRental, find_node, quote_node
from lium_mcp.services.rent_terms import ceiling_per_hour_usd
from lium_mcp.services.targets import find_free_volume, find_usable_template
from lium_mcp.services.wish import Wish

_MACHINES_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the pod."""

    keys: PodKeys
    template: Template | None
    volume_id: str | None
    is_backup_partial: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know of them before money is spent."""
        backup = f"Of the backup: {PARTIAL}" if self.is_backup_partial else None
        return tuple(warning for warning in (self.keys.warning, backup) if warning)


@dataclass(frozen=True, slots=True)
class Plan:
    """An order that may be placed, and what it comes to.

    Attributes:
        wish: What was asked for, with the hours that the limits make of it.
        price_per_hour_usd: For all GPUs, as it is now; None where Lium picks the node and nothing
            needs to know it before the rent, or where nobody knows it.
        node: The node as the market lists it; where Lium picks it, the one that it should take.
        template: What runs there; None where Lium picks it.
        warnings: What to know before it is rented.
        balance_usd: The balance when the person was asked about it; None where nobody was, or Lium does not say it.
    """

    wish: Wish
    order: Order
    gpu_count: int
    price_per_hour_usd: float | None
    node: Executor
    template: Template | None
    warnings: tuple[str, ...] = ()
    balance_usd: float | None = None

    @property
    def ask(self) -> Ask:
        """What it would add to what the account is committed to; Lium takes whole hours at the rent."""
        hours = self.wish.termination_hours
        return Ask(self.price_per_hour_usd, float(hours) if hours else None)

    @property
    def is_pinned(self) -> bool:
        """Whether Lium picks the node, and is told a lower ceiling than the caller's: the price that was admitted."""
        order, ceiling = self.order, self.wish.max_usd_per_gpu_hour
        return isinstance(order, SpecOrder) and order.request.max_price_per_gpu_hour != ceiling


@dataclass(frozen=True, slots=True)
class Offers:
    """What the market has of the wanted GPUs.

    Attributes:
        nodes: The nodes that have one of them; at least one.
        machine_names: Every GPU of the market, wanted or not.
    """

    nodes: Sequence[Executor]
    machine_names: Sequence[str]


async def make_plan(account: Account, policy: Policy, wish: Wish, *, priced: bool) -> Plan:
    """Find what to rent.

    Args:
        account: Whose money is spent.
        policy: The limits that hold.
        wish: What is asked for.
        priced: Whether the price has to be known, also where Lium picks the node.

    Raises:
        Failure: it cannot be rented so.
        PolicyRefused: a limit leaves no room for it.
        LiumError: the API could not be read.
    """
    wish = wish.model_copy(update={"hours": policy.life(wish.hours)})
    contents = await _contents(account, wish)
    if wish.executor_id:
        node = await find_node(account, wish.executor_id)
    else:
        offers = await _find_offers(account, wish)
        left_to_lium = await _leave_to_lium(account, policy, wish, contents, offers, priced=priced)
        if left_to_lium is not None:
            return left_to_lium
        node = _pick_node(policy, wish, offers.nodes)
    policy.check_gpu_type(node.gpu_name, node.vram_gb_per_gpu)
    policy.check_country(node.country_code)
    quoted = await _price(account, wish, node)
    policy.check_price(quoted.price_per_hour_usd)
    template = contents.template or await default_template(account, node)
    policy.check_template(template.id)
    order = _node_order(wish, node, quoted.gpu_count, contents, template)
    return Plan(wish, order, quoted.gpu_count, quoted.price_per_hour_usd, node, template, contents.warnings)


async def look_again(account: Account, policy: Policy, plan: Plan) -> Plan:
    """The plan at its price of now; all else that was agreed to stays. Whether its node is still free, the rent shows.

    Where Lium would pick another node now, the plan is made anew.

    Raises:
        As `make_plan`.
    """
    node, order = plan.node, plan.order
    if isinstance(order, SpecOrder):
        chosen = await account.lium.executors.select_by_spec(_at_most(order.request, plan.wish.max_usd_per_gpu_hour))
        if chosen.selected_executor is None or chosen.selected_executor.id != node.id:
            again = await make_plan(account, policy, plan.wish, priced=True)
            return replace(again, balance_usd=plan.balance_usd)
        price = chosen.price_per_hour
        order = SpecOrder(_pinned(order.request, price, plan.wish))
    else:
        priced = await _price(account, plan.wish, node)
        if not priced.is_quoted:  # so the price is that of the listing
            node = await find_node(account, node.id)
            priced = await _price(account, plan.wish, node)
        price = priced.price_per_hour_usd
    policy.check_price(price)
    return replace(plan, node=node, order=order, price_per_hour_usd=price)


def expected_of(policy: Policy, agreed: Question | None, plan: Plan) -> Expected:
    """What the pod must be to be kept."""
    wish, limits = plan.wish, policy.limits
    per_gpu = wish.max_usd_per_gpu_hour
    own = None if per_gpu is None else per_gpu * plan.gpu_count
    is_bound = not policy.shadow
    is_chosen = isinstance(plan.order, NodeOrder)
    return Expected(
        executor_ids=(wish.executor_id,) if wish.executor_id else (),
        gpu_types=tuple(gpu_names(wish.gpu_type)) or ((plan.node.gpu_name,) if plan.node.gpu_name else ()),
        allowed_gpu_types=tuple(sorted(limits.allow_gpu_types)) if is_bound else (),
        gpu_count=plan.gpu_count,
        min_vram_gb=wish.min_vram_gb,
        min_ram_gb=wish.min_ram_gb,
        is_memory_listed=is_chosen,
        countries=(wish.country,) if wish.country else tuple(sorted(limits.allow_countries)) if is_bound else (),
        template_id=plan.order.request.template_id if is_chosen or plan.template else None,
        template_image=plan.template.image if plan.template else None,
        ceiling_per_hour_usd=ceiling_per_hour_usd(policy, agreed, plan.price_per_hour_usd, own),
        ceiling_per_gpu_hour_usd=per_gpu,
    )


async def _find_offers(account: Account, wish: Wish) -> Offers:
    """Find what a GPU's name means on the market.

    Raises:
        Failure: it means several models, or nothing that is on offer.
        LiumError: the market could not be read.
    """
    market = await account.lium.executors.list()
    names = {node.gpu_name for node in market}
    # Where these cannot be read, the names of what is on offer have to do.
    with suppress(LiumError), anyio.move_on_after(_MACHINES_SECONDS):
        names.update(machine.name for machine in await account.lium.machines.list())
    machine_names = sorted(name for name in names if name)
    for part in gpu_names(wish.gpu_type):
        models = models_of(part, machine_names)
        if len(models) > 1:
            raise Failure(
                "ambiguous_name",
                f"{part} means several GPU models: {', '.join(models)}.",
                "Name one of them with gpu_type.",
            )
    nodes = [node for node in market if node.is_gpu(wish.gpu_type)]
    absent = [part for part in gpu_names(wish.gpu_type) if not models_of(part, machine_names)]
    if nodes and absent:
        # "4090, D" may have been meant as one name: what is rented must not depend on a guess.
        raise Failure(
            "no_gpu_matches",
            f"No GPU of the market is called {', '.join(absent)[:200]}.",
            "Correct it or leave it out of gpu_type.",
        )
    if not nodes:
        raise Failure(
            "no_gpu_matches",
            f"No gpu_type on offer matches {wish.gpu_type}; {types_on_offer(market, wish.gpu_type)}.",
            "Name one of these, or watch with list_gpus.",
        )
    return Offers(nodes, machine_names)


async def _leave_to_lium(
    account: Account, policy: Policy, wish: Wish, contents: Contents, offers: Offers, *, priced: bool
) -> Plan | None:
    """Let Lium pick the node, where its reading of the request is ours; None where the node is to be picked here.

    A restore needs a path in the template's volume, so the template has to be known before the rent. Lium takes no
    lists of countries or GPUs, has other units for sizes, and may match names more loosely.
    """
    sizes = (wish.min_vram_gb, wish.min_ram_gb, wish.min_disk_gb)
    if wish.backup_id or policy.limits.allow_countries or policy.limits.allow_gpu_types or any(sizes):
        return None
    shorts = {short_gpu_type(name) for name in matching_machine_names(wish.gpu_type, offers.machine_names)}
    if len(shorts) != 1 or is_matched_more_loosely(wish.gpu_type, offers.machine_names):
        return None
    if not await account.lium.supports("rent_by_spec"):
        return None
    policy.check_template(contents.template.id if contents.template else None)
    request = _spec_request(wish, contents, shorts.pop())
    if not priced and not policy.limits.any:
        node = _pick_node(policy, wish, offers.nodes)
        return Plan(wish, SpecOrder(request), request.gpu_count, None, node, contents.template, contents.warnings)
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
    return Plan(wish, SpecOrder(request), request.gpu_count, price, listed, contents.template, contents.warnings)


def _pinned(request: RentBySpecRequest, price_per_hour_usd: float | None, wish: Wish) -> RentBySpecRequest:
    """The request with the found price as its ceiling: if the node is taken, Lium would try a dearer one."""
    if price_per_hour_usd is None:
        return _at_most(request, wish.max_usd_per_gpu_hour)
    ceilings = (price_per_hour_usd / request.gpu_count + PRICE_TOLERANCE_USD, wish.max_usd_per_gpu_hour)
    return _at_most(request, min(ceiling for ceiling in ceilings if ceiling is not None))


def _at_most(request: RentBySpecRequest, usd_per_gpu_hour: float | None) -> RentBySpecRequest:
    return request.model_copy(update={"max_price_per_gpu_hour": usd_per_gpu_hour})


async def _contents(account: Account, wish: Wish) -> Contents:
    """Find what goes into the pod; whatever is missing is refused before money is spent."""
    volume = await find_free_volume(account, wish.volume) if wish.volume else None
    backup: Backup | None = None
    if wish.backup_id:
        backup = await account.lium.backups.get(wish.backup_id)
        refuse_incomplete(backup)
    return Contents(
        keys=await find_public_keys(account),
        template=await find_usable_template(account, wish.template) if wish.template else None,
        volume_id=volume.id if volume else None,
        is_backup_partial=backup is not None and backup.is_partial,
    )


def _pick_node(policy: Policy, wish: Wish, nodes: Sequence[Executor]) -> Executor:
    floors = wish.for_one_node
    of_type = [node for node in nodes if policy.admits_gpu_type(node.gpu_name, node.vram_gb_per_gpu)]
    if not of_type:
        policy.check_gpu_type(nodes[0].gpu_name, nodes[0].vram_gb_per_gpu)
    try:
        return cheapest_fitting(of_type, floors, lambda node: policy.admits_country(node.country_code))
    except NothingFits as error:
        with suppress(NothingFits):  # if something fits without it, the limit on countries is why
            policy.check_country(cheapest_fitting(of_type, floors).country_code)
        raise Failure(
            "no_gpu_matches", f"{error}.", "Relax a floor or the ceiling, or watch with list_gpus."
        ) from error


async def _price(account: Account, wish: Wish, node: Executor) -> PricedRental:
    count = wish.gpu_count or (smallest_gpu_count(node) if wish.executor_id else 1)
    priced = await quote_node(account, node, hours=wish.hours or 1, gpu_count=count)
    per_gpu = priced.price_per_hour_usd / count
    ceiling = wish.max_usd_per_gpu_hour
    if ceiling is not None and is_above(per_gpu, ceiling):
        raise Failure(
            "price_above_ceiling",
            f"Node {node.id} costs {rate_in_usd(per_gpu, 4)} per GPU-hour, more than max_usd_per_gpu_hour={ceiling:g}.",
            "Choose another node with list_gpus, or raise the ceiling.",
        )
    return priced


def _node_order(wish: Wish, node: Executor, count: int, contents: Contents, template: Template) -> NodeOrder:
    request = RentRequest(
        pod_name=wish.name,
        template_id=template.id,
        user_public_key=contents.keys.public,
        volume_id=contents.volume_id,
        backup_log_id=wish.backup_id or None,
        restore_path=restore_path(template) if wish.backup_id else None,
        gpu_count=count,
        enable_volume_encryption=template.supports_volume_encryption is True,
        enable_backups=wish.enable_backups,
        termination_hours=wish.termination_hours,
    )
    return NodeOrder(node.id, request)


def restore_path(template: Template) -> str:
    """Where a backup is restored to at the first start: a new directory in the local volume."""
    return f"{template.volume_root.rstrip('/')}/restored"


def _spec_request(wish: Wish, contents: Contents, gpu_type: str) -> RentBySpecRequest:
    chosen = contents.template
    return RentBySpecRequest(
        gpu_type=gpu_type,
        gpu_count=wish.gpu_count or 1,
        min_vram_gb=wish.min_vram_gb,
        min_ram_gb=wish.min_ram_gb,
        min_disk_gb=wish.min_disk_gb,
        max_price_per_gpu_hour=wish.max_usd_per_gpu_hour,
        country=wish.country or None,
        docker_in_docker=wish.docker_in_docker or None,
        pod_name=wish.name,
        template_id=chosen.id if chosen else None,
        user_public_key=contents.keys.public,
        volume_id=contents.volume_id,
        enable_volume_encryption=chosen is None or chosen.supports_volume_encryption is True,
        enable_backups=wish.enable_backups,
        termination_hours=wish.termination_hours,
    )
