"""The routes of API keys. All but two need a session; a key may read its own refusals, everybody the scopes."""

import itertools
from decimal import Decimal

from pydantic import JsonValue

from lium_mcp.sandbox import money
from lium_mcp.sandbox.api_calls import SCOPES, Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import Budgets, KeyBody
from lium_mcp.sandbox.records import StoredApiKey
from lium_mcp.sandbox.refusals import detailed, invalid, missing
from lium_mcp.sandbox.seeded import identifier
from lium_mcp.sandbox.simulated_clock import iso_zulu

WINDOWS = ("daily", "monthly", "max")


def list_keys(call: ApiCall) -> Reply:
    """List the workspace's living keys, without their secrets."""
    keys = [key for key in call.world.keys.values() if key.account_id == call.me.id and key.is_active]
    return Reply([_row(call, key) for key in keys])


def create_key(call: ApiCall) -> Reply:
    """Mint a key; this answer alone holds the secret."""
    body, world = call.parse(KeyBody), call.world
    key = StoredApiKey(
        id=world.new_id("key"),
        account_id=call.me.id,
        name=body.name,
        secret=f"sk_sandbox_{identifier(world.seed, 'secret', len(world.keys)).replace('-', '')}",
        scopes=tuple(scope for scope in SCOPES if scope in body.scopes),
        visibility=body.pod_visibility,
        created_at=world.now,
        budgets=_checked({name: getattr(body, f"{name}_budget_usd") for name in WINDOWS}),
    )
    world.keys[key.id] = key
    return Reply(_row(call, key) | {"key": key.secret})


def get_key(call: ApiCall) -> Reply:
    """Read one key."""
    return Reply(_row(call, _key(call)))


def update_key(call: ApiCall) -> Reply:
    """Set or clear budgets; absent ones stay."""
    key, body = _key(call), call.parse(Budgets)
    named = {
        name: getattr(body, f"{name}_budget_usd") for name in WINDOWS if f"{name}_budget_usd" in body.model_fields_set
    }
    key.budgets = _checked(key.budgets | named)
    return Reply(_row(call, key))


def revoke_key(call: ApiCall) -> Reply:
    """Revoke a key at once; its pods go on."""
    _key(call).is_active = False
    return Reply({"success": True})


def list_scopes(call: ApiCall) -> Reply:
    """Explain the scopes."""
    if call.world.faults.is_armed("old_server"):
        raise detailed(401, "Not authenticated")
    families: dict[str, tuple[str, list[str]]] = {
        "read": ("Read everything but secrets", ["GET /*"]),
        "rent": ("Rent, and act on the pods the key rented", ["POST /executors/*", "/pods/* of the key"]),
        "manage": (
            "Act on every pod and change everything else",
            ["/pods/*", "/templates/*", "/volumes/*", "/ssh-keys/*"],
        ),
        "billing": ("Move money", ["/payments/*"]),
    }
    scopes: list[JsonValue] = [
        {
            "scope": scope,
            "title": scope.capitalize(),
            "description": text,
            "can": [text],
            "route_families": list[JsonValue](routes),
            "default": scope != "billing",
        }
        for scope, (text, routes) in families.items()
    ]
    return Reply(
        {
            "scopes": scopes,
            "pod_visibility": [
                {"value": "own", "description": "Only the pods that the key rented", "default": True},
                {"value": "account", "description": "All pods of the workspace", "default": False},
            ],
            "money_routes": ["/payments/topup"],
        }
    )


def list_refusals(call: ApiCall) -> Reply:
    """List what the key's budgets refused."""
    return Reply({"refusals": list[JsonValue](_key(call).refusals)})


def _key(call: ApiCall) -> StoredApiKey:
    key = call.world.keys.get(call.uuid("key_id"))
    if key is None or key.account_id != call.me.id or not key.is_active:
        raise missing("API key")
    return key


def _checked(budgets: dict[str, Decimal | None]) -> dict[str, Decimal | None]:
    given = [(name, budgets[name]) for name in WINDOWS if budgets[name] is not None]
    for (smaller, low), (larger, high) in itertools.pairwise(given):
        if low is not None and high is not None and low > high:
            raise invalid((f"{smaller}_budget_usd", f"must not exceed {larger}_budget_usd"))
    return budgets


def _row(call: ApiCall, key: StoredApiKey) -> dict[str, JsonValue]:
    spent = {entry.window: float(entry.spent) for entry in money.spending(call.world, key)}
    budgets = {name: None if (amount := key.budgets[name]) is None else float(amount) for name in WINDOWS}
    return {
        "id": key.id,
        "user_id": key.account_id,
        "name": key.name,
        "is_active": key.is_active,
        "created_at": iso_zulu(key.created_at),
        "expires_at": None,
        "last_used": None if key.last_used is None else iso_zulu(key.last_used),
        "scopes": list[JsonValue](key.scopes),
        "workspace_id": call.me.workspace_id,
        "created_by_user_id": key.account_id,
        "daily_budget_usd": budgets["daily"],
        "monthly_budget_usd": budgets["monthly"],
        "max_budget_usd": budgets["max"],
        "spent_today_usd": spent["daily"],
        "spent_month_usd": spent["monthly"],
        "spent_total_usd": spent["max"],
        "pod_visibility": key.visibility,
        "pods_count": sum(pod.api_key_id == key.id for pod in call.world.open_pods(key.account_id)),
        "key_retrievable": False,
    }


OPERATIONS = (
    Operation("listKeys", "GET", "/keys", Access.SESSION, list_keys),
    Operation("createKey", "POST", "/keys", Access.SESSION, create_key, audit="key.create"),
    Operation("listKeyScopes", "GET", "/keys/scopes", Access.PUBLIC, list_scopes),
    Operation("getKey", "GET", "/keys/{key_id}", Access.SESSION, get_key),
    Operation("updateKey", "PATCH", "/keys/{key_id}", Access.SESSION, update_key, audit="key.update"),
    Operation("revokeKey", "DELETE", "/keys/{key_id}", Access.SESSION, revoke_key, audit="key.revoke"),
    Operation("listKeyRefusals", "GET", "/keys/{key_id}/refusals", Access.KEY_ITSELF, list_refusals),
)
