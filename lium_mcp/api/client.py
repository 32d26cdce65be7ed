"""LiumClient: the Lium REST API for one account. The rules of every request are in `wire.py`."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self

import httpx2

from lium_mcp.api.account import AccountCalls
from lium_mcp.api.backups import Backups, BackupSchedules
from lium_mcp.api.clock import SYSTEM_CLOCK, Clock
from lium_mcp.api.clusters import Clusters
from lium_mcp.api.docker_credentials import DockerCredentials
from lium_mcp.api.errors import LiumError
from lium_mcp.api.executors.calls import Executors
from lium_mcp.api.fields import ApiModel, ApiTuple
from lium_mcp.api.logins import Logins
from lium_mcp.api.machines import Machines
from lium_mcp.api.network import Network
from lium_mcp.api.permits import Permit
from lium_mcp.api.pods.calls import Pods
from lium_mcp.api.pool import Pool
from lium_mcp.api.restores import Restores
from lium_mcp.api.retries import Repeat
from lium_mcp.api.ssh_keys import SshKeys
from lium_mcp.api.templates import Templates
from lium_mcp.api.volumes import Volumes
from lium_mcp.api.wire import Wire

DEFAULT_BASE_URL = "https://lium.io/api"
DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_MAX_RESPONSE_BYTES = 8 * 2**20
# Lium may be exchanged for a newer one while a server runs for weeks.
_FEATURES_FOR: Final = timedelta(minutes=10)


class Version(ApiModel):
    """The server: `features` names the optional parts of the API that it has."""

    features: ApiTuple[str] = ()


@dataclass(slots=True)
class _Features:
    """What optional features the server said it has, and when."""

    names: frozenset[str] = frozenset()
    read_at: datetime | None = None


class LiumClient:
    """Asynchronous client; one attribute for each resource, one connection pool for all.

    Construction is cheap: the pool is made with the first request. `timeout_seconds` bounds one attempt, body
    included. Without a key, only public routes work. `key_place` and `no_key_because` say where the key is from, or why
    there is none, for sentences.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        base_url: str = DEFAULT_BASE_URL,
        source: str = "mcp",
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        transport: httpx2.AsyncBaseTransport | None = None,
        network: Network | None = None,
        clock: Clock = SYSTEM_CLOCK,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        key_place: str = "",
        no_key_because: str | None = None,
    ) -> None:
        self._connect(
            Wire(
                api_key=api_key,
                base_url=base_url,
                pool=Pool(transport=transport, source=source, network=network or Network()),
                timeout_seconds=timeout_seconds,
                clock=clock,
                max_response_bytes=max_response_bytes,
                key_place=key_place,
                no_key_because=no_key_because,
            )
        )

    def _connect(self, wire: Wire, features: _Features | None = None) -> None:
        self._wire = wire
        self._features = features or _Features()
        self.executors = Executors(wire)
        self.machines = Machines(wire)
        self.clusters = Clusters(wire)
        self.pods = Pods(wire)
        self.templates = Templates(wire)
        self.docker_credentials = DockerCredentials(wire)
        self.volumes = Volumes(wire)
        self.backup_schedules = BackupSchedules(wire)
        self.backups = Backups(wire)
        self.restores = Restores(wire)
        self.ssh_keys = SshKeys(wire)
        self.account = AccountCalls(wire)
        self.logins = Logins(wire)

    def for_key(
        self,
        api_key: str | None,
        key_place: str = "",
        no_key_because: str | None = None,
        permit: Permit | None = None,
    ) -> Self:
        """Return a client of another account over the same connections; closing this one closes both.

        `key_place` says where the key is from. Without a key the client reads only what is open to all; its refusals
        of anything else carry the hint `no_key_because`. `permit` is asked before each change.
        """
        # What the server can do does not depend on who asks.
        return self._over(self._wire.for_key(api_key, key_place, no_key_because, permit), self._features)

    @classmethod
    def _over(cls, wire: Wire, features: _Features) -> Self:
        self = cls.__new__(cls)
        self._connect(wire, features)
        return self

    def __repr__(self) -> str:
        return f"LiumClient(base_url={self._wire.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def check_api_key(self) -> None:
        """Do nothing where there is a key.

        Raises:
            MissingApiKey: there is none.
        """
        self._wire.check_api_key()

    @property
    def has_api_key(self) -> bool:
        """Whether a key is configured; without one only public routes work."""
        return self._wire.has_api_key

    @property
    def base_url(self) -> str:
        """The address requests go to."""
        return self._wire.base_url

    @property
    def timeout_seconds(self) -> float:
        """How long one attempt of a request may take."""
        return self._wire.timeout_seconds

    def keyed_digest(self, text: str) -> str:
        """As `Wire.keyed_digest`."""
        return self._wire.keyed_digest(text)

    async def aclose(self) -> None:
        """Close the connection pool; the client cannot be used afterwards."""
        await self._wire.aclose()

    def redact(self, text: str) -> str:
        """Return `text` without this client's credentials."""
        return self._wire.redact(text)

    @property
    def key_refused_at(self) -> datetime | None:
        """When Lium refused the key (401); None where its newest answer to it did not."""
        return self._wire.key_refused_at

    def now(self) -> datetime:
        """Return the API's idea of now, UTC: the local clock corrected by the newest answer."""
        return self._wire.now()

    async def version(self, *, repeat: Repeat = Repeat.ALWAYS) -> Version:
        """GET /version: the server's uptime and optional features; works without a key."""
        return (await self._wire.request("GET", "/version", needs_key=False, repeat=repeat)).model(Version)

    async def supports(self, feature: str, *, still: bool = False) -> bool:
        """Whether the server has an optional feature, such as `rent_by_spec`; `still` asks it again, a single time.

        Whoever asks over these connections, the answer is kept for some minutes. A server that cannot be asked counts
        as having none.
        """
        features = self._features
        if still or features.read_at is None or not timedelta() <= self.now() - features.read_at < _FEATURES_FOR:
            features.read_at = None
            try:
                version = await self.version(repeat=Repeat.NEVER if still else Repeat.ALWAYS)
            except LiumError:
                return False
            features.names, features.read_at = frozenset(version.features), self.now()
        return feature in features.names
