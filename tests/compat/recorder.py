"""A local HTTP server that writes down every request and answers with the contract's recorded examples.

Beside the wire of `tests.wires` because what calls it blocks: the official client is waited for in the thread of
the tests, so that who answers it needs a thread of its own.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

CONTRACT = Path(__file__).parents[1] / "contract"
BASE_PATH = "/api"


@cache
def contract_operations() -> dict[tuple[str, str], str]:
    """Return the operation id of each (method, path) of the contract."""
    document = yaml.load((CONTRACT / "openapi.yaml").read_text(), Loader=yaml.CSafeLoader)
    return {
        (method.upper(), path): operation["operationId"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "operationId" in operation
    }


@cache
def examples() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CONTRACT / "examples.json").read_text())
    return loaded


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived."""

    operation: str
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class Recorder:
    """What has arrived, and what is answered instead of the contract's example."""

    requests: list[Recorded] = field(default_factory=list)
    answers: Mapping[str, Any] = field(default_factory=dict)
    base_url: str = ""

    def clear(self, answers: Mapping[str, Any]) -> None:
        self.requests.clear()
        self.answers = answers

    def of(self, operation: str) -> list[Recorded]:
        return [request for request in self.requests if request.operation == operation]

    def answer(self, operation: str) -> tuple[int, bytes]:
        if operation in self.answers:
            return HTTPStatus.OK, json.dumps(self.answers[operation]).encode()
        example = examples().get(operation)
        if example is None:
            return HTTPStatus.OK, b"{}"
        body = example["response"]["body"]
        return example["response"]["status"], (body if isinstance(body, str) else json.dumps(body)).encode()


@contextmanager
def recording() -> Iterator[Recorder]:
    """Serve a recorder on a free local port."""
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            address = urlsplit(self.path)
            path = address.path.removeprefix(BASE_PATH)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            operation = _operation(self.command, path)
            recorder.requests.append(
                Recorded(
                    operation=operation,
                    method=self.command,
                    path=path,
                    query=parse_qsl(address.query, keep_blank_values=True),
                    headers={name.title(): value for name, value in self.headers.items()},
                    body=body,
                )
            )
            status, answer = recorder.answer(operation)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        recorder.base_url = f"http://127.0.0.1:{server.server_port}{BASE_PATH}"
        try:
            yield recorder
        finally:
            server.shutdown()
            serving.join()


def _operation(method: str, path: str) -> str:
    # A fixed path is more particular than one with a parameter: /keys/scopes is not a key.
    matches = [
        (template.count("{"), operation)
        for (its_method, template), operation in contract_operations().items()
        if its_method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    ]
    return min(matches)[1] if matches else f"{method} {path} is not in the contract"
