"""The sites where clients publish what they say of themselves: everything behind one proxy, which notes who is asked.

The proxy passes nothing on: it answers for all of them, over TLS, with the documents that a test puts there.
"""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.oauth_client import REDIRECT
from tests.tls import make_certificates

SITE: Final = "client.example.com"
ADDRESS: Final = "93.184.215.14"


@dataclass
class Page:
    """What a site answers."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_seconds: float = 0


@dataclass
class Sites:
    """What is published, and what was asked.

    Attributes:
        pages: By path, whichever site is asked.
        connected: To where the proxy was asked to connect.
        asked: The host and path of each request.
    """

    proxy: str
    certificates: Path
    pages: dict[str, Page] = field(default_factory=dict)
    connected: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def publish(self, path: str = "/client.json", site: str = SITE, **said: Any) -> str:
        """Publish what a client says of itself; what is None is left out. Returns what the client is called."""
        client_id = f"https://{site}{path}"
        about = {
            "client_id": client_id,
            "client_name": "A published client",
            "redirect_uris": [REDIRECT],
            "token_endpoint_auth_method": "none",
        } | said
        body = json.dumps({name: value for name, value in about.items() if value is not None}).encode()
        self.pages[path] = Page(body)
        return client_id

    def settings(self) -> dict[str, str]:
        """What a server has to know to get there."""
        return {"HTTPS_PROXY": self.proxy, "SSL_CERT_FILE": str(self.certificates)}


@contextmanager
def publishing(folder: Path, *more_hosts: str) -> Iterator[Sites]:
    """Answer for all sites until the end of the block."""
    certificates, context = make_certificates(folder, SITE, *more_hosts)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        sites = Sites(f"http://127.0.0.1:{server.server_address[1]}", certificates)
        server.RequestHandlerClass = _handler(sites, context)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield sites
        finally:
            server.shutdown()
            thread.join()


def _handler(sites: Sites, context: ssl.SSLContext) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            sites.connected.append(self.path)
            self.send_response(200)
            self.end_headers()
            try:
                tunnel = context.wrap_socket(self.connection, server_side=True)
            except OSError:  # the caller takes no such certificate
                return
            outer = self.wfile
            with tunnel, tunnel.makefile("rb") as self.rfile, tunnel.makefile("wb") as self.wfile:
                self.handle_one_request()
            self.wfile = outer

        def do_GET(self) -> None:
            sites.asked.append(f"{self.headers['Host']}{self.path}")
            page = sites.pages.get(self.path, Page(b"", 404))
            time.sleep(page.after_seconds)
            try:
                self.send_response(page.status)
                for name, text in ({"Content-Type": "application/json"} | page.headers).items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(page.body)))
                self.end_headers()
                self.wfile.write(page.body)
                self.wfile.flush()
            except OSError:  # the caller has had enough
                return

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    return Handler
