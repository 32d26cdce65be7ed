"""Failures on demand: what can be made to go wrong, when, and how often.

A test or a control route arms a fault, which is spent when it strikes. The outermost layer of the app looks for faults
of the wire (a lost answer, a storm of 429) and of the answer (an empty list, a missing figure); each part of the world
looks for the faults that concern it (a boot that fails).
"""

import re
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

WireKind = Literal[
    "lost_request",
    "lost_answer",
    "slow",
    "rate_limit",
    "error",
    "truncated_json",
    "oversize",
    "redirect",
    "unauthorized",
    "forbidden",
]
AnswerKind = Literal[
    "late",
    "empty_list",
    "short_list",
    "unreadable_rows",
    "missing_fields",
    "spelled_otherwise",
    "endless_pages",
    "wrong_date",
    "absurd_figures",
    "byte_order_mark",
    "keep_alives",
    "ipv6_hosts",
]
WorldKind = Literal[
    "boot_fails",
    "boot_slow",
    "reboot_fails",
    "node_taken",
    "provider_pause",
    "provider_notice",
    "spot_reclaim",
    "backup_fails",
    "backup_partial",
    "restore_fails",
    "template_verify_fails",
    "gpu_reset_fails",
    "jupyter_fails",
    "delete_fails",
    "rent_crash",
    "old_server",
    "ssh_refuses",
    "ssh_silent",
    "ssh_drops",
    "host_key_changes",
    "appears_late",
    "delete_slow",
    "loose_gpu_types",
    "comes_out_short",
    "container_restarts",
    "host_key_stays",
    "switch_fails",
    "switch_keeps_volume",
]
ANSWER_KINDS: Final[frozenset[str]] = frozenset(get_args(AnswerKind))
WIRE_KINDS: Final[frozenset[str]] = frozenset(get_args(WireKind)) | ANSWER_KINDS
# Several of these may strike one request.
_COMBINED: Final = ANSWER_KINDS | {"slow"}

# The options of each kind besides kind, times, lasting_seconds and match; one that would be ignored is refused.
OPTIONS: Final[dict[str, frozenset[str]]] = {
    "slow": frozenset({"seconds", "stage"}),
    "rate_limit": frozenset({"retry_after_seconds"}),
    "error": frozenset({"status", "body", "html", "after_work", "retry_after_seconds"}),
    "oversize": frozenset({"bytes"}),
    "redirect": frozenset({"location", "status"}),
    "boot_fails": frozenset({"executor_id", "pod_id", "pod_name", "message", "step"}),
    "boot_slow": frozenset({"executor_id", "pod_id", "pod_name", "seconds"}),
    "reboot_fails": frozenset({"pod_id", "pod_name", "message"}),
    "node_taken": frozenset({"executor_id"}),
    "provider_pause": frozenset({"executor_id"}),
    "provider_notice": frozenset({"executor_id", "message"}),
    "spot_reclaim": frozenset({"pod_id"}),
    "backup_fails": frozenset({"pod_id", "message"}),
    "backup_partial": frozenset({"pod_id", "message"}),
    "restore_fails": frozenset({"pod_id", "message"}),
    "template_verify_fails": frozenset({"template_id", "message"}),
    "gpu_reset_fails": frozenset({"pod_id", "message"}),
    "jupyter_fails": frozenset({"pod_id"}),
    "delete_fails": frozenset({"pod_id"}),
    "rent_crash": frozenset({"rented"}),
    "ssh_refuses": frozenset({"pod_id", "pod_name"}),
    "ssh_silent": frozenset({"pod_id", "pod_name"}),
    "ssh_drops": frozenset({"pod_id", "pod_name", "bytes"}),
    "host_key_changes": frozenset({"pod_id", "pod_name"}),
    "late": frozenset({"seconds"}),
    "short_list": frozenset({"share", "ids"}),
    "unreadable_rows": frozenset({"share", "ids"}),
    "missing_fields": frozenset({"share", "ids", "fields", "leaves"}),
    "spelled_otherwise": frozenset({"share", "ids"}),
    "wrong_date": frozenset({"offset_seconds"}),
    "absurd_figures": frozenset({"share", "ids"}),
    "appears_late": frozenset({"seconds", "pod_name", "listed"}),
    "delete_slow": frozenset({"pod_id", "pod_name", "seconds"}),
    "switch_fails": frozenset({"pod_id", "pod_name"}),
    "comes_out_short": frozenset({"pod_name", "ports", "gpus", "encryption", "volume"}),
    "container_restarts": frozenset({"pod_id", "pod_name", "seconds", "exit_code", "oom", "told", "message"}),
}


class Match(BaseModel):
    """Which requests a wire fault strikes.

    ``*`` in the path is one segment, ``**`` any number; a key goes by its name.
    """

    model_config = ConfigDict(extra="forbid")

    method: str | None = None
    path: str | None = None
    key: str | None = None

    def covers(self, method: str, path: str, key: str | None) -> bool:
        """Tell whether the request (its path without ``/api``, the name of its key) is meant."""
        if self.method is not None and self.method.upper() != method:
            return False
        if self.key is not None and self.key != key:
            return False
        if self.path is None:
            return True
        pattern = re.escape(self.path).replace(r"\*\*", ".*").replace(r"\*", "[^/]+")
        return re.fullmatch(pattern, path) is not None


