"""Whose money a call spends: the server's own key, or over HTTP the key that came with the request.

A caller's key is used for its request alone: it is neither stored nor logged. What is kept between requests is one
connection pool for all, and per key a lock under a digest of it, so that two rents of one account take turns. Of those
who log in at Lium the key is kept, sealed, in the ledger, so that what they ask for may go on after the call.

Over HTTP the server's own key is for callers that show the server token, and for none that a proxy brings: a caller's
address proves nothing, since other users of the machine and a proxy on it call from there too.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import anyio
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LoginEnded, LoginNotTold
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.remote import PodAccess
from lium_mcp.remote.key_source import KeySource
from lium_mcp.rentals import (
    AccountWorker,
    Entry,
    Expected,
    Identity,
    LazyLedger,
    LedgerUnavailable,
    OwnKey,
    Renter,
    Worker,
    key_tag,
)
from lium_mcp.services.accounts import Account
from lium_mcp.values import UNFILLED, cleaned, cleaned_key, is_placeholder, key_problem

if TYPE_CHECKING:
    from lium_mcp.rentals.notes import Notes

OWN_KEY_HEADER: Final = "X-Lium-MCP-Token"
CALLER: Final = "lium_mcp.caller"
"""Where the web application puts who sent a request, in its scope."""

_OWN: Final = "own"
_NO_KEY_KEPT: Final = "it keeps no key of callers that send one with each request"
# A part of the time that one request to Lium may take.
_LOOKED_UP_SECONDS: Final = 5.0
_MAKE_ONE: Final = "keys are made at lium.io (Settings, API keys)"
_KEY_OF_YOURS: Final = "send a Lium API key of your own in the header X-API-Key"
# What proxies, tunnels and load balancers add. One that adds nothing is why there is a token.
_FORWARDED: Final = frozenset(
    {
        "forwarded", "via", "x-real-ip", "true-client-ip", "client-ip", "x-client-ip", "x-cluster-client-ip", "x-host",
        "x-proxyuser-ip", "x-remote-ip", "x-remote-addr", "x-scheme", "cdn-loop", "front-end-https", "proxy-connection",
        "max-forwards", "fastly-client-ip", "wl-proxy-client-ip", "x-rewrite-url", "x-url-scheme",
    }
)  # fmt: skip
_FORWARDED_PREFIXES: Final = (
    "x-forward", "x-original-", "x-envoy-", "x-amz", "x-azure-", "x-arr-", "x-appengine-", "x-vercel-", "x-proxy-",
    "cf-", "fly-", "tailscale-", "ngrok-", "x-goog-", "x-cloud-trace", "x-ms-", "x-akamai-", "akamai-", "x-varnish",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request over HTTP.

    Attributes:
        key: The Lium key that it acts for; None for the server's own, or for none.
        key_place: The header that the key is in.
        owner: What tells callers apart, and gives no key away; None for one that shows neither key nor token.
        no_key_because: Why it may not use the server's own key; None where it may.
        login_id: The login whose key is kept here, so that work may go on after the call.
    """

    key: str | None = field(default=None, repr=False)
    key_place: str = field(default="", repr=False)
    owner: str | None = None
    no_key_because: str | None = None
    login_id: str | None = None


class Callers:
    """Tells from the headers of a request who sent it.

    Args:
        guarded: Whether there is a key of the server's own to guard.
        token: What a caller shows to use it; None where it needs none.
        token_place: Where a person finds the token.
    """

    def __init__(self, *, guarded: bool, token: str | None = None, token_place: str = "") -> None:
        self._guarded = guarded
        self._token = token
        self._token_place = token_place

    def identify(self, headers: Any) -> Caller:  # noqa: ANN401 - a mapping of the web framework
        """Who sent a request with these headers; names in lower case."""
        try:
            key, place = key_in_headers(headers)
        except ValueError as error:
            return Caller(no_key_because=f"{error}. Have the user put a Lium API key there; {_MAKE_ONE}.")
        if key is not None and not self._is_token(key):
            return Caller(key, place, owner=_digest(key))
        if not self._guarded:
            return Caller()
        forwarded = next((name for name in headers if _tells_of_a_proxy(name)), None)
        if forwarded is not None:
            return Caller(
                no_key_because=f"This request came through a proxy (it has the header {forwarded}), and the Lium API "
                f"key of this MCP server serves only callers on its own machine: {_KEY_OF_YOURS}."
            )
        shown = str(headers.get(OWN_KEY_HEADER.lower()) or "")
        if self._token is None or self._is_token(cleaned(shown)):
            return Caller(owner=_OWN)
        if key is not None:  # which is the token
            return Caller(
                no_key_because=f"{place[:1].upper()}{place[1:]} holds the server token of this MCP server "
                "(LIUM_MCP_SERVER_TOKEN), which is no Lium API key: have the user put it into the header "
                f"{OWN_KEY_HEADER} instead, in this client's "
                "configuration of the server."
            )
        wrong = f"The header {OWN_KEY_HEADER} does not hold it. " if shown.strip() else ""
        return Caller(
            no_key_because="The Lium API key of this MCP server serves only callers that show the server token. "
            f"{wrong}The token is {self._token_place}, on the server's machine: have the user put it into the header "
            f"{OWN_KEY_HEADER} in this client's configuration of the server. Or {_KEY_OF_YOURS}."
        )

    def _is_token(self, text: str) -> bool:
        # Equally long, and equally slow to compare, whatever was sent.
        return self._token is not None and hmac.compare_digest(_digest(text), _digest(self._token))


