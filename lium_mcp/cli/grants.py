"""``lium-mcp grants``: who has logged in at this server over HTTP, and the end of such a login."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from lium_mcp.cli.console import say, show_table
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.connecting import connect, open_ledger
from lium_mcp.rentals import LazyLedger, LedgerUnavailable, Task, key_tag
from lium_mcp.rentals.grants import Grant
from lium_mcp.services.logging_in import KEYS_PAGE
from lium_mcp.services.orders.order_terms import is_bound_to_its_login
from lium_mcp.settings import Settings
from lium_mcp.settings_reading import load

_SHOWN: Final = 8
_MOST_TASKS: Final = 200


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    action, named = options.pop("action", None), options.pop("grant", None)
    settings = load(options)
    ledger = open_ledger(settings)

    async def act() -> int:
        try:
            grants = [] if ledger.is_empty else await ledger.grants().newest(now=datetime.now(UTC))
            if action == "revoke":
                return await _revoke(settings, ledger, grants, named)
            _say_grants(grants, settings.find_oauth_keys())
        except LedgerUnavailable as error:
            say(f"The ledger cannot be used: {error}")
            return ExitStatus.FAILED
        finally:
            await ledger.aclose()
        return ExitStatus.OK

    return anyio.run(act)


async def _revoke(settings: Settings, ledger: LazyLedger, grants: Sequence[Grant], named: str) -> int:
    matches = [grant for grant in grants if grant.id.startswith(named)]
    if len(matches) != 1:
        say(f"{len(matches) or 'No'} logins begin with {named}. `lium-mcp grants` lists them: name one by its id.")
        return ExitStatus.FAILED
    [grant] = matches
    await ledger.grants().end(grant.id)
    say(f"Ended the login {grant.id[:_SHOWN]}: its tokens count no more, and its Lium key is deleted here.")
    opened = _open([grant], settings.find_oauth_keys())[grant.id]
    await _say_what_ends(ledger, grant.account, key_tag(opened["key"], connect(settings).base_url) if opened else None)
    say(f"The key itself goes on to work until its owner revokes it at {KEYS_PAGE}.")
    return ExitStatus.OK


async def _say_what_ends(ledger: LazyLedger, account: str, tag: str | None) -> None:
    """Say what becomes of what servers do between calls for an account of which a login has ended.

    `tag` stands for the key of that login; None where nothing opens it.
    """
    newest = await ledger.tasks().newest(_MOST_TASKS)
    tasks = [task for task in newest if task.by_login and task.account == account and task.closed_at is None]
    if tasks and not await ledger.grants().of_account(account):
        say(f"Nobody else is logged in for the account, so that nothing is done any more of: {_named(tasks)}.")
        return
    bound = [task for task in tasks if is_bound_to_its_login(task)]
    ending = [task for task in bound if task.key_tag == tag]
    if ending:
        say(f"Ends too, since with another login nobody can tell what its template runs: {_named(ending)}.")
    doubtful = bound if tag is None else []
    if doubtful:
        say(
            f"Ends too if it was placed with this login, which no key in LIUM_MCP_OAUTH_KEYS tells: {_named(doubtful)}."
        )
    if others := [task for task in tasks if task not in (*ending, *doubtful)]:
        say(f"With another login of the account goes on: {_named(others)}.")


def _named(tasks: Sequence[Task]) -> str:
    return ", ".join(f"{task.kind} {task.name}" for task in tasks)


def _say_grants(grants: Sequence[Grant], keys: Sequence[str]) -> None:
    if not grants:
        say("Nobody is logged in.")
        return
    opened = _open(grants, keys)
    show_table(
        ("ID", "WHO", "ACCOUNT", "CLIENT", "SINCE (UTC)", "RENEWED", "ENDS"),
        [
            (
                grant.id[:_SHOWN],
                (opened[grant.id] or {}).get("owner", "?"),
                grant.account[:_SHOWN],
                grant.client_name or "-",
                *(f"{moment:%Y-%m-%d %H:%M}" for moment in (grant.created_at, grant.renewed_at, grant.until)),
            )
            for grant in grants
        ],
    )
    if None in opened.values():
        say("Who it is can be read with the keys in LIUM_MCP_OAUTH_KEYS alone, and none of them opens what shows a ?.")


def _open(grants: Sequence[Grant], keys: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """What is sealed of grants, by their ids; None of one that none of the keys opens."""
    if not keys:
        return {grant.id: None for grant in grants}
    from lium_mcp.guard.sealing import Seal  # noqa: PLC0415 - its libraries take long to import

    seal = Seal(keys)
    return {grant.id: seal.open(grant.sealed) for grant in grants}
