"""Puts what went wrong below into the words of a tool: what happened, what changed, what to do next."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from lium_mcp.api import errors as api
from lium_mcp.api.errors import LiumError
from lium_mcp.failures import NOTHING_CHANGED, Failure
from lium_mcp.guard.consent import NotConfirmed
from lium_mcp.guard.policy import PolicyRefused
from lium_mcp.rentals import BEING_SETTLED, AccountUnknown, LedgerUnavailable, PodNameTaken, RentSettled, RentUnsettled
from lium_mcp.text import quotation

_MOST_HINT_CHARACTERS: Final = 200
_NOTHING_THERE: Final = 404
CHANGED_BEFORE: Final = "What the call was to change was changed, at least in part, before this failed."
GET_A_KEY: Final = (
    "This needs a Lium API key: create one at lium.io (Settings, API keys), set it as LIUM_API_KEY in the environment "
    "of this MCP server (over HTTP, send it in the header X-API-Key), and restart the server."
)
LOG_IN: Final = (
    "This needs a Lium API key: have the user run `lium-mcp login` in a terminal on this machine, after which calls "
    "work without a restart, or create one at lium.io (Settings, API keys), set it as LIUM_API_KEY in the environment "
    "of this MCP server, and restart the server."
)
_CODES: dict[type[api.LiumError], str] = {
    api.RentOutcomeUnknown: "outcome_unknown",
    api.MissingApiKey: "api_key_missing",
    api.AuthenticationFailed: "api_key_refused",
    api.LoginEnded: "login_ended",
    api.LoginNotTold: "ledger_unavailable",
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
NODES_TAKEN: Final = "nodes_taken"
_TAKEN: Final = frozenset({"node_unavailable", "node_rent_in_progress", "node_paused_by_provider"})
"""Lium's codes for a node that may be free later."""
# Lium's codes for what this server also sees by itself: one thing has one code, whoever says it.
_SAME_AS_OURS: Final = {
    **dict.fromkeys(_TAKEN, NODES_TAKEN),
    "node_not_found": "node_not_for_rent",
    "gpu_count_invalid": "gpu_count_not_rentable",
    "gpu_split_not_allowed": "gpu_count_not_rentable",
    "template_not_found": "template_not_found",
}
# The arguments that name one thing, with the path under which Lium is asked for it, and where its ids are shown.
_NAMED: Final = {
    "backup_id": ("/backup-logs/[^/]+(/cancel)?", "list_backups shows the ids of backups."),
    "restore_id": ("/restore-logs/[^/]+/cancel", "list_restores shows the ids of restores."),
    "reset_id": ("/pods/[^/]+/reset-gpu/[^/]+", "The answer of the call that began the reset has its id."),
    "executor_id": ("/executors/[^/]+/quote", "list_gpus shows the ids of free nodes."),
    "cluster_id": ("/clusters/[^/]+", "The answer of rent_cluster has its id; list_pods shows what still bills."),
    "key_id": ("/ssh-keys/[^/]+", "list_ssh_keys shows the ids of keys."),
    "volume": ("/volumes/[^/]+", "list_volumes shows the volumes that there are."),
    "template": ("/templates/[^/]+", "list_templates shows the templates that there are."),
}

