"""The outermost layer of the simulated API: everything that happens to a request besides its operation.

It numbers the request, keeps a note of it, lets the world catch up, asks the firewall, lets the armed faults strike,
finds the operation, and writes the answer with its ``X-Request-Id`` and the sandbox's ``Date``.
"""

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Final, cast

from pydantic import JsonValue
from starlette.datastructures import Headers, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from lium_mcp.sandbox import control, firewall, quirks, rough
from lium_mcp.sandbox.api_calls import ApiCall, Operation, Reply
from lium_mcp.sandbox.faults import ANSWER_KINDS, Fault
from lium_mcp.sandbox.refusals import ConnectionDropped, Refusal, detailed, rate_limited, refuse
from lium_mcp.sandbox.routes import OPERATIONS
from lium_mcp.sandbox.routes.logins import without_session
from lium_mcp.sandbox.seeded import identifier
from lium_mcp.sandbox.simulated_clock import iso_zulu
from lium_mcp.sandbox.world import AuditRow, World

PREFIX: Final = "/api"
# The event log's name for an action of the audit log. Pods write their events themselves.
ACCOUNT_EVENTS: Final = {
    "key.create": "api-key-create.success",
    "key.update": "api-key-update.success",
    "key.revoke": "api-key-delete.success",
    "ssh_key.create": "ssh-key-create.success",
    "ssh_key.delete": "ssh-key-delete.success",
    "template.create": "template-create.success",
    "template.delete": "template-delete.success",
}
HEADERS_KEPT: Final = ("user-agent", "x-source", "x-lium-client-version", "idempotency-key", "content-type")
CHUNK_BYTES: Final = 64 * 1024

_ROUTES: Final = tuple((operation, compile_path(operation.path)[0]) for operation in OPERATIONS)


class Edge:
    """The ASGI app under ``/api``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or drop its connection."""
        body = await _read_body(receive)
        if body is None:
            return
        headers = Headers(scope=scope)
        path = str(scope["path"]).removeprefix(PREFIX)
        number = next(self._numbers)
        request_id = f"req-{identifier(self._world.seed, 'request', number)[:8]}"
        note = self._note(scope, path, headers, body, request_id)
        with self._world.lock:
            self._world.catch_up()
            self._world.requests.append(note)
            blocked = firewall.blocks(path, headers, body)
            faults = [] if blocked else self._strike(number, scope["method"], path, headers)
        if faults:
            note["faults"] = [fault.kind for fault in faults]
        if blocked:
            response: Response = HTMLResponse(firewall.PAGE, status_code=403)
        else:
            response = await self._answer(scope, path, headers, body, request_id, faults)
        note["status"] = response.status_code
        response.headers["X-Request-Id"] = request_id
        wrong = sum(fault.offset_seconds for fault in faults if fault.kind == "wrong_date")
        response.headers["Date"] = format_datetime(self._world.now + timedelta(seconds=wrong), usegmt=True)
        await response(scope, receive, send)

    def _strike(self, number: int, method: str, path: str, headers: Headers) -> list[Fault]:
        if self._world.is_rough:
            for fault in rough.drawn_faults(self._world.seed, number, method, path):
                control.arm(self._world, fault)
        secret = headers.get("x-api-key")
        key = next((key.name for key in self._world.keys.values() if key.secret == secret), None)
        return self._world.faults.strike_request(method, path, key)

    async def _answer(
        self, scope: Scope, path: str, headers: Headers, body: bytes, request_id: str, faults: list[Fault]
    ) -> Response:
        await self._pause(faults, "before")
        struck = next((fault for fault in faults if fault.kind not in ANSWER_KINDS | {"slow"}), None)
        if struck is not None and (early := _before_work(struck, request_id)) is not None:
            return early
        response = await self._dispatch(scope, path, headers, body, request_id, faults)
        await self._pause(faults, "answer")
        for fault in faults:
            if fault.kind == "late":
                await self._world.let_pass(fault.seconds)
        return response if struck is None else _after_work(struck, response, request_id)

    async def _pause(self, faults: list[Fault], stage: str) -> None:
        for fault in faults:
            if fault.kind == "slow" and fault.stage == stage:
                await self._world.pause(fault.seconds)

    async def _dispatch(
        self, scope: Scope, path: str, headers: Headers, body: bytes, request_id: str, faults: list[Fault]
    ) -> Response:
        operation, params = self._find(scope["method"], path)
        if operation is not None and operation.feature is not None and not self._world.offers(operation.feature):
            return _refused(detailed(404, "Not Found"), request_id)
        if operation is None:
            refusal = detailed(404, "Not Found") if params is None else detailed(405, "Method Not Allowed")
            return _refused(refusal, request_id)
        call = ApiCall(
            world=self._world,
            operation=operation,
            path=path,
            path_params=params or {},
            query=self._query(scope, faults),
            headers=headers,
            body=body,
            request_id=request_id,
            slow=tuple(fault for fault in faults if fault.kind == "slow"),
        )
        try:
            with self._world.lock:
                self._world.catch_up()
                call.authenticate()
                outcome = operation.handler(call)
            reply = await outcome if isinstance(outcome, Awaitable) else outcome
        except Refusal as refusal:
            return _refused(refusal, request_id)
        self._audit(call, reply)
        if reply.stream is not None:
            keeps_alive = any(fault.kind == "keep_alives" for fault in faults)
            stream = quirks.kept_alive(reply.stream) if keeps_alive else reply.stream
            return StreamingResponse(stream, media_type="text/event-stream", headers=reply.headers)
        spoiled = quirks.spoil(reply.body, faults, self._world.seed) if faults else reply.body
        content = quirks.written(spoiled, faults)
        return Response(content, reply.status, headers=reply.headers, media_type="application/json")

    def _query(self, scope: Scope, faults: list[Fault]) -> QueryParams:
        query = QueryParams(scope["query_string"])
        if any(fault.kind == "endless_pages" for fault in faults):
            # Every page is the first one, with one row.
            return QueryParams({**query, "page": "1", "limit": "1"})
        return query

    def _find(self, method: str, path: str) -> tuple[Operation | None, Mapping[str, str] | None]:
        seen: Mapping[str, str] | None = None
        for operation, pattern in _ROUTES:
            if found := pattern.match(path):
                seen = found.groupdict()
                if operation.method == method:
                    return operation, seen
        return None, seen

    def _note(self, scope: Scope, path: str, headers: Headers, body: bytes, request_id: str) -> dict[str, JsonValue]:
        kept: dict[str, JsonValue] = {name: headers[name] for name in HEADERS_KEPT if name in headers}
        note: dict[str, JsonValue] = {
            "at": iso_zulu(self._world.clock.now()),
            "request_id": request_id,
            "method": scope["method"],
            "path": without_session(path),
            "query": scope["query_string"].decode("latin-1"),
            "status": None,
            "headers": kept,
            "authenticated_by": next((name for name in ("x-api-key", "authorization") if name in headers), None),
        }
        if path.endswith(("/rent", "/rent-by-spec")):
            note["body"] = _loaded(body)
        return note

    def _audit(self, call: ApiCall, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, dict) else {}
        if call.operation.audit is None or call.account is None or body.get("dry_run") is True:
            return
        resource = next(iter(call.path_params.values()), None)
        if call.operation.audit.endswith((".rent", ".create")):
            made = next(
                (body[name] for name in ("pod_id", "id", "backup_log_id", "restore_log_id") if name in body), None
            )
            resource = cast("str | None", made)
        entry: dict[str, JsonValue] = {
            "id": call.world.new_id("audit"),
            "created_at": iso_zulu(call.world.now),
            "action": call.operation.audit,
            "source": call.source,
            "actor": call.actor,
            "workspace_id": call.account.workspace_id,
            "ip": "127.0.0.1",
            "user_agent": call.headers.get("user-agent"),
            "request_id": call.request_id,
            "method": call.operation.method,
            "route": call.operation.path,
            "status_code": reply.status,
            "resource_type": call.operation.audit.partition(".")[0],
            "resource_id": resource,
            "summary": {"path": call.path},
        }
        call.world.audit.append(AuditRow(call.account.id, call.world.now, entry))
        if event := ACCOUNT_EVENTS.get(call.operation.audit):
            call.world.log_account_event(call.account, call.key, event, actor=call.actor)


