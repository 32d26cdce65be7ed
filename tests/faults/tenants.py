"""Accounts that share servers and must not meet: their keys, what each of them has, and all that each is told.

Whatever a caller is sent, in whichever answer, header or stream, goes through `Tenancy.hear`, which looks for what only
others may know: what they put into their pods' logs, templates and volumes, the ids and names of all they have, their
keys, sessions and open questions. What each has by the answers that it got is noted, to be held against the sandbox's
own record.
"""

import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import httpx2
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.compat.simulated import Simulated
from tests.faults.tenant_records import KINDS, Belongings
from tests.http_server import MODERN_VERSION, Served, envelope
from tests.wires import Row, ask, make_template, rent

HOUSE_KEY: Final = "sk_the_house_itself_0000000000"
HOUSE_TOKEN: Final = "the-token-of-the-house-that-a-test-made-4711"
SPEED: Final = 30.0
_LONGEST_SECONDS: Final = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Tenant:
    """A caller: whose account it acts for, if for one, and what it shows for that."""

    name: str
    account: str
    headers: dict[str, str]
    changes: bool = True
    sees_all: bool = True


@dataclass(frozen=True)
class Heard:
    """What came back for one request: its status, and the message that answers it; None where its caller left."""

    status: int
    message: Row | None

    @property
    def result(self) -> Row:
        """The result, or nothing where it is an error."""
        return dict((self.message or {}).get("result") or {})

    @property
    def content(self) -> Row:
        """What a tool that succeeded has answered."""
        return dict(self.result.get("structuredContent") or {}) if self.is_done else {}

    @property
    def is_done(self) -> bool:
        """Whether it succeeded; a question is no success."""
        is_result = bool(self.result) and self.result.get("resultType", "complete") == "complete"
        return is_result and not self.result.get("isError", False)


