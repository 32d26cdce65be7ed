"""The composition root: settings in, a ready MCP server out. The only file that knows everybody."""

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import anyio
import httpx2
from mcp.server import CacheHint, MCPServer
from mcp.server.mcpserver import RequestStateSecurity
from mcp.server.mcpserver.tools import Tool as BoundTool

from lium_mcp import __version__
from lium_mcp.api.addresses import check_base_url
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK, Clock
from lium_mcp.api.errors import InvalidRequest, LiumError
from lium_mcp.api.network import Network
from lium_mcp.completions import add_completions
from lium_mcp.guard.confirm import STATE_SECONDS, OneTimeCodec, Person
from lium_mcp.guard.policy import Policy
from lium_mcp.guard.redaction import Redactor
from lium_mcp.instructions import instructions
from lium_mcp.official_config import FoundKey
from lium_mcp.prompts import add_prompts, read_arguments
from lium_mcp.remote import PodAccess
from lium_mcp.remote.key_source import KeySource
from lium_mcp.remote.local_files import LocalFolders
from lium_mcp.rentals import Claim, LazyLedger, LedgerUnavailable, Renter, Step, TaskKind, Worker
from lium_mcp.resources import add_resources
from lium_mcp.services.failure_words import GET_A_KEY, settings_wrong
from lium_mcp.services.orders.shared_market import SharedMarket
from lium_mcp.services.policy_view import Offered
from lium_mcp.services.polling import Poller, Stop
from lium_mcp.services.rents.readmission import Readmission
from lium_mcp.serving.callers import Accounts, bind_caller, caller_of_request
from lium_mcp.serving.hangup import end_with_caller
from lium_mcp.serving.lium_server import CLEAN_UP_SECONDS, LiumServer
from lium_mcp.serving.sessions import note_use
from lium_mcp.settings import Settings, registry_password
from lium_mcp.settings_reading import as_given, load_readable, problems_of
from lium_mcp.settings_table import TOOLSETS, Offer
from lium_mcp.toolkit.call import Runtime
from lium_mcp.toolkit.listing import ListedTool, read_listing
from lium_mcp.values import SettingsError

log = logging.getLogger(__name__)

SANDBOX_BASE_URL: Final = "http://127.0.0.1/api"
_STATE_SCHEMES: Final = ("sqlite:///", "sqlite://", "postgresql://", "postgresql+psycopg://")
# Start-up comes first: opening a database takes half as long again.
_FIRST_ATTENTION_SECONDS: Final = 2.0
_ATTENTION_SECONDS: Final = 15.0
# These tools may leave something to be done between calls.
_WORKING_ON: Final = frozenset({"start_job", "run_job", "rent_pod", "schedule_pod_removal"})
# What is offered follows from the settings, so it is the same for as long as the process lives.
_LISTS_HINT: Final = CacheHint(ttl_ms=3_600_000, scope="public")


