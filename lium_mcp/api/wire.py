"""One HTTP connection pool and the rules every request follows. Knows no resource.

Credentials go to the configured origin only; only what may be repeated is repeated; every attempt has a time limit and
a size limit; every failure is a `LiumError` that says whether the request possibly took effect.
"""

import hmac
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

import anyio
import httpx2

from lium_mcp.api.addresses import check_base_url, redirect_target
from lium_mcp.api.answers import Answer
from lium_mcp.api.changes import noted_changes
from lium_mcp.api.clock import Clock
from lium_mcp.api.error_bodies import error_from_answer, readable_request_id
from lium_mcp.api.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    Effect,
    FirewallBlocked,
    InvalidRequest,
    LiumError,
    MissingApiKey,
    RequestTimedOut,
    ResponseTooLarge,
    UnreadableResponse,
    UntrustedRedirect,
)
from lium_mcp.api.lines import Newest, Tail, sized_lines
from lium_mcp.api.network import not_connected
from lium_mcp.api.permits import Permit, refuse_forbidden
from lium_mcp.api.pool import Pool
from lium_mcp.api.retries import Repeat, repeating
from lium_mcp.api.shared_readings import NOBODY, Listener, Reading, SharedReadings, note_read_anew
from lium_mcp.api.telling import recorded, told
from lium_mcp.secret_forms import Secrets, redacted
from lium_mcp.values import key_oddness, without_mark

MAX_REDIRECTS = 5
MAX_ERROR_BODY_BYTES = 64 * 2**10
MAX_CLOCK_CORRECTION = timedelta(days=366)

QueryValue = str | int | float | None
T = TypeVar("T")

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_KEEPING_METHOD = frozenset({307, 308})
# Raised before the first byte of a request could leave.
_NOTHING_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)

# Shorter ones stand in other texts by chance: not only in that of the call that has read them.
_LEAST_KEPT_OUT_CHARACTERS = 6
_MOST_KEPT_OUT = 500
_hidden: ContextVar[Secrets | None] = ContextVar("_hidden", default=None)


@contextmanager
def hiding(values: Iterable[str]) -> Iterator[None]:
    """Take secrets that requests inside the block send out of whatever Lium says when it refuses one."""
    token = _hidden.set(Secrets(values))
    try:
        yield
    finally:
        _hidden.reset(token)


def key_tag(key: str, base_url: str) -> str:
    """The tag that stands for a key in the ledger: it differs by key and address, and neither can be read from it."""
    return hmac.digest(key.encode(), f"lium-mcp account at {base_url}".encode(), "sha256").hex()


