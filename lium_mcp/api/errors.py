"""What can go wrong, one exception for each thing a caller can do about it.

::

    LiumError
    |-- InvalidRequest           refused here, nothing was sent (also a ValueError)
    |   `-- MissingApiKey
    |-- ConnectionFailed         no connection, or it broke before the answer was complete
    |   |-- CertificateRefused   what answers there shows no certificate that is trusted here
    |   `-- ProxyLoginRefused    the proxy wants another name and password
    |-- RequestTimedOut
    |-- UntrustedRedirect
    |-- ResponseTooLarge
    |-- UnreadableResponse       not JSON, or not the promised shape
    |   |-- NotLium              a web page or the like: the address is not that of the API
    |   |-- AnotherThing         about something else than was asked for
    |   |-- Contradicted         another answer of Lium says the opposite
    |   `-- NotRented            a 2xx to a rent that says that it was not done, and that proves nothing
    |-- BadRequest               400 and other refusals of the request itself
    |   `-- NotDone              a 2xx whose body says that the request was refused, and states no status
    |-- ValidationFailed         422
    |-- AuthenticationFailed     401
    |-- BudgetExceeded           402, the key's own budget
    |-- PaymentFailed            402, anything else
    |-- PermissionDenied         403
    |   |-- MissingScope
    |   `-- InsufficientBalance
    |-- FirewallBlocked          403 from the edge, as HTML
    |-- NotFound                 404
    |-- RouteMissing             404 or 405 of the route itself, 501: the server is older than the route
    |-- Conflict                 409
    |   |-- NoExecutorMatches
    |   `-- IdempotencyConflict
    |-- RateLimited              429
    |-- ServerFailed             5xx
    `-- RentOutcomeUnknown       a rent left and nothing proves what became of it

The module knows no HTTP library: `error_bodies.py` reads answers into these.
"""

from typing import Any, ClassVar, Final, Literal

from lium_mcp.api.fields import read_text
from lium_mcp.api.refusal_words import advice_on

Effect = Literal["none", "unknown"]
"""Whether the request possibly changed something: `none` is a promise, `unknown` is not a failure."""

# Nothing that passes by itself needs a longer wait.
_LONGEST_WAIT_SECONDS = 3600


class LiumError(Exception):
    """Base of everything this package raises.

    `effect` says whether the request possibly took effect; `replayed` that the answer is the stored outcome of an
    earlier request with the same idempotency key; `retry_after_seconds` how long the server asks to wait; `path` what
    was asked for below the API's address, where Lium refused it.
    """

    _advice: ClassVar[str] = "Try again later; if it keeps failing, report it to Lium support with the request id."

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        hint: str | None = None,
        request_id: str | None = None,
        data: dict[str, Any] | None = None,
        effect: Effect = "none",
        replayed: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.hint = hint
        self.request_id = request_id
        self.data: dict[str, Any] = data or {}
        self.effect: Effect = effect
        self.replayed = replayed
        self.retry_after_seconds: float | None = None
        self.path = ""

    @property
    def advice(self) -> str:
        """One sentence on what the caller can do."""
        return advice_on(self.status, f"{self.code or ''} {self.message}") or self._advice


class InvalidRequest(LiumError, ValueError):
    """The arguments cannot make a request; nothing was sent."""

    _advice = "Correct the named argument and call again."


class MissingApiKey(InvalidRequest):
    """The route needs an API key and none is configured; nothing was sent."""

    _advice = "Configure a Lium API key (LIUM_API_KEY); keys are made on lium.io."


class ConnectionFailed(LiumError):
    """No connection could be made, or it broke before the answer was complete."""

    _advice = "Check the network and the API address, then look at the current state before repeating a change."


class CertificateRefused(ConnectionFailed):
    """What answers at the address shows a certificate that is not trusted here; nothing was sent."""

    _advice = (
        "Have the user set SSL_CERT_FILE, where this MCP server is configured, to the PEM file of the certificates to "
        "trust (of the company, where its network reads along), and restart it. No other call will work before that."
    )


