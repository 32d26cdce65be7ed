"""The routes by which a program gets a key for a person who agrees to it on a page.

Who polls with a session's id gets the key: it is in no log and in no state. The key is delivered once, and a session
that nobody answers ends, so that a client which relies on either being otherwise is found out.
"""

from datetime import timedelta
from typing import Final

from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.records import StoredApiKey, StoredLogin
from lium_mcp.sandbox.refusals import detailed
from lium_mcp.sandbox.seeded import identifier
from lium_mcp.sandbox.world import World

PAGE_PREFIX: Final = "/cli-auth"
LIFETIME: Final = timedelta(minutes=10)
_POLL_ROUTE: Final = "/cli-auth/poll/{session_id}"


def begin_login(call: ApiCall) -> Reply:
    """Open a session, and name the page on which a person answers it."""
    world = call.world
    login = StoredLogin(
        page=identifier(world.seed, "login page", len(world.logins)),
        session_id=identifier(world.seed, "login session", len(world.logins)),
        created_at=world.now,
    )
    world.logins[login.session_id] = login
    address = f"http://{call.headers.get('host', '127.0.0.1')}{PAGE_PREFIX}/{login.page}"
    return Reply({"browser_url": address, "session_id": login.session_id})


def poll_login(call: ApiCall) -> Reply:
    """Say how far a session is; the answer that says that the person agreed has the key."""
    login = call.world.logins.get(call.path_params["session_id"])
    if login is None or is_over(call.world, login):
        raise detailed(404, "Session not found")
    key = call.world.keys.get(login.key_id or "")
    if key is None:
        return Reply({"status": login.status, "api_key": None})
    login.is_delivered = True
    return Reply({"status": login.status, "api_key": key.secret})


def is_over(world: World, login: StoredLogin) -> bool:
    """Whether a session is used up, or too old."""
    return login.is_delivered or world.now >= login.created_at + LIFETIME


def answer(world: World, login: StoredLogin, *, agrees: bool) -> None:
    """Let the person of the first account answer; an agreement makes a key."""
    login.status = "approved" if agrees else "denied"
    if not agrees:
        return
    account = next(iter(world.accounts.values()))
    key = StoredApiKey(
        id=world.new_id("key"),
        account_id=account.id,
        name=f"login-{len(world.keys)}",
        secret=f"sk_sandbox_{identifier(world.seed, 'secret', len(world.keys)).replace('-', '')}",
        scopes=("read", "rent", "manage"),
        visibility="account",
        created_at=world.now,
    )
    world.keys[key.id] = key
    login.key_id = key.id


def without_session(path: str) -> str:
    """The path of a request as it may be noted."""
    return _POLL_ROUTE if path.startswith(_POLL_ROUTE.partition("{")[0]) else path


OPERATIONS = (
    Operation("beginLogin", "POST", "/cli-auth/init", Access.PUBLIC, begin_login),
    Operation("pollLogin", "GET", _POLL_ROUTE, Access.PUBLIC, poll_login),
)