@dataclass(slots=True)
class _Served:
    """The request that is being served: who sent it, and their account once something acts for it."""

    caller: Caller
    account: Account | None = None


_served: ContextVar[_Served | None] = ContextVar("_served", default=None)


class Accounts:
    """The accounts that one server acts for, over one client's connections.

    Attributes:
        ledger: Where what is done for them is kept.
        own_worker: Does what is to be done between calls with the server's own key; None where nothing is.
    """

    def __init__(
        self,
        own: LiumClient,
        clock: Clock,
        ssh_keys: KeySource | None,
        own_key: str | None,
        ledger: LazyLedger,
        readmit: Callable[[Account, Entry, Rows[Pod], bool], Awaitable[Expected]],
        registry_password: Callable[[str], str | None] | None = None,
        pod_access: Callable[[LiumClient], PodAccess | None] = lambda _: None,
        *,
        works: bool = False,
        no_orders_because: str | None = None,
    ) -> None:
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._clock = clock
        self.ledger = ledger
        self._readmit = readmit
        self._ssh_keys = ssh_keys
        self._registry_password = registry_password
        self._pod_access = pod_access
        self._works = works
        self._no_orders_because = no_orders_because
        self._for_logins: Worker | None = None
        self.own_worker: Worker | None = None
        self._own = self._account_of_server(own, own_key)

    @property
    def own(self) -> Account:
        """The account of the server's own key."""
        return self._own

    def adopt(self, key: str, place: str) -> None:
        """Act with this key from now on, where the server had none of its own."""
        if not self._own.lium.has_api_key:
            self._own = self._account_of_server(self._own.lium.for_key(key, place), key)

    def _account_of_server(self, lium: LiumClient, key: str | None) -> Account:
        # A caller may also send the very key that this server has.
        identity = self._identity(lium, key or "")
        worker: AccountWorker | None = None
        if self._works and lium.has_api_key:
            self.own_worker = Worker(self.ledger, OwnKey(self.ledger, identity), lium.now)
            worker = AccountWorker(self.own_worker, identity, lium.now)
        access = self._pod_access(lium)
        renter = partial(self._renter, lium, identity)
        return Account(lium, renter, self._ssh_keys, self._registry_password, access, worker, self._no_orders_because)

    def current(self) -> Account:
        """The account of the request that is being served, or of the login for which something is done after one."""
        served = _served.get()
        if served is not None and served.account is not None:
            return served.account
        if served is None or (served.caller.key is None and served.caller.no_key_because is None):
            return self._own
        caller = served.caller
        if caller.login_id is not None and caller.key is not None:
            served.account = self.of_login(caller.login_id, caller.key, caller.key_place)
            return served.account
        lium = self._own.lium.for_key(caller.key, caller.key_place, caller.no_key_because)
        served.account = Account(
            lium,
            lambda: self._renter(lium, self._identity(lium, caller.key or "")),
            ssh_keys=None,
            no_orders_because=self._no_orders_because or _NO_KEY_KEPT,
        )
        return served.account

    def work_for_logins(self, worker: Worker) -> None:
        """Let this worker do what those ask for who have logged in."""
        self._for_logins = worker

    def of_login(self, login_id: str, key: str, place: str) -> Account:
        """The account of a login whose key is kept: once that has ended, nothing is changed with it any more."""
        lium = self._own.lium.for_key(key, place, permit=partial(self._refuse_ended, login_id))
        identity = self._identity(lium, key, login_id=login_id)
        worker = AccountWorker(self._for_logins, identity, lium.now) if self._for_logins else None
        renter, why = partial(self._renter, lium, identity), self._no_orders_because
        return Account(lium, renter, ssh_keys=None, worker=worker, no_orders_because=why)

    async def _refuse_ended(self, login_id: str) -> None:
        """See `Permit`."""
        try:
            with anyio.fail_after(_LOOKED_UP_SECONDS):
                stands = await self.ledger.grants().stands(login_id)
        except (LedgerUnavailable, TimeoutError):
            raise LoginNotTold(
                "Whether the login that this call acts for still counts cannot be looked up now."
            ) from None
        if not stands:
            raise LoginEnded

    def now(self) -> datetime:
        """Lium's idea of now."""
        return self._own.lium.now()

    @contextmanager
    def acting_for(self, account: Account) -> Iterator[None]:
        """Let what is done in the block, after the call that asked for it, be done for an account."""
        token = _served.set(_Served(Caller(), account))
        try:
            yield
        finally:
            _served.reset(token)

    async def learn_account(self) -> str | None:
        """The account, as the ledger knows it, that the request acts for which is being served; None without a key.

        Raises:
            AccountUnknown, LiumError, LedgerUnavailable: as `Identity.learn`.
        """
        account = self.current()
        return await account.rents.learn_account() if account.lium.has_api_key else None

    def notes(self) -> "Notes":
        """What the servers of the ledger note for one another."""
        return self.ledger.notes()

    def _identity(self, lium: LiumClient, key: str, *, login_id: str | None = None) -> Identity:
        return Identity(lium, self.ledger, key_tag(key, lium.base_url), login_id=login_id)

    def _renter(self, lium: LiumClient, identity: Identity) -> Renter:
        turn = self._turns.setdefault(identity.key_tag, anyio.Lock())

        async def readmit(entry: Entry, pods: Rows[Pod], in_its_call: bool) -> Expected:
            return await self._readmit(Account(lium, lambda: renter, ssh_keys=None), entry, pods, in_its_call)

        renter = Renter(lium, self._clock, turn, self.ledger, identity, readmit)
        return renter

    async def refuse_unreachable(self) -> None:
        """Refuse a database that several servers share, where it does not answer.

        Raises:
            LedgerUnavailable: it does not.
        """
        await self.ledger.refuse_unreachable()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._own.pod_access is not None:
            await self._own.pod_access.aclose()
        await self._own.lium.aclose()
        await self.ledger.aclose()


