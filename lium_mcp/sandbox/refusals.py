"""Refusals, in the bodies the API uses for them.

The platform's current envelope is the default. The routes named in their functions still send two older bodies, so that
a client that reads only one of the three is found out.
"""

from dataclasses import dataclass, field

from pydantic import JsonValue


@dataclass
class Refusal(Exception):
    """An answer of 4xx or 5xx, raised where it is known."""

    status: int
    body: dict[str, JsonValue]
    headers: dict[str, str] = field(default_factory=dict)


class ConnectionDropped(Exception):
    """The connection is to end without an answer; whoever serves the app closes it."""


def refuse(
    status: int,
    code: str,
    message: str,
    *,
    hint: str | None = None,
    detail: JsonValue = None,
    data: dict[str, JsonValue] | None = None,
    headers: dict[str, str] | None = None,
) -> Refusal:
    """Build a refusal in the current envelope; ``detail`` is the route's own, by default the message."""
    error: dict[str, JsonValue] = {"code": code, "message": message, "hint": hint, "request_id": None}
    if data is not None:
        error["data"] = data
    body: dict[str, JsonValue] = {
        "success": False,
        "error": error,
        "message": message if detail is None else detail,
        "status_code": status,
    }
    return Refusal(status, body, headers or {})


def invalid(*problems: tuple[str, str]) -> Refusal:
    """Build the 422 that names the refused fields."""
    refusal = refuse(422, "validation_error", "Validation failed")
    refusal.body["validation_errors"] = [{"field": name, "message": text} for name, text in problems]
    return refusal


def missing(what: str) -> Refusal:
    """Build the older 404 of the resource routes."""
    return Refusal(404, {"message": f"{what} not found", "status_code": 404})


def detailed(status: int, detail: JsonValue) -> Refusal:
    """Build the oldest body, which authentication and the backup routes still use."""
    return Refusal(status, {"detail": detail})


def rate_limited(retry_after_seconds: int | None) -> Refusal:
    """Build the 429; nothing was executed."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    return refuse(429, "rate_limited", "Too many requests", headers=headers)
