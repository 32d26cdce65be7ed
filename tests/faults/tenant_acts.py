"""What tenants do, each thing by hand over HTTP, and what becomes of it: see `test_tenants.py`."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from tests.faults.tenant_records import Truth
from tests.faults.tenants import Heard, Tenancy, Tenant, public_key
from tests.http_server import LEGACY_VERSION, Served, Way, Wire, initialize, initialized, tool_call
from tests.wires import Row

_MINUTE_SECONDS: Final = 60
# Tools that read what an account has, or what everybody may see.
_LISTS: Final[tuple[tuple[str, Row], ...]] = (
    ("list_pods", {"limit": 100}),
    ("list_pods", {"limit": 100}),
    ("list_templates", {"mine": True, "limit": 100}),
    ("list_templates", {"limit": 100}),
    ("list_volumes", {"limit": 100}),
    ("list_backups", {"limit": 100}),
    ("list_ssh_keys", {}),
    ("list_activity", {"limit": 100}),
    ("list_clusters", {}),
    ("get_balance", {}),
    ("get_spending", {"days": 3}),
    ("list_gpus", {"limit": 100}),
)
# Tools that name a thing: which kind, by which parameter, and what else they are given.
_NAMING: Final[dict[str, tuple[str, str, Row]]] = {
    "get_pod": ("pod", "pod", {"wait_seconds": 0}),
    "get_pod_logs": ("pod", "pod", {"tail": 50}),
    "list_backups": ("pod", "pod", {}),
    "list_restores": ("pod", "pods", {}),
    "get_template": ("template", "template", {"wait_seconds": 0}),
    "list_volumes": ("volume", "volume", {}),
    "get_backup": ("backup", "backup_id", {"wait_seconds": 0}),
    "quote_rental": ("pod", "executor_id", {"hours": 1}),
}
# Of those that change something also what they do to it.
_CHANGING: Final[dict[str, tuple[str, str, Row]]] = {
    "remove_pod": ("pod", "pod", {"wait_seconds": 0}),
    "reboot_pod": ("pod", "pod", {"wait_seconds": 0}),
    "schedule_pod_removal": ("pod", "pod", {"hours_from_now": 5}),
    "cancel_pod_removal": ("pod", "pod", {}),
    "set_backup_schedule": ("pod", "pod", {"every_hours": 12, "keep_days": 3}),
    "delete_backup_schedule": ("pod", "pod", {}),
    "create_backup": ("pod", "pod", {"wait_seconds": 0}),
    "rate_pod": ("pod", "pod", {"rating": 4}),
    "install_jupyter": ("pod", "pod", {"port": 8888, "wait_seconds": 0}),
    "reset_pod_gpus": ("pod", "pod", {"wait_seconds": 0}),
    "delete_template": ("template", "template", {}),
    "update_template": ("template", "template", {"wait_seconds": 0}),
    "delete_volume": ("volume", "volume", {}),
    "update_volume": ("volume", "volume", {}),
    "delete_ssh_key": ("key", "key_id", {}),
    "delete_backup": ("backup", "backup_id", {}),
    "restore_backup": ("backup", "backup_id", {"wait_seconds": 0}),
    "start_job": ("pod", "pod", {"command": "true", "name": "fit"}),
    "get_job": ("pod", "pod", {"wait_seconds": 0}),
    "run_command": ("pod", "pod", {"command": "echo hello"}),
}
# These succeed where there is nothing to do.
_MAY_DO_NOTHING: Final = {"get_job", "cancel_pod_removal", "delete_backup_schedule"}
# What lists what an account has, and where the ids are.
_OWN_LISTS: Final[dict[str, tuple[str, Row, str, str]]] = {
    "pod": ("list_pods", {"limit": 100}, "pods", "pod_id"),
    "template": ("list_templates", {"mine": True, "limit": 100}, "templates", "template_id"),
    "volume": ("list_volumes", {"limit": 100}, "volumes", "volume_id"),
    "key": ("list_ssh_keys", {}, "keys", "key_id"),
}
_ADDRESSES: Final = ("pods", "market", "templates", "volumes", "backups", "account", "policy")
_COMPLETED: Final = {
    "pod": "lium://pods/{pod}",
    "template": "lium://templates/{template}",
    "backup_id": "lium://backups/{backup_id}",
}
_WAITS: Final = {"rent_pod", "remove_pod", "reboot_pod", "create_backup", "update_template"}


@dataclass(frozen=True)
class Act:
    """One thing that somebody does, as it was drawn."""

    what: str
    who: str
    other: str
    server: int
    which: int
    is_own: bool
    by_name: bool
    asks: bool
    says: Literal["accept", "decline"]
    leaves_after: float | None


@dataclass(frozen=True)
class Open:
    """A question that waits for its answer, and what it is about."""

    tenant: Tenant
    tool: str
    arguments: Row
    target: str
    result: Row


class Acting:
    """Does what was drawn, and keeps the accounts."""

    WHATS: ClassVar[tuple[str, ...]] = (
        *["list"] * 4, *["name"] * 4, *["change"] * 8, *["rent"] * 3, *["rent with"] * 2, *["make"] * 3,
        *["answer"] * 6, *["read"] * 3, *["complete"] * 2, *["session"] * 3, "flood", "order", "cancel",
    )  # fmt: skip

    def __init__(self, tenancy: Tenancy, seen: Counter[str]) -> None:
        self.tenancy = tenancy
        self.seen = seen
        self.round = 0
        self._open: list[Open] = []
        self._serial = 0
        self._deeds: dict[str, Callable[[Act, Tenant, Served], Awaitable[None]]] = {
            "list": self._list, "name": self._name, "change": self._change, "rent": self._rent,
            "rent with": self._rent_with, "make": self._make, "answer": self._answer, "read": self._read,
            "complete": self._complete, "session": self._session, "flood": self._flood, "order": self._order,
            "cancel": self._cancel,
        }  # fmt: skip

    async def perform(self, act: Act) -> None:
        """Do it."""
        servers = self.tenancy.servers
        tenant = self.tenancy.tenants.get(act.who) or self.tenancy.tenants["bob"]
        self.seen["acts"] += 1
        self.seen[act.what] += 1
        await self._deeds[act.what](act, tenant, servers[act.server % len(servers)])

    def _target(self, act: Act, tenant: Tenant, kind: str) -> tuple[str, str, bool] | None:
        """A thing of that kind: its id, how the call names it, and whether it is the caller's."""
        has = self.tenancy.has
        found = [
            (thing, name, account == tenant.account)
            for account, belongings in has.items()
            for thing, name in belongings.things[kind].items()
            if (account == tenant.account) == act.is_own
        ]
        if not found:
            return None
        thing, name, is_own = found[act.which % len(found)]
        by_name = act.by_name and kind in ("pod", "template", "volume")
        return thing, name if by_name else thing, is_own

    async def _list(self, act: Act, tenant: Tenant, server: Served) -> None:
        tool, arguments = _LISTS[(act.which + 6 * act.by_name) % len(_LISTS)]
        heard = await self.tenancy.call(tenant, server, tool, arguments, leave_after=act.leaves_after)
        self._note(heard)
        if heard.message is None:
            return
        assert "Too many calls" not in json.dumps(heard.message), heard.message
        if tool == "get_balance" and heard.is_done:
            assert abs(heard.content["balance_usd"] - self.tenancy.opening_usd(tenant.account)) < 400
        is_for_all = tool == "list_gpus" or (tool == "list_templates" and "mine" not in arguments)
        assert heard.is_done == (bool(tenant.account) or is_for_all), heard.message

    async def _name(self, act: Act, tenant: Tenant, server: Served) -> None:
        tool = list(_NAMING)[(act.which + 6 * act.by_name) % len(_NAMING)]
        kind, parameter, arguments = _NAMING[tool]
        if (target := self._target(act, tenant, kind)) is None:
            return
        _, named, is_own = target
        arguments = arguments | {parameter: [named] if parameter == "pods" else named}
        heard = await self.tenancy.call(tenant, server, tool, arguments, leave_after=act.leaves_after)
        self._note(heard)
        # Backups outlive their pods, so a pod that is not there has none.
        is_empty = tool == "list_backups" and heard.content.get("total") == 0
        assert is_own or is_empty or not heard.is_done, f"{tenant.name} read by {tool}: {heard.message}"

    async def _change(self, act: Act, tenant: Tenant, server: Served) -> None:
        tool = list(_CHANGING)[(act.which * 4 + 2 * act.by_name + act.asks) % len(_CHANGING)]
        kind, parameter, arguments = _CHANGING[tool]
        if (target := self._target(act, tenant, kind)) is None:
            return
        thing, named, is_own = target
        arguments = arguments | {parameter: named}
        if tool in ("update_template", "update_volume"):
            arguments["description"] = self.tenancy.canary(tenant)
        if tool == "restore_backup":
            pods = [pod for has in self.tenancy.has.values() for pod in has.things["pod"]]
            arguments["pods"] = [pods[act.which % len(pods)]]
            is_own = is_own and arguments["pods"][0] in self.tenancy.has[tenant.account].things["pod"]
        await self._ask_for(act, tenant, server, tool, arguments, thing, is_own=is_own)

    async def _ask_for(
        self, act: Act, tenant: Tenant, server: Served, tool: str, arguments: Row, thing: str, *, is_own: bool
    ) -> None:
        if act.leaves_after is not None and tool in _WAITS:
            arguments = arguments | {"wait_seconds": 20}
        if act.leaves_after is not None:
            self.tenancy.has[tenant.account].unsure.add(thing)
        heard = await self.tenancy.call(tenant, server, tool, arguments, asks=act.asks, leave_after=act.leaves_after)
        self._note(heard)
        self._came_of_it(tenant, tool, arguments, thing, heard, is_own=is_own)

    def _came_of_it(self, tenant: Tenant, tool: str, arguments: Row, thing: str, heard: Heard, *, is_own: bool) -> None:
        """Note what an answer says that was done, or put by its question."""
        has = self.tenancy.has[tenant.account]
        if heard.result.get("resultType") == "input_required":
            assert is_own, f"{tenant.name} was asked about what is another's: {heard.message}"
            self._open.append(Open(tenant, tool, arguments, thing, heard.result))
            # Whoever gets it holds it in hand: it is a secret of the account's.
            has.canaries.add(heard.result["requestState"])
            return
        if not heard.is_done:
            return
        self.seen[f"done {tool}"] += 1
        self.seen["done"] += 1
        assert is_own, f"{tenant.name} did {tool} to what is another's: {heard.message}"
        assert tenant.changes or tool in _MAY_DO_NOTHING, f"{tenant.name} may only read: {heard.message}"
        has.note(tool, arguments, thing, heard.content, by=tenant.name, at=self.round)

    async def _rent(self, act: Act, tenant: Tenant, server: Served) -> None:
        names = self.tenancy.has[tenant.account].things["pod"].values()
        is_again = act.by_name and names
        name = list(names)[act.which % len(names)] if is_again else self.tenancy.make_name(tenant, "pod")
        arguments = {"name": name, "gpu_type": ["RTX3090", "RTX4090", "A100"][act.which % 3], "hours": 6}
        await self._ask_for(act, tenant, server, "rent_pod", arguments | {"wait_seconds": 0}, name, is_own=True)

    async def _rent_with(self, act: Act, tenant: Tenant, server: Served) -> None:
        """A rent that names a volume, a template or a backup, which may be another's."""
        kind, parameter = [("volume", "volume"), ("template", "template"), ("backup", "backup_id")][act.which % 3]
        if (target := self._target(act, tenant, kind)) is None:
            return
        name = self.tenancy.make_name(tenant, "pod")
        arguments = {"name": name, "gpu_type": "RTX3090", "hours": 6, "wait_seconds": 0, parameter: target[1]}
        await self._ask_for(act, tenant, server, "rent_pod", arguments, name, is_own=target[2])

    async def _make(self, act: Act, tenant: Tenant, server: Served) -> None:
        make = self.tenancy.make_name
        made: list[tuple[str, Row]] = [
            (
                "create_template",
                {
                    "name": make(tenant, "template"),
                    "image": "me/mine:1",
                    "environment": [f"TOKEN={self.tenancy.canary(tenant, hidden=True)}"],
                    "startup_commands": f"echo {self.tenancy.canary(tenant)}",
                    "wait_seconds": 0,
                },
            ),
            ("create_volume", {"name": make(tenant, "volume"), "description": self.tenancy.canary(tenant)}),
            ("add_ssh_key", {"name": make(tenant, "key"), "public_key": public_key()}),
        ]
        tool, arguments = made[act.which % 3]
        await self._ask_for(act, tenant, server, tool, arguments, arguments["name"], is_own=True)

    async def _answer(self, act: Act, tenant: Tenant, server: Served) -> None:
        """Bring the answer to somebody's question."""
        if not self._open:
            return
        question = self._open[-1 - act.which % len(self._open)]
        callers = [
            one
            for one in self.tenancy.tenants.values()
            if (one.account == question.tenant.account) == (act.is_own and act.which % 2 == 0)
        ]
        tenant = tenant if tenant in callers else callers[act.which % len(callers)]
        is_own = question.tenant.account == tenant.account
        if is_own and act.says == "accept":
            self._open.remove(question)
            if act.leaves_after is not None:
                self.tenancy.has[tenant.account].unsure.add(question.target)
        answer = {"action": act.says, **({"content": {"confirm": True}} if act.says == "accept" else {})}
        heard = await self.tenancy.call(
            tenant, server, question.tool, question.arguments,
            asks=True, leave_after=act.leaves_after,
            inputResponses=dict.fromkeys(question.result["inputRequests"], answer),
            requestState=question.result["requestState"],
        )  # fmt: skip
        self._note(heard)
        if heard.message is None:
            return
        self.seen[f"answer {'own' if is_own else 'of a stranger'}"] += 1
        if is_own:
            self._came_of_it(tenant, question.tool, question.arguments, question.target, heard, is_own=True)
        else:
            assert not heard.is_done, f"{tenant.name} said yes for {question.tenant.name}: {heard.message}"
            assert heard.result.get("resultType") != "input_required", heard.message

    async def _read(self, act: Act, tenant: Tenant, server: Served) -> None:
        """Read a resource."""
        address, is_own = f"lium://{_ADDRESSES[act.which]}", True
        if act.by_name:
            kind = ["pod", "template", "backup"][act.which % 3]
            if (target := self._target(act, tenant, kind)) is None:
                return
            address, is_own = f"lium://{kind}s/{target[0]}", target[2]
        heard = await self.tenancy.send(
            tenant, server, "resources/read", {"uri": address}, leave_after=act.leaves_after
        )
        self._note(heard)
        assert is_own or not heard.is_done, f"{tenant.name} read {address}: {heard.message}"

    async def _complete(self, act: Act, tenant: Tenant, server: Served) -> None:
        name, address = list(_COMPLETED.items())[act.which % 3]
        params = {"ref": {"type": "ref/resource", "uri": address}, "argument": {"name": name, "value": ""}}
        self._note(await self.tenancy.send(tenant, server, "completion/complete", params))

    async def _order(self, act: Act, tenant: Tenant, server: Served) -> None:
        """Ask for what goes on after a call, which only the server's own account may."""
        tenant = self.tenancy.tenants.get("house", tenant) if act.is_own else tenant
        name = self.tenancy.make_name(tenant, "pod")
        arguments = {
            "name": name, "gpu_type": "RTX4090", "hours": 6, "keep_trying_hours": 20, "max_usd_per_gpu_hour": 0.0001,
        }  # fmt: skip
        heard = await self.tenancy.call(tenant, server, "rent_pod", arguments)
        self._note(heard)
        assert heard.is_done == (tenant.name == "house"), heard.message
        if heard.is_done:
            order = heard.content["order"]["order_id"]
            self.tenancy.has[tenant.account].canaries.add(order)
            for other in self.tenancy.tenants.values():
                if other.account != tenant.account:
                    gone = await self.tenancy.call(other, server, "remove_pod", {"pod": order, "wait_seconds": 0})
                    assert not gone.is_done, gone.message
            gone = await self.tenancy.call(tenant, server, "remove_pod", {"pod": name, "wait_seconds": 0})
            self.seen["orders taken back"] += gone.is_done

    async def _flood(self, act: Act, tenant: Tenant, server: Served) -> None:
        """Somebody with a key of its own has more calls running than it may."""
        self._serial += 1
        wild = Tenant("wild", "", {"X-API-Key": f"sk_wild_{self.tenancy.marker}_{self._serial}"})
        waiting = {"gpu_type": "H100", "max_usd_per_gpu_hour": 0.0001, "wait_seconds": 20}
        async with asyncio.TaskGroup() as group:
            calls = {group.create_task(self.tenancy.call(wild, server, "list_gpus", waiting)) for _ in range(11)}
            first: list[Heard] = []
            while len(first) < 3:
                done, calls = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                first += [call.result() for call in done]
            for call in calls:
                call.cancel()
        said = [((heard.message or {}).get("error") or {}).get("message", str(heard.message)) for heard in first]
        assert all(text.startswith("Too many calls: this key has 8 running") for text in said), said

    async def _cancel(self, act: Act, tenant: Tenant, server: Served) -> None:
        """Say of a request that has the id of everybody's that it is cancelled."""
        message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
        async with self.tenancy.http(tenant, server) as http:
            answer = await http.post("/mcp", json=message, headers={"Accept": "application/json, text/event-stream"})
            self.tenancy.hear(tenant, "", answer.text)

    async def _session(self, act: Act, tenant: Tenant, server: Served) -> None:
        """An older client is asked in its session, which others try to answer, use and end before it says yes."""
        if (target := self._target(act, tenant, "template")) is None or not target[2] or not tenant.changes:
            return
        way: Way = "sse" if act.by_name else "legacy"
        arguments = {"template": target[0], "wait_seconds": 0, "description": self.tenancy.canary(tenant)}
        other = self.tenancy.tenants.get(act.other) or self.tenancy.tenants["eve"]
        wire = Wire(server.url, tenant.headers, asks=True)
        told: list[str] = []
        answer: Row | None = None
        async with asyncio.timeout(_MINUTE_SECONDS), wire.calling(way, "update_template", arguments) as lines:
            async for line in lines:
                told.append(line)
                message = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
                if message.get("method") == "elicitation/create":
                    yes = {"action": act.says, **({"content": {"confirm": True}} if act.says == "accept" else {})}
                    reply = {"jsonrpc": "2.0", "id": message["id"], "result": yes}
                    if other.headers != tenant.headers:
                        await self._intrude(other, server, wire, message["id"])
                    assert await wire.say(reply) == 202
                elif message.get("id") == 2:
                    answer = message
                    break
        self.tenancy.hear(tenant, json.dumps(arguments), "".join(told))
        if way == "legacy":
            await self._end(tenant, server, wire.session[1])
        heard = Heard(200, answer)
        self._note(heard)
        self._came_of_it(tenant, "update_template", arguments, target[0], heard, is_own=True)

    async def _intrude(self, other: Tenant, server: Served, wire: Wire, question: Any) -> None:
        """Use another's session in all ways; its owner has one question open in it."""
        path, ids = wire.session
        yes = {"jsonrpc": "2.0", "id": question, "result": {"action": "accept", "content": {"confirm": True}}}
        headers = ids | {"Accept": "application/json, text/event-stream"}
        if ids:
            headers["MCP-Protocol-Version"] = LEGACY_VERSION
        ended = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
        async with self.tenancy.http(other, server) as http:
            for message in (yes, ended, tool_call("list_pods", {}, modern=False), initialize()):
                answer = await http.post(path, json=message, headers=headers)
                self.tenancy.hear(other, "", answer.text)
                assert answer.status_code == 404, f"{other.name}: {answer.status_code} {answer.text}"
            if ids:
                assert (await http.delete(path, headers=headers)).status_code == 404
                assert (await http.get(path, headers=headers)).status_code == 404

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Let some listen for whatever servers tell by themselves, in both eras, until the end of the block."""
        kinds = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
        pods = [f"lium://pods/{pod}" for has in self.tenancy.has.values() for pod in has.things["pod"]]
        wanted: Row = {"notifications": kinds | {"resourceSubscriptions": ["lium://pods", *pods]}}
        watchers = [
            (self.tenancy.tenants[name], server) for name in ("ada", "bob", "nobody") for server in self.tenancy.servers
        ]
        sessions = [await self._begin(tenant, server) for tenant, server in watchers]
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[Any]] = []
            for (tenant, server), session in zip(watchers, sessions, strict=True):
                listening = self.tenancy.send(tenant, server, "subscriptions/listen", wanted, leave_after=10**6)
                tasks += [group.create_task(listening), group.create_task(self._stream(tenant, server, session))]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
        for (tenant, server), session in zip(watchers, sessions, strict=True):
            await self._end(tenant, server, session)

    async def _begin(self, tenant: Tenant, server: Served) -> dict[str, str]:
        """Open the session of an older client; the headers of its requests."""
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": LEGACY_VERSION}
        async with self.tenancy.http(tenant, server) as http:
            opening = await http.post("/mcp", json=initialize(), headers=headers)
            headers["Mcp-Session-Id"] = opening.headers["mcp-session-id"]
            self.tenancy.has[tenant.account].canaries.add(headers["Mcp-Session-Id"])
            await http.post("/mcp", json=initialized(), headers=headers)
        return headers

    async def _stream(self, tenant: Tenant, server: Served, session: dict[str, str]) -> None:
        """The stream of a session, for what a server sends by itself."""
        told: list[str] = []
        try:
            async with (
                self.tenancy.http(tenant, server) as http,
                http.stream("GET", "/mcp", headers=session, timeout=None) as stream,
            ):
                async for line in stream.aiter_lines():
                    told.append(line)  # noqa: PERF401 - what has come is heard, however it ends
        finally:
            self.tenancy.hear(tenant, "", "".join(told))

    async def _end(self, tenant: Tenant, server: Served, session: dict[str, str]) -> None:
        """End a session: an address may have so many."""
        async with self.tenancy.http(tenant, server) as http:
            assert (await http.delete("/mcp", headers=session)).status_code == 200

    async def check_all(self) -> None:
        """Hold what each account has against what its callers were told, and its lists against that.

        The lists are read with keys that are new, for which no server keeps anything.
        """
        tenancy, sandbox = self.tenancy, self.tenancy.lium.playing
        sandbox.clock.advance(minutes=10)
        for account, has in tenancy.has.items():
            if not account:
                continue
            truth = Truth(sandbox, tenancy.record_of(account).id)
            if account == "House":  # whose pods the server registers its machine's own key for
                has.things["key"] |= truth.named("key", "lium-mcp-")
            different = truth.differences(has, tenancy.secrets)
            assert not different, f"{account}: {different}"
            for number, server in enumerate(tenancy.servers):
                fresh = tenancy.add_key(f"fresh {account} {number}", account)
                for kind, (tool, arguments, rows, name) in _OWN_LISTS.items():
                    heard = await tenancy.call(fresh, server, tool, arguments)
                    assert {row[name] for row in heard.content[rows]} == truth.shown(kind), (account, heard.message)

    def _note(self, heard: Heard) -> None:
        details = heard.result.get("_meta", {}).get("lium-mcp/error", {}) if heard.message else {"code": "left"}
        code = "error" if heard.message and "error" in heard.message else details.get("code", "ok")
        self.seen[f"answer {code}"] += 1
