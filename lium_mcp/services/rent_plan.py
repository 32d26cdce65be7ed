"""From what a call of `rent_pod` asks for to an order with a price: which node, which template, within which limits.

Everything that can be refused is refused here, before money is spent. It only reads, and may be done twice: once to ask
a person, and once more to act on the answer.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
from pydantic import field_validator

from lium_mcp.api import (
    Backup,
    Executor,
    LiumError,
    NoExecutorMatches,
    RentBySpecRequest,
    RentRequest,
    Template,
    gpu_names,
    is_matched_more_loosely,
    matching_machine_names,
    models_of,
    short_gpu_type,
)
from lium_mcp.failures import ToolFailure
from lium_mcp.figures import in_usd
from lium_mcp.guard.policy import Ask, Policy
from lium_mcp.rentals import PRICE_TOLERANCE_USD, NodeOrder, Order, SpecOrder, digest, whole_hours
from lium_mcp.rentals.selection import (
    NoDefaultTemplate,
    NothingFits,
    cheapest_matching,
    default_template,
    meets,
    smallest_gpu_count,
)
from lium_mcp.results import Result
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import PARTIAL, refuse_incomplete
from lium_mcp.services.login_keys import PodKeys, find_public_keys
from lium_mcp.services.offers import types_on_offer
from lium_mcp.services.quotes import PricedRental, find_node, quote_node
from lium_mcp.services.targets import find_free_volume, find_usable_template

_MACHINES_SECONDS = 5.0


class Wanted(Result):
    """The request, checked for what cannot be expressed."""

    name: str
    executor_id: str
    gpu_type: str
    gpu_count: int | None
    max_usd_per_gpu_hour: float | None
    min_vram_gb: float | None
    min_ram_gb: float | None
    min_disk_gb: float | None
    country: str
    docker_in_docker: bool
    template: str
    volume: str
    backup_id: str
    hours: float | None
    enable_backups: bool

    @field_validator("country")
    @classmethod
    def _upper(cls, country: str) -> str:
        return country.upper()

    def check(self) -> None:
        """Refuse what no request could carry; a constraint is never dropped in silence."""
        floors = ("gpu_type", "min_vram_gb", "min_ram_gb", "min_disk_gb", "country", "docker_in_docker")
        given = [name for name in floors if getattr(self, name)]
        if self.executor_id and given:
            problem = f"executor_id names the node already, so {', '.join(given)} cannot apply"
        elif not self.executor_id and not self.gpu_type:
            problem = "Name a node with executor_id, or a GPU model with gpu_type"
        elif self.country and not re.fullmatch("[A-Z]{2}", self.country):
            problem = "country is a two-letter ISO code here"
        else:
            return
        raise ToolFailure("invalid_argument", f"{problem}.", "Correct it and call again.")

    @property
    def digest(self) -> str:
        """What the call is called in the ledger: the same call has the same."""
        return digest(self.model_dump(mode="json"))

    @property
    def termination_hours(self) -> int | None:
        """The API takes whole hours from boot; the exact time is set once the pod runs."""
        return whole_hours(self.hours) if self.hours else None


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
        wanted: What was asked for, with the hours that the limits make of it.
        price_per_hour_usd: For all GPUs, as it is now; None where Lium picks the node and nothing
            needs to know it before the rent, or where nobody knows it.
        node: The node as the market lists it; where Lium picks it, the one that it should take.
        template: What runs there; None where Lium picks it.
        warnings: What to know before it is rented.
    """

    wanted: Wanted
    order: Order
    gpu_count: int
    price_per_hour_usd: float | None
    node: Executor
    template: Template | None
    warnings: tuple[str, ...] = ()

    @property
    def ask(self) -> Ask:
        """What it would add to what the account is committed to; Lium takes whole hours at the rent."""
        hours = self.wanted.termination_hours
        return Ask(self.price_per_hour_usd, float(hours) if hours else None)

    @property
    def is_pinned(self) -> bool:
        """Whether Lium picks the node, and is told a lower ceiling than the caller's: the price that was admitted."""
        order, ceiling = self.order, self.wanted.max_usd_per_gpu_hour
        return isinstance(order, SpecOrder) and order.request.max_price_per_gpu_hour != ceiling


