"""The requests that rent, and what their answers prove. Knows no node and no marketplace: only bodies and outcomes.

A rent is sent once. Whatever leaves it open whether a pod exists raises `RentOutcomeUnknown`; every other error is
proof that this request rented nothing.
"""

from typing import Any

from pydantic import Field

from lium_mcp.api.addresses import segment
from lium_mcp.api.answers import Answer
from lium_mcp.api.error_bodies import error_from_answer
from lium_mcp.api.errors import InvalidRequest, LiumError, NotRented, RentOutcomeUnknown
from lium_mcp.api.fields import RequestModel, read_text
from lium_mcp.api.retries import Repeat
from lium_mcp.api.wire import Wire
from lium_mcp.text import Redact

MAX_DOCKERFILE_BYTES = 64 * 2**10
MAX_TERMINATION_HOURS = 720

# Statuses that only an API which did not rent can answer.
_DEFINITE_REFUSALS = frozenset({400, 401, 402, 403, 404, 409, 422, 429})
_UNSETTLED_CODES = frozenset({"idempotency_in_progress", "idempotency_outcome_unknown"})


class _Rental(RequestModel):
    """What both ways of renting one pod have in common."""

    pod_name: str
    template_id: str | None = None
    dockerfile_content: str | None = Field(default=None, repr=False)
    build_context_sha256: str | None = None
    volume_id: str | None = None
    user_public_key: list[str]
    initial_port_count: int | None = None
    backup_log_id: str | None = None
    restore_path: str | None = None
    enable_backups: bool = True
    termination_hours: int | None = None

    def check(self) -> None:
        """Raise `InvalidRequest` for what the API would refuse or, worse, read differently."""
        if not self.pod_name.strip():
            raise InvalidRequest("pod_name is empty.")
        if not self.user_public_key:
            raise InvalidRequest("user_public_key is empty: without a key nobody could log in to the pod.")
        if self.template_id is not None and self.dockerfile_content is not None:
            raise InvalidRequest("template_id and dockerfile_content exclude each other.")
        if (self.backup_log_id is None) != (self.restore_path is None):
            raise InvalidRequest("backup_log_id and restore_path go together.")
        if self.build_context_sha256 is not None and self.dockerfile_content is None:
            raise InvalidRequest("build_context_sha256 needs dockerfile_content.")
        if self.dockerfile_content is not None and len(self.dockerfile_content.encode()) > MAX_DOCKERFILE_BYTES:
            raise InvalidRequest(f"dockerfile_content is larger than {MAX_DOCKERFILE_BYTES} bytes.")
        if self.termination_hours is not None and not 1 <= self.termination_hours <= MAX_TERMINATION_HOURS:
            raise InvalidRequest(f"termination_hours is not between 1 and {MAX_TERMINATION_HOURS}.")
        if self.initial_port_count is not None and self.initial_port_count < 1:
            raise InvalidRequest("initial_port_count is less than 1.")

    def _rental_body(self, *, enable_volume_encryption: bool) -> dict[str, Any]:
        return {
            "pod_name": self.pod_name,
            "template_id": self.template_id,
            "dockerfile_content": self.dockerfile_content,
            "volume_id": self.volume_id,
            "user_public_key": self.user_public_key,
            "initial_port_count": self.initial_port_count,
            "enable_volume_encryption": enable_volume_encryption,
            "backup_log_id": self.backup_log_id,
            "restore_path": self.restore_path,
            "enable_backups": self.enable_backups,
        }

    def _optional_body(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class RentRequest(_Rental):
    """Body of a rent on a chosen node.

    Without `gpu_count` the API takes and bills every free GPU of the node. `enable_volume_encryption` must be true
    only where the template supports it.
    """

    gpu_count: int | None = None
    enable_volume_encryption: bool = False

    def check(self) -> None:
        """Raise `InvalidRequest` for what the API would refuse or, worse, read differently."""
        super().check()
        if self.template_id is None and self.dockerfile_content is None:
            raise InvalidRequest("template_id or dockerfile_content is needed.")
        if self.gpu_count is not None and self.gpu_count < 1:
            raise InvalidRequest("gpu_count is less than 1.")

    def body(self) -> dict[str, Any]:
        """Return the JSON body, with the keys and nulls that the official client sends."""
        return {
            **self._rental_body(enable_volume_encryption=self.enable_volume_encryption),
            **self._optional_body("gpu_count", "termination_hours", "build_context_sha256"),
        }


class RentBySpecRequest(_Rental):
    """Body of a rent where the server picks the cheapest node that fits."""

    gpu_type: str
    gpu_count: int = 1
    min_vram_gb: float | None = None
    min_cpus: int | None = None
    min_ram_gb: float | None = None
    min_disk_gb: float | None = None
    min_download_mbps: float | None = None
    min_ports: int | None = None
    max_price_per_gpu_hour: float | None = None
    country: str | None = None
    docker_in_docker: bool | None = None
    enable_volume_encryption: bool = True

    def check(self) -> None:
        """Raise `InvalidRequest` for what the API would refuse or, worse, read differently."""
        super().check()
        if not self.gpu_type.strip():
            raise InvalidRequest("gpu_type is empty.")
        if self.gpu_count < 1:
            raise InvalidRequest("gpu_count is less than 1.")

    def body(self, *, dry_run: bool) -> dict[str, Any]:
        """Return the JSON body, with the keys and nulls that the official client sends."""
        return {
            **self._optional_body(
                "gpu_type",
                "gpu_count",
                "min_vram_gb",
                "min_cpus",
                "min_ram_gb",
                "min_disk_gb",
                "min_download_mbps",
                "min_ports",
                "max_price_per_gpu_hour",
                "country",
                "docker_in_docker",
            ),
            **self._rental_body(enable_volume_encryption=self.enable_volume_encryption),
            "dry_run": dry_run,
            **self._optional_body("build_context_sha256", "termination_hours"),
        }


async def send_rent(wire: Wire, path: str, body: dict[str, Any], *, idempotency_key: str, pod_name: str) -> Answer:
    """Send a rent once and return its successful answer.

    Raises `RentOutcomeUnknown` if a pod may exist; any other `LiumError` proves that this request rented nothing.
    """
    headers = {"Idempotency-Key": segment("idempotency_key", idempotency_key)}
    try:
        answer = await wire.request("POST", path, json=body, headers=headers, repeat=Repeat.NEVER, judges_body=True)
        if answer.rewritten:
            raise answer.unreadable("Lium's server redirected the rent to a page that is not its answer.")
    except LiumError as error:
        if _proves_no_rent(error):
            raise
        raise RentOutcomeUnknown(idempotency_key=idempotency_key, pod_name=pod_name, cause=error) from error
    return answer


def rented_pod_id(answer: Answer, redact: Redact, *, idempotency_key: str, pod_name: str) -> str:
    """Return the pod id of a successful answer; one without an id proves nothing, whatever else it says."""
    try:
        body = answer.json()
        for key in ("pod_id", "id"):
            if isinstance(body, dict) and (pod_id := read_text(body.get(key))):
                return segment(key, pod_id)
        if answer.says_refused:
            raise answer.unreadable(error_from_answer(answer, redact).message, NotRented)
        raise answer.unreadable("Lium accepted the rent but named no pod.")
    except LiumError as error:
        raise RentOutcomeUnknown(idempotency_key=idempotency_key, pod_name=pod_name, cause=error) from error


def _proves_no_rent(error: LiumError) -> bool:
    if error.effect == "unknown" or error.code in _UNSETTLED_CODES:
        return False
    # Without a status nothing was sent, or a redirect that keeps the method was refused.
    return error.status is None or error.status in _DEFINITE_REFUSALS or error.status in {307, 308}
