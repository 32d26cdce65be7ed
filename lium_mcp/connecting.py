"""Makes of the settings what reaches Lium, the ledger and past prices; nothing is sent or opened yet."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from lium_mcp.api.addresses import check_base_url
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK, Clock
from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.network import Network
from lium_mcp.guard.redaction import Redactor
from lium_mcp.official_config import FoundKey
from lium_mcp.package_extras import lacks
from lium_mcp.rentals import LazyLedger
from lium_mcp.services.failure_words import GET_A_KEY, LOG_IN
from lium_mcp.services.prices.price_history import PriceHistory
from lium_mcp.settings import Settings
from lium_mcp.values import SettingsError

SANDBOX_BASE_URL: Final = "http://127.0.0.1/api"
_PRICE_FILE: Final = "price-history.db"
_POSTGRESQL: Final = ("postgresql://", "postgresql+psycopg://")
_FILE: Final = "sqlite:///rentals.db (from the working directory), sqlite:////srv/rentals.db (from the root)"


def connect(
    settings: Settings,
    *,
    key: FoundKey | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> LiumClient:
    """The API client that the settings describe, with this key in the place of theirs. Nothing is sent yet.

    Raises:
        SettingsError: a setting holds an address or a key that cannot be one.
    """
    base_url = settings.base_url
    if settings.sandbox and transport is None:
        from lium_mcp.sandbox import Sandbox  # noqa: PLC0415 - costs start-up time that nobody else should pay

        transport = Sandbox(seed=settings.sandbox_seed, speed=settings.sandbox_speed, ssh=True).transport()
        base_url = SANDBOX_BASE_URL
    if key is None:
        key = settings.find_key() if settings.is_local else FoundKey()
    return LiumClient(
        api_key=key.text,
        key_place=key.place,
        no_key_because=" ".join(filter(None, (key.missing_because, get_a_key(settings)))),
        base_url=base_url,
        timeout_seconds=settings.timeout_seconds,
        transport=transport,
        network=find_network(settings),
        clock=clock,
    )


def get_a_key(settings: Settings) -> str:
    """How whoever runs a server with these settings gives it a key."""
    return LOG_IN if settings.takes_saved_key else GET_A_KEY


def find_network(settings: Settings) -> Network:
    """The way to the API.

    Raises:
        SettingsError: a setting holds an address that cannot be one.
    """
    if settings.sandbox:
        return Network()
    try:
        check_base_url(settings.base_url)
    except InvalidRequest as error:
        raise SettingsError(f"LIUM_BASE_URL: {error}") from None
    return settings.find_network()


def open_ledger(settings: Settings) -> LazyLedger:
    """The ledger at the address that the settings name; it is not opened yet.

    Raises:
        SettingsError: no ledger can be at that address.
    """
    url = settings.find_state_url()
    if problem := _problem_of_file(url) if url.startswith("sqlite:") else _problem_of_postgresql(url):
        raise SettingsError(f"LIUM_MCP_STATE_URL: {problem}")
    return LazyLedger(url, Redactor(settings.find_secrets()))


def open_price_history(settings: Settings, market: str, clock: Clock) -> PriceHistory:
    """What is remembered of the market at a base address; nothing is opened yet."""
    folder = settings.find_state_directory()
    if folder is None:
        # A simulated market begins anew each time, and its time is its own.
        return PriceHistory(None, market, None)
    return PriceHistory(_price_file(settings, folder), market, clock)


def _price_file(settings: Settings, folder: Path) -> Path | None:
    """The file of past prices, beside a ledger that is a file; None where they are kept in memory, as the ledger is.

    Also where replicas share a database, which have no folder that outlives them.
    """
    url = settings.find_state_url()
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///")).parent / _PRICE_FILE
    return folder / _PRICE_FILE if settings.transport == "stdio" and url != "sqlite://" else None


def _problem_of_file(url: str) -> str:
    if url == "sqlite://":
        return ""  # in memory
    if not url.removeprefix("sqlite:///") or not url.startswith("sqlite:///"):
        return f"it names no file; three slashes stand before a path: {_FILE}"
    # Options could point SQLite at another file than the one that is looked for and made private.
    return "an address of SQLite is a path alone, without options" if "?" in url else ""


def _problem_of_postgresql(url: str) -> str:
    if not url.startswith(_POSTGRESQL):
        return f"it takes {_FILE} or postgresql://USER@HOST/DATABASE"
    if find_spec("psycopg") is None:
        return f"PostgreSQL needs a driver, {lacks('postgres')}"
    # Read in another way, a part of the password would be taken for the host, which errors name.
    return "" if _is_clear(url) else "this is no address; a password needs %40 for @, %2F for /, %3A for :"


def _is_clear(url: str) -> bool:
    try:
        address = urlsplit(url)
        return address.netloc.count("@") <= 1 and (address.port is None or address.port > 0)
    except ValueError:
        return False
