"""The composition root: settings in, a ready MCP server out. The only file that knows everybody."""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

import anyio
import httpx2
from mcp.server import CacheHint, MCPServer
from mcp.server.mcpserver import RequestStateSecurity
from mcp.server.mcpserver.tools import Tool as BoundTool

from lium_mcp import __version__
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK, Clock
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.paging import Rows
from lium_mcp.between_calls import prepare_work
from lium_mcp.completions import add_completions
from lium_mcp.connecting import connect, find_network, open_ledger, open_price_history
from lium_mcp.guard.confirm import STATE_SECONDS, Person, QuestionSeals
from lium_mcp.guard.limits import Limits
from lium_mcp.guard.policy import Policy
from lium_mcp.guard.redaction import Redactor
from lium_mcp.instructions import instructions
from lium_mcp.official_config import FoundKey
from lium_mcp.prompts import add_prompts, read_arguments
from lium_mcp.remote import PodAccess
from lium_mcp.remote.key_source import KeySource
from lium_mcp.remote.local_files import LocalFolders
from lium_mcp.resources import add_resources
from lium_mcp.saved_key import save_key
from lium_mcp.services.failure_words import settings_wrong
from lium_mcp.services.policy_view import Offered
from lium_mcp.services.polling import Stop
from lium_mcp.services.rents.readmission import Readmission
from lium_mcp.serving.audit_trail import check_trail
from lium_mcp.serving.callers import Accounts, Callers, bind_caller
from lium_mcp.serving.hangup import end_with_caller
from lium_mcp.serving.lium_server import CLEAN_UP_SECONDS, LiumServer
from lium_mcp.serving.login_offers import LoginOffers
from lium_mcp.serving.page_offer import offer_page
from lium_mcp.serving.person_answers import Answers, account_of_request
from lium_mcp.serving.sessions import note_use
from lium_mcp.settings import Settings, registry_password
from lium_mcp.settings_reading import are_about, as_given, load_readable, problems_of
from lium_mcp.settings_table import SETTINGS, TOOLSETS, Offer
from lium_mcp.toolkit.call import Runtime
from lium_mcp.toolkit.listing import ListedTool, read_listing
from lium_mcp.values import SettingsError

if TYPE_CHECKING:
    from lium_mcp.serving.oauth.desk import LoginDesk

log = logging.getLogger(__name__)

_OF_LIMITS: Final = (*Limits.model_fields, "policy", "policy_mode")
_OF_LOGIN: Final = (
    *(name for name in SETTINGS if name.startswith("oauth")),
    *("transport", "public_url", "path_prefix", "allowed_host", "host", "sandbox", "base_url", "state_url"),
)
# These tools may leave something to be done between calls.
_WORKING_ON: Final = frozenset({"start_job", "run_job", "rent_pod", "schedule_pod_removal"})
# What is offered follows from the settings, so it is the same for as long as the process lives.
_LISTS_HINT: Final = CacheHint(ttl_ms=3_600_000, scope="public")
# But tools tell of the page to hosts alone that show it.
_TOOLS_HINT: Final = CacheHint(ttl_ms=3_600_000, scope="private")