async def bind_caller(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: let a request act for whoever sent it."""
    # Over standard input and output, and in memory, there is no request: whatever calls, it is for the own account.
    token = _served.set(None if ctx.request is None else _Served(ctx.request.scope[CALLER]))
    try:
        return await call_next(ctx)
    finally:
        _served.reset(token)


def key_in_headers(headers: Any) -> tuple[str | None, str]:  # noqa: ANN401 - a mapping of the web framework
    """The Lium key of a request and its header: `X-API-Key`, else `Authorization: Bearer`. Never part of a URL.

    Raises:
        ValueError: somebody meant to send a key, and this is none. Nobody else's is used in its place.
    """
    authorization = str(headers.get("authorization") or "")
    scheme, _, token = cleaned(authorization).partition(" ")
    sent = {
        "X-API-Key": str(headers.get("x-api-key") or ""),
        # A placeholder may also stand for all of it.
        "Authorization": token if scheme.casefold() == "bearer" else authorization if not scheme else "",
    }
    for name, text in sent.items():
        if key := cleaned_key(text):
            if problem := key_problem(key):
                raise ValueError(f"The header {name} holds no API key: {problem}")
            return key, f"the header {name}"
    if unfilled := [name for name, text in sent.items() if is_placeholder(text)]:
        raise ValueError(f"The header {unfilled[0]} holds no API key: {UNFILLED}")
    return None, ""


def doubled_in_headers(headers: Any) -> str | None:  # noqa: ANN401 - a mapping of the web framework
    """The header of a request that brings a credential twice, and not the same; which one counts would be a guess."""
    for name in ("X-API-Key", "Authorization", OWN_KEY_HEADER):
        if len({cleaned(text) for text in headers.getlist(name)} - {""}) > 1:
            return name
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _tells_of_a_proxy(name: str) -> bool:
    name = name.lower()
    return name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES)
