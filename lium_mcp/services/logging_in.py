"""A login in the browser, from its page to a key that Lium accepts. Knows no terminal, no client and no file.

The session of a login is a secret, and so may be its page, which can name it: neither is in a failure or a log.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import anyio

from lium_mcp.api.account import Me
from lium_mcp.api.addresses import page_of_site
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import (
    AuthenticationFailed,
    InvalidRequest,
    LiumError,
    MissingScope,
    NotFound,
    NotLium,
    RateLimited,
    RouteMissing,
    UntrustedRedirect,
)
from lium_mcp.api.logins import LoginStatus
from lium_mcp.failures import Failure
from lium_mcp.services.failure_words import REFUSALS
from lium_mcp.values import cleaned_key, key_problem

POLL_SECONDS: Final = 5.0
"""As often as the official client asks; never more often."""
KEYS_PAGE: Final = "https://lium.io/api-keys"
_MOST_POLL_SECONDS: Final = 30.0
_REFUSED: Final = re.compile(r"den(y|ied)|reject(ed)?|refused?|declined?|cancell?ed|revoked", re.IGNORECASE)
_OVER: Final = re.compile(r"expired?|timed?[_ -]?out|closed|used|invalid", re.IGNORECASE)
_GONE: Final = (NotFound, RouteMissing, AuthenticationFailed, *REFUSALS)
# One may come from a server that has not heard of the session yet.
_MOST_REFUSALS: Final = 3
_BY_HAND: Final = f"Begin again, or make a key at {KEYS_PAGE} and set LIUM_API_KEY."


@dataclass(frozen=True, slots=True)
class OpenLogin:
    """A login that waits for a person.

    Attributes:
        page: Where the person agrees; surely of the API's own site.
        session_id: The secret with which the key is fetched.
        site: Where the page is, for a sentence.
    """

    page: str = field(repr=False)
    session_id: str = field(repr=False)
    site: str = ""


async def begin_login(lium: LiumClient) -> OpenLogin:
    """Begin a login.

    Raises:
        Failure: its page is not of the API's own site.
        LiumError: Lium does not begin one.
    """
    session = await lium.logins.begin()
    page = page_of_site(lium.base_url, session.browser_url)
    if page is None:
        raise Failure(
            "login_page_foreign",
            f"What answers at {urlsplit(lium.base_url).netloc} names a login page that is not its own, so it is not "
            "opened.",
            "Check LIUM_BASE_URL, which is https://lium.io/api where it is not set.",
        )
    return OpenLogin(page, session.session_id, urlsplit(page).netloc)


async def fetch_key(lium: LiumClient, login: OpenLogin, clock: Clock, *, limit_seconds: float) -> str:
    """Wait until the person has agreed, and return the key.

    Raises:
        Failure: the person refused, nobody answered in time, or the login is over.
        LiumError: Lium could not be asked until the end.
    """
    until = clock.monotonic() + limit_seconds
    pause, refusals = POLL_SECONDS, 0
    failed: LiumError | None = None
    while True:
        try:
            # The answer that has the key may be given once only: who cancels hears of it first.
            with anyio.CancelScope(shield=True):
                status = await lium.logins.poll(login.session_id)
            failed = None
            if key := _key_in(status):
                return key
        except InvalidRequest:
            raise
        except RateLimited as error:
            failed = error
            pause = min(max(2 * pause, error.retry_after_seconds or 0), _MOST_POLL_SECONDS)
        except LiumError as error:
            failed = error
            if _is_redirect(error):
                raise
            refusals = refusals + 1 if isinstance(error, (*_GONE, NotLium)) else 0
            if refusals >= _MOST_REFUSALS:
                raise error if isinstance(error, NotLium) else _over() from error
        left = until - clock.monotonic()
        if left <= 0:
            break
        await clock.sleep(min(pause, left))
    if failed is not None:
        raise failed
    raise Failure(
        "login_unanswered",
        f"Nobody agreed within {limit_seconds / 60:g} minutes.",
        _BY_HAND,
        effect="No key was saved.",
    )


async def owner_of(lium: LiumClient, key: str) -> Me | None:
    """Whom a key belongs to; None where Lium knows the key, which may not read that.

    Raises:
        LiumError: Lium does not accept the key, or cannot be asked.
    """
    try:
        return await lium.for_key(key, "this login").account.me()
    except MissingScope:
        return None


def _key_in(status: LoginStatus) -> str | None:
    said = (status.status or "").strip()
    if said.casefold() == "approved":
        key = cleaned_key(status.api_key or "")
        if not key or key_problem(key):
            raise Failure(
                "login_without_key", "Lium says that the person agreed, and gave no key.", _BY_HAND,
                effect="No key was saved.",
            )  # fmt: skip
        return key
    if _REFUSED.fullmatch(said):
        raise Failure(
            "login_refused", "The person refused the login on its page.", "Do not begin it again unless they ask for "
            "it.", effect="No key was saved.",
        )  # fmt: skip
    if _OVER.fullmatch(said):
        raise _over()
    return None


def _is_redirect(error: LiumError) -> bool:
    """Whether the answer is elsewhere: nothing that the person does would be heard of."""
    status = error.status or 0
    return isinstance(error, UntrustedRedirect) or 300 <= status < 400  # noqa: PLR2004 - the definition of a redirect


def _over() -> Failure:
    return Failure(
        "login_expired", "The login is over, as Lium knows it no more.", _BY_HAND, effect="No key was saved."
    )
