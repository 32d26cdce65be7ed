"""An authorization server of a deployment's own, as small as can be: metadata, public keys, a login that just agrees.

It runs on a real port, in a thread of its own, and signs whatever a test tells it to.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

_RSA: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_STRANGER: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_EC: Final = ec.generate_private_key(ec.SECP256R1())
CLIENT_ID: Final = "a-client-that-is-known-there"


class AuthorizationServer:
    """What it is asked, and what it says."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.says_issuer = url
        self.is_silent = False
        self.has_changed_its_key = False
        self._redirects: dict[str, dict[str, str]] = {}

    def token(
        self,
        *,
        of: str = "rsa",
        alg: str | None = None,
        kid: str | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A signed token; a claim that is None is left out, as is an empty `kid`.

        Args:
            of: Whose key signs: `rsa` and `ec` are published, `stranger` is not before the key has changed.
        """
        said = {"iss": self.url, "sub": "jane", "iat": int(time.time()), "exp": int(time.time()) + 600} | claims
        keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
            "rsa": _RSA,
            "ec": _EC,
            "stranger": _STRANGER,
        }
        kid = ("ec" if of == "ec" else "rsa") if kid is None else kid
        headers = {"kid": kid} if kid else {}
        claims = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(
            claims, keys[of], algorithm=alg or ("ES256" if of == "ec" else "RS256"), headers=headers | (header or {})
        )

    def published(self) -> dict[str, Any]:
        """The keys as anybody reads them."""
        rows = [
            json.loads(RSAAlgorithm.to_jwk(_RSA.public_key())) | {"kid": "rsa", "use": "sig"},
            json.loads(ECAlgorithm.to_jwk(_EC.public_key())) | {"kid": "ec"},
            {"kty": "oct", "kid": "secret", "k": "YSBzZWNyZXQgdGhhdCBzb21lYm9keSBwdWJsaXNoZXM", "alg": "HS256"},
        ]
        if self.has_changed_its_key:
            rows.append(json.loads(RSAAlgorithm.to_jwk(_STRANGER.public_key())) | {"kid": "newer", "alg": "RS256"})
        return {"keys": rows}

    def public_pem(self) -> bytes:
        """One of them as files hold it, which a careless server would take for a secret."""
        return _RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def answer(self, method: str, target: str, form: dict[str, str]) -> tuple[int, dict[str, Any] | str]:
        """The status, and JSON or where to go."""
        address = urlsplit(target)
        self.asked.append(f"{method} {address.path}")
        if self.is_silent:
            return 503, {}
        if address.path == "/.well-known/oauth-authorization-server":
            endpoints = {f"{name}_endpoint": f"{self.url}/{path}" for name, path in _ENDPOINTS.items()}
            return 200, {"issuer": self.says_issuer, "jwks_uri": f"{self.url}/keys", **endpoints, **_ABILITIES}
        if address.path == "/keys":
            return 200, self.published()
        if address.path == "/login":
            query = dict(parse_qsl(address.query))
            self._redirects["the-code"] = query
            back = urlencode({"code": "the-code", "state": query["state"]})
            return 302, f"{query['redirect_uri']}?{back}"
        if address.path == "/token":
            asked = self._redirects.pop(form["code"])
            said = {"access_token": self.token(aud=asked["resource"], scope="gpu"), "token_type": "Bearer"}
            return 200, said | {"expires_in": 600}
        return 404, {}


_ENDPOINTS: Final = {"authorization": "login", "token": "token"}
_ABILITIES: Final = {"response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"]}


@contextmanager
def authorizing() -> Iterator[AuthorizationServer]:
    """Run one until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer({name: values[0] for name, values in parse_qs(body).items()})

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, form: dict[str, str]) -> None:
            status, said = server.answer(self.command, self.path, form)
            content = b"" if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            if isinstance(said, str):
                self.send_header("Location", said)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server = AuthorizationServer(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
