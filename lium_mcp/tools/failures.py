"""What a failure tells the model: what happened, whether anything was changed or is billed, what to do next.

Every failure has a stable `code`. An outcome that nobody knows is a kind of its own and is never called a failure.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Any, Final

from mcp.types import CallToolResult, TextContent
from pydantic import ValidationError

from lium_mcp.api import errors as api
from lium_mcp.guard.confirm import NotConfirmed
from lium_mcp.guard.policy import PolicyRefused
from lium_mcp.guard.redaction import redact_text
from lium_mcp.rentals import AccountUnknown, LedgerUnavailable, PodNameTaken, RentUnsettled
from lium_mcp.text import clean, shortened
from lium_mcp.tools.official_commands import without_commands

NOTHING_CHANGED: Final = "Nothing was changed."
CHANGED_BEFORE: Final = "What the call was to change was changed, at least in part, before this failed."
META_KEY: Final = "lium-mcp/error"

_MAX_SENTENCES_CHARACTERS = 1500
# What happened may hold a server's text; what it means and what to do next must not be cut off after it.
_MAX_HAPPENED_CHARACTERS = 1000
_MAX_PROBLEMS = 5
_MAX_NAME_CHARACTERS = 60
# How alike two names are that may mean the same, and what a word in both adds: as maxPrice and max_usd_per_gpu_hour.
_NEAR: Final = 0.6
_COMMON_WORD: Final = 0.3
_MAX_REQUEST_ID_CHARACTERS = 100
# Of a tool and of a function: prompts are these.
_UNKNOWN_NAME: Final = ("extra_forbidden", "unexpected_keyword_argument")

GET_A_KEY: Final = (
    "This needs a Lium API key: create one at lium.io (Settings, API keys), set it as LIUM_API_KEY in the environment "
    "of this MCP server (over HTTP, send it in the header X-API-Key), and restart the server."
)

_CODES: dict[type[api.LiumError], str] = {
    api.RentOutcomeUnknown: "outcome_unknown",
    api.MissingApiKey: "api_key_missing",
    api.AuthenticationFailed: "api_key_refused",
    api.MissingScope: "scope_missing",
    api.InsufficientBalance: "insufficient_balance",
    api.PermissionDenied: "permission_denied",
    api.FirewallBlocked: "blocked_by_firewall",
    api.BudgetExceeded: "key_budget_exceeded",
    api.PaymentFailed: "payment_failed",
    api.NotFound: "not_found",
    api.RouteMissing: "not_supported",
    api.NotLium: "not_lium",
    api.NoExecutorMatches: "no_gpu_matches",
    api.Conflict: "conflict",
    api.ValidationFailed: "invalid_argument",
    api.InvalidRequest: "invalid_argument",
    api.BadRequest: "refused",
    api.RateLimited: "rate_limited",
    api.RequestTimedOut: "timed_out",
    api.CertificateRefused: "certificate_refused",
    api.ConnectionFailed: "lium_unreachable",
    api.ServerFailed: "lium_failed",
    api.UnreadableResponse: "unreadable_answer",
    api.ResponseTooLarge: "answer_too_large",
    api.UntrustedRedirect: "untrusted_redirect",
}


class ToolFailure(Exception):
    """A failure that a tool saw coming.

    Args:
        code: Stable, for programs.
        happened: One sentence: what happened.
        effect: One sentence: what was changed or is billed now.
        advice: One sentence: what to do next.
        request_id: The API's id of the request that failed.
    """

    def __init__(
        self, code: str, happened: str, advice: str, *, effect: str = NOTHING_CHANGED, request_id: str | None = None
    ) -> None:
        super().__init__(happened)
        self.code = code
        self.happened = happened
        self.effect = effect
        self.advice = advice
        self.request_id = request_id


def from_api(error: api.LiumError) -> ToolFailure:
    """Put an API error into the words of a tool."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), "lium_error")
    if isinstance(error, api.MissingApiKey):
        return ToolFailure(code, error.hint or GET_A_KEY, "")
    effect = NOTHING_CHANGED
    if error.effect == "unknown":
        code = "outcome_unknown"
        effect = "Whether it took effect is not known."
    hint = _sentence(error.hint) if error.hint else ""
    advice = " ".join(part for part in (hint, error.advice) if part)
    return ToolFailure(code, _sentence(str(error)), advice, effect=effect, request_id=error.request_id)