class Tenancy:
    """Some accounts of a fresh sandbox, and the servers through which they are reached."""

    def __init__(self, lium: Simulated, servers: Sequence[Served], *, has_house: bool) -> None:
        number = next(_numbers)
        # Each later than the last: servers that live on take the pods of the last for gone.
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=number)
        lium.begin(start=start, pod_polls_per_minute=10**6)
        self.lium, self.servers = lium, servers
        self.marker = f"t{number:05d}"
        self.told = Counter[str]()
        self.leaks: list[str] = []
        self._serial = itertools.count()
        sandbox = lium.playing
        keys: dict[str, tuple[str, Row]] = {
            "ada": ("Ada", {}),
            "ada too": ("Ada", {}),
            "ada reads": ("Ada", {"scopes": ("read",)}),
            "ada own": ("Ada", {"pod_visibility": "own"}),
            "bob": ("Bob", {}),
            "eve": ("Eve", {}),
        }
        self.tenants: dict[str, Tenant] = {"nobody": Tenant("nobody", "", {}, changes=False)}
        self.secrets: dict[str, str] = {}
        for name, (account, options) in keys.items():
            self.add_key(name, account, **options)
        if has_house:
            sandbox.add_key(HOUSE_KEY, account="House")
            self.tenants["house"] = Tenant("house", "House", {"X-Lium-MCP-Token": HOUSE_TOKEN})
            self.secrets["house"] = HOUSE_KEY
        self.has: dict[str, Belongings] = {tenant.account: Belongings() for tenant in self.tenants.values()}
        for order, account in enumerate(sorted(filter(None, self.has)), 1):
            record = self.record_of(account)
            record.balance = record.opening_balance = record.balance * 0 + 1000 * order

    def add_key(self, name: str, account: str, **options: Any) -> Tenant:
        """Give an account one more caller."""
        secret = self.secrets[name] = f"sk_{self.marker}_{name.replace(' ', '_').lower()}_{'0' * 12}"
        place = account if account == "House" else f"{account}-{self.marker}"
        self.lium.playing.add_key(secret, account=place, **options)
        may_change, sees_all = "scopes" not in options, "pod_visibility" not in options
        self.tenants[name] = Tenant(name, account, {"X-API-Key": secret}, may_change, sees_all)
        return self.tenants[name]

    def record_of(self, account: str) -> Any:
        """The sandbox's own record of an account."""
        name = account if account == "House" else f"{account}-{self.marker}"
        return next(each for each in self.lium.playing._world.accounts.values() if each.name == name)

    def opening_usd(self, account: str) -> float:
        """With how much an account began; each with much less or more than the others."""
        return float(self.record_of(account).opening_balance)

    async def furnish(self) -> None:
        """Give each account a key for its pods, a template, a volume, a running pod and a backup, past our servers."""
        sandbox = self.lium.playing
        for name in ("ada", "bob", "eve", "house"):
            if name not in self.tenants:
                continue
            tenant, key = self.tenants[name], {"X-API-KEY": self.secrets[name]}
            has = self.has[tenant.account]
            body = {"name": self.make_name(tenant, "key"), "public_key": public_key()}
            has.things["key"][(await ask(sandbox, "POST", "/ssh-keys", body, **key))["id"]] = body["name"]
            template_name = self.make_name(tenant, "template")
            fields = {
                "description": self.canary(tenant),
                "startup_commands": f"echo {self.canary(tenant)}",
                "environment": {"TOKEN": self.canary(tenant, hidden=True)},
            }
            template = await make_template(sandbox, template_name, key=self.secrets[name], **fields)
            has.things["template"][template] = template_name
            volume = {"name": self.make_name(tenant, "volume"), "description": self.canary(tenant)}
            has.things["volume"][(await ask(sandbox, "POST", "/volumes", volume, **key))["id"]] = volume["name"]
            pod_name = self.make_name(tenant, "pod")
            pod = await rent(
                sandbox, pod_name, key=self.secrets[name], template_id=template, user_public_key=[public_key()]
            )
            has.things["pod"][pod], has.rented_by[pod] = pod_name, name
        self.lium.run_at(SPEED)

    def make_name(self, tenant: Tenant, kind: str) -> str:
        """A name that only its account may hear."""
        return f"{kind}-{self.canary(tenant)}"

    def canary(self, tenant: Tenant, *, hidden: bool = False) -> str:
        """A word that only one account may hear; a hidden one nobody."""
        account = "" if hidden else tenant.account
        word = f"zq{self.marker}{tenant.account.lower()}{'h' if hidden else 'c'}{next(self._serial):03d}zq"
        self.has[account].canaries.add(word)
        return word

    # What callers say and hear.

    def hear(self, tenant: Tenant, sent: str, told: str) -> None:
        """Look through what a caller was told, but for what it has said itself."""
        self.told[tenant.name] += 1
        for account, has in self.has.items():
            if account == tenant.account != "":
                continue
            ids = (id_ for kind in KINDS for id_ in (*has.things[kind], *has.gone[kind]))
            for word in itertools.chain(has.canaries, ids):
                if word in told and word not in sent:
                    where = told.index(word)
                    self.leaks.append(
                        f"{tenant.name} heard {word} of {account or 'all'}: {told[max(0, where - 300) : where + 100]}"
                    )
        for name, secret in self.secrets.items():
            if secret in told:
                self.leaks.append(f"{tenant.name} was told the key of {name}")

    async def send(
        self,
        tenant: Tenant,
        server: Served,
        method: str,
        params: Row,
        *,
        asks: bool = False,
        leave_after: float | None = None,
        query: str = "",
    ) -> Heard:
        """Send a request of the current protocol, and leave before its answer if so told."""
        meta = envelope() | {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}} if asks else {}}
        body = {
            "jsonrpc": "2.0", "id": 2, "method": method, "params": params | {"_meta": meta | {"progressToken": "p"}},
        }  # fmt: skip
        name = params.get("name") or params.get("uri") or ""
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN_VERSION,
            "Mcp-Method": method,
            **({"Mcp-Name": name} if name and method in ("tools/call", "resources/read", "prompts/get") else {}),
        }
        sent = json.dumps(params)
        pieces: list[str] = []
        status = 0
        try:
            with anyio.move_on_after(leave_after if leave_after is not None else _LONGEST_SECONDS) as limit:
                async with (
                    self.http(tenant, server) as http,
                    http.stream("POST", f"/mcp{query}", json=body, headers=headers) as answer,
                ):
                    status = answer.status_code
                    pieces.append(str(answer.headers))
                    async for piece in answer.aiter_text():
                        pieces.append(piece)  # noqa: PERF401 - what has come is heard, however it ends
        finally:
            told = "".join(pieces)
            self.hear(tenant, sent, told)
        assert leave_after is not None or not limit.cancelled_caught, f"{method} of {tenant.name} was stuck: {params}"
        if limit.cancelled_caught:
            return Heard(status, None)
        lines = [line.removeprefix("data: ") for line in "".join(pieces[1:]).splitlines()]
        messages = [json.loads(line) for line in lines if line.startswith("{")]
        found = [message for message in messages if message.get("id") in (2, None) and "method" not in message]
        assert len(found) == 1, told
        return Heard(status, found[0])

    async def call(self, tenant: Tenant, server: Served, tool: str, arguments: Row, **options: Any) -> Heard:
        """Call a tool; `options` are those of `send`, and parameters of the call beside its arguments."""
        more = {name: options.pop(name) for name in ("inputResponses", "requestState") if name in options}
        heard = await self.send(tenant, server, "tools/call", {"name": tool, "arguments": arguments} | more, **options)
        assert "internal_error" not in json.dumps(heard.message), heard.message
        return heard

    @asynccontextmanager
    async def http(self, tenant: Tenant, server: Served) -> AsyncIterator[httpx2.AsyncClient]:
        """A connection of a caller to a server."""
        async with httpx2.AsyncClient(
            base_url=server.url, headers=tenant.headers, timeout=_LONGEST_SECONDS, trust_env=False
        ) as http:
            yield http


def public_key() -> str:
    """A new one, of which nobody has the private half."""
    made = ed25519.Ed25519PrivateKey.generate().public_key()
    return made.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
