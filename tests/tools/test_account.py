"""Money and SSH keys: the figures agree with the sandbox's ledger, and no private key goes anywhere."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, Agent, Mode, agent_on
from tests.wires import Wire, answering, ask, editing, losing_the_answer, rent, truth

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])

# Public keys made for these tests, with the fingerprints that ssh-keygen -l says.
ED25519 = (PUBLIC_KEY, "SHA256:Ig4LZNKb7QeDiU9x5sxFw53WweCxkJSz3+PL6NKRBO8")
ECDSA = (
    (
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBKbnH94XoawrGhiW5HPWxQRMeJlMunCc5MIzpx"
        "zGTzZjSS0TD/DuH/I+FXmF2LfF7KXPKvWyQZ+378CrqKeJoms= test"
    ),
    "SHA256:ADRFEYsNr9IIRSxysxgusY75iQcTEHZhAA0t+pVCpHk",
)
RSA = (
    (
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC69LbVRKiXfk4Bu7X+2mQBUUinjHWzwxywuT0wPzEny7BS02ySw3dPJH7673j2sTSpN"
        "OjIApiw3P9Yk4nrVbYIrE+Fs2z0/lzJpUQAxRUtyDhGEzerNl6anhxnDV/zRio8iGiogOROz9FN/QfsG76B54pgeJxVROKEhvZa0oW0H1"
        "Gqyx2XBfqpUKjw9hKVlmAcpLkImQwpLo7f9E3K63DQDK0OFEr6z3dZymq0pgeu5zs/OBMKlgtb2FIR30Qj3gazwdSIrbHxwTtE9WqY7NB"
        "8Am/2ABbDxkZmajXilO6KkNbGVc4qSSF6veA81WpR1RlZuWoR0GiNIkLPLy9gX8Fn a test key"
    ),
    "SHA256:pNgogxaJTgKotn3U00PALzaot1IGeot3pPB00gjrBWY",
)
PRIVATE_KEY = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZWQyNTUxOQ
-----END OPENSSH PRIVATE KEY-----"""


# --- balance ---------------------------------------------------------------------------------------------------------


@both_eras
async def test_the_balance_lasts_as_long_as_the_living_pods_let_it(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        idle = await agent.call("get_balance")
        assert idle == {
            "balance_usd": 100,
            "burn_per_hour_usd": 0,
            "billing_pods": 0,
            "starting_pods": 0,
            "note": "No limits are set.",
        }
        await rent(sandbox, "one")
        await rent(sandbox, "two")
        await rent(sandbox, "three", boot=False)
        sandbox.clock.advance(seconds=5)
        burning = await agent.call("get_balance")
    prices = {pod["pod_name"]: pod["price"] for pod in truth(sandbox, "pods")}
    burn = prices["one"] + prices["two"]
    assert burning["billing_pods"] == 2
    assert burning["starting_pods"] == 1
    assert burning["burn_per_hour_usd"] == pytest.approx(burn)
    assert burning["runway_hours"] == pytest.approx(burning["balance_usd"] / burn, abs=0.01)
    now = datetime.fromisoformat(truth(sandbox, "now"))
    runs_out_at = datetime.fromisoformat(burning["runs_out_at"])
    assert abs(runs_out_at - now - timedelta(hours=burning["runway_hours"])) < timedelta(minutes=1)


async def test_the_forecast_comes_true(sandbox: Sandbox, agent: Agent) -> None:
    await rent(sandbox, "one")
    before = await agent.call("get_balance")
    sandbox.clock.advance(hours=10)
    after = await agent.call("get_balance")
    spent = before["balance_usd"] - after["balance_usd"]
    # The ledger is debited every five minutes.
    assert spent == pytest.approx(10 * before["burn_per_hour_usd"], rel=0.02)
    assert after["balance_usd"] == pytest.approx(truth(sandbox, "balance"), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"balance": -3}, {"balance_usd": -3, "runway_hours": 0}),
        ({"balance": None}, {}),
        ({"balance": "12.5"}, {"balance_usd": 12.5}),
        ({"balance": 1e300}, {"balance_usd": 1e300}),
        ({"balance": float("nan")}, {}),
    ],
    ids=str,
)
async def test_a_strange_balance_is_shown_for_what_it_says(
    sandbox: Sandbox, change: dict[str, Any], expected: dict[str, Any]
) -> None:
    await rent(sandbox, "one")
    wire = Wire(sandbox)
    wire.on("GET", "/users/me", editing(lambda me: me | change))
    async with agent_on(sandbox, transport=wire) as agent:
        balance = await agent.call("get_balance")
    assert balance == balance | expected
    if not expected:
        assert {"balance_usd", "runway_hours", "runs_out_at"}.isdisjoint(balance)