async def make_plan(account: Account, policy: Policy, wanted: Wanted, *, priced: bool) -> Plan:
    """Find what to rent.

    Args:
        account: Whose money is spent.
        policy: The limits that hold.
        wanted: What is asked for.
        priced: Whether the price has to be known, also where Lium picks the node.

    Raises:
        ToolFailure: it cannot be rented so.
        PolicyRefused: a limit leaves no room for it.
        LiumError: the API could not be read.
    """
    wanted = wanted.model_copy(update={"hours": policy.life(wanted.hours)})
    contents = await _contents(account, wanted)
    if wanted.executor_id:
        node = await find_node(account, wanted.executor_id)
    else:
        offers = await _find_offers(account, wanted)
        left_to_lium = await _leave_to_lium(account, policy, wanted, contents, offers, priced=priced)
        if left_to_lium is not None:
            return left_to_lium
        node = _pick_node(policy, wanted, contents, offers.nodes)
    policy.check_gpu_type(node.gpu_name, node.vram_gb_per_gpu)
    policy.check_country(node.country_code)
    quoted = await _price(account, wanted, node)
    policy.check_price(quoted.price_per_hour_usd)
    template = await _template(account, node, contents)
    policy.check_template(template.id)
    order = _node_order(wanted, node, quoted.gpu_count, contents, template)
    return Plan(wanted, order, quoted.gpu_count, quoted.price_per_hour_usd, node, template, contents.warnings)


@dataclass(frozen=True, slots=True)
class Offers:
    """What the market has of the wanted GPUs.

    Attributes:
        nodes: Those that have one of them; at least one.
        machine_names: Every GPU of the market, wanted or not.
    """

    nodes: Sequence[Executor]
    machine_names: Sequence[str]


async def _find_offers(account: Account, wanted: Wanted) -> Offers:
    """Find what a GPU's name means on the market.

    Raises:
        ToolFailure: it means several models, or nothing that is on offer.
        LiumError: the market could not be read.
    """
    market = await account.lium.executors.list()
    names = {node.gpu_name for node in market}
    # What is on offer says most of it.
    with suppress(LiumError), anyio.move_on_after(_MACHINES_SECONDS):
        names.update(machine.name for machine in await account.lium.machines.list())
    machine_names = sorted(name for name in names if name)
    for part in gpu_names(wanted.gpu_type):
        models = models_of(part, machine_names)
        if len(models) > 1:
            raise ToolFailure(
                "ambiguous_name",
                f"{part} means several GPU models: {', '.join(models)}.",
                "Name one of them with gpu_type.",
            )
    nodes = [node for node in market if node.is_gpu(wanted.gpu_type)]
    absent = [part for part in gpu_names(wanted.gpu_type) if not models_of(part, machine_names)]
    if nodes and absent:
        # "4090, D" may have been meant as one name: what is rented must not depend on a guess.
        raise ToolFailure(
            "no_gpu_matches",
            f"No GPU of the market is called {', '.join(absent)[:200]}.",
            "Correct it or leave it out of gpu_type.",
        )
    if not nodes:
        raise ToolFailure(
            "no_gpu_matches",
            f"No gpu_type on offer matches {wanted.gpu_type}; {types_on_offer(market, wanted.gpu_type)}.",
            "Name one of these, or watch with list_gpus.",
        )
    return Offers(nodes, machine_names)


async def _leave_to_lium(
    account: Account, policy: Policy, wanted: Wanted, contents: Contents, offers: Offers, *, priced: bool
) -> Plan | None:
    """Let Lium pick the node, where its reading of the request is ours; None where the node is to be picked here.

    A restore needs a path in the template's volume, so the template has to be known before the rent. Lium takes no
    lists of countries or GPUs, has other units for sizes, and may match names more loosely.
    """
    sizes = (wanted.min_vram_gb, wanted.min_ram_gb, wanted.min_disk_gb)
    if wanted.backup_id or policy.limits.allow_countries or policy.limits.allow_gpu_types or any(sizes):
        return None
    shorts = {short_gpu_type(name) for name in matching_machine_names(wanted.gpu_type, offers.machine_names)}
    if len(shorts) != 1 or is_matched_more_loosely(wanted.gpu_type, offers.machine_names):
        return None
    if not await account.lium.supports("rent_by_spec"):
        return None
    policy.check_template(contents.template.id if contents.template else None)
    request = _spec_request(wanted, contents, shorts.pop())
    if not priced and not policy.limits.any:
        node = _pick_node(policy, wanted, contents, offers.nodes)
        return Plan(wanted, SpecOrder(request), request.gpu_count, None, node, contents.template, contents.warnings)
    try:
        chosen = await account.lium.executors.select_by_spec(request)
    except NoExecutorMatches:
        return None  # what it lacks is said in our own units
    taken = chosen.selected_executor
    listed = next((node for node in offers.nodes if taken and node.id == taken.id), None)
    if taken is None or listed is None or not meets(listed, request):
        return None
    if taken.gpu_name and not taken.is_gpu(wanted.gpu_type):
        return None
    price = chosen.price_per_hour
    policy.check_price(price)
    if price is not None and (priced or (policy.limits.any and not policy.shadow)):
        # If the node is taken meanwhile, Lium tries the next: not at another price.
        ceilings = (price / request.gpu_count + PRICE_TOLERANCE_USD, request.max_price_per_gpu_hour)
        ceiling = min(ceiling for ceiling in ceilings if ceiling is not None)
        request = request.model_copy(update={"max_price_per_gpu_hour": ceiling})
    return Plan(wanted, SpecOrder(request), request.gpu_count, price, listed, contents.template, contents.warnings)


