"""The routes about the account itself: balance, events, audit, charges, workspaces."""

import base64
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import AuditQuery, CheckoutBody, EventsQuery, StatementQuery
from lium_mcp.sandbox.records import Debit, StoredAccount
from lium_mcp.sandbox.refusals import invalid, missing
from lium_mcp.sandbox.simulated_clock import iso_zulu
from lium_mcp.sandbox.world import RECENT, AuditRow, Event

AUDIT_KEPT: Final = timedelta(days=90)
_CHECKOUT_LASTS: Final = timedelta(hours=24)


def get_me(call: ApiCall) -> Reply:
    """Say who the caller is, and the balance."""
    me = call.me
    workspace: dict[str, JsonValue] = {
        "id": me.workspace_id,
        "name": me.workspace_name,
        "role": "owner",
        "billing_owner_user_id": me.user_id,
        "is_personal": True,
    }
    return Reply(
        {
            "id": me.user_id,
            "name": me.name,
            "email": me.email,
            "balance": float(me.balance),
            "stripe_customer_id": None,
            "workspace": workspace,
        }
    )


def list_events(call: ApiCall) -> Reply:
    """List the account's events, newest first."""
    query, since = call.arguments(EventsQuery), _utc(call.arguments(EventsQuery).since)
    pods, key = call.world.pods, call.key

    def may_read(event: Event) -> bool:
        if event.body["pod_id"] is not None:
            return call.sees(pods[str(event.body["pod_id"])])
        mine = key is None or key.visibility == "account" or event.api_key_id == key.id
        return mine and event.account_id == call.me.id

    found: list[JsonValue] = [
        event.body
        for event in reversed(call.world.events)
        if may_read(event)
        and (since is None or event.at >= since)
        and (query.pod_id is None or event.body["pod_id"] == str(query.pod_id))
        and (query.api_key_id is None or event.api_key_id == query.api_key_id)
    ]
    return Reply(found[: query.limit])


def list_audit(call: ApiCall) -> Reply:
    """List who changed what, newest first, by cursor."""
    query = call.arguments(AuditQuery)
    start = _decode_cursor(query.cursor)
    rows = [row for row in reversed(call.world.audit) if _wanted(call, row, query)]
    if start is not None:
        ids = [row.body["id"] for row in rows]
        if start not in ids:
            raise invalid(("cursor", "is not a cursor of this list"))
        rows = rows[ids.index(start) + 1 :]
    page, more = rows[: query.limit], len(rows) > query.limit
    cursor = base64.urlsafe_b64encode(str(page[-1].body["id"]).encode()).decode() if more else None
    return Reply({"items": [row.body for row in page], "next_cursor": cursor})


def _wanted(call: ApiCall, row: AuditRow, query: AuditQuery) -> bool:
    since, until, body = _utc(query.since), _utc(query.until), row.body
    actor = body["actor"] if isinstance(body["actor"], dict) else {}
    return (
        row.account_id == call.me.id
        and row.at >= max(call.world.now - AUDIT_KEPT, since or row.at)
        and (until is None or row.at <= until)
        and (query.action is None or str(body["action"]).startswith(query.action))
        and (query.source is None or body["source"] == query.source)
        and (query.api_key_id is None or actor.get("api_key_id") == query.api_key_id)
        and (query.resource_id is None or body["resource_id"] == query.resource_id)
    )


def _decode_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except ValueError:
        raise invalid(("cursor", "is not a cursor")) from None


def get_statement(call: ApiCall) -> Reply:
    """Group what the ledger charged by pod, most recently billed first."""
    query, world = call.arguments(StatementQuery), call.world
    rows: dict[str, list[Debit]] = defaultdict(list)
    for row in world.ledger:
        if row.account_id != call.me.id or row.pod_id is None or not call.sees(world.pods[row.pod_id]):
            continue
        day = _billing_day(row)
        wanted = (query.start_day or day) <= day <= (query.end_day or day)
        if wanted and (query.api_key_id is None or row.api_key_id == query.api_key_id):
            rows[row.pod_id].append(row)
    pods = sorted(rows, key=lambda pod_id: rows[pod_id][-1].at, reverse=True)
    return Reply(
        {
            "start_day": None if query.start_day is None else query.start_day.isoformat(),
            "end_day": None if query.end_day is None else query.end_day.isoformat(),
            "total": float(sum((row.amount for charged in rows.values() for row in charged), Decimal(0))),
            "pods": [_statement_pod(call, pod_id, rows[pod_id]) for pod_id in pods],
        }
    )


