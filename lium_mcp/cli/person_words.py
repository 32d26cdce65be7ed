"""What went wrong, in words for a person at a terminal: those of tools tell an agent what to call or to ask for."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lium_mcp.api import errors as api
from lium_mcp.api.refusal_words import advice_on
from lium_mcp.cli.key_cures import log_in
from lium_mcp.failures import Failure
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.services.failure_words import GET_A_KEY, LOG_IN, as_failure

_LATER: Final = "Try again in some minutes; if that lasts, ask Lium's support."
_ADDRESS: Final = "Check LIUM_BASE_URL, which is https://lium.io/api where it is not set."
_ADVICE: Final[Mapping[type[api.LiumError], str]] = MappingProxyType(
    {
        api.CertificateRefused: "Set SSL_CERT_FILE to the certificates to trust, such as those of your company.",
        api.ProxyLoginRefused: "Correct the name and the password in the address of the proxy.",
        api.ConnectionFailed: "Check the network, and LIUM_BASE_URL, which is https://lium.io/api where it is not set.",
        api.RequestTimedOut: _LATER,
        api.UntrustedRedirect: _ADDRESS,
        api.ResponseTooLarge: _LATER,
        api.UnreadableResponse: f"{_ADDRESS} If it has worked before, try again in some minutes.",
        api.BudgetExceeded: "Raise the budget of this key at lium.io (API keys), or use another key.",
        api.PaymentFailed: "Look at lium.io, Billing.",
        api.MissingScope: "Make a key that has the scope at lium.io (API keys): those of a key cannot be changed.",
        api.InsufficientBalance: "Top up at lium.io, Billing.",
        api.PermissionDenied: "Use a key that may do this, and see whether the account is verified at lium.io.",
        api.FirewallBlocked: "Try again in some minutes; if nothing passes, look at the VPN or proxy in use.",
        api.NotFound: "lium.io shows what there is.",
        api.RouteMissing: f"Do it at lium.io. If everything is answered like this: {_ADDRESS}",
        api.Conflict: "Wait for what is under way, and try again.",
        api.ValidationFailed: "Correct what it names.",
        api.BadRequest: "Correct what it names.",
        api.InvalidRequest: "Correct what it names.",
        api.ServerFailed: "Try again in a minute.",
    }
)
_REFUSED: Final = "The login was refused on its page. If that was not meant, begin again."


def in_words(error: api.LiumError | LedgerUnavailable | Failure) -> str:
    """What happened, and what a person can do."""
    failure = as_failure(error)
    if isinstance(error, api.MissingApiKey):
        why = failure.happened.removesuffix(LOG_IN).removesuffix(GET_A_KEY).strip() or "No API key is set."
        return f"{why} To get one: {log_in(os.environ)}"
    if isinstance(error, LedgerUnavailable):
        return f"{failure.happened} What mends it: lium-mcp doctor"
    if failure.code == "login_refused":
        return _REFUSED
    if not isinstance(error, api.LiumError):
        return f"{failure.happened} {failure.advice}".strip()
    said = failure.advice.removesuffix(error.advice).strip()
    support = f" (Lium's logs know it as {error.request_id}.)" if error.request_id else ""
    return " ".join(filter(None, (failure.happened, said, _advice(error)))) + support


def _advice(error: api.LiumError) -> str:
    match error:
        case api.AuthenticationFailed() if not error.key_place or "[api]" in error.key_place:
            return f"{error.key_oddness} For another key: {log_in(os.environ, force=True)}".strip()
        case api.AuthenticationFailed():
            return f"{error.key_oddness} Put another into {error.key_place}: lium.io (API keys) makes one.".strip()
        case api.RateLimited():
            seconds = error.retry_after_seconds
            return "Wait a minute, and try again." if seconds is None else f"Wait {seconds:g} seconds, and try again."
    if told := advice_on(error.status, f"{error.code or ''} {error.message}"):
        return told.replace("call again", "try again")
    kind = next((kind for kind in type(error).__mro__ if kind in _ADVICE), None)
    return _ADVICE[kind] if kind else _LATER
