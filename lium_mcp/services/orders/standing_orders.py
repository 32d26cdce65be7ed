"""Standing orders: rents for which nothing fits now, kept in the ledger until something does or their time is over.

Each is a task of the ledger. `order_firing.py` looks at the market and rents; the rent is the order's own in the
ledger, which lets an order rent once, and cancels one that has not rented.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.guard.consent import Question
from lium_mcp.rentals import Entry, LedgerUnavailable, Task, is_expired
from lium_mcp.services.accounts import Account
from lium_mcp.services.open_rents import pods_given_back
from lium_mcp.services.orders.order_terms import NewOrder, Terms, refuse_taken
from lium_mcp.services.pods.pod_details import past_view, pod_view
from lium_mcp.services.pods.pod_states import judge, judge_gone
from lium_mcp.services.pods.readiness import read_pod
from lium_mcp.services.question_words import quoted
from lium_mcp.services.rents.order_view import OrderStatus, StandingOrder
from lium_mcp.services.rents.wish import Wish
from lium_mcp.services.targets import find_pod
from lium_mcp.text import one_line

log = logging.getLogger(__name__)

CANCELLED: Final = "The standing order is cancelled: it has rented nothing, and never will."
_KIND: Final = "standing_order"
_SUBJECT: Final = "the market"
_SHOWN_FOR: Final = timedelta(days=1)
# Who cancelled one knows it, and who has not may miss it for a moment.
_CANCELLED_LISTED_FOR: Final = timedelta(minutes=10)
# Each takes two or three requests, whenever the pods are listed.
_MOST_ENDS_TOLD: Final = 3
_ENDS_SECONDS: Final = 5.0

_STATUSES: Final[Mapping[str, OrderStatus]] = {"done": "rented", "expired": "expired", "cancelled": "cancelled"}


async def place(account: Account, new: NewOrder) -> Task:
    """Write an order down, from when on servers with this key look for what fits it.

    Raises:
        Failure: another order of its name is open.
        PodNameTaken: a rent of its name is.
        AccountUnknown, LedgerUnavailable, LiumError: it could not be written down.
    """
    worker = account.worker
    if worker is None:
        raise TypeError("without a worker there are no terms")
    terms, wish = new.terms, new.terms.wish
    # Whoever places an order has looked at the market: until a server does, this is what was seen of it.
    task, is_new = await worker.add(
        _KIND,
        _SUBJECT,
        wish.name,
        terms.to_json(),
        progress=seen_of_market(account, terms.began_at, new.because),
        check=lambda entries: refuse_taken(wish, entries),
    )
    if not is_new:
        _refuse_unless_same(task, wish, terms.trying_hours, is_own=worker.made(task))
    return task


def seen_of_market(account: Account, looked_at: datetime, because: str) -> dict[str, Any]:
    """The progress of an order that waits: when it was looked at last, and why nothing fitted then."""
    # What others said is shown by more than tools.
    return {"looked_at": looked_at.isoformat(), "because": one_line(because, account.lium.redact)}


# finding


async def find_same(account: Account, wish: Wish, trying_hours: float | None) -> Task | None:
    """The open order that an earlier call with the same request placed; None where none of the name is open.

    Raises:
        Failure: one of the name is open, and another request placed it.
        LedgerUnavailable: the ledger cannot be read.
    """
    task = await find_open(account, wish.name)
    if task is not None:
        _refuse_unless_same(task, wish, trying_hours)
    return task


def _refuse_unless_same(task: Task, wish: Wish, trying_hours: float | None, *, is_own: bool = True) -> None:
    terms = Terms.of(task) if is_own else None
    if terms is not None and terms.wish.digest == wish.digest and trying_hours in (None, terms.trying_hours):
        return
    raise Failure(
        "standing_order_open",
        f"A standing order named {wish.name} is open already, from another "
        f"{'request' if is_own else 'API key of this account'}.",
        "Choose another name, or cancel that order first: remove_pod with its name."
        if is_own
        else "Choose another name, or have that order cancelled by a server that has the key it was placed with.",
        effect="Nothing was rented or ordered.",
    )


async def find_open(account: Account, name: str) -> Task | None:
    """The order of this name that may still rent, if there is one.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    tasks, now = await account.rents.tasks(_KIND), account.lium.now()
    open_ones = (task for task in tasks if task.closed_at is None and not is_expired(task.payload, now))
    return next((task for task in open_ones if task.name == name), None)