async def test_pods_without_a_price_do_not_end_the_forecast(sandbox: Sandbox) -> None:
    await rent(sandbox, "one")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"price": None} for pod in pods]))
    async with agent_on(sandbox, transport=wire) as agent:
        balance = await agent.call("get_balance")
    assert balance["billing_pods"] == 1
    assert "runway_hours" not in balance


async def test_one_pod_without_a_price_leaves_no_forecast_to_make(sandbox: Sandbox) -> None:
    await rent(sandbox, "one")
    await rent(sandbox, "two")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pods[0], *(pod | {"price": None} for pod in pods[1:])]))
    async with agent_on(sandbox, transport=wire) as agent:
        balance = await agent.call("get_balance")
    assert balance["burn_per_hour_usd"] > 0
    assert balance["unpriced_pods"] == 1
    assert {"runway_hours", "runs_out_at"}.isdisjoint(balance)


# --- spending --------------------------------------------------------------------------------------------------------


@pytest.fixture
def morning() -> Sandbox:
    """A sandbox at ten in the morning, so that hours turned do not meet midnight by chance."""
    today = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0)
    return Sandbox(seed=7, speed=0, start=today)


@both_eras
async def test_spending_is_what_the_ledger_charged_in_those_days(morning: Sandbox, mode: Mode) -> None:
    sandbox = morning
    for name in ("one", "two"):
        await rent(sandbox, name)
        sandbox.clock.advance(hours=30)
    gone = truth(sandbox, "pods")[0]
    await ask(sandbox, "DELETE", f"/pods/{gone['id']}")
    sandbox.clock.advance(hours=14)
    async with agent_on(sandbox, mode=mode) as agent:
        await agent.call("get_balance")  # the first answer tells the server what day it is
        everything = await agent.call("get_spending", days=30)
        today = await agent.call("get_spending", days=1)
    ledger = [row for row in truth(sandbox, "ledger") if row["kind"] == "pod"]
    assert everything["total_usd"] == pytest.approx(sum(row["amount"] for row in ledger), abs=1e-4)
    assert everything["total_usd"] == pytest.approx(100 - truth(sandbox, "balance"), abs=1e-4)
    now = datetime.fromisoformat(truth(sandbox, "now"))
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    since_midnight = [row["amount"] for row in ledger if datetime.fromisoformat(row["at"]) > midnight]
    assert today["start_day"] == today["end_day"] == everything["end_day"] == f"{now:%Y-%m-%d}"
    assert everything["start_day"] == f"{now - timedelta(days=29):%Y-%m-%d}"
    assert 0 < today["total_usd"] < everything["total_usd"]
    assert today["total_usd"] == pytest.approx(sum(since_midnight), abs=1e-4)

    rows = {row["pod_id"]: row for row in everything["pods"]}
    assert len(rows) == 2
    for pod in truth(sandbox, "pods"):
        row = rows[pod["id"]]
        assert row["name"] == pod["pod_name"]
        assert row["total_usd"] == pytest.approx(pod["charged_usd"], abs=1e-4)
        assert row["billed_hours"] == pytest.approx(pod["billed_seconds"] / 3600, abs=0.01)
        assert ("removed_at" in row) == (pod["id"] == gone["id"])
    totals = [row["total_usd"] for row in everything["pods"]]
    assert totals == sorted(totals, reverse=True)


