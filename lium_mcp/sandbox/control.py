"""The control routes under ``/_sandbox``: the clock, the faults, and a look at everything.

They answer only local clients outside a browser: a request with an Origin header is refused, so that a page that the
user happens to have open cannot turn the clock.
"""

import ipaddress
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from lium_mcp.sandbox import lifecycle
from lium_mcp.sandbox.bodies import ClockBody
from lium_mcp.sandbox.faults import Fault
from lium_mcp.sandbox.market import take_off_market
from lium_mcp.sandbox.simulated_clock import iso_zulu
from lium_mcp.sandbox.state import snapshot
from lium_mcp.sandbox.world import World

PREFIX: Final = "/_sandbox"
ROUTES: Final = {
    "GET /_sandbox/clock": "the time, and how fast it runs",
    "POST /_sandbox/clock": 'turns the clock: {"advance_seconds": 90}, {"speed": 0}',
    "GET /_sandbox/faults": "the armed faults",
    "POST /_sandbox/faults": 'arms one: {"kind": "rate_limit", "times": 3}',
    "DELETE /_sandbox/faults": "disarms all",
    "GET /_sandbox/state": "everything there is",
}

Body = TypeVar("Body", bound=BaseModel)


class Control:
    """The ASGI app under ``/_sandbox``."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if "origin" in request.headers or not _is_local(scope):
            response: Response = JSONResponse({"error": "only for local clients outside a browser"}, 403)
        else:
            body = await request.body()
            try:
                response = self._answer(request.method, request.url.path.removeprefix(PREFIX), body)
            except ValidationError as error:
                problems = [f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors()]
                response = JSONResponse({"error": "; ".join(problems)}, 422)
            except ValueError as error:
                response = JSONResponse({"error": str(error)}, 422)
        await response(scope, receive, send)

    def _answer(self, method: str, path: str, body: bytes) -> Response:
        world = self._world
        match method, path:
            case "GET", "" | "/":
                return JSONResponse(ROUTES)
            case "GET", "/clock":
                pass
            case "POST", "/clock":
                turn = _parsed(ClockBody, body)
                if turn.speed is not None:
                    world.clock.set_speed(turn.speed)
                world.clock.advance(seconds=turn.advance_seconds)
            case "GET", "/faults":
                return JSONResponse(world.faults.listed())
            case "POST", "/faults":
                arm(world, _parsed(Fault, body))
                return JSONResponse(world.faults.listed())
            case "DELETE", "/faults":
                world.calm()
                return JSONResponse([])
            case "GET", "/state":
                return JSONResponse(snapshot(world))
            case _:
                return JSONResponse({"error": "no such control route"}, 404)
        with world.lock:
            world.catch_up()
        return JSONResponse({"now": iso_zulu(world.now), "speed": world.clock.speed})


def arm(world: World, fault: Fault) -> None:
    """Arm a fault; one that can strike now does so at once."""
    with world.lock:
        world.catch_up()
        if fault.kind == "provider_notice" or (fault.kind == "provider_pause" and fault.executor_id is not None):
            node = world.market.nodes.get(fault.executor_id or "")
            if node is None:
                msg = "executor_id names no node"
                raise ValueError(msg)
            if fault.kind == "provider_notice":
                node.notice = fault.message or "maintenance in 24 hours"
            else:
                take_off_market(node, world.now)
            return
        if fault.kind == "spot_reclaim":
            named = None if fault.pod_id is None else world.pods.get(fault.pod_id)
            if fault.pod_id is not None and (named is None or not lifecycle.is_spot(world, named)):
                msg = "pod_id names no pod on a spot node"
                raise ValueError(msg)
            candidates = [named] if named is not None else list(world.pods.values())
            for pod in candidates:
                if pod.status == "RUNNING" and lifecycle.is_spot(world, pod):
                    lifecycle.reclaim_spot(world, pod)
                    return
        if fault.kind == "container_restarts":
            for pod in world.pods.values():
                is_meant = fault.pod_id in (None, pod.id) and fault.pod_name in (None, pod.name)
                if pod.status == "RUNNING" and is_meant:
                    lifecycle.restart_container(world, pod, fault)
                    world.catch_up()
                    return
        world.faults.add(fault)
        if fault.lasting_seconds is not None:
            world.after(fault.lasting_seconds, lambda: world.faults.remove(fault))


def _parsed(model: type[Body], body: bytes) -> Body:
    return model.model_validate_json(body or b"{}")


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None or client[0] == "testclient":
        # In-process callers have no peer.
        return True
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