FAILURES: Final = (
    ToolFailure,
    api.LiumError,
    NotConfirmed,
    PolicyRefused,
    LedgerUnavailable,
    PodNameTaken,
    RentUnsettled,
    AccountUnknown,
)
"""Everything that ends a call without its being a defect; `as_failure` puts each into words."""

GuardError = NotConfirmed | PolicyRefused | LedgerUnavailable | PodNameTaken | RentUnsettled | AccountUnknown


def from_guard(error: GuardError) -> ToolFailure:
    """Put what stopped a call before anything was sent into the words of a tool."""
    match error:
        case NotConfirmed():
            return ToolFailure(error.code, str(error), error.advice)
        case PolicyRefused():
            return ToolFailure(
                "policy_refused",
                f"The limit {error.limit} of this server refuses it: {error.happened}.",
                f"What fits: {error.fits}. Only the person who runs this server can change a limit.",
            )
        case LedgerUnavailable():
            return ToolFailure(
                "ledger_unavailable",
                f"The ledger of rents cannot be used, and without it nothing is rented: {_sentence(str(error))}",
                "The person who runs this server has to look at LIUM_MCP_STATE_URL, or at disk space and permissions.",
            )
        case PodNameTaken() if error.removing:
            return ToolFailure(
                "pod_name_taken",
                f"The pod named {error.pod_name} ({', '.join(error.pod_ids)}) is being removed. Nothing was rented.",
                "Call again when list_pods shows it no more, or choose another name.",
                effect="",
            )
        case PodNameTaken():
            return ToolFailure(
                "pod_name_taken",
                f"A pod named {error.pod_name} exists already, from another request: {', '.join(error.pod_ids)}. "
                "Nothing was rented.",
                "Use that pod (get_pod), or choose another name if you want one more.",
                effect="",
            )
        case RentUnsettled():
            return ToolFailure("rent_unsettled", *_unsettled(error), effect="Nothing was rented now.")
        case AccountUnknown():
            return ToolFailure(
                "account_unknown",
                f"Lium does not say now which account this API key acts for: {_sentence(str(error))}",
                "Call again in a minute. Names and limits hold for an account, so nothing is rented until that is "
                "known once.",
            )


def _unsettled(error: RentUnsettled) -> tuple[str, str]:
    names = ", ".join(f"{entry.pod_name} (of {entry.created_at:%Y-%m-%d %H:%M} UTC)" for entry in error.entries)
    if error.in_flight:
        which = f": {names}" if names else ""
        return (
            f"Other rents of this account are under way at this moment{which}, and one is sent at a time.",
            "Call again in half a minute.",
        )
    return (
        f"An earlier rent is not settled, so it may have made a pod that bills: {names}.",
        "Call list_pods in a minute: it settles such rents, or says what a person has to look at.",
    )


def from_validation(tool: str, error: ValidationError, schema: Mapping[str, Any] = MappingProxyType({})) -> ToolFailure:
    """Name each argument that does not fit, and never repeat its value: it may be long or secret.

    Args:
        tool: What was called.
        error: What does not fit.
        schema: The parameters there are.
    """
    names, required = list(schema.get("properties", ())), schema.get("required", ())
    items = error.errors(include_url=False)
    problems = "; ".join(f"{_place(item)}: {_problem(item, names, required)}" for item in items[:_MAX_PROBLEMS])
    if len(items) > _MAX_PROBLEMS:
        problems += f"; and {len(items) - _MAX_PROBLEMS} more"
    advice = "Correct them and call again."
    if any(item["type"] in _UNKNOWN_NAME for item in items):
        advice += f" {tool} has {'these parameters: ' + ', '.join(names) if names else 'no parameters'}."
    return ToolFailure("invalid_argument", f"{tool} cannot take these arguments: {problems}.", advice)