# The requests whose answers a fault of the answer spoils where no match is given.
_USUAL_MATCH: Final = {
    "late": Match(method="GET", path="/pods"),
    "empty_list": Match(method="GET", path="/pods"),
    "short_list": Match(method="GET", path="/pods"),
    "unreadable_rows": Match(method="GET", path="/pods"),
    "missing_fields": Match(method="GET", path="/executors"),
    "spelled_otherwise": Match(method="GET"),
    "absurd_figures": Match(method="GET", path="/executors"),
    "byte_order_mark": Match(method="GET"),
    "keep_alives": Match(method="GET", path="/pods/*/logs"),
    "ipv6_hosts": Match(method="GET", path="/pods**"),
    "endless_pages": Match(method="GET", path="/backup-logs/**"),
}


class Fault(BaseModel):
    """One thing that will go wrong.

    It strikes ``times`` times, or, where ``lasting_seconds`` is given, as often as it can in so many sandbox seconds.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal[WireKind, AnswerKind, WorldKind]
    times: Annotated[int, Field(ge=1)] | None = 1
    lasting_seconds: Annotated[float, Field(gt=0)] | None = None
    match: Match = Field(default_factory=Match)

    seconds: Annotated[float, Field(ge=0)] = 1.0
    stage: Literal["before", "working", "answer"] = "before"
    retry_after_seconds: int | None = None
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    body: str | None = None
    html: bool = False
    after_work: bool = False
    bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    location: str = "http://127.0.0.1:9/elsewhere"
    executor_id: str | None = None
    pod_id: str | None = None
    pod_name: str | None = None
    template_id: str | None = None
    message: str | None = None
    step: str | None = None
    rented: bool = True
    # Which rows of an answer it strikes: these, or this share of all, always the same ones.
    ids: list[str] | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    fields: Annotated[list[str], Field(min_length=1)] = ["available_gpu_count", "min_gpu_count_for_rental", "specs"]
    leaves: Literal["null", "nothing", "either"] = "either"
    listed: bool = True
    # What a pod comes out with: so many open ports and visible GPUs, this encryption status, and without its volume,
    # which its row does not show, only its events tell, or nobody does.
    ports: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    encryption: str | None = None
    volume: Literal["not shown", "only told", "not mounted"] | None = None
    # How a container's main process ends, and whether Lium tells that it did.
    exit_code: Annotated[int, Field(ge=0, le=255)] = 137
    oom: bool = False
    told: bool = True
    offset_seconds: float = -86_400.0

    @model_validator(mode="after")
    def _refuse_what_would_be_ignored(self) -> Self:
        allowed = OPTIONS.get(self.kind, frozenset()) | {"kind", "times", "lasting_seconds", "match"}
        if ignored := self.model_fields_set - allowed:
            msg = f"{self.kind} takes no {', '.join(sorted(ignored))}"
            raise ValueError(msg)
        if self.kind not in WIRE_KINDS and "match" in self.model_fields_set:
            msg = f"{self.kind} strikes the world, not a request: it takes no match"
            raise ValueError(msg)
        if self.lasting_seconds is not None:
            if self.times is not None and "times" in self.model_fields_set:
                msg = "times and lasting_seconds exclude each other"
                raise ValueError(msg)
            self.times = None
        if "match" not in self.model_fields_set and self.kind in _USUAL_MATCH:
            self.match = _USUAL_MATCH[self.kind]
        return self


class Faults:
    """The armed faults, oldest first."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Arm a fault."""
        self._armed.append(fault)

    def remove(self, fault: Fault) -> None:
        """Disarm one, if it is still armed."""
        self._armed = [armed for armed in self._armed if armed is not fault]

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def listed(self) -> list[dict[str, object]]:
        """Return the armed faults as they were given, with the strikes that are left."""
        return [{**fault.model_dump(exclude_unset=True), "times": fault.times} for fault in self._armed]

    def is_armed(self, kind: WorldKind) -> bool:
        """Tell whether a fault of this kind is armed, without spending it."""
        return any(fault.kind == kind for fault in self._armed)

    def strike(self, kind: WorldKind, **facts: str | None) -> Fault | None:
        """Spend and return the first fault of this kind that concerns what the facts name."""
        for fault in self._armed:
            named = {name: getattr(fault, name) for name in facts if getattr(fault, name) is not None}
            if fault.kind == kind and all(facts[name] == value for name, value in named.items()):
                return self._spend(fault)
        return None

    def strike_request(self, method: str, path: str, key: str | None) -> list[Fault]:
        """Spend and return the faults of the wire and of the answer that this request meets.

        These are all slow ones, all of the answer, and at most one other.
        """
        hits: list[Fault] = []
        for fault in [fault for fault in self._armed if fault.kind in WIRE_KINDS]:
            if fault.match.covers(method, path, key) and (
                fault.kind in _COMBINED or all(hit.kind in _COMBINED for hit in hits)
            ):
                hits.append(self._spend(fault))
        return hits

    def _spend(self, fault: Fault) -> Fault:
        if fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self.remove(fault)
        return fault
