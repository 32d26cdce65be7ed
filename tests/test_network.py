"""The way to Lium as companies have it: proxies, certificates of their own, and settings of both that are wrong."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings_reading import load
from lium_mcp.values import SettingsError
from tests.harness import Agent, TurnedClock
from tests.tls import Proxy, make_certificates, over_tls, proxying


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def agent_at(base_url: str, timeout_seconds: float = 15) -> AsyncIterator[Agent]:
    """A client on a server that goes over the network."""
    sandbox = Sandbox(speed=0)
    settings = {
        "base_url": base_url,
        "api_key": "sk_sandbox",
        "state_url": "sqlite://",
        "timeout_seconds": timeout_seconds,
    }
    clock = TurnedClock(sandbox)
    async with Client(build_server(load(settings), clock=clock), raise_exceptions=True) as client:
        yield Agent(client, sandbox, clock)


async def test_a_certificate_that_is_not_trusted_is_named_and_nothing_is_rented(
    sandbox: Sandbox, certificates: tuple[Path, ssl.SSLContext]
) -> None:
    async with over_tls(sandbox, certificates[1]) as base_url, agent_at(base_url) as agent:
        for tool, arguments in (("list_pods", {}), ("rent_pod", {"name": "p", "gpu_type": "A100"})):
            failure = await agent.refused(tool, **arguments)
            assert failure.code == "certificate_refused"
            assert "SSL_CERT_FILE" in failure.text
            assert "nothing was sent" in failure.text
            assert "not known" not in failure.text
    assert sandbox.state()["pods"] == []


async def test_a_company_s_certificates_are_trusted_where_they_are_named(
    sandbox: Sandbox, certificates: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, context = certificates
    monkeypatch.setenv("SSL_CERT_FILE", f'"{authority}"')
    async with over_tls(sandbox, context) as base_url, agent_at(base_url) as agent:
        assert (await agent.call("list_pods"))["pods"] == []


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
async def test_a_proxy_is_gone_through_unless_no_proxy_names_the_host(
    sandbox: Sandbox, certificates: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates[0]))
    proxy = Proxy()
    async with over_tls(sandbox, certificates[1]) as base_url, proxying(proxy) as address:
        host = base_url.removeprefix("https://").removesuffix("/api")
        monkeypatch.setenv(variable, address)
        async with agent_at(base_url) as agent:
            await agent.call("list_pods")
        assert proxy.asked == [f"CONNECT {host} HTTP/1.1"]
        for no_proxy, url in [
            ("localhost", base_url),
            ("other.example, *", base_url),
            (host, base_url),
            ("127.0.0.0/8", base_url.replace("localhost", "127.0.0.1")),
        ]:
            monkeypatch.setenv("NO_PROXY", no_proxy)
            async with agent_at(url) as agent:
                await agent.call("list_pods")
            assert len(proxy.asked) == 1, no_proxy


async def test_a_proxy_that_refuses_or_is_not_there_is_named_and_nothing_was_sent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy("407 s3cretPassword is wrong")
    async with proxying(proxy) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cretPassword@{address}")
        async with agent_at("https://lium.example/api") as agent:
            refused = await agent.refused("rent_pod", name="p", gpu_type="A100")
    assert len(proxy.asked) == 1, "a wrong password that is sent again and again locks an account"
    async with agent_at("https://lium.example/api") as agent:
        absent = await agent.refused("remove_pod", pod="p")
    assert "status 407" in refused.text
    assert "HTTPS_PROXY, since the proxy wants a name and a password, or others" in refused.text
    for failure in (refused, absent):
        assert failure.code == "lium_unreachable"
        assert "through the proxy 127.0.0.1 of HTTPS_PROXY" in failure.text
        assert "nothing was sent" in failure.text
        assert "s3cret" not in failure.text


async def test_a_proxy_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(silent=True)
    async with proxying(proxy) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cretPassword@{address}")
        async with agent_at("https://lium.example/api", timeout_seconds=1) as agent:
            failure = await agent.refused("list_pods")
    assert proxy.asked
    assert failure.code == "timed_out"
    assert "through the proxy 127.0.0.1 of HTTPS_PROXY" in failure.text
    assert "s3cret" not in failure.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ALL_PROXY": "socks5://user:s3cret@127.0.0.1:1080"}, "ALL_PROXY: SOCKS is not supported; an HTTP proxy"),
        ({"https_proxy": "socks5h://127.0.0.1:1080"}, "https_proxy: SOCKS is not supported"),
        ({"HTTPS_PROXY": "ftp://s3cret@proxy"}, "HTTPS_PROXY: there is no such kind of proxy"),
        ({"HTTPS_PROXY": "http://proxy:s3cret"}, "HTTPS_PROXY: this is no address"),
        ({"HTTPS_PROXY": "http://"}, "HTTPS_PROXY: it names no host"),
        ({"SSL_CERT_FILE": "/no/such/file.pem"}, "SSL_CERT_FILE: there is no file /no/such/file.pem"),
        ({"SSL_CERT_FILE": "$NOWHERE/ca.pem"}, "SSL_CERT_FILE: it names a variable that is not set"),
        ({"SSL_CERT_FILE": __file__}, f"SSL_CERT_FILE: {__file__} holds no certificates in PEM form"),
        ({"SSL_CERT_DIR": __file__}, f"SSL_CERT_DIR: there is no folder {__file__}"),
    ],
)
def test_a_proxy_or_certificates_that_cannot_be_used_are_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        build_server(load({}))
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    build_server(load({"base_url": "http://127.0.0.1:1/api"}))  # on this machine neither is needed
    build_server(load({"sandbox": True}))


@pytest.mark.parametrize(
    "settings",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:1080", "HTTPS_PROXY": "http://127.0.0.1:8080"},
        {"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "lium.io"},
        {"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "*.example.com, *"},
        {"HTTP_PROXY": "socks5://127.0.0.1:1080"},
        {"HTTPS_PROXY": "${HTTPS_PROXY}", "SSL_CERT_FILE": "${SSL_CERT_FILE}"},
    ],
)
def test_what_is_not_used_for_lium_stops_nothing(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    build_server(load({}))


async def test_certificates_that_go_away_later_leave_no_doubt_about_a_rent(
    certificates: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "ca.pem"
    copy.write_bytes(certificates[0].read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(copy))
    async with agent_at("https://lium.example/api") as agent:
        copy.unlink()
        failure = await agent.refused("rent_pod", name="p", gpu_type="A100")
    assert failure.code == "lium_unreachable"
    assert "SSL_CERT_FILE" in failure.text
    assert "not known" not in failure.text