REFUSALS: Final = (
    api.PermissionDenied,
    api.BadRequest,
    api.Conflict,
    api.ValidationFailed,
    api.PaymentFailed,
)
"""Definite answers of Lium, which trying again in a moment does not mend."""
FAILURES: Final = (
    Failure,
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


def from_api(error: api.LiumError) -> Failure:
    """Put an API error into the words of a tool."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), "lium_error")
    if isinstance(error, api.MissingApiKey):
        return Failure(code, error.hint or GET_A_KEY, "")
    if isinstance(error, (*REFUSALS, api.NotFound)):
        code = _SAME_AS_OURS.get(error.code or "", code)
    effect = NOTHING_CHANGED
    if error.effect == "unknown":
        code = "outcome_unknown"
        effect = "Whether it took effect is not known."
    said = quotation(_sentence(error.hint or ""), _MOST_HINT_CHARACTERS)
    hint = f"Lium adds: {said}" if said else ""
    advice = " ".join(part for part in (hint, error.advice) if part)
    return Failure(code, _sentence(str(error)), advice, effect=effect, request_id=error.request_id)


def says_taken(error: api.LiumError) -> bool:
    """Whether Lium surely refused a rent for a node that may be free later."""
    return error.effect == "none" and error.code in _TAKEN


def from_guard(error: GuardError) -> Failure:
    """Put what stopped a call before anything was sent into the words of a tool."""
    match error:
        case NotConfirmed():
            return Failure(error.code, str(error), error.advice)
        case PolicyRefused():
            return Failure(
                "policy_refused",
                f"The limit {error.limit} of this server refuses it: {error.happened}.",
                f"What fits: {error.fits}. Only the person who runs this server can change a limit.",
            )
        case LedgerUnavailable():
            return Failure(
                "ledger_unavailable",
                f"The ledger of rents cannot be used, and without it nothing is rented: {_sentence(str(error))}",
                "The person who runs this server has to look at LIUM_MCP_STATE_URL, or at disk space and permissions.",
            )
        case PodNameTaken():
            return _name_taken(error)
        case RentUnsettled():
            return Failure("rent_unsettled", *_unsettled(error), effect="Nothing was rented now.")
        case AccountUnknown():
            return Failure(
                "account_unknown",
                f"Lium does not say now which account this API key acts for: {_sentence(str(error))}",
                "Call again in a minute. Names and limits hold for an account, so nothing is rented until that is "
                "known once.",
            )


def _name_taken(error: PodNameTaken) -> Failure:
    name, code = error.pod_name, "pod_name_taken"
    if error.is_ordered:
        code = "standing_order_open"
        happened = f"A standing order of this account waits to rent pod {name}."
        advice = (
            "Choose another name, or cancel that order first: remove_pod with its name, on a server that has the API "
            "key it was placed with."
        )
    elif error.removing:
        happened = f"The pod named {name} ({', '.join(error.pod_ids)}) is being removed."
        advice = "Call again when list_pods shows it no more, or choose another name."
    elif error.pod_ids:
        happened = f"A pod named {name} exists already, from another request: {', '.join(error.pod_ids)}."
        advice = "Use that pod (get_pod), or choose another name if you want one more."
    else:
        happened = f"Another request is renting a pod named {name}."
        advice = "Call list_pods in a minute, or choose another name."
    return Failure(code, f"{happened} Nothing was rented.", advice, effect="")


def _unsettled(error: RentUnsettled) -> tuple[str, str]:
    names = ", ".join(f"{entry.pod_name} (of {entry.created_at:%Y-%m-%d %H:%M} UTC)" for entry in error.entries)
    if error.in_flight:
        which = f": {names}" if names else ""
        return (
            f"Other rents of this account are under way{which}, and one is sent at a time.",
            "Call again in half a minute. If the server that was to send them has ended, they are given up soon.",
        )
    return (
        f"An earlier rent is not settled, so it may have made a pod that bills: {names}.",
        " ".join(
            [
                *(not_sent_again(why) for entry in error.entries if (why := entry.not_sent_again_because) is not None),
                "Call list_pods in a minute: it settles such rents, or says what a person has to look at.",
            ]
        ),
    )


def after_changes(failure: Failure, changes: Iterable[str]) -> Failure:
    """Let a failure say what was changed before it: by its call, or by what settled earlier rents meanwhile."""
    noted = dict.fromkeys(changes)
    told = f"{failure.happened} {failure.advice}"
    settled = [one for one in noted if isinstance(one, RentSettled) and not one.is_told_in(told)]
    if failure.effect == NOTHING_CHANGED and noted:
        if any(one != BEING_SETTLED and not isinstance(one, RentSettled) for one in noted):
            failure.effect = CHANGED_BEFORE
        elif failure.code == "timed_out":  # cut off in the middle of settling
            failure.effect = BEING_SETTLED
        elif settled:
            failure.effect = "Nothing else was changed."
    failure.effect = " ".join(filter(None, (*settled, failure.effect)))
    return failure


def not_sent_again(why: str) -> str:
    """Say why a rent whose answer was lost is only looked for, and what to do."""
    return (
        f"It is not sent again, since {why}: list_pods looks for its pod by name, and gives it up about ten minutes "
        "after the rent if there is none. Nothing else is rented until then."
    )


def as_failure(error: Exception, given: Mapping[str, object] = MappingProxyType({})) -> Failure:
    """Put any of `FAILURES` into the words of a tool, which may be about an argument that was `given`."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, api.NotFound | api.RouteMissing) and error.status == _NOTHING_THERE:
        for argument, (path, where) in _NAMED.items():
            if given.get(argument) and re.fullmatch(path, error.path):
                return _not_found(error, argument, where)
    return from_api(error) if isinstance(error, api.LiumError) else from_guard(error)  # type: ignore[arg-type]


def _not_found(error: api.LiumError, argument: str, where: str) -> Failure:
    """Say which argument names nothing, whatever Lium's words for it: the bare ones can also be of a missing route."""
    failure = from_api(error)
    is_route = isinstance(error, api.RouteMissing)
    happened = f"Lium finds nothing for this {argument}" + ("" if is_route else f": {failure.happened}")
    doubt = " If they all end like this, this Lium cannot do it." if is_route else ""
    return Failure(
        "not_found", _sentence(happened), f"{where}{doubt}", effect=failure.effect, request_id=failure.request_id
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


@contextmanager
def after_change(done: str) -> Iterator[None]:
    """Let what fails in the body say that a change was made before it.

    Raises:
        Failure: the body failed; `done` is its word on what was changed.
    """
    try:
        yield
    except LiumError as error:
        failure = from_api(error)
        raise Failure(
            failure.code, failure.happened, failure.advice, effect=done, request_id=failure.request_id
        ) from error


def settings_wrong(problems: Iterable[str]) -> Failure:
    """Refuse a call of a server that cannot know what it may do."""
    return Failure(
        "settings_wrong",
        f"This MCP server does nothing, since its settings cannot be used: {'; '.join(problems)}.",
        "Have the user correct them where this server is configured, in the host's MCP configuration, and restart it.",
    )


def crashed(tool: str) -> Failure:
    """Report a defect of ours; the exception's own text stays in the log."""
    return Failure(
        "internal_error",
        f"{tool} failed inside this MCP server; its log on standard error says why.",
        "Check the state with list_pods before trying again.",
        effect="If the call was to change something, whether it did is not known.",
    )
