"""Reads a refused answer, in any of the body shapes that servers of different age send, into an error.

Shapes: the envelope with `error`; `message` plus `status_code`; `detail` as text, list or object; text or HTML from a
proxy or the firewall. Server text is untrusted: it is redacted, stripped of control characters and markup, and cut.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from lium_mcp.api.answers import Answer
from lium_mcp.api.errors import (
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    Conflict,
    FirewallBlocked,
    IdempotencyConflict,
    InsufficientBalance,
    LiumError,
    MissingScope,
    NoExecutorMatches,
    NotDone,
    NotFound,
    NotLium,
    PaymentFailed,
    PermissionDenied,
    RateLimited,
    RouteMissing,
    ServerFailed,
    UnreadableResponse,
    ValidationFailed,
)
from lium_mcp.api.fields import read_float, read_int, read_text
from lium_mcp.figures import in_usd
from lium_mcp.text import Redact, one_line, shortened

_MAX_SAID_CHARS = 300
_MAX_REQUEST_ID_CHARS = 100
_MAX_FIELDS = 20
_MAX_FIELDS_IN_MESSAGE = 5
_MAX_DEPTH = 6
_SCOPE = re.compile(r"does not have the '([a-z_]+)' scope", re.IGNORECASE)
_SCOPE_CODES = frozenset({"api_key_scope", "missing_scope", "insufficient_scope", "scope_required"})
_BUDGET_CODE = "API_KEY_BUDGET_EXCEEDED"
# The status given to a refusal that comes as a 2xx and states none.
_REFUSED = 400
_ENVELOPE_KEYS = frozenset({"success", "error", "message", "detail", "status_code", "validation_errors", "code"})

_HEADLINES: dict[type[LiumError], str] = {
    AuthenticationFailed: "Lium does not accept the API key",
    BudgetExceeded: "The budget of this API key is used up",
    PaymentFailed: "Lium refused the payment",
    PermissionDenied: "Lium does not permit this",
    MissingScope: "The API key may not do this",
    InsufficientBalance: "The balance is too low",
    FirewallBlocked: "The firewall in front of Lium blocked the request",
    NotFound: "Lium does not find this",
    RouteMissing: "This Lium cannot do that; its API has no such route",
    NotLium: "This does not look like Lium's API",
    Conflict: "Lium refused the request in the current state",
    NoExecutorMatches: "No free node fits",
    IdempotencyConflict: "Lium holds another request under this idempotency key",
    ValidationFailed: "Lium refused the request as not valid",
    RateLimited: "Lium received too many requests and did not execute this one",
    BadRequest: "Lium refused the request",
    NotDone: "Lium answered that it did not do this",
}


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error body says, whatever its shape."""

    text: str = ""
    other_texts: tuple[str, ...] = ()
    code: str | None = None
    status: int | None = None
    hint: str | None = None
    request_id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    fields: tuple[tuple[str, str], ...] = ()
    """Name and reason of each field that is not valid."""
    is_html: bool = False
    is_json: bool = True


def read_error_body(answer: Answer, redact: Redact) -> ErrorBody:
    """Read the body of a refused answer; never raises."""
    content_type = answer.headers.get("Content-Type", "").lower()
    try:
        body = from_json(answer.body)
    except ValueError:
        text = answer.body.decode("utf-8", "replace")
        is_html = answer.is_web_page
        # An empty or broken body counts as Lium's own, which is meant to be JSON.
        is_json = not text.strip() or (not is_html and "json" in content_type)
        return ErrorBody(text="" if is_html else one_line(text, redact), is_html=is_html, is_json=is_json)
    if not isinstance(body, dict):
        return ErrorBody(text=one_line(body, redact) if isinstance(body, str) else "")
    return _read_object(body, redact)


def _read_object(body: Mapping[str, Any], redact: Redact) -> ErrorBody:
    raw_error = body.get("error")
    error: Mapping[str, Any] = raw_error if isinstance(raw_error, dict) else {}
    details = [part for part in (error.get("data"), body.get("message"), body.get("detail")) if isinstance(part, dict)]
    top_level = {key: value for key, value in body.items() if key not in _ENVELOPE_KEYS}
    extras = details[0] if details else top_level
    data = {one_line(key, redact): _clean_data(value, redact) for key, value in extras.items()}
    fields = tuple(
        (one_line(name, redact), one_line(reason, redact))
        for name, reason in (*_validation_errors(body.get("validation_errors")), *_detail_list(body.get("detail")))
    )
    candidates = (
        body.get("message"),
        *(part.get("message") for part in details),
        body.get("detail"),
        error.get("message"),
        raw_error,
    )
    texts = [one_line(text, redact) for text in candidates if isinstance(text, str)]
    texts = [text for text in dict.fromkeys(texts) if text]
    return ErrorBody(
        text=texts[0] if texts else "",
        other_texts=tuple(texts[1:]),
        code=_first_text((error.get("code"), body.get("code"), *(part.get("code") for part in details)), redact),
        status=_stated_status(body.get("status_code")),
        hint=_first_text((error.get("hint"),), redact),
        request_id=readable_request_id(error.get("request_id"), redact),
        data=data,
        fields=fields,
    )


def readable_request_id(value: object, redact: Redact) -> str | None:
    """Return the id under which Lium's logs know a request, fit to be shown; `None` where there is none."""
    text = one_line(value, redact, most_characters=_MAX_REQUEST_ID_CHARS) if isinstance(value, str) else ""
    return text or None


def _first_text(values: tuple[object, ...], redact: Redact) -> str | None:
    for value in values:
        if isinstance(value, str) and (text := one_line(value, redact)):
            return text
    return None


