"""The connection pool, made with the first request since its TLS context is slow. Knows no credential."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from lium_mcp import __version__
from lium_mcp.api.errors import ConnectionFailed, InvalidRequest
from lium_mcp.api.network import Network
from lium_mcp.api.shared_readings import SharedReadings
from lium_mcp.api.turns import Turns
from lium_mcp.secret_forms import Secrets

KEEPALIVE_SECONDS = 60.0
MAX_CONNECTIONS = 100


class Pool:
    """Connections to one address, shared by all clients that act there, whatever their keys.

    Attributes:
        network: The way to that address.
        hidden: What is secret though no key, and must not come out of an answer: the session of a login.
        readings: What they read at around the same time, where they may share it.
        clock_correction: How far ahead of this machine's clock that address is, as its newest answer says.
    """

    def __init__(self, *, transport: httpx2.AsyncBaseTransport | None, source: str, network: Network) -> None:
        self._transport = transport
        self._source = source
        self.network = network
        self.hidden: Secrets | None = None
        self.readings = SharedReadings()
        self.clock_correction = timedelta()
        self._http: httpx2.AsyncClient | None = None
        self._closed = False
        self._turns = Turns(MAX_CONNECTIONS)

    @asynccontextmanager
    async def turn(self, owner: str, most_seconds: float) -> AsyncIterator[None]:
        """Be one of the requests of an owner that are under way, until the end of the block.

        Raises:
            httpx2.PoolTimeout: it was not its turn in that time.
        """
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._turns.turn(owner, most_seconds))
            except TimeoutError:
                raise httpx2.PoolTimeout("other requests are under way") from None
            yield

    def client(self) -> httpx2.AsyncClient:
        """The HTTP client. Raises `InvalidRequest` once the pool is closed."""
        if self._closed:
            raise InvalidRequest("The connection to Lium is closed. Nothing was sent.")
        if self._http is None:
            try:
                verify = self.network.verify()
            except OSError as error:
                raise ConnectionFailed(
                    "The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read any more; "
                    "nothing was sent."
                ) from error
            self._http = httpx2.AsyncClient(
                transport=self._transport,
                trust_env=False,  # the settings have read the environment
                proxy=self.network.proxy(verify),
                verify=verify,
                headers={
                    "User-Agent": f"lium-mcp/{__version__}",
                    "X-Source": self._source,
                    "X-Lium-Client-Version": __version__,
                    "Accept-Encoding": "gzip, deflate",
                },
                # A cookie from one account's answer must not travel with another's request.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS),
            )
        return self._http

    async def aclose(self) -> None:
        """Close all connections; nothing can be sent afterwards."""
        self._closed = True
        if self._http is not None:
            await self._http.aclose()