async def _contents(account: Account, wanted: Wanted) -> Contents:
    """Find what goes into the pod; whatever is missing is refused before money is spent."""
    volume = await find_free_volume(account, wanted.volume) if wanted.volume else None
    backup: Backup | None = None
    if wanted.backup_id:
        backup = await account.lium.backups.get(wanted.backup_id)
        refuse_incomplete(backup)
    return Contents(
        keys=await find_public_keys(account),
        template=await find_usable_template(account, wanted.template) if wanted.template else None,
        volume_id=volume.id if volume else None,
        is_backup_partial=backup is not None and backup.is_partial,
    )


def _pick_node(policy: Policy, wanted: Wanted, contents: Contents, nodes: Sequence[Executor]) -> Executor:
    spec = _spec_request(wanted, contents, wanted.gpu_type)
    of_type = [node for node in nodes if policy.admits_gpu_type(node.gpu_name, node.vram_gb_per_gpu)]
    if not of_type:
        policy.check_gpu_type(nodes[0].gpu_name, nodes[0].vram_gb_per_gpu)
    try:
        return cheapest_matching(of_type, spec, lambda node: policy.admits_country(node.country_code))
    except NothingFits as error:
        with suppress(NothingFits):  # else it is not for the countries
            policy.check_country(cheapest_matching(of_type, spec).country_code)
        raise ToolFailure(
            "no_gpu_matches", f"{error}.", "Relax a floor or the ceiling, or watch with list_gpus."
        ) from error


async def _price(account: Account, wanted: Wanted, node: Executor) -> PricedRental:
    count = wanted.gpu_count or (smallest_gpu_count(node) if wanted.executor_id else 1)
    priced = await quote_node(account, node, hours=wanted.hours or 1, gpu_count=count)
    per_gpu = priced.price_per_hour_usd / count
    ceiling = wanted.max_usd_per_gpu_hour
    if ceiling is not None and per_gpu > ceiling:
        raise ToolFailure(
            "price_above_ceiling",
            f"Node {node.id} costs {in_usd(per_gpu, 4)} per GPU-hour, more than max_usd_per_gpu_hour={ceiling:g}.",
            "Choose another node with list_gpus, or raise the ceiling.",
        )
    return priced


async def _template(account: Account, node: Executor, contents: Contents) -> Template:
    try:
        return contents.template or await default_template(account.lium, node)
    except NoDefaultTemplate as error:
        raise ToolFailure(
            "template_needed",
            f"Lium recommends no image of its own for node {node.id}.",
            "Name a template with the parameter template.",
        ) from error


def _node_order(wanted: Wanted, node: Executor, count: int, contents: Contents, template: Template) -> NodeOrder:
    request = RentRequest(
        pod_name=wanted.name,
        template_id=template.id,
        user_public_key=contents.keys.public,
        volume_id=contents.volume_id,
        backup_log_id=wanted.backup_id or None,
        restore_path=restore_path(template) if wanted.backup_id else None,
        gpu_count=count,
        enable_volume_encryption=template.supports_volume_encryption is True,
        enable_backups=wanted.enable_backups,
        termination_hours=wanted.termination_hours,
    )
    return NodeOrder(node.id, request)


def restore_path(template: Template) -> str:
    """Where a backup is restored to at the first start: a new directory in the local volume."""
    return f"{template.volume_root.rstrip('/')}/restored"


def _spec_request(wanted: Wanted, contents: Contents, gpu_type: str) -> RentBySpecRequest:
    chosen = contents.template
    return RentBySpecRequest(
        gpu_type=gpu_type,
        gpu_count=wanted.gpu_count or 1,
        min_vram_gb=wanted.min_vram_gb,
        min_ram_gb=wanted.min_ram_gb,
        min_disk_gb=wanted.min_disk_gb,
        max_price_per_gpu_hour=wanted.max_usd_per_gpu_hour,
        country=wanted.country or None,
        docker_in_docker=wanted.docker_in_docker or None,
        pod_name=wanted.name,
        template_id=chosen.id if chosen else None,
        user_public_key=contents.keys.public,
        volume_id=contents.volume_id,
        enable_volume_encryption=chosen is None or chosen.supports_volume_encryption is True,
        enable_backups=wanted.enable_backups,
        termination_hours=wanted.termination_hours,
    )
