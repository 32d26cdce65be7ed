"""A sandbox on a real local port, and what tests do to it and read from it, all through its control routes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx2
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal

from lium_mcp.sandbox import Sandbox, serve_sandbox


class Simulated:
    """The sandbox as another program sees it: an address, and the control routes beside the API."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx2.Client(base_url=base_url.removesuffix("/api") + "/_sandbox", timeout=10, trust_env=False)

    def state(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self._http.get("/state").raise_for_status().json())

    def turn(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0) -> None:
        """Turn the clock forward."""
        self._clock(advance_seconds=seconds + 60 * minutes + 3600 * hours)

    def run_at(self, speed: float) -> None:
        """Let time pass by itself, that many times faster than real time."""
        self._clock(speed=speed)

    def fault(self, kind: str, **options: Any) -> None:
        self._http.post("/faults", json={"kind": kind, **options}).raise_for_status()

    def close(self) -> None:
        self._http.close()

    def pod(self, pod_id: str) -> dict[str, Any]:
        [pod] = [pod for pod in self.state()["pods"] if pod["id"] == pod_id]
        return dict(pod)

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        """Return the requests for a path that ends like this, oldest first."""
        return [
            request
            for request in self.state()["requests"]
            if request["method"] == method and request["path"].endswith(path)
        ]

    def _clock(self, **body: float) -> None:
        self._http.post("/clock", json=body).raise_for_status()


@contextmanager
def simulating() -> Iterator[Simulated]:
    """Serve a sandbox whose clock stands still until it is turned."""

    async def serve(*, task_status: TaskStatus[str]) -> None:
        await serve_sandbox(Sandbox(seed=7, speed=0), on_ready=task_status.started)

    with start_blocking_portal() as portal:
        serving, base_url = portal.start_task(serve)
        simulated = Simulated(base_url)
        try:
            yield simulated
        finally:
            simulated.close()
            serving.cancel()