class ProxyLoginRefused(ConnectionFailed):
    """The proxy on the way wants a name and a password, or others; nothing was sent."""

    _advice = "Have the user correct the proxy's address, which holds name and password, and restart this MCP server."


class RequestTimedOut(LiumError):
    """No complete answer came in time."""

    _advice = "Look at the current state before repeating a change; Lium may be slow at the moment."


class UntrustedRedirect(LiumError):
    """The server pointed to another address, where the API key must not go."""

    _advice = "Check the configured API address; it may need https or another host name."


class ResponseTooLarge(LiumError):
    """The answer was larger than this client reads."""

    _advice = "Ask for less, for example with a filter or the summary view."


class UnreadableResponse(LiumError):
    """The answer was not JSON, or not in the shape the API promises."""

    _advice = "Check that the API address is Lium's; look at the current state before repeating a change."


class NotLium(UnreadableResponse):
    """What answered is not Lium's API, for example because the address lacks its path."""

    _advice = (
        "Check LIUM_BASE_URL: the API's address ends with /api, as https://lium.io/api, which is used where it is not "
        "set. If it has worked before, try again in some minutes."
    )


class AnotherThing(UnreadableResponse):
    """The answer is about something else than was asked for."""

    @property
    def advice(self) -> str:
        """One sentence on what the caller can do."""
        if self.effect == "unknown":
            return "List what there is now before calling again: it may have been made."
        return "Call again in a minute."


class Contradicted(UnreadableResponse):
    """Another answer of Lium says the opposite: neither proves anything."""

    _advice = "Call get_pod in a minute, until both say the same."


class NotRented(UnreadableResponse):
    """A rent was answered with a 2xx whose body says that it was not done: it may have been all the same."""

    _advice = "Look for the pod before you rent again."


class BadRequest(LiumError):
    """Refused by a rule of the API (400)."""

    _advice = "Change the request as the message says; repeating it unchanged will be refused again."


class NotDone(BadRequest):
    """Refused in the body of a 2xx that states no other status."""

    _advice = "Look at the current state to be sure, and do what the message asks for before you try again."


class ValidationFailed(LiumError):
    """Fields of the request are not valid (422)."""

    _advice = "Correct the named fields and call again."


LOGIN_OVER_HTTP: Final = "your login at this server"
"""The place of a key that a caller over HTTP got by logging in."""


class AuthenticationFailed(LiumError):
    """The key is missing, unknown or revoked (401)."""

    key_place: str = ""
    """The variable, file or header that the key is from."""
    key_oddness: str = ""
    """A sentence on a key that does not begin as Lium's keys do."""

    @property
    def advice(self) -> str:
        """One sentence on what the caller can do."""
        odd = f"{self.key_oddness} " if self.key_oddness else ""
        place = f"in the place of the one in {self.key_place}" if self.key_place else "in the place of this one"
        if self.key_place == LOGIN_OVER_HTTP:
            return "Have the user disconnect this server in their client and connect it again, which logs in anew."
        if "[api]" in self.key_place:
            return (
                f"{odd}Have the user run `lium-mcp login --force` in a terminal, which replaces {self.key_place}, and "
                "restart what reads it; this one will not start working again."
            )
        return (
            f"{odd}Have the user make a new key at lium.io (Settings, API keys), put it {place}, and restart what "
            "reads it; this one will not start working again."
        )


class LoginEnded(LiumError):
    """The login over HTTP that a key is of has ended; nothing was sent."""

    _advice = "Have the user log in at this server again, and call again if it is still wanted."

    def __init__(self, message: str = "The login that this call acted for has ended meanwhile.") -> None:
        super().__init__(message)


class LoginNotTold(LiumError):
    """Whether the login over HTTP that a key is of still counts cannot be looked up now; nothing was sent."""

    _advice = "Call again in a moment; the person who runs this server has to look at its ledger if that goes on."


