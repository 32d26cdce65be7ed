"""The sandbox itself: a world, its accounts, and the ASGI app in front of them."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import JsonValue
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import Receive, Scope, Send

from lium_mcp.sandbox import billing, control, rough
from lium_mcp.sandbox.control import Control
from lium_mcp.sandbox.edge import PREFIX, Edge
from lium_mcp.sandbox.faults import Fault
from lium_mcp.sandbox.login_page import LoginPage
from lium_mcp.sandbox.market_data import PUBLIC_TEMPLATES
from lium_mcp.sandbox.records import StoredAccount, StoredApiKey, StoredTemplate, Visibility
from lium_mcp.sandbox.routes.logins import PAGE_PREFIX
from lium_mcp.sandbox.seeded import identifier
from lium_mcp.sandbox.simulated_clock import SimulatedClock
from lium_mcp.sandbox.state import snapshot
from lium_mcp.sandbox.world import World

if TYPE_CHECKING:
    import httpx2

    from lium_mcp.sandbox.ssh import SshPods

API_KEY: Final = "sk_sandbox"
OTHER_API_KEY: Final = "sk_sandbox_other"
# The rough profile adds a key of the first account that sees only its own pods, and a key of another workspace.
OWN_API_KEY: Final = "sk_sandbox_own"
TEAM_API_KEY: Final = "sk_sandbox_team"
SESSION_TOKEN: Final = "sandbox-session"  # noqa: S105 - opens nothing but a simulation
FEATURES: Final = ("rent_by_spec", "run_record", "build_context", "rent_idempotency")
POD_POLLS_PER_MINUTE: Final = 60

# At the real address, too, what is not below the API's path is a web page.
NO_API: Final = "<!DOCTYPE html><title>Not here</title><p>The API of this sandbox is below /api.</p>"


class Sandbox:
    """A simulated Lium: no money, no network, no command ever run on this machine.

    With ``ssh``, running pods answer SSH, each on a port of 127.0.0.1. Such a port stays open as long as the event loop
    that served the request which first showed the pod running.

    The ``rough`` profile answers as real servers do on a bad day, until its faults are cleared: see `rough.py`.
    ``lookalikes`` adds GPU types whose names are like those of others; the rough market always has them. Ids are
    counted from ``ids_from``: a sandbox that takes the place of another has to name its things otherwise.

    Attributes:
        home: The page that a browser is sent to which asks for ``/``, if there is one.
    """

    def __init__(
        self,
        seed: int = 7,
        speed: float = 1.0,
        *,
        balance_usd: float = 100.0,
        features: Iterable[str] = FEATURES,
        start: datetime | None = None,
        pod_polls_per_minute: int = POD_POLLS_PER_MINUTE,
        ssh: bool = False,
        profile: Literal["plain", "rough"] = "plain",
        lookalikes: bool = False,
        ids_from: int = 0,
    ) -> None:
        self.clock = SimulatedClock(start=start, speed=speed)
        is_rough = profile == "rough"
        self._world = World(
            seed, self.clock, frozenset(features), pod_polls_per_minute, is_rough, lookalikes or is_rough, ids_from
        )
        self._balance = Decimal(str(balance_usd))
        _add_account(self._world, "Sandbox", SESSION_TOKEN, self._balance)
        self.add_key(API_KEY)
        _add_account(self._world, "Other", f"{SESSION_TOKEN}-other", self._balance)
        self.add_key(OTHER_API_KEY, account="Other")
        if is_rough:
            self.add_key(OWN_API_KEY, pod_visibility="own")
            self.add_key(TEAM_API_KEY, workspace="Team")
            for fault in rough.standing_faults():
                control.arm(self._world, fault)
        _add_public_templates(self._world)
        billing.schedule(self._world)
        self._ssh = _answer_ssh(self._world) if ssh else None
        self._edge, self._control = Edge(self._world), Control(self._world)
        self._login_page = LoginPage(self._world)
        self.home = ""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app: the API under ``/api``, the page of logins, the control routes under ``/_sandbox``."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http":
            msg = "the sandbox speaks HTTP only"
            raise RuntimeError(msg)
        if path.startswith(f"{PREFIX}/"):
            await self._edge(scope, receive, send)
        elif path == control.PREFIX or path.startswith(f"{control.PREFIX}/"):
            await self._control(scope, receive, send)
        elif path.startswith(f"{PAGE_PREFIX}/"):
            await self._login_page(scope, receive, send)
        elif path == "/" and self.home:
            # A browser takes along what it has in its address behind the #.
            await RedirectResponse(self.home, 307, {"Cache-Control": "no-store"})(scope, receive, send)
        else:
            await HTMLResponse(NO_API, 404)(scope, receive, send)

    def add_fault(self, kind: str, **options: object) -> None:
        """Arm a fault, as POST /_sandbox/faults does."""
        control.arm(self._world, Fault.model_validate({"kind": kind, **options}))

    def clear_faults(self) -> None:
        """Disarm every fault; what a slow one holds up goes on, and the rough profile draws no more of them."""
        self._world.calm()

    def add_key(
        self,
        secret: str,
        *,
        account: str = "Sandbox",
        workspace: str = "Personal",
        pod_visibility: Visibility = "account",
        scopes: tuple[str, ...] = ("read", "rent", "manage"),
    ) -> None:
        """Give a customer a key. The first one's name comes from the customer, that of any other from its secret.

        Args:
            secret: The key itself.
            account: The customer: `Sandbox` and `Other` are there, any other name makes a new one.
            workspace: In which of the customer's workspaces it acts: pods and money are each workspace's own.
            pod_visibility: Whether it sees all pods of the workspace, or its own only.
            scopes: What it may do.
        """
        world = self._world
        owner = next(
            (each for each in world.accounts.values() if (each.name, each.workspace_name) == (account, workspace)), None
        )
        if owner is None:
            owner = _add_account(world, account, f"{SESSION_TOKEN}-{secret}", self._balance, workspace)
        is_first = all(key.account_id != owner.id for key in world.keys.values())
        key = StoredApiKey(
            id=world.new_id("key"),
            account_id=owner.id,
            name=f"{account.lower()}-key" if is_first and workspace == "Personal" else secret.removeprefix("sk_"),
            secret=secret,
            scopes=scopes,
            visibility=pod_visibility,
            created_at=world.now,
        )
        world.keys[key.id] = key

    def state(self, *parts: str) -> dict[str, Any]:
        """Return everything, as GET /_sandbox/state does, or the named parts of it, which takes less time.

        Raises:
            KeyError: there is no such part.
        """
        return snapshot(self._world, *parts)

    def close(self) -> None:
        """End followed logs, slow answers and SSH now, since the server is about to stop."""
        self._world.is_closing = True
        if self._ssh is not None:
            self._ssh.close()

    async def aclose(self) -> None:
        """Close, and wait until what listened on this event loop has closed its sockets."""
        self.close()
        if self._ssh is not None:
            await self._ssh.wait_closed()

    def transport(self) -> "httpx2.AsyncBaseTransport":
        """Return a transport for in-process clients, on which a dropped connection looks like one."""
        # Imported here: only in-process callers need an HTTP client.
        from lium_mcp.sandbox.transport import InProcessTransport  # noqa: PLC0415

        return InProcessTransport(self.app)


def _answer_ssh(world: World) -> "SshPods":
    # Imported here: most sandboxes go without.
    from lium_mcp.sandbox.ssh import SshPods  # noqa: PLC0415

    return SshPods(world)


def _add_account(world: World, name: str, session: str, balance: Decimal, workspace: str = "Personal") -> StoredAccount:
    place = (name,) if workspace == "Personal" else (name, workspace)
    account = StoredAccount(
        id=identifier(world.seed, "account", *place),
        user_id=identifier(world.seed, "account", name),
        name=name,
        email=f"{name.lower()}@example.com",
        workspace_id=identifier(world.seed, "workspace", *place),
        workspace_name=workspace,
        session_token=session,
        opening_balance=balance,
        balance=balance,
        created_at=world.now,
    )
    world.accounts[account.id] = account
    return account


def _add_public_templates(world: World) -> None:
    for number, public in enumerate(PUBLIC_TEMPLATES):
        template_id = identifier("public-template", number)
        world.templates[template_id] = StoredTemplate(
            id=template_id,
            user_id=public.owner_id,
            created_at=world.now,
            status="VERIFY_SUCCESS",
            size_bytes=public.size_bytes,
            supports_encryption=public.encryption,
            supports_docker=public.docker,
            body={
                "name": public.name,
                "description": public.name,
                "docker_image": public.image,
                "docker_image_tag": public.tag,
                "docker_image_digest": "",
                "category": public.category,
                "internal_ports": list[JsonValue](public.ports),
                "startup_commands": public.startup_commands,
                "container_start_immediately": True,
                "entrypoint": "",
                "environment": dict[str, JsonValue](public.environment),
                "volumes": list[JsonValue](public.volumes),
                "is_private": False,
                "readme": public.name,
                "one_time_template": False,
                "is_temporary": False,
                "docker_credential_id": None,
            },
        )
