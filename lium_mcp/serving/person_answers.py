"""Answers that come with a later request, to whichever server: they count for the account that was asked, and once.

The key that a caller sends may be another one by then, and so may the server. What tells callers apart is therefore the
account as the ledger knows it, and what makes an answer count once is a note in the ledger, where servers share the
secret of the seals. Whatever cannot be told, by the ledger or by Lium, refuses the answer: it never lets it act.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import Context

from lium_mcp.failures import Failure
from lium_mcp.guard.confirm import STATE_SECONDS, opened_seal
from lium_mcp.services.failure_words import FAILURES, as_failure
from lium_mcp.toolkit.rendering import render_failure

if TYPE_CHECKING:
    from lium_mcp.rentals.notes import Notes

log = logging.getLogger(__name__)

_ACCOUNT: Final = "lium_mcp.account"
"""Where the scope of a request has the account that it acts for, once that had to be known."""
# Twice as long as a seal holds, since servers may have different clocks.
_KEPT_FOR: Final = timedelta(seconds=2 * STATE_SECONDS)


class Answers:
    """Tells whose an answer is, and lets each act once.

    Args:
        learn_account: Learns the account that the request at hand acts for; None where it acts for none.
        notes: Where servers with the same secret note which answers were used; None where this one has its own.
    """

    def __init__(
        self, learn_account: Callable[[], Awaitable[str | None]], notes: "Callable[[], Notes] | None" = None
    ) -> None:
        self._learn_account = learn_account
        self._notes = notes
        self._used: dict[str, datetime] = {}

    async def know_who_answers(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware, before the SDK opens the seal: learn for which account an answer has come."""
        if ctx.method == "tools/call" and (ctx.params or {}).get("requestState") is not None:
            try:
                await self._learn(ctx)
            except FAILURES as error:
                log.warning("An answer was refused, since its account is not known: %s", error)
                return render_failure(as_failure(error))
        return await call_next(ctx)

    async def bind(self, context: Context[Any, Any]) -> None:
        """Learn to which account a question is put that is sealed next.

        Raises:
            Failure: nobody can tell now, so that it must not be put.
        """
        try:
            await self._learn(context.request_context)
        except FAILURES as error:
            raise as_failure(error) from None

    async def use(self) -> None:
        """Use the answer that the request at hand has brought.

        Raises:
            Failure: it was used before, or nobody can tell now.
        """
        opened = opened_seal()
        if opened is None:
            return
        now = datetime.now(UTC)
        try:
            is_first = await self._claim(opened.name, now)
        except FAILURES as error:
            raise as_failure(error) from None
        if not is_first:
            raise Failure(
                "answer_used",
                "The person's answer to this question was used already, by a request that came before this one.",
                "Look at the state, with list_pods first of all: that request may have done what was asked. Call again "
                "without requestState to have the person asked anew.",
            )

    async def _claim(self, name: str, now: datetime) -> bool:
        if self._notes is not None:
            return await self._notes().claim(f"answer {name}", now=now, until=now + _KEPT_FOR)
        self._used = {used: until for used, until in self._used.items() if until > now}
        is_first = name not in self._used
        self._used.setdefault(name, now + _KEPT_FOR)
        return is_first

    async def _learn(self, ctx: ServerRequestContext[Any, Any]) -> None:
        if ctx.request is not None:
            ctx.request.scope[_ACCOUNT] = await self._learn_account()


def account_of_request(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """Who an answer to a question has to come from; None over standard input and output, where there is one caller.

    Raises:
        LookupError: it was not learned.
    """
    return None if ctx.request is None else ctx.request.scope[_ACCOUNT]
