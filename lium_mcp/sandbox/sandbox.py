"""The sandbox itself: a world, its accounts, and the ASGI app in front of them."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from lium_mcp.sandbox import billing, control
from lium_mcp.sandbox.catalog import PUBLIC_TEMPLATES
from lium_mcp.sandbox.clock import Clock
from lium_mcp.sandbox.control import Control
from lium_mcp.sandbox.edge import PREFIX, Edge
from lium_mcp.sandbox.faults import Fault
from lium_mcp.sandbox.records import Account, ApiKey, Template
from lium_mcp.sandbox.seeded import identifier
from lium_mcp.sandbox.state import snapshot
from lium_mcp.sandbox.world import World

if TYPE_CHECKING:
    import httpx2

    from lium_mcp.sandbox.ssh import SshPods

API_KEY: Final = "sk_sandbox"
OTHER_API_KEY: Final = "sk_sandbox_other"
SESSION_TOKEN: Final = "sandbox-session"  # noqa: S105 - opens nothing but a simulation
FEATURES: Final = ("rent_by_spec", "run_record", "build_context", "rent_idempotency")
POD_POLLS_PER_MINUTE: Final = 60


class Sandbox:
    """A simulated Lium: no money, no network, no command ever run on this machine.

    With ``ssh`` running pods answer SSH, each on a port of 127.0.0.1, as long as the event loop runs that served the
    request which first showed them running.
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
    ) -> None:
        self.clock = Clock(start=start, speed=speed)
        self._world = World(seed, self.clock, frozenset(features), pod_polls_per_minute)
        balance = Decimal(str(balance_usd))
        _add_account(self._world, "Sandbox", API_KEY, SESSION_TOKEN, balance)
        _add_account(self._world, "Other", OTHER_API_KEY, f"{SESSION_TOKEN}-other", balance)
        _add_public_templates(self._world)
        billing.schedule(self._world)
        self._ssh = _answer_ssh(self._world) if ssh else None
        self._edge, self._control = Edge(self._world), Control(self._world)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app: the API under ``/api``, the control routes under ``/_sandbox``."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http":
            msg = "the sandbox speaks HTTP only"
            raise RuntimeError(msg)
        if path.startswith(f"{PREFIX}/"):
            await self._edge(scope, receive, send)
        elif path.startswith(f"{control.PREFIX}/"):
            await self._control(scope, receive, send)
        else:
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)

    def add_fault(self, kind: str, **options: object) -> None:
        """Arm a fault, as POST /_sandbox/faults does."""
        control.arm(self._world, Fault.model_validate({"kind": kind, **options}))

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._world.faults.clear()

    def state(self) -> dict[str, Any]:
        """Return everything, as GET /_sandbox/state does."""
        return snapshot(self._world)

    def close(self) -> None:
        """Let followed logs and slow answers end now, and SSH too, for a server that is about to stop."""
        self._world.is_closing = True
        if self._ssh is not None:
            self._ssh.close()

    async def aclose(self) -> None:
        """Close, and wait until what listened on this event loop has let go of its sockets."""
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


def _add_account(world: World, name: str, secret: str, session: str, balance: Decimal) -> None:
    account = Account(
        id=identifier(world.seed, "account", name),
        name=name,
        email=f"{name.lower()}@example.com",
        workspace_id=identifier(world.seed, "workspace", name),
        workspace_name="Personal",
        session_token=session,
        opening_balance=balance,
        balance=balance,
        created_at=world.now,
    )
    world.accounts[account.id] = account
    key = ApiKey(
        id=world.new_id("key"),
        account_id=account.id,
        name=f"{name.lower()}-key",
        secret=secret,
        scopes=("read", "rent", "manage"),
        visibility="account",
        created_at=world.now,
    )
    world.keys[key.id] = key


def _add_public_templates(world: World) -> None:
    for number, public in enumerate(PUBLIC_TEMPLATES):
        template_id = identifier("public-template", number)
        world.templates[template_id] = Template(
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