async def tell_of_open(account: Account, name: str) -> str:
    """Say that an order of a pod's name is open, which rents another pod once that is gone; else nothing.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    if (order := await find_open(account, name)) is not None and not await _rents_of(account, order):
        return (
            f"A standing order of this name is open, and rents another pod once something fits: remove_pod with "
            f"{order.id} cancels it."
        )
    if await account.rents.is_ordered(name):
        return (
            "A standing order of this name is open, placed with another API key of this account, and rents another "
            "pod once something fits."
        )
    return ""


async def list_orders(account: Account, *, cancelled_for: timedelta = _CANCELLED_LISTED_FOR) -> list[StandingOrder]:
    """The account's orders that are open, or were cancelled or otherwise closed lately, newest first.

    There are none where nobody can tell.
    """
    try:
        tasks = await account.rents.tasks(_KIND)
    except LedgerUnavailable as error:
        log.warning("The standing orders of the ledger cannot be read: %s", error)
        return []
    now = account.lium.now()

    def is_shown(task: Task) -> bool:
        shown_for = cancelled_for if task.status == "cancelled" else _SHOWN_FOR
        return task.closed_at is None or task.closed_at > now - shown_for

    orders = [show(account, task) for task in tasks if is_shown(task)]
    given_back = await pods_given_back(account) if any(order.pod_id for order in orders) else {}
    return [_with_its_end(order, given_back.get(order.pod_id or "")) for order in orders]


async def list_with_ends(account: Account, pods: Sequence[Pod]) -> list[StandingOrder]:
    """The same orders, and what became of the newest of their pods that are not among the living any more."""
    orders = await list_orders(account)
    living = {pod.id for pod in pods if not pod.is_terminal}
    rented = [order for order in orders if order.pod_id and order.because is None]
    ended = [order for order in rented if order.pod_id not in living][:_MOST_ENDS_TOLD]
    ends: dict[str, str] = {}

    async def read(pod_id: str) -> None:
        with suppress(LiumError):
            pod = await read_pod(account, pod_id)
            past = await past_view(account, pod_id) if pod is None else None
            if pod is not None and pod.is_terminal:
                ends[pod_id] = judge(await pod_view(account, pod), pod, None).next or ""
            elif past is not None:
                ends[pod_id] = judge_gone(past).next or ""

    with anyio.move_on_after(_ENDS_SECONDS):
        async with anyio.create_task_group() as group:
            for order in ended:
                group.start_soon(read, order.pod_id or "")
    return [order.model_copy(update={"because": ends.get(order.pod_id or "", order.because)}) for order in orders]


def _with_its_end(order: StandingOrder, given_back_because: str | None) -> StandingOrder:
    if given_back_because is None:
        return order
    return order.model_copy(update={"because": f"its pod was given back: {given_back_because}; place it anew"})


async def find_lately(account: Account, name: str) -> StandingOrder | None:
    """The newest of these orders that has this name, or has rented the pod of this id."""
    orders = await list_orders(account, cancelled_for=_SHOWN_FOR)
    return next((order for order in orders if name in (order.name, order.pod_id)), None)


# showing


def show_terms(terms: Terms) -> StandingOrder:
    """An order that was not placed."""
    return StandingOrder(
        name=terms.wish.name,
        status="not_placed",
        wants=terms.wants,
        max_usd_per_hour=terms.most_per_hour_usd,
        max_total_usd=terms.most_usd,
        hours=terms.hours,
        since=terms.began_at,
        expires_at=terms.expires_at,
    )


def show(account: Account, task: Task) -> StandingOrder:
    """An order as callers see it."""
    terms, progress = Terms.of(task), task.progress
    looked_at = progress.get("looked_at")
    status = _STATUSES.get(task.status, "failed")
    if task.closed_at is None:
        is_over = terms is not None and terms.expires_at <= account.lium.now()
        status = "renting" if progress.get("is_sent") else "expired" if is_over else "waiting"
    because = None if status == "rented" else task.note or progress.get("because")
    if status == "waiting" and account.no_orders_because is not None:
        before = f"; when a server looked last: {because}" if because else ""
        because = f"this server does not look for it, since {account.no_orders_because}{before}"
    looked = {"looked_at": datetime.fromisoformat(looked_at) if looked_at else None, "because": because or None}
    values = {
        "order_id": task.id,
        "status": status,
        "since": task.created_at,
        "pod_id": progress.get("pod_id"),
        **looked,
    }
    if terms is not None:
        return show_terms(terms).model_copy(update=values)
    wants = "what another version of lium-mcp wrote down"
    return StandingOrder.model_validate({"name": task.name, "wants": wants, "expires_at": task.next_at, **values})


def describe(account: Account, order: StandingOrder) -> str:
    """Say what holds for an order now."""
    if not order.is_open:
        return "The standing order is over. It rents nothing any more; rent_pod places another."
    if order.status == "renting":
        return "Its rent was sent and is being settled: list_pods shows the pod."
    if account.worker is not None and account.worker.is_login:
        who = (
            "This server looks about once a minute until expires_at, and rents as soon as it fits, for as long as the "
            "user is logged in."
        )
    else:
        who = (
            "A running lium-mcp server with this API key looks about once a minute until expires_at, and rents as soon "
            "as it fits; while none runs nothing is rented, and the next one goes on."
        )
    return f"Nothing is rented or billed yet. {who} list_pods shows it; remove_pod with its name cancels it."


# cancelling


async def find_to_cancel(account: Account, named: str) -> Task | None:
    """The open order that a name or an id means; None where it means none.

    Raises:
        Failure: it is the name of a pod too, or of one that Lium does not show yet.
        LiumError, LedgerUnavailable: that cannot be read.
    """
    tasks = [task for task in await account.rents.tasks(_KIND) if task.closed_at is None]
    order = next((task for task in tasks if task.id == named), None)
    if order is not None:
        return order
    order = next((task for task in tasks if task.name == named), None)
    if order is None:
        return None
    try:
        pod = await find_pod(account, named, even_leaving=True)
    except Failure as failure:
        if failure.code != "pod_not_found":
            raise
        return order
    if await _rents_of(account, order):
        return None  # the pod is what came of it
    raise Failure(
        "ambiguous_name",
        f"{named} is the name of pod {pod.id} and of the standing order {order.id}.",
        "Call remove_pod with the id of the one that is meant.",
    )


def question_about_cancelling(account: Account, order: Task) -> Question:
    """What a person is asked before an order is cancelled."""
    wants = show(account, order).wants
    return Question(
        f"Cancel the standing order for pod {quoted(order.name)} ({quoted(wants)})? It has rented nothing so far, and "
        "never will then.",
        subject=order,
    )


async def cancel(account: Account, task: Task) -> None:
    """Cancel an order: from then on it never rents.

    Raises:
        Failure: it has rented, or is about to know whether it has; or it was over already.
        LedgerUnavailable: it stays open.
    """
    if await account.rents.cancel(task, "cancelled on request"):
        return
    made = await _rents_of(account, task)
    pods = [pod_id for entry in made for pod_id in entry.pod_ids]
    if pods:
        raise Failure(
            "order_has_rented",
            f"The standing order {task.name} has just rented pod {pods[0]}, so it was too late to cancel it.",
            f"Call remove_pod with {pods[0]} to remove the pod.",
            effect="The pod bills.",
        )
    if made:
        raise Failure(
            "outcome_unknown",
            f"The standing order {task.name} is being rented in this moment, so it was too late to cancel it.",
            "Call list_pods in a minute: it shows the pod once it is known. Remove it then by its id.",
            effect="A pod may exist and bill.",
        )
    raise Failure(
        "order_is_over",
        f"The standing order {task.name} is over already.",
        "list_pods shows what became of it.",
    )


async def _rents_of(account: Account, task: Task) -> list[Entry]:
    """The rents for an order that may have made a pod."""
    terms = Terms.of(task)
    asked, since = (terms.wish.digest, terms.began_at) if terms else ("", task.created_at)
    return [entry for entry in await account.rents.made_for(task, asked, since) if entry.status != "refused"]