def read_settings(overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Read the settings, and find all that is wrong with them: each alone, together, and on this machine.

    If anything is, the settings are good for `build_refusing_server` alone.
    """
    settings, problems = load_readable(overrides)
    # What belongs together can be judged together only where each could be read.
    together = [
        part
        for part, names in ((Settings.find_limits, _OF_LIMITS), (find_login_desk, _OF_LOGIN))
        if not are_about(problems, names)
    ]
    parts = (select_tools, find_network, open_ledger, *together)
    trail = partial(check_trail, settings.audit_file)
    problems += problems_of(*(partial(part, settings) for part in parts), trail)
    return settings, as_given(dict.fromkeys(problems), overrides)


def build_refusing_server(settings: Settings, problems: Sequence[str]) -> LiumServer:
    """A server that lists its tools and says at each call which settings are wrong: hosts show nobody what it logs."""
    listing = read_listing()
    any_tool = settings.model_copy(update={"allow_tools": frozenset()})  # where it names none that there is
    listed = _offered(settings, listing) or _offered(any_tool, listing) or listing
    wrong = settings_wrong(problems)

    def refuse(_: str) -> NoReturn:
        raise settings_wrong(problems)

    async def act_for_nobody() -> None:
        return None

    presented = _presented({item.name for item in listed}, {})
    presented["instructions"] = f"{wrong.happened} {wrong.advice}\n{presented['instructions']}"
    return LiumServer(
        offered=listed,
        bind=refuse,
        stop=Stop(),
        answers=Answers(act_for_nobody),
        log_level=settings.log_level,
        **presented,
    )


def _presented(offered: Collection[str], limits: dict[str, object]) -> dict[str, Any]:
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

    begin_work = prepare_work(settings, runtime, accounts, offered)
    logins = _make_logins(settings, runtime, accounts, begin_work)
    state_keys = settings.find_state_keys()
    connections = 0

    @asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncIterator[None]:
        # Entered once per process over stdio and Streamable HTTP, but once per connection over SSE.
        nonlocal connections
        connections += 1
        try:
            if connections == 1:
                begin_work()
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
        answers=Answers(accounts.learn_account, accounts.notes if state_keys else None),
        first=[bind_caller],
        logins=logins,
        check=accounts.refuse_unreachable,
        **_presented(offered, {} if runtime.policy.shadow else runtime.policy.limits.in_force()),
        lifespan=lifespan,
        log_level=settings.log_level,
        subscriptions=False,
        request_state_security=RequestStateSecurity(
            codec=QuestionSeals(state_keys), ttl=STATE_SECONDS, bind_principal=account_of_request
        ),
        middleware=[
            end_with_caller,
            *([logins.look_first] if logins else []),
            runtime.person.note,
            note_use,
            read_arguments,
            offer_page,
        ],
        cache_hints={
            "tools/list": _TOOLS_HINT,
            "prompts/list": _LISTS_HINT,
            "resources/list": _LISTS_HINT,
            "resources/templates/list": _LISTS_HINT,
        },
    )
    add_resources(server, runtime, offered_by(settings, len(listed)), offered)
    add_prompts(server, offered)
    add_completions(server, runtime, offered)
    return server


def _make_logins(
    settings: Settings, runtime: Runtime, accounts: Accounts, begin_work: Callable[[], None]
) -> LoginOffers | None:
    """How this server comes to a key, if it has none and may look for one."""
    own = accounts.own.lium
    if own.has_api_key or not settings.takes_saved_key:
        return None

    def act_with(found: FoundKey) -> bool:
        if found.text is not None:
            accounts.adopt(found.text, found.place)
            begin_work()
        return accounts.own.lium.has_api_key

    def find() -> bool:
        return accounts.own.lium.has_api_key or act_with(settings.find_key_now())

    def keep(key: str) -> None:
        try:
            save_key(key, replaces=None)
        except SettingsError as error:
            log.warning("The key of the login holds until this server ends, since it was not saved: %s", error)
        if not find():
            act_with(FoundKey(key, "the login in the browser"))

    return LoginOffers(own, runtime.clock, runtime.stop, find=find, keep=keep)


def find_login_desk(settings: Settings) -> "Callable[[Callers], LoginDesk] | None":
    """What makes of the settings how callers over HTTP log in; None where they send keys alone.

    Raises:
        SettingsError: a setting cannot be used.
    """
    oauth = settings.find_oauth()
    if oauth is None:
        return None
    # Others should not pay for it.
    from lium_mcp.serving.oauth.desk import open_issuer_desk, open_lium_desk  # noqa: PLC0415
    from lium_mcp.serving.oauth.issued_tokens import find_hook  # noqa: PLC0415

    if oauth.issuer is not None:
        return partial(open_issuer_desk, oauth, oauth.issuer, find_hook(oauth.hook))

    def open_at_lium(callers: Callers) -> "LoginDesk":
        return open_lium_desk(oauth, connect(settings, key=FoundKey()), open_ledger(settings), callers)

    return open_at_lium


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
    policy, person = Policy(limits, shadow=mode == "shadow"), Person(settings.asks)
    accounts = Accounts(
        lium,
        clock,
        keys,
        settings.find_api_key() if is_local else None,
        open_ledger(settings),
        Readmission(policy, offered, person.is_asked).judge,
        registry_password if is_local else None,
        lambda acting: _pod_access(settings, offered, keys, acting) if keys else None,
        works=is_local and not _WORKING_ON.isdisjoint(offered),
        no_orders_because=_why_no_orders(settings, offered),
    )
    runtime = Runtime(
        account=accounts.current,
        clock=clock,
        policy=policy,
        confirm=settings.asks,
        person=person,
        prices=open_price_history(settings, lium.base_url, clock),
        read_only=settings.read_only,
        redact=Redactor(settings.find_secrets()),
    )
    lium.executors.hear_market(partial(_remember_prices, runtime))
    return runtime, accounts


def _why_no_orders(settings: Settings, offered: Collection[str]) -> str | None:
    """Why a server with these settings carries out no standing orders; None where it does."""
    if "rent_pod" in offered:
        return None
    if settings.read_only:
        return "it only reads (LIUM_MCP_READ_ONLY)"
    return "rent_pod is none of its tools (LIUM_MCP_TOOLSETS, LIUM_MCP_ALLOW_TOOLS, LIUM_MCP_DENY_TOOLS)"


def _remember_prices(runtime: Runtime, nodes: Rows[Executor], at: datetime) -> None:
    """Keep a sample of the market that was just read, if one is due; whoever reads it does not wait."""
    if (keep := runtime.prices.due(nodes, at)) is not None:
        runtime.background.start("prices", keep)


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


def offered_by(settings: Settings, tool_count: int) -> Offered:
    """What the settings offer, as the policy view shows it."""
    return Offered(
        sandbox=settings.sandbox,
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