async def test_spending_comes_in_pages_that_cover_every_pod_once(morning: Sandbox) -> None:
    for number in range(5):
        await rent(morning, f"pod-{number}")
    morning.clock.advance(hours=1)
    async with agent_on(morning) as agent:
        seen: list[str] = []
        cursor = ""
        while True:
            page = await agent.call("get_spending", limit=2, cursor=cursor)
            seen += [row["pod_id"] for row in page["pods"]]
            assert page["total"] == 5
            assert page["total_usd"] == pytest.approx(100 - truth(morning, "balance"), abs=1e-4)
            cursor = page.get("next_cursor", "")
            if not cursor:
                break
    assert sorted(seen) == sorted(pod["id"] for pod in truth(morning, "pods"))


async def test_an_account_that_never_rented_spent_nothing(agent: Agent) -> None:
    spending = await agent.call("get_spending")
    assert spending["total_usd"] == 0
    assert spending["pods"] == []


POD = {"pod_id": "p1"}


@pytest.mark.parametrize(
    ("statement", "total_usd"),
    [({}, None), ({"pods": [POD, {"pod_id": "p2", "total": 3}]}, None), ({"pods": [POD], "total": 5}, 5)],
    ids=["nothing", "no total", "a total"],
)
async def test_a_total_that_lium_does_not_state_is_not_zero(
    sandbox: Sandbox, statement: dict[str, Any], total_usd: float | None
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(200, statement))
    async with agent_on(sandbox, transport=wire) as agent:
        spending = await agent.call("get_spending")
    assert spending.get("total_usd") == total_usd
    assert spending["pods"][-1:] == [{"pod_id": "p1"}][: len(spending["pods"])]


@pytest.mark.parametrize(
    ("pods", "total", "said"),
    [
        ([{"pod_id": "p1", "total": 3}], 3, None),
        ([{"pod_id": "p1", "total": 3}, 7, {"total": 2}], 5, "2 rows of Lium's statement could not be read: "),
        ([{"pod_id": "p1", "total": "much"}], 5, "Of 1 pod it does not say the charge: "),
        ([{"pod_id": "p1"}, None], None, "could not be read and of 1 pod it does not say the charge: "),
        ("a text", 5, "1 row of"),
    ],
)
async def test_charges_that_cannot_be_read_are_told_of(
    sandbox: Sandbox, pods: Any, total: float | None, said: str | None
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(200, {"pods": pods, "total": total}))
    async with agent_on(sandbox, transport=wire) as agent:
        spending = await agent.call("get_spending")
    if said is None:
        assert "incomplete" not in spending
        return
    assert said in spending["incomplete"]
    assert "may be too low" in spending["incomplete"]
    assert ("Lium states no total" if total is None else "the total is Lium's own") in spending["incomplete"]


async def test_spending_between_two_days_says_of_when_it_is_and_what_still_runs(morning: Sandbox) -> None:
    await rent(morning, "gone")
    gone = truth(morning, "pods")[0]
    morning.clock.advance(hours=48)
    await ask(morning, "DELETE", f"/pods/{gone['id']}")
    await rent(morning, "here")
    morning.clock.advance(hours=2)
    today = morning.clock.now().date()
    wire = Wire(morning)
    async with agent_on(morning, transport=wire) as agent:
        all_days = await agent.call("get_spending")
        first = await agent.call(
            "get_spending", start_day=f"{today - timedelta(days=2)}", end_day=f"{today - timedelta(days=1)}"
        )
        last = await agent.call("get_spending", days=2, end_day=f"{today - timedelta(days=1)}")
    rows = {row["name"]: row for row in all_days["pods"]}
    assert (rows["here"]["running"], "running" in rows["gone"], all_days["running_pods"]) == (True, False, 1)
    assert all_days["as_of"] == f"{morning.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    assert "storage of volumes and backups" in all_days["note"]
    assert [row["name"] for row in first["pods"]] == ["gone"]
    assert 0 < first["total_usd"] < all_days["total_usd"]
    assert (first["start_day"], first["total_usd"]) == (last["start_day"], last["total_usd"])
    assert [request.url.params["start_day"] for request in wire.sent("GET", "/billing/statement")][1:] == [
        f"{today - timedelta(days=2)}"
    ] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start_day": "2026-02-30"}, "start_day is no day"),
        ({"start_day": "yesterday"}, "start_day is no day"),
        ({"end_day": "2026W051"}, "end_day is no day"),
        ({"end_day": "20260101"}, "end_day is no day"),
        ({"start_day": "2026-02-02", "end_day": "2026-02-01"}, "start_day 2026-02-02 is after end_day 2026-02-01"),
        ({"start_day": "9999-12-31"}, "is after end_day"),
    ],
    ids=str,
)
async def test_days_that_are_none_are_refused_before_anything_is_sent(
    sandbox: Sandbox, given: dict[str, str], said: str
) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("get_spending", **given)
        assert (await agent.call("get_spending", end_day="0001-01-01"))["start_day"] == "0001-01-01"
    assert (refused.code, said in refused.text) == ("invalid_argument", True)
    assert len(wire.sent("GET", "/billing/statement")) == 1