class BudgetExceeded(LiumError):
    """The key's own budget refuses the request (402)."""

    _advice = "Raise the budget of this API key on lium.io or use another key; other pods of the key may be removed."


class PaymentFailed(LiumError):
    """A payment was refused (402)."""

    _advice = "Settle the payment on lium.io."


class PermissionDenied(LiumError):
    """The key may not do this (403)."""

    _advice = "Use a key that may do this, or check that the account is verified and the resource is yours."


class MissingScope(PermissionDenied):
    """The key lacks a scope."""

    _advice = "Use an API key with the missing scope; the scopes of a key cannot be changed later."


class InsufficientBalance(PermissionDenied):
    """The account's balance is below what the request needs."""

    _advice = "Add funds on lium.io or choose a cheaper node."


class FirewallBlocked(LiumError):
    """The firewall in front of the API refused the request; the API never saw it (403, HTML)."""

    had_body: bool = True
    """Whether the request held texts that the firewall can have minded."""

    @property
    def advice(self) -> str:
        """One sentence on what the caller can do."""
        if self.had_body:
            return "Leave out texts with an http://<IP address> link or ../../, and keep the request below 64 KB."
        return (
            "It held no text to leave out, so it is the way to Lium that is blocked: try again in some minutes, and if "
            "nothing passes, have the user look at the VPN or proxy in use, or ask Lium's support."
        )


class NotFound(LiumError):
    """No such resource for this key (404)."""

    _advice = "List what exists and use an id from there."


class RouteMissing(LiumError):
    """The server has no such route, perhaps because it is older (404 or 405 of the route itself, 501)."""

    _advice = (
        "Do it another way, or on lium.io. If everything is answered like this, check LIUM_BASE_URL, which ends with "
        "/api."
    )


class Conflict(LiumError):
    """The current state does not allow the request (409)."""

    _advice = "Look at the current state; wait for what is running, then call again."

    @property
    def active_operation_id(self) -> str | None:
        """The backup or restore that is still running, where that is the reason."""
        return read_text(self.data.get("active_operation_id"))


class NoExecutorMatches(Conflict):
    """No free node fits the specification; nothing was rented."""

    _advice = "Relax the named constraint."


class IdempotencyConflict(Conflict):
    """The idempotency key belongs to another request, or that request has no outcome yet."""

    _advice = "Settle the first request with this key before renting again."


class RateLimited(LiumError):
    """Too many requests; nothing was executed (429)."""

    @property
    def advice(self) -> str:
        """One sentence on what the caller can do."""
        if self.retry_after_seconds is None:
            return "Wait a minute, then call again less often."
        if self.retry_after_seconds > _LONGEST_WAIT_SECONDS:
            return (
                f"Lium asks to wait {self.retry_after_seconds / 3600:,.0f} hours, which can hardly be meant: call "
                "again in an hour, and if that is refused too, have a person ask Lium's support."
            )
        return f"Wait {self.retry_after_seconds:g} seconds, then call again."


class ServerFailed(LiumError):
    """Lium or a proxy in front of it failed (5xx)."""

    _advice = "Wait a little; look at the current state before repeating a change."


class RentOutcomeUnknown(LiumError):
    """A rent request left and nothing proves what became of it: a pod may exist and bill.

    `cause` is the error that hid the outcome. Only a request with the same `idempotency_key`, while the API keeps
    it, can settle the matter without the risk of a second pod.
    """

    _advice = "Do not rent again: look for a pod of this name, or repeat the request with the same idempotency key."

    def __init__(self, *, idempotency_key: str, pod_name: str, cause: LiumError) -> None:
        super().__init__(
            f"It is not known whether the pod {pod_name!r} was rented: {cause.message}",
            status=cause.status,
            code=cause.code,
            hint=cause.hint,
            request_id=cause.request_id,
            data=cause.data,
            effect="unknown",
            replayed=cause.replayed,
        )
        self.idempotency_key = idempotency_key
        self.pod_name = pod_name
        self.cause = cause