def _stated_status(value: object) -> int | None:
    status = read_int(value)
    return status if status is not None and 400 <= status < 600 else None  # noqa: PLR2004 - those of a refusal


def _validation_errors(value: object) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for item in value[:_MAX_FIELDS] if isinstance(value, list) else ():
        if isinstance(item, dict):
            reason = read_text(item.get("message") or item.get("msg"))
            found.append((read_text(item.get("field")) or "", reason or "not valid"))
        elif text := read_text(item):
            found.append(("", text))
    return found


def _detail_list(value: object) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for item in value[:_MAX_FIELDS] if isinstance(value, list) else ():
        if isinstance(item, dict):
            # Only the place and the reason: `input` would repeat what was sent, secrets included.
            place = item.get("loc")
            parts = [read_text(part) or "?" for part in place] if isinstance(place, list) else []
            name = ".".join(parts[1:] if parts[:1] in (["body"], ["query"], ["path"], ["header"]) else parts)
            found.append((name, read_text(item.get("msg")) or "not valid"))
        elif text := read_text(item):
            found.append(("", text))
    return found


def _clean_data(value: object, redact: Redact, depth: int = 0) -> object:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return one_line(value, redact)
    if isinstance(value, dict):
        return {one_line(key, redact): _clean_data(item, redact, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean_data(item, redact, depth + 1) for item in value]
    return value


def _retry_after_seconds(answer: Answer) -> float | None:
    """Return the `Retry-After` header in seconds; the date form and nonsense are ignored."""
    seconds = read_float(answer.headers.get("Retry-After"))
    return seconds if seconds is not None and seconds >= 0 else None


def error_from_answer(answer: Answer, redact: Redact) -> LiumError:
    """Return the error for an answer outside 2xx, or for a 2xx whose body refuses."""
    body = read_error_body(answer, redact)
    stated = body.status if answer.is_success else answer.status
    kind = _kind_by_code(body) if stated is None else _kind(stated, body)
    status = stated or _REFUSED
    unsettled = answer.mutates and (answer.rewritten or kind is ServerFailed or kind is UnreadableResponse)
    error = kind(
        _message(kind, status, body),
        status=status,
        code=body.code,
        hint=body.hint,
        request_id=body.request_id or answer.request_id,
        data=body.data,
        effect="unknown" if unsettled else "none",
        replayed=answer.replayed,
    )
    error.retry_after_seconds = _retry_after_seconds(answer)
    return error


def _kind(status: int, body: ErrorBody) -> type[LiumError]:
    if status == 402:  # noqa: PLR2004 - HTTP status codes read best as numbers
        return BudgetExceeded if body.code in {None, _BUDGET_CODE} else PaymentFailed
    if status == 403:  # noqa: PLR2004
        return _forbidden(body)
    if status == 409:  # noqa: PLR2004
        return _conflict(body)
    if status in {404, 405}:
        return _nothing_there(status, body)
    if status == 501:  # noqa: PLR2004
        return RouteMissing
    if status >= 500:  # noqa: PLR2004
        return ServerFailed
    if status < 400:  # noqa: PLR2004
        return UnreadableResponse
    kinds: dict[int, type[LiumError]] = {
        401: AuthenticationFailed,
        422: ValidationFailed,
        429: RateLimited,
    }
    return kinds.get(status, BadRequest)


def _kind_by_code(body: ErrorBody) -> type[LiumError]:
    """The kind of error that a body without a status describes."""
    if body.code == _BUDGET_CODE:
        return BudgetExceeded
    kind = _forbidden(body)
    return NotDone if kind is PermissionDenied else kind


def _nothing_there(status: int, body: ErrorBody) -> type[LiumError]:
    if not body.is_json:
        return NotLium
    # The bare words come from the framework, for a route that it does not have; Lium names what it does not find.
    is_route = status == 405 or body.text.rstrip(".").lower() == "not found"  # noqa: PLR2004
    return RouteMissing if is_route else NotFound


def _forbidden(body: ErrorBody) -> type[LiumError]:
    if body.is_html:
        return FirewallBlocked
    texts = (body.text, *body.other_texts)
    if body.code in _SCOPE_CODES or any(_SCOPE.search(text) for text in texts):
        return MissingScope
    if body.code is not None:
        return InsufficientBalance if body.code == "insufficient_balance" else PermissionDenied
    return InsufficientBalance if any("insufficient balance" in text.lower() for text in texts) else PermissionDenied


def _conflict(body: ErrorBody) -> type[LiumError]:
    code = body.code or ""
    if code == "no_executor_matches_spec":
        return NoExecutorMatches
    return IdempotencyConflict if code.startswith("idempotency_") else Conflict


def _budget(data: Mapping[str, Any]) -> str:
    """Which budget it is and how much of it is spent, as far as Lium says so."""
    facts = [read_text(data.get("window"))]
    for word in ("budget", "spent"):
        amount_usd = read_float(data.get(f"{word}_usd"))
        facts.append(None if amount_usd is None else f"{word} {in_usd(amount_usd)}")
    told = ", ".join(filter(None, facts))
    return f" ({told})" if told else ""


def _message(kind: type[LiumError], status: int, body: ErrorBody) -> str:
    headline = _HEADLINES.get(kind) or f"Lium answered with status {status}"
    if kind is BudgetExceeded:
        headline += _budget(body.data)
    parts = [body.text] if body.text else []
    parts += [f"{name}: {reason}" if name else reason for name, reason in body.fields[:_MAX_FIELDS_IN_MESSAGE]]
    text = "; ".join(parts)
    if not text:
        return f"{headline}."
    return f"{headline}: {shortened(text, _MAX_SAID_CHARS)}"