def settings_wrong(problems: Iterable[str]) -> ToolFailure:
    """For a server that must not act, since it cannot know what it may do."""
    return ToolFailure(
        "settings_wrong",
        f"This MCP server does nothing, since its settings cannot be used: {'; '.join(problems)}.",
        "Have the user correct them where this server is configured, in the host's MCP configuration, and restart it.",
    )


def crashed(tool: str) -> ToolFailure:
    """For a defect of ours: the exception's own text stays in the log."""
    return ToolFailure(
        "internal_error",
        f"{tool} failed inside this MCP server; its log on standard error says why.",
        "Check the state with list_pods before trying again.",
        effect="If the call was to change something, whether it did is not known.",
    )


def as_failure(error: Exception) -> ToolFailure:
    """What went wrong, in the words of a tool."""
    if isinstance(error, ToolFailure):
        return error
    return from_api(error) if isinstance(error, api.LiumError) else from_guard(error)  # type: ignore[arg-type]


def render_failure(failure: ToolFailure, redact: Callable[[str], str] = redact_text) -> CallToolResult:
    """Write a failure as text for the model, with code and request id for programs as metadata."""
    details: dict[str, Any] = {"code": failure.code}
    if failure.request_id:
        details["request_id"] = redact(clean(failure.request_id))[:_MAX_REQUEST_ID_CHARACTERS]
    happened = shortened(without_commands(redact(clean(failure.happened))), _MAX_HAPPENED_CHARACTERS)
    rest = (without_commands(redact(clean(part))) for part in (failure.effect, failure.advice))
    text = shortened(" ".join(part for part in (happened, *rest) if part), _MAX_SENTENCES_CHARACTERS)
    suffix = ", ".join(f"{key}: {value}" for key, value in details.items())
    return CallToolResult(
        content=[TextContent(type="text", text=f"{text} ({suffix})")], is_error=True, _meta={META_KEY: details}
    )


def _place(item: Any) -> str:  # noqa: ANN401 - as below
    # A name that is none of ours is the caller's text, and of any length.
    return ".".join(str(part) for part in item["loc"])[:_MAX_NAME_CHARACTERS] or "arguments"


def _problem(item: Any, names: Sequence[str], required: Collection[str]) -> str:  # noqa: ANN401 - pydantic_core.ErrorDetails, whose context is untyped
    if item["type"] in _UNKNOWN_NAME:
        nearest = _nearest(str(item["loc"][-1]), names)
        return f"there is no such parameter{nearest and f', {nearest} is the nearest'}"
    if item["type"] == "too_short":
        least = item["ctx"]["min_length"]
        return "must not be empty" if least == 1 else f"needs at least {least}"
    problem = str(item["msg"]).removeprefix("Value error, ")
    blank = isinstance(item["input"], str) and not item["input"].strip()
    if len(item["loc"]) > 1 or item["loc"][0] in required or not (blank or item["type"] == "greater_than"):
        return problem
    # What would be no limit at all is not guessed to be absent.
    return f"{'must not be empty' if blank else problem}, but may be left out"


def _nearest(name: str, names: Sequence[str]) -> str:
    words = _words(name[:_MAX_NAME_CHARACTERS])

    def likeness(known: str) -> float:
        theirs = _words(known)
        common = _COMMON_WORD if {*words} & {*theirs} else 0
        return common + SequenceMatcher(None, "".join(words), "".join(theirs)).ratio()

    best = max(names, key=likeness, default="")
    return best if best and likeness(best) >= _NEAR else ""


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."