@pytest.mark.parametrize(
    ("total", "pods", "beyond"),
    [
        (5, [{"pod_id": "p", "total": 3}], 2),
        (5, [{"pod_id": "p", "total": 5}], None),
        (5, [{"pod_id": "p", "total": 6}], -1),
        (5, [{"pod_id": "p"}], None),
        (None, [{"pod_id": "p", "total": 3}], None),
        (0.3, [{"pod_id": "p", "total": 0.1}, {"pod_id": "q", "total": 0.2}], None),
    ],
)
async def test_what_is_charged_beside_the_pods_is_said(
    sandbox: Sandbox, total: float | None, pods: list[dict[str, Any]], beyond: float | None
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(200, {"total": total, "pods": pods}))
    async with agent_on(sandbox, transport=wire) as agent:
        spending = await agent.call("get_spending")
    assert spending.get("beyond_pods_usd") == beyond
    assert "running_pods" not in spending, "nobody said that they run"


async def test_the_balance_comes_with_the_limits_and_what_is_left_of_them(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    async with agent_on(sandbox, max_pods=3, budget_usd=50, allow_countries="US,DE") as agent:
        assert (await agent.call("get_balance"))["pods_without_removal_time"] == ["worker"]
        await agent.call("schedule_pod_removal", pod="worker", hours_from_now=2)
        balance = await agent.call("get_balance")
    assert "pods_without_removal_time" not in balance
    limits = {row["limit"]: row for row in balance["limits"]}
    assert limits["max_pods"] == {"limit": "max_pods", "allowed": 3, "used": 1, "left": 2}
    budget = limits["budget_usd"]
    assert budget["allowed"] == 50
    assert budget["used"] + budget["left"] == pytest.approx(50)
    assert limits["allow_countries"] == {"limit": "allow_countries", "only": "DE, US"}
    async with agent_on(sandbox) as agent:
        unlimited = await agent.call("get_balance")
        assert not {"limits", "limits_refuse"} & set(unlimited)
        assert unlimited["note"] == "No limits are set. runs_out_at assumes that pods run on past their removal times."
    async with agent_on(sandbox, max_pods=3, policy_mode="shadow") as agent:
        assert (await agent.call("get_balance"))["limits_refuse"] is False


async def test_nothing_is_left_of_a_budget_that_charges_alone_use_up(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", editing(lambda statement: statement | {"total": 60}))
    async with agent_on(sandbox, transport=wire, budget_usd=50) as agent:
        balance = await agent.call("get_balance")
    assert balance["pods_without_removal_time"] == ["worker"]
    [budget] = balance["limits"]
    assert budget == {"limit": "budget_usd", "allowed": 50, "used": pytest.approx(60, abs=0.1), "left": 0}


async def test_a_balance_is_shown_though_what_was_spent_cannot_be_read(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(500, {"detail": "down"}))
    async with agent_on(sandbox, transport=wire, max_pods=3, budget_usd=50) as agent:
        balance = await agent.call("get_balance")
    assert balance["balance_usd"] == 100
    assert balance["limits"] == [{"limit": "max_pods", "allowed": 3}, {"limit": "budget_usd", "allowed": 50}]


async def test_the_days_of_a_statement_are_those_that_it_states(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    days = {"start_day": "2026-02-01", "end_day": "2026-02-03"}
    wire.on("GET", "/billing/statement", editing(lambda statement: statement | days))
    async with agent_on(sandbox, transport=wire) as agent:
        spending = await agent.call("get_spending", days=30)
    assert {name: spending[name] for name in days} == days


@pytest.mark.parametrize("days", [-1, 367, "some", 1.5])
async def test_days_out_of_range_are_refused_by_name(agent: Agent, days: Any) -> None:
    failure = await agent.refused("get_spending", days=days)
    assert failure.code == "invalid_argument"
    assert "days" in failure.text


# --- SSH keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("public_key", "fingerprint"), [ED25519, ECDSA, RSA], ids=["ed25519", "ecdsa", "rsa"])
async def test_a_key_is_registered_under_the_fingerprint_that_ssh_shows(
    sandbox: Sandbox, agent: Agent, public_key: str, fingerprint: str
) -> None:
    added = await agent.call("add_ssh_key", name="laptop", public_key=f"  {public_key}\n")
    assert not added["already_registered"]
    assert added["key"]["fingerprint"] == fingerprint
    assert added["key"]["type"] == public_key.split(maxsplit=1)[0]
    assert (await agent.call("list_ssh_keys")) == {"keys": [added["key"]], "total": 1}
    (stored,) = truth(sandbox, "ssh_keys")
    assert stored["public_key"].split() == public_key.split()[:2], "whose key it is, is nobody's business"
    assert stored["name"] == "laptop"


@both_eras
async def test_a_key_that_is_registered_already_is_left_as_it_is(sandbox: Sandbox, mode: Mode) -> None:
    kind, material = PUBLIC_KEY.split()
    async with agent_on(sandbox, mode=mode) as agent:
        first = await agent.call("add_ssh_key", name="laptop", public_key=f"{PUBLIC_KEY} a-comment")
        again = await agent.call("add_ssh_key", name="other", public_key=f"{kind}   {material} another-comment")
        bare = await agent.call("add_ssh_key", name="third", public_key=f"{kind} {material}")
    assert again == bare == {"key": first["key"], "already_registered": True}
    assert [key["name"] for key in truth(sandbox, "ssh_keys")] == ["laptop"]


async def test_a_registration_whose_answer_was_lost_may_be_repeated(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("POST", "/ssh-keys", losing_the_answer(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        assert failure.code == "outcome_unknown"
        assert "Nothing was changed" not in failure.text
        assert (await agent.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY))["already_registered"]
    assert len(truth(sandbox, "ssh_keys")) == 1


@pytest.mark.parametrize(
    "text",
    [
        PRIVATE_KEY,
        PRIVATE_KEY.replace("\n", " "),
        PRIVATE_KEY.replace("OPENSSH ", "RSA "),
        f"{PUBLIC_KEY}\n{PRIVATE_KEY}",
        PRIVATE_KEY.splitlines()[1],
        "PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nb3BlbnNzaC1rZXktdjE=",
    ],
    ids=["openssh", "one line", "pem", "both", "body alone", "putty"],
)
@both_eras
async def test_a_private_key_is_neither_sent_nor_repeated(sandbox: Sandbox, mode: Mode, text: str) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, mode=mode, transport=wire) as agent:
        failure = await agent.refused("add_ssh_key", name="laptop", public_key=text)
    assert failure.code == "invalid_argument"
    assert "b3BlbnNz" not in failure.text
    assert wire.requests == []
    assert truth(sandbox, "ssh_keys") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "hello world",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 aGVsbG8=",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAEAAAAAAAAAAAAAAAAAAAAAA=",  # half as long as such a key is
        f"{PUBLIC_KEY}\n{ECDSA[0]}",
        PUBLIC_KEY[:40],
        f"ssh-rsa {PUBLIC_KEY.split()[1]}",
        f"no-pty {PUBLIC_KEY}",
        "ssh-ed25519 " + "A" * 20_000,
    ],
    ids=lambda text: text[:24],
)
async def test_what_nobody_could_log_in_with_is_refused(sandbox: Sandbox, agent: Agent, text: str) -> None:
    failure = await agent.refused("add_ssh_key", name="laptop", public_key=text)
    assert failure.code == "invalid_argument"
    assert "public_key" in failure.text
    assert truth(sandbox, "ssh_keys") == []


async def test_foreign_keys_of_any_shape_are_listed(sandbox: Sandbox) -> None:
    odd = [{"id": "a", "public_key": None}, {"id": "b", "public_key": "what"}, {"id": "c", "public_key": "x !!!"}]
    wire = Wire(sandbox)
    wire.on("GET", "/ssh-keys", editing(lambda _: odd))
    async with agent_on(sandbox, transport=wire) as agent:
        keys = await agent.call("list_ssh_keys")
    assert [key["key_id"] for key in keys["keys"]] == ["a", "b", "c"]
    assert not any("fingerprint" in key for key in keys["keys"])


async def test_spending_by_day_is_what_the_ledger_charged_on_each(morning: Sandbox) -> None:
    for name in ("one", "two"):
        await rent(morning, name)
        morning.clock.advance(hours=30)
    async with agent_on(morning) as agent:
        await agent.call("get_balance")  # the first answer tells the server what day it is
        spending = await agent.call("get_spending", by_day=True)
        assert "days" not in await agent.call("get_spending")
    charged: dict[str, float] = {}
    for row in truth(morning, "ledger"):
        if row["kind"] == "pod":
            # What is debited at midnight was used on the day before.
            day = f"{datetime.fromisoformat(row['at']) - timedelta(seconds=1):%Y-%m-%d}"
            charged[day] = charged.get(day, 0) + row["amount"]
    assert {row["day"]: row["total_usd"] for row in spending["days"]} == pytest.approx(charged, abs=1e-3)
    assert len(charged) >= 3
    of_pods = [row["total_usd"] for pod in spending["pods"] for row in pod["days"]]
    assert sum(of_pods) == pytest.approx(spending["total_usd"], abs=1e-3)
    assert "incomplete" not in spending


async def test_what_was_given_back_is_told_as_such_on_its_day(sandbox: Sandbox) -> None:
    rows: list[dict[str, Any]] = [
        {
            "pod_id": "a",
            "total": 15,
            "days": [{"billing_day": "2026-02-01", "amount": 20}, {"billing_day": "2026-02-02", "amount": -5}],
        },
        {"pod_id": "b", "total": -7.5, "days": [{"billing_day": "2026-02-02", "amount": -7.5}]},
    ]
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(200, {"total": 7.5, "pods": rows}))
    async with agent_on(sandbox, transport=wire) as agent:
        spending = await agent.call("get_spending", by_day=True)
    assert spending["days"] == [{"day": "2026-02-01", "total_usd": 20}, {"day": "2026-02-02", "total_usd": -12.5}]
    assert [pod["total_usd"] for pod in spending["pods"]] == [15, -7.5]
    assert spending["pods"][1]["days"] == [{"day": "2026-02-02", "total_usd": -7.5}]
    assert "incomplete" not in spending
    assert "beyond_pods_usd" not in spending


async def test_what_lium_says_no_day_of_is_named(sandbox: Sandbox) -> None:
    rows: list[dict[str, Any]] = [
        {"pod_id": "a", "total": 3, "days": [{"billing_day": "2026-02-01", "amount": 1}, {"amount": 2}]},
        {"pod_id": "b", "total": 4, "days": [{"billing_day": "2026-02-01", "amount": "4"}]},
        {"pod_id": "c", "total": 5},
        {"pod_id": "d", "total": 6, "days": [{"billing_day": "2026-02-02", "amount": None}, {"billing_day": "x"}, 7]},
        {"pod_id": "e", "total": 0},
    ]
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(200, {"total": 18, "pods": rows}))
    async with agent_on(sandbox, transport=wire) as agent:
        spending = await agent.call("get_spending", by_day=True)
    assert spending["days"] == [{"day": "2026-02-01", "total_usd": 5}]
    assert "Of 3 pods it does not say on which days" in spending["incomplete"]
