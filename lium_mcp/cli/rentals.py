"""``lium-mcp rentals``: look into the ledger of rents by hand, and close one of which nobody knows what came of it.

Output is for people, on standard output; nothing here is offered to agents.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.cli.console import say, show_table, working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.connecting import connect, open_ledger
from lium_mcp.figures import in_usd
from lium_mcp.rentals import REPLAY_WINDOW, Entry, LazyLedger, LedgerUnavailable, Task, has_something_left, key_tag
from lium_mcp.services.accounts import named
from lium_mcp.services.polling import READ_LIMIT_SECONDS
from lium_mcp.settings import Settings
from lium_mcp.settings_reading import as_given, load
from lium_mcp.values import SettingsError

_MOST_ROWS = 200
_DIGEST_SHOWN = 8
# Nobody knows from a ledger whether a server runs.
_NEXT = "A server on this ledger goes on with it: one that runs, or else the next that is started."
_SOONER = " It is sooner where its agent looks at the pods."
_NO_KEY_KNOWN = (
    "A server goes on with it only where it has a key of this account, and none is known here: what callers send with "
    "their requests is not kept. So the next call with that key does (list_pods will do); until then look at lium.io "
    "what bills."
)
_LOGIN_ENDED = (
    "Not done with, and nobody is logged in for its account any more, so that no server goes on with it: look at "
    "lium.io what bills."
)


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    own = {name: options.pop(name, None) for name in ("all", "action", "rental", "yes")}
    settings = load(options)
    try:
        ledger = open_ledger(settings)
    except SettingsError as error:
        raise SettingsError(*as_given(error.problems, options)) from None

    async def act() -> int:
        try:
            if own["action"] == "close":
                return await close_rental(ledger, own["rental"], confirmed=own["yes"])
            if ledger.is_empty:
                return _say_none(settings.find_state_url())
            await _say_whose(settings, ledger)
            return await list_rentals(ledger, _tag_of_key(settings), all_of_them=own["all"])
        finally:
            await ledger.aclose()

    return anyio.run(act)


def _say_none(url: str) -> int:
    """Say that no rent has made the ledger yet, and where that would be: another one may be meant."""
    path = url.removeprefix("sqlite:///")
    none = f"There is no ledger at {Path(path).absolute()}: the first rent makes it."
    say("The ledger is empty." if path == url else none)
    return ExitStatus.OK


async def _say_whose(settings: Settings, ledger: LazyLedger) -> None:
    """Say which account the key here acts for, and what the table calls it: a ledger may have rents of several."""
    key = settings.find_key()
    if key.text is None:
        return
    async with connect(settings) as lium:
        try:
            with working("Asking Lium whose key it is"), anyio.fail_after(READ_LIMIT_SECONDS):
                owner = named(await lium.account.me())
        except (LiumError, TimeoutError):
            owner = "an account that Lium does not tell now"
        with suppress(LedgerUnavailable):  # which the list says
            account = await ledger.open().account_of(key_tag(key.text, lium.base_url))
            rents = f"account {account[:_DIGEST_SHOWN]} below" if account else "without rents here"
            say(f"The key from {key.place} is of {owner}: {rents}.\n")


def _tag_of_key(settings: Settings) -> str | None:
    key = settings.find_key().text
    return None if key is None else key_tag(key, connect(settings).base_url)


async def list_rentals(ledger: LazyLedger, own_tag: str | None = None, *, all_of_them: bool) -> int:
    """Print the open rents and tasks of the ledger, or with `all_of_them` the newest closed ones too.

    `own_tag` stands for the key that a server with the same settings has.
    """
    try:
        entries = await ledger.open().newest(_MOST_ROWS)
        tasks = await ledger.tasks().newest(_MOST_ROWS)
        kept = await ledger.login_work().kept_accounts(own_tag)
        left_alone = {entry.id for entry in await ledger.login_work().rents_without_login(without=())}
    except LedgerUnavailable as error:
        return _fail(error)
    shown = [entry for entry in entries if entry.is_open or all_of_them]
    if shown:
        _say_rentals(shown, left_alone, kept)
    else:
        say("No open rents. Closed ones are shown with --all." if entries else "The ledger is empty.")
    _say_tasks([task for task in tasks if task.closed_at is None or all_of_them])
    return 0


def _say_rentals(entries: Sequence[Entry], left_alone: Collection[str], kept: Collection[str]) -> None:
    show_table(
        ("ID", "STATUS", "NAME", "SINCE (UTC)", "PER HOUR", "PODS", "ACCOUNT"),
        [
            (
                entry.id[:8],
                entry.status,
                entry.pod_name,
                f"{entry.created_at:%Y-%m-%d %H:%M}",
                "?" if entry.price_per_hour_usd is None else str(in_usd(entry.price_per_hour_usd)),
                ", ".join(entry.pod_ids) or "-",
                entry.account[:_DIGEST_SHOWN],
            )
            for entry in entries
        ],
        numbers=("PER HOUR",),
    )
    for entry in entries:
        if advice := _LOGIN_ENDED if entry.id in left_alone else _advice(entry, is_kept=entry.account in kept):
            say(f"{entry.pod_name} ({entry.id[:8]}): {advice}")


def _say_tasks(tasks: Sequence[Task]) -> None:
    if not tasks:
        return
    say()
    show_table(
        ("TASK", "STATUS", "KIND", "NAME", "SINCE (UTC)", "ABOUT"),
        [
            (
                task.id[:8],
                task.status,
                task.kind,
                task.name,
                f"{task.created_at:%Y-%m-%d %H:%M}",
                f"{task.subject}: {task.note or task.progress.get('because', '')}".rstrip(": "),
            )
            for task in tasks
        ],
    )


async def close_rental(ledger: LazyLedger, named: str, *, confirmed: bool) -> int:
    """Close an open rent, so that its name is free and others may be rented. Nothing is removed."""
    try:
        entries = [] if ledger.is_empty else await ledger.open().newest(_MOST_ROWS)
        matches = [
            entry for entry in entries if entry.is_open and (entry.pod_name == named or entry.id.startswith(named))
        ]
        if len(matches) != 1:
            found = f"{len(matches)} open rents are" if matches else "No open rent is"
            say(f"{found} named {named}. `lium-mcp rentals` lists them: name one by its id.")
            return ExitStatus.FAILED
        [entry] = matches
        if not confirmed:
            say(f"{entry.pod_name} ({entry.status}) of {entry.created_at:%Y-%m-%d %H:%M} UTC.")
            say(
                "Look at lium.io first: is there a pod of this name, or a charge for one? Remove it there if nobody "
                "wants it. Closing only lets this server rent again; it removes nothing. To close it, add --yes."
            )
            return ExitStatus.FAILED
        await ledger.open().change(entry, "closed", now=datetime.now(UTC), note="closed by hand")
    except LedgerUnavailable as error:
        return _fail(error)
    say(f"Closed {entry.pod_name} ({entry.id[:8]}).")
    return 0


def _advice(entry: Entry, *, is_kept: bool) -> str:
    """What is to be done for a rent; `is_kept` says that some server may have a key of its account."""
    if not entry.is_open:
        return entry.note
    if entry.is_unsettled and datetime.now(UTC) - entry.created_at >= REPLAY_WINDOW:
        return "Look at lium.io for a pod or a charge of this name, then: lium-mcp rentals close ID"
    following = _NEXT if is_kept else _NO_KEY_KNOWN
    if entry.is_unsettled:
        return f"To be settled. {following}{_SOONER if is_kept else ''}"
    return f"Not done with yet. {following}" if has_something_left(entry) else ""


def _fail(error: LedgerUnavailable) -> int:
    say(f"The ledger cannot be used: {error}")
    return ExitStatus.FAILED