def read_settings(overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Read the settings, and find all that is wrong with them: each alone, together, and on this machine.

    If anything is, the settings are good for `build_refusing_server` alone.
    """
    settings, problems = load_readable(overrides)
    # Limits that belong together can be judged together only where each could be read.
    together = [] if problems else [settings.find_limits]
    parts = (select_tools, _find_network, open_ledger)
    problems += problems_of(*(partial(part, settings) for part in parts), *together)
    return settings, as_given(dict.fromkeys(problems), overrides)


def build_refusing_server(settings: Settings, problems: Sequence[str]) -> LiumServer:
    """A server that lists its tools and says at each call which settings are wrong: hosts show nobody what it logs."""
    listing = read_listing()
    any_tool = settings.model_copy(update={"allow_tools": frozenset()})  # where it names none that there is
    listed = _offered(settings, listing) or _offered(any_tool, listing) or listing
    wrong = settings_wrong(problems)

    def refuse(_: str) -> NoReturn:
        raise settings_wrong(problems)

    presented = _presented({item.name for item in listed}, {})
    presented["instructions"] = f"{wrong.happened} {wrong.advice}\n{presented['instructions']}"
    return LiumServer(offered=listed, bind=refuse, stop=Stop(), log_level=settings.log_level, **presented)


def _presented(offered: Collection[str], limits: dict[str, object]) -> dict[str, str]:
    """What the handshake says of a server that offers these tools within these limits."""
    return {
        "name": "lium-mcp",
        "title": "Lium GPU pods",
        "version": __version__,
        "website_url": "https://lium.io",
        "instructions": instructions(frozenset(offered), limits),
    }


def build_server(
    settings: Settings, *, transport: httpx2.AsyncBaseTransport | None = None, clock: Clock = SYSTEM_CLOCK
) -> LiumServer:
    """Build the server that the settings describe. This needs neither a network nor a key.

    Args:
        settings: What to serve and for whom.
        transport: Replaces the network below the API client.
        clock: Replaces time for pauses and waits.

    Raises:
        SettingsError: a setting names a tool that does not exist, or holds an address or a key that cannot be one.
    """
    listed = select_tools(settings)
    offered = {item.name for item in listed}
    runtime, accounts = make_runtime(settings, offered, transport=transport, clock=clock)
    keeps_rents = settings.is_local and not settings.read_only and accounts.own.lium.has_api_key

    connections = 0

    @asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncIterator[None]:
        # Entered once per process over stdio and Streamable HTTP, but once per connection over SSE.
        nonlocal connections
        connections += 1
        try:
            worker = accounts.own.worker
            if connections == 1 and keeps_rents:
                runtime.background.start("rents", lambda: _attend_to_rents(accounts.own.renter))
            if connections == 1 and worker is not None:
                directory = settings.find_state_directory()
                runtime.background.start("tasks", lambda: _do_tasks(worker, runtime, offered, directory))
            yield
        finally:
            connections -= 1
            if not connections:
                # Shielded, since a cancelled server has to close both too.
                with anyio.move_on_after(CLEAN_UP_SECONDS, shield=True):
                    await runtime.background.aclose()
                    await accounts.aclose()

    server = LiumServer(
        offered=listed,
        bind=lambda name: _bind(name, runtime),
        stop=runtime.stop,
        **_presented(offered, {} if runtime.policy.shadow else runtime.policy.limits.in_force()),
        lifespan=lifespan,
        log_level=settings.log_level,
        subscriptions=False,
        request_state_security=RequestStateSecurity(
            codec=OneTimeCodec(), ttl=STATE_SECONDS, bind_principal=caller_of_request
        ),
        middleware=[end_with_caller, bind_caller, runtime.person.note, note_use, read_arguments],
        cache_hints={
            "tools/list": _LISTS_HINT,
            "prompts/list": _LISTS_HINT,
            "resources/list": _LISTS_HINT,
            "resources/templates/list": _LISTS_HINT,
        },
    )
    add_resources(server, runtime, offered_by(settings, len(listed)), offered)
    add_prompts(server, offered)
    add_completions(server, runtime, offered)
    return server


async def _attend_to_rents(renter: Renter) -> None:
    """Settle what an earlier process left, and set removal times that no call waited for."""
    await anyio.sleep(_FIRST_ATTENTION_SECONDS)
    while True:
        try:
            await renter.attend(in_background=True)
        except (LiumError, LedgerUnavailable) as error:
            log.warning("The rents of the ledger could not be attended to for now: %s", error)
        await anyio.sleep(_ATTENTION_SECONDS)


def _steps(runtime: Runtime, offered: Collection[str]) -> dict[TaskKind, Step]:
    """What this server does between calls, by the kind of task. Each imports its code when one of its kind is due."""

    def poller() -> Poller:
        return Poller(runtime.clock, runtime.stop, runtime.clock.monotonic())

    async def follow_job(claim: Claim) -> None:
        from lium_mcp.services.jobs.following import follow  # noqa: PLC0415 - as in _bind

        await follow(runtime.account(), poller(), claim)

    async def watch_idle(claim: Claim) -> None:
        from lium_mcp.services.jobs.idle_watch import watch_idle  # noqa: PLC0415 - as in _bind

        await watch_idle(runtime.account(), poller(), claim)

    async def do_run(claim: Claim) -> None:
        from lium_mcp.services.jobs.run_endings import do_run  # noqa: PLC0415 - as in _bind

        account = runtime.account()
        await do_run(account, runtime.policy, poller(), claim, lambda text: runtime.redact(account.lium.redact(text)))

    market = SharedMarket()

    async def carry_order_out(claim: Claim) -> None:
        from lium_mcp.services.orders.order_firing import carry_out  # noqa: PLC0415 - as in _bind

        await carry_out(runtime.account(), runtime.policy, runtime.confirm, market, claim)

    steps: dict[TaskKind, Step] = {}
    if runtime.account().pod_access is not None:
        steps |= {"follow_up": follow_job, "idle_watch": watch_idle}
    if runtime.account().pod_access is not None and "run_job" in offered:
        steps["job_run"] = do_run
    if "rent_pod" in offered:
        steps["standing_order"] = carry_order_out
    return steps


async def _do_tasks(worker: Worker, runtime: Runtime, offered: Collection[str], state_directory: Path | None) -> None:
    """Run the tasks of the ledger as they fall due; send nothing while there are none."""
    for kind, step in _steps(runtime, offered).items():
        worker.on(kind, step)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        files = state_directory / "follow-ups" if state_directory is not None else None
        if files is not None and await anyio.to_thread.run_sync(files.is_dir):
            from lium_mcp.services.jobs.follow_ups import take_up_files  # noqa: PLC0415 - as in _bind

            await take_up_files(runtime.account(), worker, files)


def _bind(name: str, runtime: Runtime) -> BoundTool:
    from lium_mcp.toolkit.registry import bind  # noqa: PLC0415 - start-up should not pay for what nobody calls
    from lium_mcp.tools.catalog import find_spec  # noqa: PLC0415 - as above

    return bind(find_spec(name), runtime)


def make_runtime(
    settings: Settings,
    offered: Collection[str],
    *,
    transport: httpx2.AsyncBaseTransport | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[Runtime, Accounts]:
    """What calls share, and the accounts that they act for. Nothing is opened or sent yet.

    Raises:
        SettingsError: a setting cannot be used.
    """
    lium = connect(settings, transport=transport, clock=clock)
    is_local = settings.is_local
    limits, mode = settings.find_limits()
    keys = _ssh_keys(settings) if is_local else None
    policy, person = Policy(limits, shadow=mode == "shadow"), Person(settings.confirm)
    accounts = Accounts(
        lium,
        clock,
        keys,
        settings.find_api_key() if is_local else None,
        open_ledger(settings),
        Readmission(policy, offered, person.is_asked).judge,
        registry_password if is_local else None,
        _pod_access(settings, offered, keys, lium) if keys else None,
        works=is_local and not _WORKING_ON.isdisjoint(offered),
    )
    runtime = Runtime(
        account=accounts.current,
        clock=clock,
        policy=policy,
        confirm=settings.confirm,
        person=person,
        read_only=settings.read_only,
        redact=Redactor(settings.find_secrets()),
    )
    return runtime, accounts


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
        no_key_because=f"{key.missing_because} {GET_A_KEY}" if key.missing_because else None,
        base_url=base_url,
        timeout_seconds=settings.timeout_seconds,
        transport=transport,
        network=_find_network(settings),
        clock=clock,
    )


def _find_network(settings: Settings) -> Network:
    if settings.sandbox:
        return Network()
    try:
        check_base_url(settings.base_url)
    except InvalidRequest as error:
        raise SettingsError(f"LIUM_BASE_URL: {error}") from None
    return settings.find_network()


def _ssh_keys(settings: Settings) -> KeySource:
    passphrase = settings.ssh_key_passphrase
    return KeySource(
        settings.find_ssh_key_path,
        passphrase.get_secret_value() if passphrase else None,
        str(settings.ssh_agent) if settings.ssh_agent else None,
    )


def _pod_access(settings: Settings, offered: Collection[str], keys: KeySource, lium: LiumClient) -> PodAccess | None:
    """How to work on pods with this machine's SSH key, if the settings offer that."""
    if not {"run_command", "start_job", "run_job", "get_job", "upload_files", "download_files"} & set(offered):
        return None
    return PodAccess(
        keys,
        settings.find_state_directory(),
        LocalFolders(settings.find_local_dirs()),
        lium,
    )


def open_ledger(settings: Settings) -> LazyLedger:
    """The ledger at the address that the settings name; it is not opened yet.

    Raises:
        SettingsError: no ledger can be at that address.
    """
    url = settings.find_state_url()
    if not url.startswith(_STATE_SCHEMES):
        raise SettingsError("LIUM_MCP_STATE_URL: an address that starts with sqlite:/// or postgresql:// is needed")
    if url.startswith("sqlite:") and "?" in url:
        # Options could point SQLite at another file than the one that is looked for and made private.
        raise SettingsError("LIUM_MCP_STATE_URL: an address of SQLite is a path alone, without options")
    if url.startswith("postgresql:") and find_spec("psycopg") is None:
        raise SettingsError("LIUM_MCP_STATE_URL: PostgreSQL needs a driver: install lium-mcp[postgres]")
    if not _is_clear(url):
        # Read in another way, a part of the password would be taken for the host, which errors name.
        raise SettingsError("LIUM_MCP_STATE_URL: this is no address; a password needs %40 for @, %2F for /, %3A for :")
    return LazyLedger(url, Redactor(settings.find_secrets()))


def _is_clear(url: str) -> bool:
    try:
        address = urlsplit(url)
        return address.netloc.count("@") <= 1 and (address.port is None or address.port > 0)
    except ValueError:
        return False


def offered_by(settings: Settings, tool_count: int) -> Offered:
    """What the settings offer, as the policy view shows it."""
    return Offered(
        read_only=settings.read_only,
        toolsets=[name for name in TOOLSETS if name in settings.toolsets],
        allow_tools=sorted(settings.allow_tools) or None,
        deny_tools=sorted(settings.deny_tools) or None,
        tool_count=tool_count,
    )


def select_tools(settings: Settings) -> list[ListedTool]:
    """The tools that the settings offer, in listing order; read-only wins over every other choice.

    Raises:
        SettingsError: an allow or deny list names a tool that does not exist.
    """
    listing = read_listing()
    known = {item.name for item in listing}
    for setting, names in (("ALLOW_TOOLS", settings.allow_tools), ("DENY_TOOLS", settings.deny_tools)):
        if unknown := sorted(names - known):
            raise SettingsError(f"LIUM_MCP_{setting}: there is no tool named {', '.join(unknown)}")
    return _offered(settings, listing)


def _offered(settings: Settings, listing: Sequence[ListedTool]) -> list[ListedTool]:
    offer = Offer(
        toolsets=frozenset(settings.toolsets),
        allow_tools=settings.allow_tools,
        deny_tools=settings.deny_tools,
        read_only=settings.read_only,
    )
    return [item for item in listing if offer.has(item.name, item.toolset, reads_only=item.read_only)]
