"""Which key a request acts for."""

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK
from lium_mcp.api.errors import MissingApiKey
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.remote.key_source import KeySource
from lium_mcp.rentals import Entry, Expected, LazyLedger, NotSentAgain
from lium_mcp.services.accounts import Account
from lium_mcp.serving.callers import CALLER, Accounts, Caller, Callers, bind_caller, key_in_headers

KEYS = st.text("abcXYZ019+/-_", min_size=8).map("sk_{}".format)
SPACES = st.text(" \t")


async def readmit(account: Account, entry: Entry, pods: Rows[Pod], in_its_call: bool) -> Expected:
    raise NotSentAgain("these tests rent nothing")


def accounts() -> Accounts:
    keys = KeySource(lambda: Path("key"))
    return Accounts(LiumClient(api_key="own"), SYSTEM_CLOCK, keys, "own", LazyLedger("sqlite://"), readmit)


TOKEN = "a-token-that-a-test-has-made-up-4711"
GUARDED = Callers(guarded=True, token=TOKEN, token_place="in a drawer")


class Request:
    """What the SDK hands to a middleware, as far as ours looks."""

    method = "tools/call"

    def __init__(self, caller: Caller | None) -> None:
        self.request = None if caller is None else self
        self.scope = {CALLER: caller}


@given(key=KEYS, spaces=SPACES, scheme=st.sampled_from(["Bearer", "bearer", "BEARER"]))
def test_a_key_is_read_from_either_header_whatever_surrounds_it(key: str, spaces: str, scheme: str) -> None:
    assert key_in_headers(Headers({"X-API-Key": f"{spaces}{key}{spaces}"}))[0] == key
    assert key_in_headers(Headers({"X-API-Key": f'"{key}"'})) == (key, "the header X-API-Key")
    assert key_in_headers(Headers({"Authorization": f'"{scheme} {key}"'})) == (key, "the header Authorization")
    assert key_in_headers(Headers({"Authorization": f"{scheme} {spaces}{key}{spaces}"}))[0] == key


@given(key=KEYS, other=KEYS)
def test_the_header_of_lium_comes_first(key: str, other: str) -> None:
    assert key_in_headers(Headers({"X-API-Key": key, "Authorization": f"Bearer {other}"}))[0] == key
    place = "the header Authorization"
    assert key_in_headers(Headers({"X-API-Key": "${KEY}", "Authorization": f"Bearer {other}"})) == (other, place)


@given(value=st.sampled_from(["", " ", "Basic dTpw", "Bearer", "Bearer ", "Token abc", "sk_alone"]))
def test_what_is_no_bearer_token_is_no_key(value: str) -> None:
    assert key_in_headers(Headers({"Authorization": value, "X-API-Key": " "}))[0] is None


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-API-Key": "${LIUM_API_KEY}"}, "The header X-API-Key holds no API key: it is a placeholder"),
        ({"Authorization": "Bearer <your key>"}, "The header Authorization holds no API key: it is a placeholder"),
        ({"Authorization": "${AUTHORIZATION}"}, "The header Authorization holds no API key: it is a placeholder"),
        ({"X-API-Key": "Bearer sk_abc"}, "it begins with Bearer"),
        ({"X-API-Key": "sk_one two", "Authorization": "Bearer sk_other"}, "it holds a blank"),
        ({"X-API-Key": "sk_k\u0435y"}, "it holds characters that no key has"),
    ],
)
def test_nobody_elses_key_is_used_in_the_place_of_what_is_none(headers: dict[str, str], said: str) -> None:
    for callers in (GUARDED, Callers(guarded=False), Callers(guarded=True)):
        caller = callers.identify({name.lower(): value for name, value in headers.items()})
        assert (caller.key, caller.owner) == (None, None)
        assert caller.no_key_because is not None
        assert said in caller.no_key_because
        assert "sk_" not in caller.no_key_because


@given(key=KEYS, spaces=SPACES)
def test_callers_are_told_apart_by_their_keys_alone(key: str, spaces: str) -> None:
    one = GUARDED.identify(Headers({"X-API-Key": f"{key}{spaces}"}))
    other = GUARDED.identify(Headers({"Authorization": f"bearer {spaces}{key}", "X-Forwarded-For": "192.0.2.1"}))
    assert one.owner == other.owner
    assert one.owner != GUARDED.identify(Headers({"X-API-Key": f"{key}x"})).owner
    assert one.key == key
    assert repr(one) == repr(other), "which does not show the key"
    assert "key=" not in repr(one)


def test_key_token_and_neither_are_three_owners() -> None:
    headers: list[dict[str, str]] = [{"X-API-Key": "own"}, {"X-Lium-MCP-Token": TOKEN}, {}, {"X-Lium-MCP-Token": "own"}]
    owners = [GUARDED.identify(Headers(item)).owner for item in headers]
    assert len(set(owners)) == 3
    assert owners[2:] == [None, None]


@given(token=st.text(st.characters(max_codepoint=255)) | st.just(TOKEN[:-1]) | st.just(TOKEN.upper()))
def test_only_the_token_is_the_token(token: str) -> None:
    caller = GUARDED.identify(Headers({"X-Lium-MCP-Token": token}))
    assert caller.no_key_because is not None
    assert "in a drawer" in caller.no_key_because
    assert TOKEN not in caller.no_key_because
    assert GUARDED.identify(Headers({"X-Lium-MCP-Token": f" {TOKEN} "})).no_key_because is None


def test_a_token_in_the_place_of_a_key_is_no_key() -> None:
    for header in ({"X-API-Key": TOKEN}, {"Authorization": f"Bearer {TOKEN}"}):
        caller = GUARDED.identify(Headers(header))
        assert caller.key is None, "it would be sent to Lium"
        assert caller.no_key_because is not None


def test_where_there_is_no_key_to_guard_none_is_refused() -> None:
    unguarded = Callers(guarded=False)
    for headers in ({}, {"Via": "1.1 proxy"}, {"X-Lium-MCP-Token": TOKEN}):
        assert unguarded.identify(Headers(headers)) == Caller()


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

        request = Request(GUARDED.identify(Headers({"x-api-key": key})))
        await bind_caller(request, call_next)  # type: ignore[arg-type]  # all that it looks at

    async with anyio.create_task_group() as group:
        for key in ("first-key", "second-key", "third-key"):
            group.start_soon(serve, key)
    assert seen == dict.fromkeys(("first-key", "second-key", "third-key"), (False, None))
    assert known.current() is own
    await known.aclose()


@pytest.mark.parametrize("caller", [None, Caller(owner="own"), Caller()], ids=["stdio", "token", "unguarded"])
async def test_who_may_acts_for_the_servers_own_key(caller: Caller | None) -> None:
    known = accounts()
    request = Request(caller)

    async def call_next(_: object) -> None:
        assert known.current() is known.own

    await bind_caller(request, call_next)  # type: ignore[arg-type]  # all that it looks at
    await known.aclose()


async def test_who_may_not_has_neither_the_key_nor_anything_else_of_this_machine() -> None:
    known = accounts()

    async def call_next(_: object) -> None:
        account = known.current()
        assert account is not known.own
        assert not account.lium.has_api_key
        assert (account.ssh_keys, account.registry_password, account.pod_access) == (None, None, None)
        with pytest.raises(MissingApiKey) as refused:
            await account.lium.account.me()
        assert refused.value.hint == GUARDED.identify({}).no_key_because

    await bind_caller(Request(GUARDED.identify({})), call_next)  # type: ignore[arg-type]  # all that it looks at
    await known.aclose()
