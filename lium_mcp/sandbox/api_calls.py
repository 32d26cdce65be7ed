"""One request as a handler sees it: who calls, with what, and how to answer.

This file does authentication, scopes, and the checks of path ids, queries and bodies that end in a 422. It knows no
single route; each route's `Operation` says what the route needs.
"""

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from lium_mcp.sandbox.faults import Fault
from lium_mcp.sandbox.records import StoredAccount, StoredApiKey, StoredPod, StoredTemplate
from lium_mcp.sandbox.refusals import detailed, invalid, missing, refuse
from lium_mcp.sandbox.world import World

Model = TypeVar("Model", bound=BaseModel)

SCOPES: Final = ("read", "rent", "manage", "billing")


class Access(Enum):
    """Who may call an operation."""

    PUBLIC = "everybody"
    READ = "read"
    RENT = "rent"
    MANAGE = "manage"
    BILLING = "billing"
    POD = "rent for a pod that the key rented, else manage"
    SESSION = "a session"
    KEY_ITSELF = "a session, or the key about itself"


@dataclass(frozen=True)
class Reply:
    """An answer: JSON, or a stream of text lines."""

    body: JsonValue = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None


@dataclass(frozen=True)
class Operation:
    """One route of the API: the contract's operation, who may call it, and what it does."""

    name: str
    method: str
    path: str
    access: Access
    handler: "Callable[[ApiCall], Reply | Awaitable[Reply]]"
    audit: str | None = None
    feature: str | None = None


@dataclass
class ApiCall:
    """One request on its way through a handler."""

    world: World
    operation: Operation
    path: str
    path_params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    request_id: str
    slow: tuple[Fault, ...] = ()
    account: StoredAccount | None = None
    key: StoredApiKey | None = None

    @property
    def me(self) -> StoredAccount:
        """The caller's account; every route but the public ones has one."""
        if self.account is None:
            raise detailed(401, "API key not found")
        return self.account

    @property
    def source(self) -> str:
        """Where the request says it comes from."""
        source = self.headers.get("x-source", "")
        return source if source in {"portal", "cli", "sdk", "mcp", "admin"} else "api"

    @property
    def actor(self) -> dict[str, JsonValue]:
        """The caller, as the logs name it."""
        return {
            "auth": "session" if self.key is None else "api_key",
            "user_id": self.me.user_id,
            "api_key_id": None if self.key is None else self.key.id,
            "api_key_name": None if self.key is None else self.key.name,
        }

    def uuid(self, name: str) -> str:
        """Return a path parameter that must be a UUID."""
        try:
            return str(uuid.UUID(self.path_params[name]))
        except ValueError:
            raise invalid((name, "must be a UUID")) from None

    def parse(self, model: type[Model]) -> Model:
        """Read the body."""
        try:
            given = json.loads(self.body or b"{}")
        except ValueError:
            raise invalid(("body", "must be JSON")) from None
        if not isinstance(given, dict):
            raise invalid(("body", "must be an object"))
        return _validated(model, given)

    def arguments(self, model: type[Model]) -> Model:
        """Read the query."""
        return _validated(model, dict(self.query))

    def authenticate(self) -> None:
        """Find out who calls and whether they may call this operation."""
        self._identify()
        access = self.operation.access
        if access is Access.PUBLIC:
            return
        if access in {Access.SESSION, Access.KEY_ITSELF}:
            about_itself = self.key is not None and self.path_params.get("key_id") == self.key.id
            if self.account is None or (self.key is not None and not (access is Access.KEY_ITSELF and about_itself)):
                raise detailed(401, "Not authenticated: this route needs a session")
            return
        if self.account is None:
            given = "x-api-key" in self.headers or "authorization" in self.headers
            raise detailed(401, "API key not found" if given else "Not authenticated")
        if access is Access.POD:
            if not (self.may("rent") or self.may("manage")):
                raise self._lacks("manage")
        elif not self.may(access.value):
            raise self._lacks(access.value)

    def may(self, scope: str) -> bool:
        """Whether the caller has a scope; a session has all."""
        return self.key is None or scope in self.key.scopes

    def pod(self, *, write: bool = False, gone_too: bool = False) -> StoredPod:
        """Return the pod of the path, if the caller may see it and, for a write, act on it."""
        pod = self.world.pods.get(self.uuid("pod_id"))
        if pod is None or not self.sees(pod) or (pod.removed_at is not None and not gone_too):
            raise missing("Pod")
        if write:
            self.require_write(pod)
        return pod

    def sees(self, pod: StoredPod) -> bool:
        """Whether the caller may know of a pod."""
        if pod.account_id != self.me.id:
            return False
        return self.key is None or self.key.visibility == "account" or pod.api_key_id == self.key.id

    def require_write(self, pod: StoredPod) -> None:
        """Refuse a key that may not act on the pod."""
        mine = self.key is not None and pod.api_key_id == self.key.id
        if not (self.may("manage") or (mine and self.may("rent"))):
            raise self._lacks("manage")

    def template(self, template_id: str) -> StoredTemplate | None:
        """Return a template that the caller may use."""
        template = self.world.templates.get(template_id)
        if template is None:
            return None
        own = self.account is not None and template.user_id == self.account.id
        return template if own or not template.body.get("is_private") else None

    def _identify(self) -> None:
        secret = self.headers.get("x-api-key")
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if secret is not None:
            key = next((key for key in self.world.keys.values() if key.secret == secret and key.is_active), None)
            if key is not None:
                key.last_used = self.world.now
                self.key, self.account = key, self.world.accounts[key.account_id]
        elif scheme.lower() == "bearer":
            accounts = self.world.accounts.values()
            self.account = next((account for account in accounts if account.session_token == token), None)
            workspace = self.headers.get("x-lium-workspace-id")
            if self.account is not None and workspace not in {None, self.account.workspace_id}:
                raise refuse(403, "forbidden", "You are not a member of this workspace.")

    def _lacks(self, scope: str) -> Exception:
        name = "" if self.key is None else self.key.name
        return refuse(403, "missing_scope", f"API key '{name}' does not have the '{scope}' scope")


def _validated(model: type[Model], given: Mapping[str, object]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # Never the value: it may be a secret.
        problems = [
            (".".join(map(str, item["loc"])) or "body", item["msg"]) for item in error.errors(include_input=False)
        ]
        raise invalid(*problems) from None
