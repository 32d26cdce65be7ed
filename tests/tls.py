"""A company's network in small: a certificate authority of its own, a server over TLS, and a proxy in front of it."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lium_mcp.sandbox import Sandbox
from tests.wires import Wire, served


def make_certificates(folder: Path, *hosts: str) -> tuple[Path, ssl.SSLContext]:
    """The file of a new authority, and what a server on this machine, or at these hosts, shows that it has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Company Inspection CA")])
    now = datetime.now(UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, ("localhost", *hosts))]
    # Its own authority: one certificate does for both.
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, private = folder / "company-ca.pem", folder / "server.key"
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, private)
    return authority, context


@asynccontextmanager
async def over_tls(sandbox: Sandbox, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve a sandbox over TLS; yields its base address."""
    async with served(Wire(sandbox)) as lium:
        port = int(lium.base_url.rsplit(":", 1)[1].split("/")[0])

        async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _join(reader, writer, port)

        async with await asyncio.start_server(joined, "127.0.0.1", 0, ssl=context) as server:
            yield f"https://localhost:{server.sockets[0].getsockname()[1]}/api"


class Proxy:
    """An HTTP proxy that notes what it is asked for, and refuses it or says nothing if it is to."""

    def __init__(self, refusal: str = "", *, silent: bool = False) -> None:
        self.refusal = refusal
        self.silent = silent
        self.asked: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split("\r\n")[0])
        if self.silent:
            await reader.read()  # until the caller gives up
            writer.close()
            return
        if self.refusal:
            writer.write(f"HTTP/1.1 {self.refusal}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _join(reader, writer, int(head.split()[1].rsplit(":", 1)[1]))


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[str]:
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(2**16):
                sink.write(chunk)
                await sink.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            sink.close()

    await asyncio.gather(pass_on(reader, other_writer), pass_on(other_reader, writer))