async def _read_body(receive: Receive) -> bytes | None:
    """Read the whole body; None when the client went away before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _before_work(fault: Fault, request_id: str) -> Response | None:
    """Answer in place of the operation, which then never runs; None if this fault lets it run."""
    match fault.kind:
        case "lost_request":
            raise ConnectionDropped
        case "rate_limit":
            return _refused(rate_limited(fault.retry_after_seconds), request_id)
        case "unauthorized":
            return _refused(detailed(401, "API key not found"), request_id)
        case "forbidden":
            return _refused(refuse(403, "missing_scope", "API key does not have the 'read' scope"), request_id)
        case "redirect":
            return Response(status_code=fault.status or 307, headers={"Location": fault.location})
        case "error" if not fault.after_work:
            return _failed(fault, request_id)
    return None


def _after_work(fault: Fault, response: Response, request_id: str) -> Response:
    """Spoil the answer of an operation that has run."""
    match fault.kind:
        case "lost_answer":
            raise ConnectionDropped
        case "error":
            return _failed(fault, request_id)
        case "truncated_json":
            half = bytes(response.body)[: max(1, len(response.body) // 2)]
            return Response(half, response.status_code, media_type="application/json")
        case "oversize":
            return StreamingResponse(
                _padded(bytes(response.body), fault.bytes), response.status_code, media_type="application/json"
            )
    return response


async def _padded(body: bytes, size: int) -> AsyncIterator[bytes]:
    yield body
    for start in range(len(body), size, CHUNK_BYTES):
        yield b" " * min(CHUNK_BYTES, size - start)


def _failed(fault: Fault, request_id: str) -> Response:
    status = fault.status or 500
    headers = {} if fault.retry_after_seconds is None else {"Retry-After": str(fault.retry_after_seconds)}
    if fault.html:
        page = fault.body or f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return HTMLResponse(page, status, headers)
    if fault.body is not None:
        return Response(fault.body, status, headers, media_type="application/json")
    refusal = refuse(status, "internal_error", "Something went wrong on our side.", headers=headers)
    return _refused(refusal, request_id)


def _refused(refusal: Refusal, request_id: str) -> Response:
    error = refusal.body.get("error")
    if isinstance(error, dict) and error.get("request_id") is None:
        error["request_id"] = request_id
    return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)


def _loaded(body: bytes) -> JsonValue:
    try:
        return cast("JsonValue", json.loads(body or b"null"))
    except ValueError:
        return None