def _statement_pod(call: ApiCall, pod_id: str, rows: list[Debit]) -> JsonValue:
    world = call.world
    pod = world.pods[pod_id]
    key = None if pod.api_key_id is None else world.keys.get(pod.api_key_id)
    seconds = sum(row.seconds for row in rows)
    total = float(sum((row.amount for row in rows), Decimal(0)))
    until = rows[-1].billed_until
    days: dict[date, list[Debit]] = defaultdict(list)
    for row in rows:
        days[_billing_day(row)].append(row)
    price = float(pod.price_per_hour)
    return {
        "pod_id": pod.id,
        "pod_name": pod.name,
        "gpu_name": world.market.nodes[pod.node_id].gpu.name,
        "gpu_count": pod.gpu_count,
        "executor_id": pod.node_id,
        "created_at": iso_zulu(pod.created_at),
        "removed_at": None if pod.removed_at is None else iso_zulu(pod.removed_at),
        "close_reason": pod.close_reason,
        "removed": pod.removed_at is not None,
        "billed_seconds": seconds,
        "billed_until": None if until is None else iso_zulu(until),
        "total": total,
        "api_key_id": pod.api_key_id,
        "api_key_name": None if key is None else key.name,
        "price_segments": [{"price_per_hour": price, "billed_seconds": seconds, "amount": total}],
        "days": [
            {
                "billing_day": day.isoformat(),
                "amount": float(sum((row.amount for row in charged), Decimal(0))),
                "billed_seconds": sum(row.seconds for row in charged),
                "price_per_hour": price,
                "billed_until": None if (last := charged[-1].billed_until) is None else iso_zulu(last),
            }
            for day, charged in sorted(days.items())
        ],
    }


def _billing_day(row: Debit) -> date:
    # A debit at midnight is for the day that ends there.
    return (row.at - timedelta(microseconds=1)).date()


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def create_checkout(call: ApiCall) -> Reply:
    """Name a page to pay on; nothing is charged, and nobody can pay there."""
    call.parse(CheckoutBody)
    session = f"cs_test_{call.world.new_id('checkout').replace('-', '')}"
    expires = int((call.world.now + _CHECKOUT_LASTS).timestamp())
    return Reply({"url": f"https://checkout.stripe.com/c/pay/{session}", "id": session, "expires_at": expires})


def list_workspaces(call: ApiCall) -> Reply:
    """List the one workspace the caller acts in."""
    return Reply([_workspace_row(call.me)])


def get_workspace(call: ApiCall) -> Reply:
    """Read the workspace."""
    _require_own_workspace(call)
    return Reply(_workspace_row(call.me))


def list_members(call: ApiCall) -> Reply:
    """List the workspace's members: its owner."""
    _require_own_workspace(call)
    me = call.me
    return Reply(
        [
            {
                "user_id": me.user_id,
                "name": me.name,
                "email": me.email,
                "role": "owner",
                "is_billing_owner": True,
                "joined_at": iso_zulu(me.created_at),
            }
        ]
    )


def _require_own_workspace(call: ApiCall) -> None:
    if call.uuid("workspace_id") != call.me.workspace_id:
        raise missing("Workspace")


def _workspace_row(account: StoredAccount) -> dict[str, JsonValue]:
    return {
        "id": account.workspace_id,
        "name": account.workspace_name,
        "role": "owner",
        "billing_owner_user_id": account.id,
        "pending_billing_owner_user_id": None,
        "created_at": iso_zulu(account.created_at),
        "is_personal": True,
    }


OPERATIONS = (
    Operation("getMe", "GET", "/users/me", Access.READ, get_me),
    Operation("listAccountEvents", "GET", "/users/me/events", Access.READ, list_events),
    Operation("listAudit", "GET", "/account/audit", Access.READ, list_audit, feature=RECENT),
    Operation("getBillingStatement", "GET", "/billing/statement", Access.READ, get_statement),
    Operation(
        "createCheckoutSession",
        "POST",
        "/stripe/create-checkout-session",
        Access.BILLING,
        create_checkout,
        audit="checkout.create",
    ),
    Operation("listWorkspaces", "GET", "/workspaces", Access.READ, list_workspaces),
    Operation("getWorkspace", "GET", "/workspaces/{workspace_id}", Access.READ, get_workspace),
    Operation("listWorkspaceMembers", "GET", "/workspaces/{workspace_id}/members", Access.READ, list_members),
)
