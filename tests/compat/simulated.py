"""A sandbox on a real local port, and what tests do to it and read from it, all through its control routes."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import httpx2
from starlette.types import Receive, Scope, Send

from lium_mcp.sandbox import Sandbox, serve_sandbox
from tests.processes import environment

_IDS_OF_EACH: Final = 10_000
_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 30


class _Stage(Sandbox):
    """A port for one sandbox after the other: starting a server takes longer than most tests."""

    playing: Sandbox | None = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.playing is not None
        await self.playing.app(scope, receive, send)

    def close(self) -> None:
        super().close()
        if self.playing is not None:
            self.playing.close()


class SimulatedElsewhere:
    """The sandbox as another program sees it: an address, and the control routes beside the API."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx2.Client(base_url=base_url.removesuffix("/api") + "/_sandbox", timeout=60, trust_env=False)

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

    def calm(self) -> None:
        """Disarm all faults, and let go what a slow one holds."""
        self._http.delete("/faults").raise_for_status()

    def let_go(self) -> None:
        """Let go what a slow fault holds; what is armed stays armed."""
        armed = self._http.get("/faults").raise_for_status().json()
        self.calm()
        for fault in armed:
            self.fault(**fault)

    def close(self) -> None:
        self._http.close()

    def pod(self, pod_id: str) -> dict[str, Any]:
        [pod] = [pod for pod in self.state()["pods"] if pod["id"] == pod_id]
        return dict(pod)

    def node(self, gpu: str, *, free: int = 1) -> dict[str, Any]:
        """Return a node that rents single GPUs of this kind and has some free."""
        return next(
            node
            for node in self.state()["nodes"]
            if gpu in node["machine_name"]
            and node["min_gpu_count_for_rental"] == 1
            and node["available_gpu_count"] >= free
        )

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        """Return the requests for a path that ends like this, oldest first."""
        return [
            request
            for request in self.state()["requests"]
            if request["method"] == method and request["path"].endswith(path)
        ]

    def _clock(self, **body: float) -> None:
        self._http.post("/clock", json=body).raise_for_status()


class Simulated(SimulatedElsewhere):
    """The sandbox of this process, which may be another one from test to test."""

    def __init__(self, base_url: str, stage: _Stage) -> None:
        super().__init__(base_url)
        self._stage = stage
        self._begun = 0

    def begin(self, *, balance_usd: float = 100.0, start: datetime | None = None, **options: Any) -> None:
        """Begin with a fresh sandbox, whose clock stands still until it is turned.

        Servers may live on that still remove the pods of the last one: no pod of this one has the same id.
        """
        options |= {"seed": 7, "speed": 0, "balance_usd": balance_usd, "start": start}
        self._stage.playing = Sandbox(ids_from=_IDS_OF_EACH * self._begun, **options)
        self._begun += 1

    @property
    def playing(self) -> Sandbox:
        """The sandbox itself, for what somebody else does to it."""
        assert self._stage.playing is not None
        return self._stage.playing


@contextmanager
def simulating() -> Iterator[Simulated]:
    """Serve sandboxes, one at a time, until the end of the block."""
    stage = _Stage(seed=7, speed=0)
    loop = asyncio.new_event_loop()
    address: Future[str] = Future()
    serving = loop.create_task(serve_sandbox(stage, on_ready=address.set_result))

    def serve() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)

    thread = threading.Thread(target=serve)
    thread.start()
    simulated = Simulated(address.result(timeout=_START_SECONDS), stage)
    try:
        yield simulated
    finally:
        simulated.close()
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()
        loop.close()


@contextmanager
def simulating_elsewhere(home: Path, *, speed: float) -> Iterator[SimulatedElsewhere]:
    """Run `lium-mcp sandbox`, a process of its own whose time passes that much faster, until the end of the block."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lium_mcp", "sandbox", "--port", "0", "--speed", str(speed)]
    log = home / "stderr"
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment(HOME=str(home))) as process,
    ):
        try:
            deadline = time.monotonic() + _START_SECONDS
            while (found := re.search(r"listens at (http://\S+)", log.read_text())) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            simulated = SimulatedElsewhere(found[1])
            yield simulated
            simulated.close()
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)