class Wire:
    """Sends requests to one base address with one set of credentials.

    Attributes:
        key_refused_at: When Lium refused the key (401); None where the newest answer did not.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        base_url: str,
        pool: Pool,
        timeout_seconds: float,
        clock: Clock,
        max_response_bytes: int,
        key_place: str = "",
        no_key_because: str | None = None,
        permit: Permit | None = None,
    ) -> None:
        self._base = check_base_url(base_url)
        self._api_key = _sendable_key(api_key)
        self._secrets = Secrets(filter(None, [self._api_key]))
        self._kept_out: dict[str, None] = {}
        self._kept_out_secrets: Secrets | None = None
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._max_response_bytes = max_response_bytes
        self._pool = pool
        self._key_place = key_place
        self._no_key_because = no_key_because
        self._permit = permit
        self.key_refused_at: datetime | None = None

    @property
    def base_url(self) -> str:
        """The address requests go to."""
        return str(self._base)

    @property
    def timeout_seconds(self) -> float:
        """How long a request may take, unless its route has a limit of its own."""
        return self._timeout_seconds

    @property
    def has_api_key(self) -> bool:
        """Whether a key is configured."""
        return self._api_key is not None

    def check_api_key(self) -> None:
        """Raise MissingApiKey where no key is configured."""
        self._credentials(needs_key=True)

    def now(self) -> datetime:
        """Return the API's idea of now: the local clock corrected by the `Date` of the newest answer."""
        return self._clock.now() + self._pool.clock_correction

    def for_key(
        self,
        api_key: str | None,
        key_place: str = "",
        no_key_because: str | None = None,
        permit: Permit | None = None,
    ) -> "Wire":
        """Return a wire to the same address for another key, or for none; the two share only the pool."""
        return Wire(
            api_key=api_key,
            base_url=self.base_url,
            pool=self._pool,
            timeout_seconds=self._timeout_seconds,
            clock=self._clock,
            max_response_bytes=self._max_response_bytes,
            key_place=key_place,
            no_key_because=no_key_because,
            permit=permit,
        )

    async def share_public(
        self, name: str, read: Callable[["Wire"], Awaitable[T]], *, most_seconds: float
    ) -> Reading[T]:
        """Read what is open to all, over a wire without a key, once for whoever acts over these connections."""

        async def read_aloud() -> T:
            wire = self.for_key(None)
            value = await read(wire)
            self._readings.tell((NOBODY, name), value, wire.now())
            return value

        return await self._readings.read((NOBODY, name), read_aloud, self._clock, most_seconds=most_seconds)

    def hear_public(self, name: str, listener: Listener) -> None:
        """Let a listener hear what `share_public` reads over these connections, and when that is by Lium's clock."""
        self._readings.hear((NOBODY, name), listener)

    async def share_own(self, name: str, read: Callable[[], Awaitable[T]], *, most_seconds: float) -> Reading[T]:
        """Read something once for all that act with this key; what this key changes ends what is kept of it."""
        self.check_api_key()
        return await self._readings.read((self._owner, name), read, self._clock, most_seconds=most_seconds)

    @property
    def _readings(self) -> SharedReadings:
        return self._pool.readings

    @property
    def _owner(self) -> str:
        return self.keyed_digest("what was read with this key")

    def redact(self, text: str) -> str:
        """Return `text` without this wire's credentials and what was named to be hidden, escaped or not."""
        if self._kept_out_secrets is None:
            self._kept_out_secrets = Secrets(self._kept_out)
        for secrets in (self._secrets, self._pool.hidden, _hidden.get(), self._kept_out_secrets):
            text = redacted(text, secrets.find) if secrets else text
        return text

    def keep_out(self, values: Iterable[str]) -> None:
        """Take values that were read with this key out of what Lium says when it refuses a later request with it."""
        # As a whole and line by line, as other programs repeat them.
        texts = {text for value in values for text in (value, *value.splitlines())}
        new = [text for text in texts if len(text) >= _LEAST_KEPT_OUT_CHARACTERS and text not in self._kept_out]
        if new:
            self._kept_out |= dict.fromkeys(new)
            while len(self._kept_out) > _MOST_KEPT_OUT:
                del self._kept_out[next(iter(self._kept_out))]
            self._kept_out_secrets = None

    def hide(self, value: str) -> None:
        """Take a secret out of what Lium says to any request over these connections, in the place of one before it."""
        self._pool.hidden = Secrets([value])

    def keyed_digest(self, text: str) -> str:
        """A digest that only whoever has this key can make: of a text with a secret in it nothing can be guessed."""
        key = (self._api_key or "").encode()
        return hmac.digest(key, f"lium-mcp digest of {text}".encode(errors="surrogatepass"), "sha256").hex()

    async def aclose(self) -> None:
        """Close the pool; nothing can be sent afterwards."""
        await self._pool.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, QueryValue] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        needs_key: bool = True,
        repeat: Repeat | None = None,
        mutates: bool | None = None,
        judges_body: bool = False,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Send a request, repeat it as far as `repeat` allows, and return the successful answer.

        By default reads are always repeated, and changes only after a 429. Raises a `LiumError` for any other answer;
        also for a 2xx whose body says that a change was refused, unless the caller `judges_body`.
        """
        reads = method in _READ_METHODS
        mutates = not reads if mutates is None else mutates
        limit_seconds = timeout_seconds or self._timeout_seconds
        request = self._build(
            method,
            path,
            query=query,
            json=json,
            headers=headers,
            needs_key=needs_key,
            limit_seconds=limit_seconds,
        )

        async def attempt(seconds: float) -> Answer:
            asked_at, started = self.now(), self._clock.monotonic()
            with told(method, path) as work, self._failures(mutates=mutates), anyio.fail_after(seconds):
                async with self._turn(request):
                    if mutates:
                        await refuse_forbidden(self._permit)
                    response, rewritten = await self._send(request, mutates=mutates)
                    # The answer may have corrected the clock: of two times for that moment, the earlier claims less.
                    asked_at = min(asked_at, self.now() - timedelta(seconds=self._clock.monotonic() - started))
                    answer = await self._read(response, asked_at, mutates=mutates, rewritten=rewritten)
                work.outcome, work.request_id = str(answer.status), answer.request_id
            self.key_refused_at = self.now() if answer.status == HTTPStatus.UNAUTHORIZED else None
            if not answer.is_success or (answer.says_refused and not judges_body):
                raise self._refusal(answer, request)
            if mutates and answer.body.strip() and answer.is_web_page:
                answer.json()  # a page that a network shows in place of Lium is no JSON
            if mutates:
                noted_changes().append(f"{method} {path}")
            return answer

        repeat = repeat or (Repeat.ALWAYS if reads else Repeat.UNEXECUTED)
        if not mutates:
            return await repeating(attempt, repeat, self._clock, limit_seconds=limit_seconds)
        try:
            tag = key_tag(self._api_key, self.base_url) if self._api_key else None
            with recorded(method, path, tag) as note_outcome:
                answer = await repeating(attempt, repeat, self._clock, limit_seconds=limit_seconds)
                note_outcome(str(answer.status))
                return answer
        finally:
            # Whatever became of it, and also what was read while it was under way.
            self._readings.forget(self._owner)

    async def tail_lines(
        self,
        path: str,
        *,
        query: Mapping[str, QueryValue],
        read: Callable[[str], str | None],
        most_lines: int,
        max_bytes: int,
    ) -> Tail:
        """Read a line stream to its end, or until the time is over, and return its newest lines.

        Args:
            path: Its path.
            query: Its query.
            read: Returns what a line says, or `None` where it says nothing.
            most_lines: How many lines to return at most.
            max_bytes: How long they may be together.
        """
        request = self._build("GET", path, query=query)

        async def attempt(seconds: float) -> Tail:
            newest = Newest(most_lines, max_bytes)
            has_ended = False
            deadline = anyio.current_time() + seconds
            with told("GET", path) as work, self._failures(mutates=False):
                async with self._turn(request):
                    with anyio.fail_after(seconds):
                        response = await self._open(request)
                    work.outcome = str(response.status_code)
                    # Once the stream is open, what came before the time was over is an answer.
                    with suppress(httpx2.ReadTimeout), anyio.CancelScope(deadline=deadline):
                        async with aclosing(response):
                            async for line, size_bytes in sized_lines(response):
                                if (text := read(line)) is not None:
                                    newest.add(text, size_bytes)
                            has_ended = True
            return newest.tail(has_ended=has_ended)

        return await repeating(attempt, Repeat.ALWAYS, self._clock, limit_seconds=self._timeout_seconds)

    def _build(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, QueryValue] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        needs_key: bool = True,
        limit_seconds: float | None = None,
    ) -> httpx2.Request:
        note_read_anew()
        credentials = self._credentials(needs_key=needs_key)
        limit_seconds = limit_seconds or self._timeout_seconds
        # Pool, TCP and TLS together end before the limit: a failure there is proof that nothing left.
        connect_seconds = limit_seconds / 4
        params = {name: value for name, value in (query or {}).items() if value is not None}
        if any(isinstance(value, float) and not math.isfinite(value) for value in params.values()):
            raise InvalidRequest("A number of the request is not finite.")
        try:
            return self._pool.client().build_request(
                method,
                f"{self._base}{path}",
                params=params or None,
                json=json,
                headers={**credentials, **(headers or {})},
                timeout=httpx2.Timeout(limit_seconds, connect=connect_seconds, pool=connect_seconds),
            )
        except (TypeError, ValueError):
            raise InvalidRequest("A value of the request cannot be sent as JSON text.") from None

    def _credentials(self, *, needs_key: bool) -> dict[str, str]:
        if self._api_key is not None:
            return {"X-API-KEY": self._api_key}
        if not needs_key:
            return {}
        raise MissingApiKey("No Lium API key is configured. Nothing was sent.", hint=self._no_key_because)

    def _turn(self, request: httpx2.Request) -> AbstractAsyncContextManager[None]:
        """Wait for the key's turn, for as long as for a connection."""
        return self._pool.turn(self._owner, request.extensions["timeout"]["pool"])

    async def _send(self, request: httpx2.Request, *, mutates: bool) -> tuple[httpx2.Response, bool]:
        """Send and follow redirects inside the origin; also tell whether one turned the request into a GET."""
        rewritten = False
        effect: Effect = "none"
        for _ in range(MAX_REDIRECTS + 1):
            sent_at = self.now()
            try:
                response = await self._pool.client().send(request, stream=True, follow_redirects=False)
            except _NOTHING_SENT as error:
                if rewritten:  # the first server has had the request
                    raise httpx2.ReadError("lost after a redirect") from error
                raise
            self._note_time(response, sent_at)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or location is None:
                return response, rewritten
            await response.aclose()
            possibly_done = rewritten or response.status_code not in _REDIRECTS_KEEPING_METHOD
            effect = "unknown" if mutates and possibly_done else "none"
            target = redirect_target(request.url, location)
            if target is None:
                raise UntrustedRedirect(
                    "Lium's server redirected the request to another address; the API key was not sent there.",
                    status=response.status_code,
                    effect=effect,
                )
            becomes_get = (response.status_code in {302, 303} and request.method != "HEAD") or (
                response.status_code == 301 and request.method == "POST"  # noqa: PLR2004 - reads best as a number
            )
            rewritten = rewritten or (becomes_get and request.method != "GET")
            request = _redirected(request, target, "GET" if becomes_get else request.method)
        raise UntrustedRedirect(f"Lium's server redirected the request more than {MAX_REDIRECTS} times.", effect=effect)

    async def _open(self, request: httpx2.Request) -> httpx2.Response:
        response, _ = await self._send(request, mutates=False)
        if response.is_success:
            return response
        raise self._refusal(await self._read(response, self.now()), request)

    async def _read(
        self, response: httpx2.Response, asked_at: datetime, *, mutates: bool = False, rewritten: bool = False
    ) -> Answer:
        chunks: list[bytes] = []
        size = 0
        limit = self._max_response_bytes if response.is_success else MAX_ERROR_BODY_BYTES
        try:
            async for chunk in response.aiter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    break
        except httpx2.RequestError:
            # The status of a refusal is known already, and is enough.
            if response.is_success:
                raise
        finally:
            await response.aclose()
        if size > limit and response.is_success:
            raise _too_large(limit, mutates=mutates)
        request_id = readable_request_id(response.headers.get("X-Request-Id"), self.redact)
        body = without_mark(b"".join(chunks)[:limit])
        return Answer(response.status_code, response.headers, body, asked_at, request_id, mutates, rewritten)

    def _refusal(self, answer: Answer, request: httpx2.Request) -> LiumError:
        error = error_from_answer(answer, self.redact)
        error.path = request.url.path.removeprefix(self._base.path.rstrip("/"))
        if isinstance(error, FirewallBlocked):
            error.had_body = bool(request.content)
        if isinstance(error, AuthenticationFailed) and self._api_key is not None:
            error.key_place = self._key_place
            error.key_oddness = key_oddness(self._api_key)
        return error

    @contextmanager
    def _failures(self, *, mutates: bool) -> Iterator[None]:
        """Turn what the HTTP library raises into what this package raises."""
        effect: Effect = "unknown" if mutates else "none"
        network = self._pool.network
        try:
            yield
        except _NOTHING_SENT as error:
            raise not_connected(error, self._base.host, network, self.redact) from error
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise RequestTimedOut(f"Lium did not answer in time{network.through}.", effect=effect) from error
        except httpx2.DecodingError as error:
            raise UnreadableResponse("Lium's answer could not be decompressed.", effect=effect) from error
        except httpx2.RequestError as error:
            raise ConnectionFailed(
                f"The connection to Lium{network.through} broke before the answer was complete.", effect=effect
            ) from error

    def _note_time(self, response: httpx2.Response, sent_at: datetime) -> None:
        """Correct the clock by an answer's `Date`, unless that lies between the request and now by this clock.

        So an answer that was long under way does not set the clock back.
        """
        try:
            theirs = parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
            correction = theirs - self._clock.now()
        except (KeyError, TypeError, ValueError, OverflowError):
            return
        fits = sent_at.replace(microsecond=0) <= theirs <= self.now()  # the header has whole seconds
        if not fits and abs(correction) <= MAX_CLOCK_CORRECTION:
            self._pool.clock_correction = correction


class Resource:
    """The calls of one part of the API: a subclass names paths, bodies and models, and sends through one `Wire`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire


def _sendable_key(api_key: str | None) -> str | None:
    api_key = (api_key or "").strip()
    if not all("!" <= char <= "~" for char in api_key):
        raise InvalidRequest("The API key holds characters that no such credential has.")
    return api_key or None


def _redirected(request: httpx2.Request, target: httpx2.URL, method: str) -> httpx2.Request:
    if method == request.method:
        return httpx2.Request(
            method, target, headers=request.headers, content=request.content, extensions=request.extensions
        )
    headers = request.headers.copy()
    for name in ("Content-Type", "Content-Length", "Idempotency-Key"):
        headers.pop(name, None)
    return httpx2.Request(method, target, headers=headers, extensions=request.extensions)


def _too_large(limit_bytes: int, *, mutates: bool) -> ResponseTooLarge:
    return ResponseTooLarge(
        f"Lium's answer is larger than {limit_bytes} bytes.", effect="unknown" if mutates else "none"
    )
