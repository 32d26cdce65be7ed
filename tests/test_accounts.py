"""Which key a request acts for."""

from pathlib import Path

import anyio
import anyio.lowlevel
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from lium_mcp.accounts import Accounts, bind_caller_key, key_in_headers
from lium_mcp.api import SYSTEM_CLOCK, LiumClient
from lium_mcp.remote.keys import KeySource
from lium_mcp.rentals import Journal

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
SPACES = st.text(" \t")


def accounts() -> Accounts:
    return Accounts(
        LiumClient(api_key="own"), SYSTEM_CLOCK, KeySource(lambda: Path("key")), "own", Journal("sqlite://")
    )


class Request:
    """What the SDK hands to a middleware, as far as ours looks."""

    def __init__(self, headers: dict[str, str] | None) -> None:
        self.request = None if headers is None else self
        self.headers = Headers(headers)


@given(key=KEYS, spaces=SPACES, scheme=st.sampled_from(["Bearer", "bearer", "BEARER"]))
def test_a_key_is_read_from_either_header_whatever_surrounds_it(key: str, spaces: str, scheme: str) -> None:
    assert key_in_headers(Headers({"X-API-Key": f"{spaces}{key}{spaces}"})) == key
    assert key_in_headers(Headers({"Authorization": f"{scheme} {spaces}{key}{spaces}"})) == key


@given(key=KEYS, other=KEYS)
def test_the_header_of_lium_comes_first(key: str, other: str) -> None:
    assert key_in_headers(Headers({"X-API-Key": key, "Authorization": f"Bearer {other}"})) == key


@given(value=st.sampled_from(["", " ", "Basic dTpw", "Bearer", "Bearer ", "Token abc", "sk_alone"]))
def test_what_is_no_bearer_token_is_no_key(value: str) -> None:
    assert key_in_headers(Headers({"Authorization": value, "X-API-Key": " "})) is None


def test_without_headers_there_is_no_key() -> None:
    assert key_in_headers(None) is None


async def test_a_request_acts_for_its_own_key_and_the_next_one_for_its_own() -> None:
    known = accounts()
    own = known.current()
    assert own.ssh_keys is not None
    seen: dict[str, tuple[bool, KeySource | None]] = {}

    async def serve(key: str) -> None:
        async def call_next(_: object) -> None:
            await anyio.lowlevel.checkpoint()
            account = known.current()
            assert key not in repr(account)
            assert account.lium.redact(f"[{key}]") == "[[redacted]]"
            seen[key] = account is own, account.ssh_keys

        await bind_caller_key(Request({"x-api-key": key}), call_next)  # type: ignore[arg-type]  # all that it looks at

    async with anyio.create_task_group() as group:
        for key in ("first-key", "second-key", "third-key"):
            group.start_soon(serve, key)
    assert seen == dict.fromkeys(("first-key", "second-key", "third-key"), (False, None))
    assert known.current() is own
    await known.aclose()


async def test_a_request_without_headers_acts_for_the_servers_own_key() -> None:
    known = accounts()

    async def call_next(_: object) -> None:
        own = known.current().ssh_keys
        assert own is not None
        assert own.public_path == Path("key.pub")

    await bind_caller_key(Request(None), call_next)  # type: ignore[arg-type]  # all that it looks at
    await known.aclose()
