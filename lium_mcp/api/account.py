"""The account: balance, audit log, billing statement, and the page on which a person tops it up."""

from datetime import UTC, date, datetime
from urllib.parse import urlsplit

from lium_mcp.api.fields import (
    ApiBool,
    ApiFloat,
    ApiId,
    ApiInt,
    ApiModel,
    ApiNested,
    ApiSigned,
    ApiStr,
    ApiText,
    ApiTime,
    ApiTuple,
)
from lium_mcp.api.wire import QueryValue, Resource

_SITE = "https://lium.io"
_MOST_URL_CHARS = 4000


class WorkspaceRef(ApiModel):
    """The workspace a key acts in."""

    id: ApiStr = None
    name: ApiStr = None


class Me(ApiModel):
    """The account behind the key; `balance` is USD."""

    id: ApiId
    name: ApiStr = None
    email: ApiStr = None
    balance: ApiSigned = None
    workspace: ApiNested[WorkspaceRef] = None


class AuditActor(ApiModel):
    """Who made a request."""

    api_key_name: ApiStr = None


class AuditEntry(ApiModel):
    """One request that changed something on the account."""

    created_at: ApiTime = None
    action: ApiText = ""
    source: ApiStr = None
    actor: ApiNested[AuditActor] = None
    status_code: ApiInt = None
    resource_id: ApiStr = None


class AuditPage(ApiModel):
    """One page of the audit log; `next_cursor` is `None` on the last."""

    items: ApiTuple[AuditEntry] = ()
    next_cursor: ApiStr = None


class StatementDay(ApiModel):
    """What a pod was charged on one UTC day, in part or in all; `amount` is USD."""

    billing_day: ApiTime = None
    amount: ApiSigned = None


class StatementPod(ApiModel):
    """What one pod was charged in the period."""

    pod_id: ApiId
    pod_name: ApiStr = None
    gpu_name: ApiStr = None
    gpu_count: ApiInt = None
    created_at: ApiTime = None
    removed: ApiBool = None
    removed_at: ApiTime = None
    billed_seconds: ApiFloat = None
    total: ApiSigned = None
    days: ApiTuple[StatementDay] = ()

    @property
    def is_removed(self) -> bool | None:
        """Whether the pod is gone; `None` where Lium does not say."""
        return True if self.removed is None and self.removed_at is not None else self.removed


class BillingStatement(ApiModel):
    """Charges of a period by pod, removed pods included, most recently billed first; `total` is USD.

    `unreadable_pods` counts the rows that are left out, since they cannot be read.
    """

    start_day: ApiTime = None
    end_day: ApiTime = None
    total: ApiSigned = None
    pods: ApiTuple[StatementPod] = ()
    unreadable_pods: int = 0


class CheckoutPage(ApiModel):
    """A page on which a person pays; untrusted, as all that the API answers."""

    url: ApiStr = None
    expires_at: ApiInt = None

    @property
    def safe_url(self) -> str | None:
        """The address, where it surely is one of a page that is served encrypted; `None` where not."""
        url = self.url or ""
        try:
            parts = urlsplit(url)
            is_safe = parts.scheme == "https" and "." in (parts.hostname or "") and parts.username is None
        except ValueError:
            return None
        return url if is_safe and len(url) <= _MOST_URL_CHARS and all("!" <= char <= "~" for char in url) else None

    @property
    def expires(self) -> datetime | None:
        """When it expires; the API says it in seconds since 1970."""
        try:
            return datetime.fromtimestamp(self.expires_at, UTC) if self.expires_at else None
        except (OverflowError, OSError, ValueError):
            return None


class AccountCalls(Resource):
    """Calls on the account."""

    async def me(self) -> Me:
        """GET /users/me: account, balance and workspace."""
        return (await self._wire.request("GET", "/users/me")).model(Me)

    async def audit(
        self,
        *,
        limit: int = 100,
        action: str | None = None,
        source: str | None = None,
        cursor: str | None = None,
    ) -> AuditPage:
        """GET /account/audit: one page of the requests that changed something, newest first, kept 90 days.

        `action` is a prefix such as `pod.`. Older servers have no such route.
        """
        query: dict[str, QueryValue] = {
            "limit": limit,
            "action": action,
            "source": source,
            "cursor": cursor,
        }
        return (await self._wire.request("GET", "/account/audit", query=query)).model(AuditPage)

    async def billing_statement(
        self, *, start_day: date | None = None, end_day: date | None = None
    ) -> BillingStatement:
        """GET /billing/statement: charges by pod between two UTC days, both inclusive."""
        query: dict[str, QueryValue] = {
            "start_day": start_day.isoformat() if start_day else None,
            "end_day": end_day.isoformat() if end_day else None,
        }
        answer = await self._wire.request("GET", "/billing/statement", query=query)
        statement = answer.model(BillingStatement)
        said = answer.json()
        given = said.get("pods") if isinstance(said, dict) else None
        rows = len(given) if isinstance(given, list) else int(bool(given))  # what is no list is as good as one row
        return statement.model_copy(update={"unreadable_pods": rows - len(statement.pods)})

    async def create_checkout(self, *, amount_usd: float) -> CheckoutPage:
        """POST /stripe/create-checkout-session: a page on which a person can pay; the call itself charges nothing.

        The key needs the scope `billing`, which it cannot have beside another.
        """
        base = urlsplit(self._wire.base_url)
        # The firewall refuses a body with the address of a server that is tested against.
        site = f"https://{base.netloc}" if base.scheme == "https" else _SITE
        body = {
            "amount": amount_usd,
            "success_url": f"{site}/billing?success=true",
            "cancel_url": f"{site}/billing",
            "mode": "payment",
        }
        return (await self._wire.request("POST", "/stripe/create-checkout-session", json=body)).model(CheckoutPage)
