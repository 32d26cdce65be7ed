"""One complete answer of the API, and how it is read into models. Knows no resource and sends nothing."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import GenericAlias
from typing import Any, Final, TypeVar

import httpx2
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from lium_mcp.api.errors import AnotherThing, NotLium, UnreadableResponse
from lium_mcp.api.fields import ApiModel, read_bool
from lium_mcp.api.paging import Page, Rows

WEB_PAGE: Final = "This does not look like Lium's API: a web page came back."
_MOST_SHOWN_CHARACTERS: Final = 64
# What was sent may come back with fewer digits.
_ROUNDED_BY: Final = 0.005

ModelT = TypeVar("ModelT", bound=ApiModel)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of one request.

    `asked_at` is a time before the request left. `request_id` is the id under which Lium's logs know the request, if
    Lium gave one, fit to be shown and logged. `mutates` says that the request was meant to change something;
    `rewritten` says that a redirect turned it into a GET on the way, so that the first server's answer is not this one.
    """

    status: int
    headers: httpx2.Headers
    body: bytes
    asked_at: datetime
    request_id: str | None = None
    mutates: bool = False
    rewritten: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the definition of success

    @property
    def says_refused(self) -> bool:
        """Whether the body says that the request was refused; only the body of a change can."""
        try:
            body = from_json(self.body) if self.mutates else None
        except ValueError:
            return False
        return isinstance(body, dict) and read_bool(body.get("success")) is False

    @property
    def is_web_page(self) -> bool:
        """Whether a body that is no JSON is HTML or XML, such as the sign-in page of a network."""
        return "html" in self.headers.get("Content-Type", "").lower() or self.body.lstrip().startswith(b"<")

    @property
    def is_bare(self) -> bool:
        """Whether the body says that a change went well but not what came of it, so that this has to be read."""
        body = self.json()
        return isinstance(body, dict) and read_bool(body.get("success")) is True and "id" not in body

    @property
    def replayed(self) -> bool:
        """Whether this is the stored outcome of an earlier request with the same idempotency key."""
        return self.headers.get("Idempotent-Replayed", "").strip().lower() == "true"

    def unreadable(self, message: str, kind: type[UnreadableResponse] = UnreadableResponse) -> UnreadableResponse:
        """Return the error for a success that does not say what it should."""
        return kind(
            message,
            status=self.status,
            request_id=self.request_id,
            effect="unknown" if self.mutates else "none",
            replayed=self.replayed,
        )

    def json(self) -> object:
        """Return the body as JSON."""
        try:
            parsed: object = from_json(self.body)
        except ValueError:
            if self.is_web_page:
                raise self.unreadable(WEB_PAGE, NotLium) from None
            raise self.unreadable("Lium's answer is not readable JSON.") from None
        return parsed

    def model(self, model: type[ModelT], **asked: str | float | None) -> ModelT:
        """Return the body as one model. Its fields must not contradict `asked`; they may be missing."""
        try:
            read = model.model_validate(self.json())
        except ValidationError:
            raise self.unreadable(f"Lium's answer is not a readable {model.__name__}.") from None
        if denied := _denied(read, asked):
            raise self.about_another(model, denied, asked[denied])
        return read

    def about_another(self, model: type[ApiModel], name: str, asked: object) -> UnreadableResponse:
        """Return the error for a success that is about something else than was asked for, by its field `name`."""
        wanted = str(asked)[:_MOST_SHOWN_CHARACTERS]
        return self.unreadable(
            f"Lium answered with another {model.__name__} than was asked for: its {name} is not {wanted}.", AnotherThing
        )

    def rows(self, model: type[ModelT], *, key: str = "items", **asked: str | float | None) -> Rows[ModelT]:
        """Return the body as a list, bare or under `key`.

        Rows that cannot be read, or contradict `asked`, are counted and left out.
        """
        return self.page(model, key=key, **asked).items

    def page(self, model: type[ModelT], *, key: str = "items", **asked: str | float | None) -> Page[ModelT]:
        """Return the body as one page; older servers answer a bare list, which is the only page."""
        if not asked and self.body.lstrip().startswith(b"["):
            # Nearly always each row can be read, and all of them together in half of the time.
            with suppress(ValidationError):
                return Page(Rows(_list_of(model).validate_json(self.body), asked_at=self.asked_at))
        body = self.json()
        has_next = isinstance(body, dict) and body.get("has_next") is True
        if isinstance(body, dict):
            body = body.get(key)
        if not isinstance(body, list):
            raise self.unreadable(f"Lium's answer is not a list of {model.__name__}.")
        rows: Rows[ModelT] = Rows(asked_at=self.asked_at)
        for row in body:
            try:
                read = model.model_validate(row)
            except ValidationError:
                rows.skipped += 1
                continue
            if _denied(read, asked):
                rows.skipped += 1
            else:
                rows.append(read)
        return Page(rows, has_next)


@cache
def _list_of(model: type[ModelT]) -> TypeAdapter[list[ModelT]]:
    rows: Any = GenericAlias(list, (model,))
    return TypeAdapter(rows)


def _denied(read: ApiModel, asked: Mapping[str, str | float | None]) -> str | None:
    """The name of the first field that contradicts what was asked for."""
    for name, wanted in asked.items():
        said = getattr(read, name)
        if wanted is not None and said not in (None, "") and not _is_same(said, wanted):
            return name
    return None


def _is_same(said: object, wanted: str | float) -> bool:
    if isinstance(said, int | float) and not isinstance(wanted, str):
        return math.isclose(said, wanted, rel_tol=_ROUNDED_BY, abs_tol=_ROUNDED_BY)
    return str(said).strip().casefold() == str(wanted).strip().casefold()
