"""The rough profile: the API on a bad day. The seed and a request's number decide what goes wrong with the request."""

from typing import Any, Final

from lium_mcp.sandbox.faults import WIRE_KINDS, Fault, Match
from lium_mcp.sandbox.seeded import fraction

_POD_LIST: Final = Match(method="GET", path="/pods")
_MARKET: Final = Match(method="GET", path="/executors")
_READ: Final = Match(method="GET")
_CHANGE: Final = (Match(method="PUT"), Match(method="POST"), Match(method="DELETE"))
_RENTS: Final = (Match(method="POST", path="/executors/*/rent"), Match(method="POST", path="/executors/rent-by-spec"))
_A_YEAR_IN_SECONDS: Final = 365 * 24 * 3600
_BAD_GATEWAY: Final[dict[str, Any]] = {"kind": "error", "status": 502, "html": True}

# How often, which requests, what: a fault of the answer or the wire strikes that request, and others like it while the
# fault lasts; one of the world strikes the next rent or removal.
_DRAWN: Final[tuple[tuple[float, tuple[Match, ...], dict[str, Any]], ...]] = (
    (0.02, (_POD_LIST,), {"kind": "empty_list", "lasting_seconds": 45}),
    (0.03, (_POD_LIST,), {"kind": "short_list", "share": 0.5, "lasting_seconds": 45}),
    (0.02, (_POD_LIST,), {"kind": "unreadable_rows", "share": 0.3}),
    (0.03, (_POD_LIST,), {"kind": "late", "seconds": 13}),
    (0.01, (_MARKET,), {"kind": "empty_list"}),
    (0.2, (_MARKET,), {"kind": "missing_fields", "share": 0.3}),
    (0.05, (_MARKET,), {"kind": "unreadable_rows", "share": 0.05}),
    (0.25, (_READ,), {"kind": "spelled_otherwise", "share": 0.5}),
    (0.02, (_READ,), {"kind": "wrong_date"}),
    (0.01, (_READ,), {"kind": "rate_limit", "retry_after_seconds": _A_YEAR_IN_SECONDS}),
    (0.02, (_READ, *_CHANGE), {"kind": "error", "status": 503}),
    (0.01, (_READ, *_CHANGE), {"kind": "lost_answer"}),
    (0.05, (Match(method="GET", path="/users/me"),), {"kind": "error", "status": 500}),
    (0.1, (Match(method="GET", path="/backup-logs/**"),), {"kind": "endless_pages"}),
    (0.04, _RENTS, _BAD_GATEWAY | {"after_work": True}),
    (0.02, _RENTS, _BAD_GATEWAY),
    (0.03, _RENTS, {"kind": "missing_fields", "fields": ["pod_id"]}),
    (0.1, _RENTS, {"kind": "missing_fields", "fields": ["success"]}),
    (0.1, _RENTS, {"kind": "appears_late", "seconds": 20}),
    (0.1, (Match(method="DELETE", path="/pods/*"),), {"kind": "delete_slow", "seconds": 120}),
    (0.02, (_POD_LIST, Match(method="GET", path="/pods/*")), {"kind": "missing_fields", "fields": ["status"]}),
    (0.1, _RENTS, {"kind": "comes_out_short", "gpus": 0, "volume": "not mounted"}),
)


def standing_faults() -> list[Fault]:
    """Return the faults that hold all day."""
    return [Fault(kind="loose_gpu_types", times=None)]


def drawn_faults(seed: int, number: int, method: str, path: str) -> list[Fault]:
    """Return the faults of the request of this number."""
    here = {"match": {"method": method, "path": path}}
    return [
        Fault.model_validate(options | here if options["kind"] in WIRE_KINDS else options)
        for index, (chance, matches, options) in enumerate(_DRAWN)
        if any(match.covers(method, path, None) for match in matches)
        and fraction(seed, "rough", number, index) < chance
    ]
