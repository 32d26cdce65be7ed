"""Toolset `marketplace`: what is for rent, at what price. Works without an API key."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from statistics import mode, quantiles
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from lium_mcp.api.errors import LiumError
from lium_mcp.api.executors.models import Executor
from lium_mcp.figures import rounded
from lium_mcp.inputs import ShortText
from lium_mcp.results import Result, Timed, Usd, UsdRate
from lium_mcp.services.pods.login_keys import foresee_login
from lium_mcp.services.pods.node_warnings import NodeFlaws, flaws, node_warnings
from lium_mcp.services.prices.market_prices import MOST_GPUS_OF_A_NODE, offered_by_type, price_of_each_gpu
from lium_mcp.services.prices.past_prices import GonePrices, PastPrices, gone_types, past_prices, with_series
from lium_mcp.services.prices.price_history import MOST_DAYS, Past
from lium_mcp.services.prices.price_samples import Point
from lium_mcp.services.rents.node_choice import price_node, use_node
from lium_mcp.services.rents.offers import (
    Candidate,
    Filters,
    Market,
    price_order,
    rentable_counts,
    say_left_out,
    say_what_is_on_offer,
    sure_candidates,
    unmatched,
)
from lium_mcp.services.rents.quotes import PricedRental
from lium_mcp.services.rents.request_total import Total
from lium_mcp.services.rents.total_ceiling import say_cut_short, within_total
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import Cursor, Limit, page
from lium_mcp.toolkit.registry import READS, Toolset

toolset = Toolset("marketplace")

R = TypeVar("R", bound=Result)
P = TypeVar("P", "GpuPrices", GonePrices)

_WATCH_EVERY_SECONDS = 5.0
# So many rows of one reading are kept for the calls that show them too.
_MOST_OFFERS = 1000
_ORDERS: dict[str, Callable[[Candidate], tuple[float | str, ...]]] = {
    "price": lambda candidate: price_order(candidate.node, candidate.gpu_count),
    "price_per_gpu": lambda candidate: price_order(candidate.node),
    "download": lambda candidate: (-(candidate.node.download_mbps or 0), *price_order(candidate.node)),
    "vram": lambda candidate: (-(candidate.node.vram_gb_per_gpu or 0), *price_order(candidate.node)),
    "reliability": lambda candidate: (-(candidate.node.reliability_score or 0), *price_order(candidate.node)),
}
_NO_TOTAL = "Lium quotes no total: total_usd is price_per_hour_usd times hours, without storage."
_NO_HISTORY = "history_days: earlier prices cannot be read now."

GpuType = Annotated[ShortText, Field(description="E.g. H100.")]


class GpuOffer(NodeFlaws):
    """A node with free GPUs, and what its smallest rental costs, or that of the number asked for.

    VRAM is the size a GPU is sold with; RAM and disk are GB of 10^9 bytes, of the whole node: a pod gets a share.
    """

    executor_id: str
    gpu_type: str | None = None
    free_gpus: int | None = None
    total_gpus: int | None = None
    rentable_gpus: str | None = None
    price_per_hour_usd: UsdRate
    price_per_gpu_hour_usd: UsdRate
    vram_gb: int | None = None
    node_ram_gb: int | None = None
    node_disk_gb: int | None = None
    country: str | None = None
    tier: str | None = None
    cuda: float | None = None
    download_mbps: int | None = None
    nvlink: bool | None = None
    docker_in_docker: bool | None = None
    reliability: int | None = None


class GpuOffers(Result):
    """One page of offers; incomplete says what could be on offer and is not shown."""

    offers: list[GpuOffer]
    total: int
    incomplete: str | None = None
    read_seconds_ago: int | None = None
    next_cursor: str | None = None
    next: str | None = None


class GpuPrices(Result):
    """Prices of one variant of a GPU, over its free GPUs as far as nodes say how many they have.

    VRAM is the size a GPU is sold with, as most of the nodes say it.
    """

    gpu_type: str | None = None
    vram_gb: int | None = None
    free_gpus: int | None = None
    nodes: int
    min_usd: UsdRate
    q1_usd: UsdRate
    median_usd: UsdRate
    q3_usd: UsdRate
    max_usd: UsdRate
    past: PastPrices | None = None


class MarketPrices(Timed):
    """Prices per GPU-hour, cheapest type first; of types that are gone, the one seen last first."""

    gpu_types: list[GpuPrices]
    total: int
    gone: list[GonePrices] | None = None
    incomplete: str | None = None
    read_seconds_ago: int | None = None
    warnings: list[str] | None = None
    next: str | None = None


class QuotedLine(Result):
    """One line of a quote; without an amount what it costs is not known before, and comes on top."""

    item: str
    unit: str | None = None
    quantity: float | None = None
    rate_usd: UsdRate | None = None
    amount_usd: Usd | None = None
    note: str | None = None


class RentalQuote(Result):
    """What a rental would cost. Nothing is reserved."""

    executor_id: str
    gpu_type: str | None = None
    gpu_count: int
    tier: str | None = None
    country: str | None = None
    hours: float
    price_per_hour_usd: UsdRate
    total_usd: Usd
    lines: list[QuotedLine]
    balance_usd: Usd | None = None
    balance_must_exceed_usd: Usd | None = None
    hours_balance_covers: float | None = None
    warnings: list[str] | None = None


@toolset.tool(title="List GPUs for rent", hints=READS)
async def list_gpus(
    call: Call,
    wanted: Filters,
    *,
    sort: Annotated[
        Literal["price", "price_per_gpu", "download", "vram", "reliability"],
        Field(description="Best first; price is that of the smallest rental."),
    ] = "price",
    wait_seconds: Annotated[int, Field(ge=0, le=600, description="Watch so long until one fits.")] = 0,
    limit: Limit = 20,
    cursor: Cursor = "",
) -> GpuOffers:
    """List nodes with free GPUs, the cheapest rental first; wait_seconds watches until one fits. get_gpu_prices
    compares types; quote_rental and rent_pod take the same filters.
    """

    def fitting(market: Market) -> Sequence[Candidate]:
        best_first = market.once(
            (sort, wanted.gpu_count), lambda nodes: sorted(sure_candidates(nodes, wanted.gpu_count), key=_ORDERS[sort])
        )
        return market.once((wanted, sort), lambda _: wanted.met_by(best_first))

    market = await call.poller.until(
        await call.lium.executors.market(),
        # All who watch share one reading in the time after which each looks again.
        lambda: call.lium.executors.market(most_seconds=_WATCH_EVERY_SECONDS),
        lambda market: bool(fitting(market)),
        wait_seconds=wait_seconds,
        describe=lambda _: "No offer matches yet",
        every_seconds=_WATCH_EVERY_SECONDS,
    )
    offers = market.once(
        (wanted, sort, limit, cursor), lambda _: _page_of(market, fitting(market), wanted, limit, cursor)
    )
    return _aged(offers, market)


def _page_of(market: Market, fitting: Sequence[Candidate], wanted: Filters, limit: int, cursor: str) -> GpuOffers:
    rows, next_cursor = page(fitting, limit=limit, cursor=cursor)
    offer = market.once(_offer, lambda _: lru_cache(_MOST_OFFERS)(_offer))
    return GpuOffers(
        offers=[offer(candidate) for candidate in rows],
        total=len(fitting),
        incomplete=say_left_out(market, wanted),
        next_cursor=next_cursor,
        next=_say_why(market.value, wanted.gpu_type, found=bool(fitting)),
    )


def _say_why(market: Sequence[Executor], gpu_type: str, *, found: bool) -> str | None:
    return unmatched(gpu_type, market) if found or not gpu_type else say_what_is_on_offer(market, gpu_type)


def _aged(result: R, market: Market) -> R:
    """Let an answer say how old the market is that it is made of, where that is a second or more."""
    seconds = int(market.age_seconds)
    return result.model_copy(update={"read_seconds_ago": seconds}) if seconds else result


@toolset.tool(
    title="Get GPU prices", hints=READS, search_hint="how much does an H100 cost, price of GPUs, cheapest type, compare"
)
async def get_gpu_prices(
    call: Call,
    gpu_type: GpuType = "",
    *,
    history_days: Annotated[int, Field(ge=0, le=MOST_DAYS, description="For a chart: samples of so many days.")] = 0,
) -> MarketPrices:
    """Compare GPU types: how many GPUs of each are free, the quartiles of their price per GPU-hour, and whether now is
    cheap: the range of the lowest price over the last day and week, as far as this server saw it. Use it to choose a
    type or a price ceiling; list_gpus shows the single offers.
    """
    market = await call.lium.executors.market()
    history, now = call.runtime.prices, call.lium.now()
    past = await history.recall(now)
    # Once for all who share the reading, unless the past was not there yet.
    prices = market.once(("prices", gpu_type, bool(past)), lambda _: _prices_of(market, gpu_type, past))
    if history_days:
        rows = [*prices.gpu_types, *(prices.gone or ())]
        series = await history.series(now, history_days, [row.gpu_type for row in rows if row.gpu_type])
        prices = _with_series(prices, series)
    return _aged(prices, market)


def _prices_of(market: Market, gpu_type: str, past: Mapping[str, Past]) -> MarketPrices:
    nodes = market.value
    offered = offered_by_type(nodes, gpu_type)
    rows = [_prices(name, of_type, past_prices(past.get(name))) for name, of_type in offered.items()]
    return MarketPrices(
        gpu_types=sorted(rows, key=lambda row: (row.median_usd, row.gpu_type or "")),
        total=len(rows),
        gone=gone_types(nodes, offered, gpu_type, past) or None,
        incomplete=say_left_out(market, Filters(gpu_type=gpu_type)),
        next=_say_why(nodes, gpu_type, found=bool(rows)),
    )


def _with_series(prices: MarketPrices, series: Mapping[str, Sequence[Point]] | None) -> MarketPrices:
    """The same with samples, where they can be read."""
    if series is None:
        return prices.model_copy(update={"warnings": [_NO_HISTORY]})
    found = series

    def told(row: P) -> P:
        return row.model_copy(update={"past": with_series(row.past, found.get(row.gpu_type or "", ()))})

    gone = [told(row) for row in prices.gone] if prices.gone else None
    return prices.model_copy(update={"gpu_types": [told(row) for row in prices.gpu_types], "gone": gone})


@toolset.tool(title="Quote a rental", hints=READS)
async def quote_rental(
    call: Call,
    wanted: Filters,
    *,
    executor_id: Annotated[ShortText, Field(description="Node; else the cheapest that fits.")] = "",
    hours: Annotated[
        float | None, Field(gt=0, le=8760, description="Default 1, or what max_total_usd pays for.")
    ] = None,
    max_total_usd: Annotated[float | None, Field(gt=0, description="For the whole rental.")] = None,
    volume_gb: Annotated[float, Field(ge=0, description="Size of an attached volume.")] = 0,
    backup_gb: Annotated[float, Field(ge=0, description="Size of stored backups.")] = 0,
) -> RentalQuote:
    """Price a rental line by line, on one node or on the cheapest that fits the filters, and compare it with the
    balance. Nothing is rented or reserved; rent_pod takes the same filters and rents.
    """

    async def price_on(node: Executor) -> tuple[Executor, float, PricedRental]:
        async def price(hours: float) -> PricedRental:
            return await price_node(
                call.account,
                wanted,
                node,
                is_named=bool(executor_id),
                hours=hours,
                volume_gb=volume_gb,
                backup_gb=backup_gb,
            )

        priced = await price(hours or 1)
        if max_total_usd is None:
            return node, hours or 1, priced
        return node, *await within_total(Total(max_total_usd), priced, hours, price)

    node, lasts_hours, priced = await use_node(call.account, call.policy, wanted, executor_id, price_on)
    balance = await _balance(call)
    warnings = [
        *node_warnings(node),
        *say_cut_short(hours, lasts_hours),
        await foresee_login(call.account),
        None if priced.has_total else _NO_TOTAL,
    ]
    per_hour = priced.price_per_hour_usd
    return RentalQuote(
        executor_id=node.id,
        gpu_type=node.gpu_type,
        gpu_count=priced.gpu_count,
        tier=node.tier,
        country=node.country_code,
        hours=lasts_hours,
        price_per_hour_usd=per_hour,
        total_usd=priced.total_usd,
        lines=[
            QuotedLine(
                item=line.item,
                unit=line.unit or None,
                quantity=line.quantity,
                rate_usd=line.rate_usd,
                amount_usd=line.amount_usd,
                note=line.note if line.amount_usd is None and line.note else None,
            )
            for line in priced.lines
            if line.quantity != 0 or line.amount_usd or (line.amount_usd is None and line.note)
        ],
        balance_usd=balance,
        balance_must_exceed_usd=priced.balance_must_exceed_usd,
        hours_balance_covers=rounded(max(balance, 0) / per_hour, 2) if balance is not None and per_hour > 0 else None,
        warnings=[warning for warning in warnings if warning] or None,
    )


def _whole(figure: float | None) -> int | None:
    return None if figure is None else int(figure)


def _offer(candidate: Candidate) -> GpuOffer:
    node = candidate.node
    per_gpu = node.price_per_gpu or 0
    return GpuOffer(
        executor_id=node.id,
        gpu_type=node.gpu_type,
        free_gpus=node.available_gpu_count,
        total_gpus=node.total_gpu_count,
        rentable_gpus=rentable_counts(node),
        price_per_hour_usd=per_gpu * candidate.gpu_count,
        price_per_gpu_hour_usd=per_gpu,
        vram_gb=_whole(node.vram_gb_per_gpu),
        node_ram_gb=_whole(node.ram_gb),
        node_disk_gb=_whole(node.disk_gb),
        country=node.country_code,
        tier=node.tier,
        cuda=node.cuda_version,
        download_mbps=_whole(node.download_mbps),
        nvlink=node.has_nvlink or None,
        docker_in_docker=node.docker_in_docker or None,
        reliability=_whole(node.reliability_score),
        **flaws(node),
    )


def _prices(gpu_type: str, nodes: Sequence[Executor], past: PastPrices | None) -> GpuPrices:
    sizes = [node.vram_gb_per_gpu for node in nodes if node.vram_gb_per_gpu]
    free = [node.available_gpu_count for node in nodes if node.available_gpu_count is not None]
    prices = price_of_each_gpu(nodes)
    q1, median, q3 = quantiles(prices, n=4, method="inclusive") if len(prices) > 1 else (prices[0],) * 3
    return GpuPrices(
        gpu_type=gpu_type or None,
        vram_gb=mode(sizes) if sizes else None,
        free_gpus=sum(min(count, MOST_GPUS_OF_A_NODE) for count in free) if free else None,
        nodes=len(nodes),
        min_usd=min(prices),
        q1_usd=q1,
        median_usd=median,
        q3_usd=q3,
        max_usd=max(prices),
        past=past,
    )


async def _balance(call: Call) -> float | None:
    try:
        return (await call.lium.account.me()).balance
    except LiumError:
        return None  # the price is public; a key that cannot read the account must not hide it
