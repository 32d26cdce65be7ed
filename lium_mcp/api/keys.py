"""API keys: scopes, budgets and refusals. Managing keys needs a login session; an API key cannot do it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import SecretStr

from lium_mcp.api.addresses import endpoint, segment
from lium_mcp.api.answers import Answer
from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.model import (
    ApiBool,
    ApiFloat,
    ApiId,
    ApiInt,
    ApiModel,
    ApiNested,
    ApiStr,
    ApiText,
    ApiTime,
    ApiTuple,
)
from lium_mcp.api.paging import Rows
from lium_mcp.api.resource import Resource
from lium_mcp.api.wire import Auth

BudgetField = Literal["daily_budget_usd", "monthly_budget_usd", "max_budget_usd"]


class ApiKey(ApiModel):
    """One API key; `key` is the secret, sent once at creation."""

    id: ApiId
    user_id: ApiStr = None
    name: ApiText = ""
    key: ApiNested[SecretStr] = None
    is_active: ApiBool = None
    created_at: ApiTime = None
    expires_at: ApiTime = None
    last_used: ApiTime = None
    scopes: ApiTuple[str] = ()
    workspace_id: ApiStr = None
    created_by_user_id: ApiStr = None
    daily_budget_usd: ApiFloat = None
    monthly_budget_usd: ApiFloat = None
    max_budget_usd: ApiFloat = None
    spent_today_usd: ApiFloat = None
    spent_month_usd: ApiFloat = None
    spent_this_month_usd: ApiFloat = None
    spent_total_usd: ApiFloat = None
    pod_visibility: ApiStr = None
    pods_count: ApiInt = None
    key_retrievable: ApiBool = None


class KeyScope(ApiModel):
    """What one scope allows."""

    scope: ApiId
    title: ApiStr = None
    description: ApiStr = None
    can: ApiTuple[str] = ()
    route_families: ApiTuple[str] = ()
    default: ApiBool = None


class PodVisibility(ApiModel):
    """Which pods a key sees."""

    value: ApiId
    description: ApiStr = None
    default: ApiBool = None


class KeyScopes(ApiModel):
    """The scopes that keys can have."""

    scopes: ApiTuple[KeyScope] = ()
    pod_visibility: ApiTuple[PodVisibility] = ()
    money_routes: ApiTuple[str] = ()


class KeyRefusal(ApiModel):
    """One request that a key's budget refused."""

    id: ApiStr = None
    api_key_id: ApiStr = None
    event: ApiStr = None
    created_at: ApiTime = None
    window: ApiStr = None
    route: ApiStr = None
    amount_usd: ApiFloat = None
    budget_usd: ApiFloat = None
    spent_usd: ApiFloat = None


class Keys(Resource):
    """Calls on API keys."""

    async def list(self, *, workspace_id: str | None = None) -> Rows[ApiKey]:
        """GET /keys: the keys of a workspace; needs a session."""
        return (await self._session_request("GET", "/keys", workspace_id)).rows(ApiKey)

    async def create(
        self,
        *,
        name: str,
        scopes: Sequence[str] = ("read", "rent", "manage"),
        pod_visibility: str | None = None,
        budgets: Mapping[BudgetField, float] | None = None,
        workspace_id: str | None = None,
    ) -> ApiKey:
        """POST /keys: make a key; needs a session.

        Compare the answer with what was asked: an old server ignores budgets and visibility.
        """
        if not name.strip() or not scopes:
            raise InvalidRequest("name and scopes must not be empty.")
        body: dict[str, Any] = {"name": name, "scopes": list(scopes)}
        if pod_visibility is not None:
            body["pod_visibility"] = pod_visibility
        body.update({str(field): amount for field, amount in (budgets or {}).items()})
        return (await self._session_request("POST", "/keys", workspace_id, json=body)).model(ApiKey)

    async def get(self, key_id: str, *, workspace_id: str | None = None) -> ApiKey:
        """GET /keys/{key_id}: one key; needs a session."""
        return (await self._session_request("GET", endpoint("/keys/{key_id}", key_id=key_id), workspace_id)).model(
            ApiKey
        )

    async def update(
        self, key_id: str, *, budgets: Mapping[BudgetField, float | None], workspace_id: str | None = None
    ) -> ApiKey:
        """PATCH /keys/{key_id}: set budgets, or clear those given as `None`; needs a session."""
        if not budgets:
            raise InvalidRequest("No budget to change is named.")
        path = endpoint("/keys/{key_id}", key_id=key_id)
        return (await self._session_request("PATCH", path, workspace_id, json=dict(budgets))).model(ApiKey)

    async def revoke(self, key_id: str, *, workspace_id: str | None = None) -> None:
        """DELETE /keys/{key_id}: revoke a key at once; needs a session."""
        await self._session_request("DELETE", endpoint("/keys/{key_id}", key_id=key_id), workspace_id)

    async def scopes(self) -> KeyScopes:
        """GET /keys/scopes: what each scope allows; public. A 401 or 404 means an older server without the route."""
        answer = await self._wire.request("GET", "/keys/scopes", auth=Auth.NONE)
        body = answer.json()
        return KeyScopes.model_validate({"scopes": body}) if isinstance(body, list) else answer.model(KeyScopes)

    async def refusals(self, key_id: str) -> Rows[KeyRefusal]:
        """GET /keys/{key_id}/refusals: requests that the key's budget refused; a key may ask about itself."""
        path = endpoint("/keys/{key_id}/refusals", key_id=key_id)
        answer = await self._wire.request("GET", path, auth=Auth.KEY_OR_SESSION)
        return answer.rows(KeyRefusal, key="refusals")

    async def _session_request(
        self, method: str, path: str, workspace_id: str | None, *, json: object = None
    ) -> Answer:
        headers = {} if workspace_id is None else {"X-Lium-Workspace-Id": segment("workspace_id", workspace_id)}
        return await self._wire.request(method, path, json=json, headers=headers, auth=Auth.SESSION)
