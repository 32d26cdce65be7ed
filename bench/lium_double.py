"""A Lium that only reads out: bytes made once from the sandbox, so that a benchmark measures its caller, not the API.

`python -m bench.lium_double` prints its port and serves until it is ended. It reads no body, since nothing it answers
is asked with one; `GET /asked` says how often each path was asked for.
"""

import asyncio
import json
from collections import Counter
from typing import Final

import httpx2

from lium_mcp.sandbox import API_KEY, Sandbox

NODES: Final = 200
PODS: Final = 3
ASKED: Final = "/asked"
_BASE: Final = "http://127.0.0.1/api"
_HEAD_END: Final = b"\r\n\r\n"


async def recorded() -> dict[str, bytes]:
    """What the sandbox answers to the requests of the benchmark, by path, with `NODES` nodes and `PODS` pods."""
    sandbox = Sandbox()
    headers = {"User-Agent": "bench", "X-API-KEY": API_KEY}
    async with httpx2.AsyncClient(transport=sandbox.transport(), base_url=_BASE, headers=headers) as http:
        for number in range(PODS):
            wish = {"gpu_type": "RTX4090", "gpu_count": 1, "pod_name": f"pod-{number}"}
            rent = await http.post("/executors/rent-by-spec", json=wish | {"user_public_key": ["ssh-ed25519 AAAA"]})
            rent.raise_for_status()
        paths = ("/executors?view=summary", "/pods", "/ssh-keys", "/machines", "/version", "/users/me", "/templates")
        answers = {path.partition("?")[0]: (await http.get(path)).content for path in paths}
    nodes = json.loads(answers["/executors"])
    return answers | {"/executors": json.dumps(nodes[:NODES]).encode()}


class _Exchange(asyncio.Protocol):
    """One connection: a head comes, the bytes of its path go."""

    def __init__(self, answers: dict[str, bytes], asked: Counter[str]) -> None:
        self._answers, self._asked = answers, asked
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while _HEAD_END in self._heard:
            head, _, self._heard = self._heard.partition(_HEAD_END)
            path = head.split(b" ", 2)[1].decode().partition("?")[0].removeprefix("/api")
            self._transport.write(self._answer(path))

    def _answer(self, path: str) -> bytes:
        if path == ASKED:
            body: bytes | None = json.dumps(self._asked).encode()
        else:
            self._asked[path] += 1
            body = self._answers.get(path)
        status = b"200 OK" if body is not None else b"404 Not Found"
        body = body if body is not None else b'{"message": "Not found", "status_code": 404}'
        return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            status, len(body), body
        )  # fmt: skip


async def main() -> None:
    answers, asked = await recorded(), Counter[str]()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Exchange(answers, asked), "127.0.0.1", 0, backlog=1000
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
