"""The request bodies and queries, with the limits the API checks before anything else.

Unknown fields are dropped without a word, as in the API.
"""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, StringConstraints, model_validator

DOCKERFILE_BYTES = 64 * 1024
VOLUME_NAME = r"^[A-Za-z0-9 \-_.,()!?/]{1,100}$"


def _looks_like_a_public_key(text: str) -> str:
    if not re.match(r"(ssh-|ecdsa-|sk-)\S+ \S+", text):
        msg = "is not a public SSH key"
        raise ValueError(msg)
    return text


PublicKey = Annotated[str, AfterValidator(_looks_like_a_public_key)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class RentBody(BaseModel):
    """What a rent asks for, however the node is chosen."""

    pod_name: Name
    user_public_key: Annotated[list[PublicKey], Field(min_length=1)]
    template_id: UUID | None = None
    dockerfile_content: Annotated[str, StringConstraints(max_length=DOCKERFILE_BYTES)] | None = None
    build_context_sha256: str | None = None
    volume_id: UUID | None = None
    initial_port_count: Annotated[int, Field(ge=1, le=20)] | None = None
    enable_volume_encryption: bool = False
    backup_log_id: UUID | None = None
    restore_path: str | None = None
    enable_backups: bool = True
    termination_hours: int | None = None
    gpu_count: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.template_id is not None and self.dockerfile_content is not None:
            msg = "template_id and dockerfile_content exclude each other"
            raise ValueError(msg)
        if (self.backup_log_id is None) != (self.restore_path is None):
            msg = "backup_log_id and restore_path belong together"
            raise ValueError(msg)
        if self.build_context_sha256 is not None and self.dockerfile_content is None:
            msg = "build_context_sha256 needs dockerfile_content"
            raise ValueError(msg)
        return self


class RentBySpecBody(RentBody):
    """A rent that lets the server choose; gpu_count defaults to one here."""

    gpu_type: Annotated[str, StringConstraints(min_length=1)]
    min_vram_gb: float | None = None
    min_cpus: int | None = None
    min_ram_gb: float | None = None
    min_disk_gb: float | None = None
    min_download_mbps: float | None = None
    min_ports: int | None = None
    max_price_per_gpu_hour: float | None = None
    country: str | None = None
    docker_in_docker: bool | None = None
    dry_run: bool = False


class ClusterRentBody(BaseModel):
    """A rent of several whole nodes."""

    pod_name: Name
    template_id: UUID
    executor_uuids: Annotated[list[UUID], Field(min_length=2)]
    user_public_key: Annotated[list[PublicKey], Field(min_length=1)]
    initial_port_count: Annotated[int, Field(ge=1, le=20)] | None = None
    enable_volume_encryption: bool = True
    enable_backups: bool = True


class ListingQuery(BaseModel):
    """Filters of the node listing."""

    view: Literal["summary", "full"] = "full"
    machine_names: str | None = None
    gpu_count_gte: Annotated[int, Field(ge=1)] | None = None
    gpu_count_lte: Annotated[int, Field(ge=1)] | None = None
    price_per_hour_gte: float | None = None
    price_per_hour_lte: float | None = None
    lat: Annotated[float, Field(ge=-90, le=90)] | None = None
    lon: Annotated[float, Field(ge=-180, le=180)] | None = None
    max_distance_mile: Annotated[float, Field(ge=0)] | None = None
    nvlink: bool = False
    min_download_mbps: float | None = None
    reliable_only: bool = False
    page: Annotated[int, Field(ge=1)] | None = None
    size: Annotated[int, Field(ge=1)] | None = None


class QuoteQuery(BaseModel):
    """What is to be priced."""

    hours: Annotated[Decimal, Field(gt=0, le=10**9)]
    gpu_count: Annotated[int, Field(ge=1)] | None = None
    volume_gb: Annotated[Decimal, Field(ge=0, le=10**9)] = Decimal(0)
    backup_gb: Annotated[Decimal, Field(ge=0, le=10**9)] = Decimal(0)


class EstimateQuery(BaseModel):
    """Which start is to be estimated."""

    executor_id: UUID
    template_id: UUID


class MachineRequestBody(BaseModel):
    """A wish for a sold-out GPU type."""

    machine_name: Name
    gpu_count: Annotated[int, Field(ge=1)] = 1


class FeedbackBody(BaseModel):
    """A rating."""

    feedback_text: str = ""
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    reason: str | None = None


class CheckoutBody(BaseModel):
    """A page to pay on."""

    amount: Annotated[float, Field(ge=10, allow_inf_nan=False)]
    success_url: str
    cancel_url: str
    mode: Literal["payment"]


class RebootBody(BaseModel):
    """A reboot, perhaps with a volume."""

    volume_id: UUID | None = None


class SwitchTemplateBody(BaseModel):
    """The template to run next."""

    template_id: UUID


class GpuResetBody(BaseModel):
    """Which GPUs to reset; null means all."""

    gpu_indices: list[Annotated[int, Field(ge=0)]] | None = None


class ScheduleBody(BaseModel):
    """When to remove a pod."""

    removal_scheduled_at: AwareDatetime


class JupyterBody(BaseModel):
    """Where Jupyter is to listen inside the pod."""

    jupyter_internal_port: PortNumber


class LogsQuery(BaseModel):
    """How much output, and whether to stay."""

    tail: Annotated[int, Field(ge=1, le=10_000)] = 100
    follow: bool = False


class BackupConfigBody(BaseModel):
    """A new backup schedule."""

    pod_id: UUID
    backup_frequency_hours: Annotated[int, Field(ge=1, le=168)]
    retention_days: Annotated[int, Field(ge=1, le=365)]
    backup_path: str


class BackupConfigChange(BaseModel):
    """A changed backup schedule; what is absent stays."""

    backup_frequency_hours: Annotated[int, Field(ge=1, le=168)] | None = None
    retention_days: Annotated[int, Field(ge=1, le=365)] | None = None
    backup_path: str | None = None
    is_active: bool | None = None


class BackupNowBody(BaseModel):
    """A backup by hand."""

    name: Name
    description: str = ""


class RestoreBody(BaseModel):
    """A restore into a running pod."""

    backup_id: UUID
    restore_path: str


class PageQuery(BaseModel):
    """One page of a list."""

    page: Annotated[int, Field(ge=1)] = 1
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class TemplateBody(BaseModel):
    """A whole template, as create and update take it."""

    name: Name
    docker_image: Name
    description: str | None = None
    docker_image_tag: str = "latest"
    docker_image_digest: str | None = ""
    category: Literal["DOCKER", "PYTORCH", "NVIDIA", "TENSOR_FLOW", "OPEN_AI", "UBUNTU"] = "UBUNTU"
    internal_ports: list[PortNumber] = [22, 8000]
    startup_commands: str | None = ""
    container_start_immediately: bool = True
    entrypoint: str = ""
    environment: dict[str, str] = {}
    volumes: list[str] = ["/workspace"]
    is_private: bool = True
    readme: str | None = None
    one_time_template: bool = False
    is_temporary: bool = False
    docker_credential_id: str | None = None

    @model_validator(mode="after")
    def _temporary_means_private(self) -> Self:
        if self.is_temporary and not self.is_private:
            msg = "a temporary template must be private"
            raise ValueError(msg)
        return self


class CredentialBody(BaseModel):
    """A registry login."""

    docker_username: Name
    docker_password: Name


class VolumeBody(BaseModel):
    """A new volume."""

    name: Annotated[str, StringConstraints(pattern=VOLUME_NAME)]
    description: str = ""


class VolumeChange(BaseModel):
    """A changed volume."""

    name: Annotated[str, StringConstraints(pattern=VOLUME_NAME)] | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _change_something(self) -> Self:
        if not self.model_fields_set:
            msg = "name or description is needed"
            raise ValueError(msg)
        return self


class SshKeyBody(BaseModel):
    """A public key to register."""

    name: Name
    public_key: PublicKey


class EventsQuery(BaseModel):
    """Filters of the event log."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    since: datetime | None = None
    pod_id: UUID | None = None
    api_key_id: str | None = None


class AuditQuery(BaseModel):
    """Filters of the audit log."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    since: datetime | None = None
    until: datetime | None = None
    action: str | None = None
    source: str | None = None
    api_key_id: str | None = None
    resource_id: str | None = None
    cursor: str | None = None


class StatementQuery(BaseModel):
    """Which UTC days, both included."""

    start_day: date | None = None
    end_day: date | None = None
    api_key_id: str | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start_day and self.end_day and self.start_day > self.end_day:
            msg = "start_day is after end_day"
            raise ValueError(msg)
        return self


Budget = Annotated[Decimal, Field(ge=1, decimal_places=2)] | None


class Budgets(BaseModel):
    """The budgets of a key, in USD."""

    daily_budget_usd: Budget = None
    monthly_budget_usd: Budget = None
    max_budget_usd: Budget = None


class KeyBody(Budgets):
    """A new key."""

    name: Name
    scopes: Annotated[list[Literal["read", "rent", "manage", "billing"]], Field(min_length=1)] = [
        "read",
        "rent",
        "manage",
    ]
    pod_visibility: Literal["own", "account"] = "own"

    @model_validator(mode="after")
    def _billing_stands_alone(self) -> Self:
        if "billing" in self.scopes and len(set(self.scopes)) > 1:
            msg = "billing cannot be combined with another scope"
            raise ValueError(msg)
        return self


class ClockBody(BaseModel):
    """Turn the clock, or set its speed."""

    advance_seconds: Annotated[float, Field(ge=0)] = 0
    speed: Annotated[float, Field(ge=0)] | None = None
