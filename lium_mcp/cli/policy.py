"""``lium-mcp policy explain``: the limits in force, what is used of each, and what is left."""

import os
from typing import Any

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.cli.console import say, working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.key_cures import log_in
from lium_mcp.cli.limits_table import say_unbounded, say_whose, show_limits
from lium_mcp.cli.person_words import in_words
from lium_mcp.cli.readied import read, start_log
from lium_mcp.figures import in_usd
from lium_mcp.server import make_runtime, offered_by, select_tools
from lium_mcp.services.accounts import Account, named
from lium_mcp.services.policy_view import Offered, PolicyView, policy_view
from lium_mcp.services.polling import READ_LIMIT_SECONDS
from lium_mcp.settings import Settings
from lium_mcp.toolkit.call import Runtime

_CONFIRM = {
    "auto": "before money is spent or data destroyed, where the client can ask",
    "always": "before money is spent or data destroyed; where the client cannot ask, it is refused",
    "never": "never",
}


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    options.pop("action")
    settings = read(options)
    start_log(settings)

    async def explain() -> int:
        runtime, accounts = make_runtime(settings, ())
        try:
            return await explain_policy(settings, runtime, offered_by(settings, len(select_tools(settings))))
        finally:
            await accounts.aclose()

    return anyio.run(explain)


async def explain_policy(settings: Settings, runtime: Runtime, offered: Offered) -> int:
    """Print whose money it is, the limits in force, what is used of them, and what is left.

    Returns:
        The exit status: FAILED where the account or what is used could not be read.
    """
    account = runtime.account()
    with working("Asking Lium"):
        unread = await _say_whose(settings, account)
        view = await policy_view(account, runtime.policy, runtime.confirm, offered, in_words=in_words)
    kind = "only reading tools" if view.read_only else "tools"
    say(f"{view.tool_count} {kind} of {', '.join(view.toolsets)}. A person is asked: {_CONFIRM[view.confirm]}.")
    if view.limits:
        _say_limits(view)
    else:
        say(
            "No limits are set: whoever calls can spend the whole balance. Set some where the server is started, such "
            "as LIUM_MCP_MAX_PRICE_PER_HOUR_USD=3 and LIUM_MCP_BUDGET_USD=50; `lium-mcp help policy explain` has all."
        )
    say_whose(runtime.policy.limits)
    if problem := unread or view.unread_because:
        say(f"\nWhat is used is not known: {problem}")
    return ExitStatus.FAILED if problem else ExitStatus.OK


async def _say_whose(settings: Settings, account: Account) -> str | None:
    """Say whose account it is; why that could not be read, if it could not."""
    key = settings.find_key()
    if key.text is None:
        return f"{key.missing_because or 'No API key is set.'} To get one: {log_in(os.environ)}"
    try:
        with anyio.fail_after(READ_LIMIT_SECONDS):
            me = await account.lium.account.me()
    except (LiumError, TimeoutError) as error:
        why = in_words(error) if isinstance(error, LiumError) else "Lium did not answer in time."
        return f"{why} (The key is from {key.place}, the address is {settings.base_url}.)"
    balance = "" if me.balance is None else f", with {in_usd(me.balance)} left"
    say(f"Acting for {named(me)}{balance}; the key is from {key.place}.")
    return None


def _say_limits(view: PolicyView) -> None:
    say(
        "Limits are enforced." if view.mode == "enforce" else "Shadow mode: limits refuse nothing, and are only logged."
    )
    say()
    show_limits(view.limits or [])
    if view.note:
        say(f"\n{view.note}")
    say_unbounded(view.unbounded, refuses=view.mode == "enforce")
