"""Whose money a call spends: the server's own key, or over HTTP the key that came with the request.

A caller's key is used for its request alone: it is neither stored nor logged. What is kept between requests is one
connection pool for all, and per key a lock under a digest of it, so that two rents of one account take turns.
"""

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import anyio
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult

from lium_mcp.api import Clock, LiumClient
from lium_mcp.remote import PodAccess
from lium_mcp.remote.keys import KeySource
from lium_mcp.rentals import Identity, Journal, Renter, Worker, key_tag
from lium_mcp.tools.call import Account


@dataclass(slots=True)
class _Caller:
    """Who sent the request that is being served: a key, and its account once something acts for it."""

    key: str = field(repr=False)
    account: Account | None = None


_caller: ContextVar[_Caller | None] = ContextVar("_caller", default=None)


class Accounts:
    """The accounts that one server acts for, over one client's connections."""

    def __init__(
        self,
        own: LiumClient,
        clock: Clock,
        ssh_keys: KeySource | None,
        own_key: str | None,
        journal: Journal,
        registry_password: Callable[[str], str | None] | None = None,
        pod_access: PodAccess | None = None,
        *,
        works: bool = False,
    ) -> None:
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._clock = clock
        self._journal = journal
        # A caller may also send the very key that this server has.
        identity = self._identity(own, own_key or "")
        worker = Worker(journal, identity, own.now) if works and own.has_api_key else None
        self._own = Account(own, self._renter(own, identity), ssh_keys, registry_password, pod_access, worker)

    @property
    def own(self) -> Account:
        """The account of the server's own key."""
        return self._own

    def current(self) -> Account:
        """The account of the request that is being served."""
        caller = _caller.get()
        if caller is None:
            return self._own
        if caller.account is None:
            lium = self._own.lium.for_key(caller.key)
            caller.account = Account(lium, self._renter(lium, self._identity(lium, caller.key)), ssh_keys=None)
        return caller.account

    def _identity(self, lium: LiumClient, key: str) -> Identity:
        return Identity(lium, self._journal, key_tag(key, lium.base_url))

    def _renter(self, lium: LiumClient, identity: Identity) -> Renter:
        turn = self._turns.setdefault(identity.key_tag, anyio.Lock())
        return Renter(lium, self._clock, turn, self._journal, identity)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._own.pod_access is not None:
            await self._own.pod_access.aclose()
        await self._own.lium.aclose()
        await self._journal.aclose()


async def bind_caller_key(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: let a request act for the key in its headers, if it has one."""
    key = key_in_headers(getattr(ctx.request, "headers", None))
    token = _caller.set(_Caller(key) if key is not None else None)
    try:
        return await call_next(ctx)
    finally:
        _caller.reset(token)


def caller_of_request(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """Who an answer to a question has to come from: a digest of the key in the request's headers, if it has one."""
    key = key_in_headers(getattr(ctx.request, "headers", None))
    return None if key is None else hashlib.sha256(key.encode()).hexdigest()


def key_in_headers(headers: Any) -> str | None:  # noqa: ANN401 - headers of the web framework, or nothing over stdio
    """The Lium key of a request: `X-API-Key`, else `Authorization: Bearer`. Never part of a URL."""
    if headers is None:
        return None
    key = str(headers.get("x-api-key") or "").strip()
    scheme, _, token = str(headers.get("authorization") or "").strip().partition(" ")
    return key or (token.strip() if scheme.casefold() == "bearer" else "") or None
