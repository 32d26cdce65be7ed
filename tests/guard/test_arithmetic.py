"""What the limits add up: no sum that passes one is let through, whatever the figures are."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lium_mcp.api.account import BillingStatement
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.guard.commitments import Commitment, commitments, hours_left, spent_usd
from lium_mcp.guard.limits import Limits
from lium_mcp.guard.policy import Ask, Policy, PolicyRefused
from lium_mcp.rentals import Entry, PastCost

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SINCE = datetime(2026, 11, 1, tzinfo=UTC)
CENT = 0.006
CLUSTER = {"kind": "cluster", "request": {"executor_uuids": ["1", "2", "3", "4"]}}

money = st.floats(0, 1e4) | st.sampled_from([0.0, 0.268, 1e-9, 1e308])
maybe_money = st.none() | money
hours = st.none() | st.floats(1e-9, 720)
held = st.lists(st.builds(Commitment, st.just("p"), st.integers(1, 8), maybe_money, hours), max_size=5)
asks = st.builds(Ask, maybe_money, hours, st.integers(1, 8))
limits = st.builds(
    Limits,
    max_price_per_hour_usd=maybe_money,
    max_pods=st.none() | st.integers(0, 20),
    max_hours=st.none() | st.floats(1, 720),
    max_burn_per_hour_usd=maybe_money,
    budget_usd=maybe_money,
)
spending = st.none() | money


def admits(limits: Limits, ask: Ask, items: list[Commitment], spent: float | None) -> bool:
    policy = Policy(limits)
    try:
        policy.check_price(ask.price_per_hour_usd, ask.pods)
        policy.check_room(ask, items, spent)
    except PolicyRefused:
        return False
    return True


slack = st.none() | st.floats(-1, 1) | st.sampled_from([0.0, -1e-6, 1e-6, -0.0049, -0.0051])
some_money = st.floats(0, 30)
some_hours = st.floats(0.01, 72)


@given(
    st.builds(Ask, some_money, some_hours, st.integers(1, 4)),
    st.lists(st.builds(Commitment, st.just("p"), st.integers(1, 4), some_money, some_hours), max_size=4),
    some_money,
    st.fixed_dictionaries({"price": slack, "pods": st.none() | st.integers(-2, 2), "burn": slack, "budget": slack}),
)
def test_no_sum_that_is_admitted_passes_a_limit(
    ask: Ask, items: list[Commitment], spent: float, room: dict[str, Any]
) -> None:
    """Limits just above and just below what everything comes to."""
    assert ask.price_per_hour_usd is not None
    assert ask.hours is not None
    sums = {
        "price": ask.price_per_hour_usd / ask.pods,
        "pods": ask.pods + sum(item.pods for item in items),
        "burn": ask.price_per_hour_usd + sum(item.price_per_hour_usd or 0 for item in items),
        "budget": spent
        + ask.price_per_hour_usd * ask.hours
        + sum((item.price_per_hour_usd or 0) * (item.hours_left or 0) for item in items),
    }
    most = {name: None if room[name] is None else max(sums[name] + room[name], 0) for name in sums}
    limits = Limits(
        max_price_per_hour_usd=most["price"],
        max_pods=most["pods"],
        max_burn_per_hour_usd=most["burn"],
        budget_usd=most["budget"],
    )
    passed = [name for name, figure in most.items() if figure is not None and sums[name] > figure + 1e-9]
    far = [name for name in passed if sums[name] > (most[name] or 0) + CENT]
    admitted = admits(limits, ask, items, spent)
    assert not (admitted and far), "more than a rounding was let through"
    assert admitted or passed, "what fits was refused"


@given(limits, asks, held, spending, st.data())
def test_what_is_refused_stays_refused_when_more_is_asked_spent_or_held(
    limits: Limits, ask: Ask, items: list[Commitment], spent: float | None, data: st.DataObject
) -> None:
    assume(not admits(limits, ask, items, spent))
    more = st.floats(0, 100)
    dearer = Ask(
        None if ask.price_per_hour_usd is None else ask.price_per_hour_usd + data.draw(more) * ask.pods,
        None if ask.hours is None else ask.hours + data.draw(more),
        ask.pods,
    )
    assert not admits(limits, dearer, items, spent)
    assert not admits(
        limits, ask, [*items, data.draw(st.builds(Commitment, st.just("q"), st.just(1), money, st.floats(0, 9)))], spent
    )
    assert not admits(limits, ask, items, None if spent is None else spent + data.draw(more))


@given(limits, asks, held, spending, st.sampled_from(["price", "hours", "spent", "a price", "a life"]))
def test_an_unknown_figure_never_helps(
    limits: Limits, ask: Ask, items: list[Commitment], spent: float | None, what: str
) -> None:
    assume(not admits(limits, ask, items, spent))
    if what == "price":
        ask = Ask(None, ask.hours, ask.pods)
    if what == "hours":
        ask = Ask(ask.price_per_hour_usd, None, ask.pods)
    if what == "spent":
        spent = None
    if what == "a price":
        items = [Commitment(item.name, item.pods, None, item.hours_left) for item in items]
    if what == "a life":
        items = [Commitment(item.name, item.pods, item.price_per_hour_usd, None) for item in items]
    assert not admits(limits, ask, items, spent)


@given(limits, asks, held, spending)
def test_tighter_limits_admit_no_more(limits: Limits, ask: Ask, items: list[Commitment], spent: float | None) -> None:
    for other in (
        Limits(max_pods=3, budget_usd=5),
        Limits(max_burn_per_hour_usd=1),
        Limits(max_price_per_hour_usd=0.5),
    ):
        both = limits.tightened(other)
        assert both == other.tightened(limits)
        assert admits(both, ask, items, spent) == (
            admits(limits, ask, items, spent) and admits(other, ask, items, spent)
        )


@given(limits, asks, held, spending, hours, st.floats(0, 900))
def test_shadow_mode_refuses_nothing(
    limits: Limits, ask: Ask, items: list[Commitment], spent: float | None, life: float | None, lived: float
) -> None:
    policy = Policy(limits, shadow=True)
    assert policy.life(life) == life
    policy.check_price(ask.price_per_hour_usd, ask.pods)
    policy.check_room(ask, items, spent)
    policy.check_life("p", lived, life)
    policy.check_extension("p", ask, items, spent, is_longer=True)
    policy.check_restart("p", life)
    policy.check_gpu_type("")
    policy.check_country(None)
    policy.check_template(None)


@given(st.floats(1, 720), st.floats(0, 900), hours)
def test_no_pod_lives_longer_than_allowed(most: float, lived: float, left: float | None) -> None:
    try:
        Policy(Limits(max_hours=most)).check_life("p", lived, left)
    except PolicyRefused:
        assert left is None or lived + left > most
    else:
        assert left is not None
        assert lived + left <= most + 0.011


def pod(number: int, **fields: Any) -> Pod:
    return Pod(**{"id": f"pod-{number}", "pod_name": f"p{number}", "status": "RUNNING", "price": 1.0, **fields})


def entry(number: int, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "account": "a",
        "key_tag": "k",
        "pod_name": f"p{number}",
        "order": {},
        "asked": "",
        "idempotency_key": "",
        "known_pod_ids": (),
        "pod_count": 1,
        "created_at": NOW - timedelta(minutes=5),
        "price_per_hour_usd": 2.0,
        "hours": 1.5,
        "status": "rented",
        "pod_ids": (f"pod-{number}",),
    }
    return Entry(**(values | fields))


@pytest.mark.parametrize(("listed", "counted"), [(1.0, 2.0), (2.5, 2.5), (None, None)])
def test_what_is_listed_and_journaled_counts_once_at_the_higher_price(
    listed: float | None, counted: float | None
) -> None:
    row = pod(1, price=listed, removal_scheduled_at=NOW + timedelta(hours=2))
    [item] = commitments(Rows([row]), [entry(1)], [], NOW)
    assert (item.pods, item.price_per_hour_usd, item.hours_left) == (1, counted, 2.1)


@pytest.mark.parametrize(
    ("what", "counted"),
    [
        ({"pod_ids": (), "status": "sending"}, (1, 2.0, 2.1)),
        ({"pod_ids": (), "status": "unknown"}, (1, 2.0, 2.1)),
        ({}, (1, 2.0, 2.1)),
        ({"status": "removing"}, (1, 2.0, 2.1)),
        ({"price_per_hour_usd": None}, (1, None, 2.1)),
        ({"hours": None}, (1, 2.0, None)),
        ({"order": CLUSTER, "pod_count": 4, "pod_ids": ("a", "b", "c", "d"), "price_per_hour_usd": 8.0}, (4, 8.0, 2.1)),
        ({"order": CLUSTER, "pod_count": 3, "pod_ids": ("a", "b", "c"), "price_per_hour_usd": 8.0}, (3, 6.0, 2.1)),
    ],
)
def test_what_only_the_ledger_knows_counts(what: dict[str, Any], counted: tuple[Any, ...]) -> None:
    [item] = commitments(Rows(), [entry(1, **what)], [], NOW)
    assert (item.pods, item.price_per_hour_usd, item.hours_left) == counted


def test_members_of_a_cluster_that_are_not_listed_yet_count_with_their_share() -> None:
    listed = pod(1, id="a", price=3.0, termination_hours=2)
    rent = entry(1, order=CLUSTER, pod_count=4, pod_ids=("a", "b", "c", "d"), price_per_hour_usd=8.0)
    items = commitments(Rows([listed]), [rent], [], NOW)
    assert [(item.pods, item.price_per_hour_usd) for item in items] == [(1, 3.0), (3, 6.0)]


def test_a_pod_of_the_same_name_that_was_there_before_does_not_stand_for_a_rent() -> None:
    unsettled = entry(1, pod_ids=(), status="sending", known_pod_ids=("pod-1",))
    assert sum(item.pods for item in commitments(Rows([pod(1)]), [unsettled], [], NOW)) == 2


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"termination_hours": 3, "removal_scheduled_at": NOW + timedelta(hours=1)}, 3.0),  # the boot overwrites it
        ({"removal_scheduled_at": NOW + timedelta(hours=1)}, 1.0),
        ({"removal_scheduled_at": NOW - timedelta(hours=1)}, 0.0),
        ({}, None),
    ],
)
def test_how_long_a_pod_has(fields: dict[str, Any], left: float | None) -> None:
    assert hours_left(pod(1, **fields), NOW) == left


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 600), st.booleans(), st.booleans()), max_size=6),
    st.floats(0, 1),
)
@example([(1.0, 60, False, False)], 0.0)
def test_what_was_spent_is_never_counted_too_low(
    rents: list[tuple[float, int, bool, bool]], share_in_statement: float
) -> None:
    """Whatever part of the last fifteen minutes the statement lacks, and whether pods are gone or start over."""
    truth, statement, living, removed = 0.0, [], [], []
    for number, (price, minutes, gone, starts_over) in enumerate(rents):
        begun = NOW - timedelta(minutes=minutes)
        cost = price * minutes / 60
        truth += cost
        charged = cost - price * min(minutes, 15) / 60 * (1 - share_in_statement)
        if charged > 0:
            statement.append({"pod_id": f"pod-{number}", "total": charged})
        if gone:
            removed.append(PastCost((f"pod-{number}",), price, begun, NOW))
        else:
            living.append(pod(number, price=price, created_at=begun, status="PENDING" if starts_over else "RUNNING"))
    said = BillingStatement.model_validate({"total": sum(row["total"] for row in statement), "pods": statement})
    counted = spent_usd(said, living, removed, SINCE, NOW)
    assert counted is not None
    assert counted >= truth - 1e-6
    assert counted <= truth + sum(price * 0.25 for price, *_ in rents) + 1e-6


def test_a_rent_that_was_closed_long_ago_is_left_to_the_statement() -> None:
    long_ago = PastCost(("pod-1",), 2.0, NOW - timedelta(days=9), NOW - timedelta(days=2))
    assert spent_usd(BillingStatement(total=0.0), [], [long_ago], SINCE, NOW) == 0


def test_what_was_spent_before_the_period_does_not_count() -> None:
    old = pod(1, created_at=SINCE - timedelta(days=30))
    counted = spent_usd(BillingStatement(total=0.0), [old], [], SINCE, NOW)
    assert counted == pytest.approx((NOW - SINCE).total_seconds() / 3600)
