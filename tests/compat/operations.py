"""The same operation asked of both clients: how the official SDK is called, and how ours is."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clusters import ClusterRentRequest
from lium_mcp.api.pods.models import FeedbackRequest
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest
from lium_mcp.api.templates import TemplateChanges, TemplateCreate
from tests.compat.recorder import examples

NODE = "3f6c1a52-7d0e-4b7e-9a31-5c2f8e4d1b60"
OTHER_NODE = "fedcba98-7654-4321-8fed-cba987654321"
POD = "8b0d2f14-6e35-4c19-8f7a-2a91c3d4e5f6"
OTHER_POD = "0a1b2c3d-4e5f-4061-8273-849506a7b8c9"
TEMPLATE = "1c9e7b3a-0f42-4d8b-b6a5-7e8f90a1b2c3"
VOLUME = "77aa11bb-22cc-43dd-84ee-55ff66007788"
BACKUP = "e1f2a3b4-c5d6-4e7f-8091-a2b3c4d5e6f7"
RESTORE = "0a1b2c3d-4e5f-4061-8273-849506a7b8c9"
SCHEDULE = "90ab12cd-34ef-4567-89ab-cdef01234567"
CLUSTER = "fedcba98-7654-4321-8fed-cba987654321"
DIGEST = "9f2c" + "0" * 60
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEX demo@example"
IDEMPOTENCY_KEY = "6f1d2c3b-4a59-4687-9abc-def012345678"
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
THE_POD = {"pod": POD}


@dataclass(frozen=True)
class Official:
    """A call of the official SDK."""

    method: str
    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


def official(method: str, *positional: Any, **named: Any) -> Official:
    return Official(method, positional, named)


@dataclass(frozen=True)
class Case:
    """One operation with one set of parameters; `answers` replaces what the contract's examples would answer."""

    operation: str
    official: Official
    ours: Callable[[LiumClient], Awaitable[object]]
    what: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.operation}-{self.what}".rstrip("-").replace(" ", "-")


def _cluster_members() -> list[dict[str, Any]]:
    row = examples()["listPods"]["response"]["body"][0]
    return [
        {**row, "id": pod_id, "pod_name": "dist-1", "cluster_id": CLUSTER, "cluster_node_index": index}
        for index, pod_id in enumerate((POD, OTHER_POD))
    ]


def _rented_by_spec() -> dict[str, Any]:
    return {**examples()["rentBySpec"]["response"]["body"], "dry_run": False, "pod_id": POD, "attempts": 1}


def _made(operation: str, **said: Any) -> dict[str, Any]:
    """The contract's example, about what was asked for."""
    return {**examples()[operation]["response"]["body"], **said}


_RENT = RentRequest(pod_name="train-a1", template_id=TEMPLATE, user_public_key=[PUBLIC_KEY])
_SPEC = RentBySpecRequest(gpu_type="H100", pod_name="train-a1", user_public_key=[PUBLIC_KEY])
_TEMPLATE = TemplateCreate(name="my-env", docker_image="daturaai/pytorch")
_CLUSTER = ClusterRentRequest(
    pod_name="dist-1", template_id=TEMPLATE, executor_uuids=[NODE, OTHER_NODE], user_public_key=[PUBLIC_KEY]
)

MARKET = [
    Case("getVersion", official("features"), lambda lium: lium.version()),
    Case("listExecutors", official("ls"), lambda lium: lium.executors.list()),
    Case("listMachines", official("gpu_types"), lambda lium: lium.machines.list()),
    Case(
        "requestMachine",
        official("request_machine", "H200", 8),
        lambda lium: lium.machines.request("NVIDIA H200", gpu_count=8),
    ),
    Case(
        "quoteExecutor",
        official("quote", NODE, hours=4.0, volume_gb=0.0, backup_gb=0.0),
        lambda lium: lium.executors.quote(NODE, hours=4.0, volume_gb=0.0, backup_gb=0.0),
        what="of all free GPUs",
    ),
    Case(
        "quoteExecutor",
        official("quote", NODE, hours=1.5, gpu_count=2, volume_gb=200, backup_gb=50),
        lambda lium: lium.executors.quote(NODE, hours=1.5, gpu_count=2, volume_gb=200, backup_gb=50),
        what="with storage",
        answers={"quoteExecutor": _made("quoteExecutor", hours=1.5, gpu_count=2)},
    ),
    Case(
        "getDefaultDockerImages",
        official("get_default_images", "NVIDIA H200", "580.95.05"),
        lambda lium: lium.executors.default_images(gpu_model="NVIDIA H200", driver_version="580.95.05"),
    ),
    Case("listClusterOffers", official("clusters"), lambda lium: lium.clusters.list_offers()),
]

RENTING = [
    Case(
        "rentExecutor",
        official(
            "up",
            executor_id=NODE,
            name="train-a1",
            template_id=TEMPLATE,
            ssh_keys=[PUBLIC_KEY],
            enable_volume_encryption=False,
            idempotency_key=IDEMPOTENCY_KEY,
        ),
        lambda lium: lium.executors.rent(NODE, _RENT, idempotency_key=IDEMPOTENCY_KEY),
        what="of a whole node",
    ),
    Case(
        "rentExecutor",
        official(
            "up",
            executor_id=NODE,
            name="train-a1",
            template_id=TEMPLATE,
            ssh_keys=[PUBLIC_KEY],
            volume_id=VOLUME,
            ports=5,
            gpu_count=2,
            termination_hours=4,
            backup_id=BACKUP,
            restore_path="/root/restored",
            enable_volume_encryption=True,
            enable_backups=False,
            idempotency_key=IDEMPOTENCY_KEY,
        ),
        lambda lium: lium.executors.rent(
            NODE,
            _RENT.model_copy(
                update={
                    "volume_id": VOLUME,
                    "initial_port_count": 5,
                    "gpu_count": 2,
                    "termination_hours": 4,
                    "backup_log_id": BACKUP,
                    "restore_path": "/root/restored",
                    "enable_volume_encryption": True,
                    "enable_backups": False,
                }
            ),
            idempotency_key=IDEMPOTENCY_KEY,
        ),
        what="with everything",
    ),
    Case(
        "rentExecutor",
        official(
            "up",
            executor_id=NODE,
            name="train-a1",
            dockerfile_content="FROM ubuntu\n",
            build_context_sha256=DIGEST,
            ssh_keys=[PUBLIC_KEY],
            idempotency_key=IDEMPOTENCY_KEY,
        ),
        lambda lium: lium.executors.rent(
            NODE,
            RentRequest(
                pod_name="train-a1",
                dockerfile_content="FROM ubuntu\n",
                build_context_sha256=DIGEST,
                user_public_key=[PUBLIC_KEY],
            ),
            idempotency_key=IDEMPOTENCY_KEY,
        ),
        what="of a custom image",
    ),
    Case(
        "rentBySpec",
        official("rent", gpu_type="H100", name="train-a1", ssh_keys=[PUBLIC_KEY], dry_run=True),
        lambda lium: lium.executors.select_by_spec(_SPEC),
        what="as a dry run",
    ),
    Case(
        "rentBySpec",
        official("rent", gpu_type="H100", name="train-a1", ssh_keys=[PUBLIC_KEY]),
        lambda lium: lium.executors.rent_by_spec(_SPEC, idempotency_key=IDEMPOTENCY_KEY),
        what="of one GPU",
        answers={"rentBySpec": _rented_by_spec()},
    ),
    Case(
        "rentBySpec",
        official(
            "rent",
            gpu_type="H100",
            gpu_count=2,
            name="train-a1",
            template_id=TEMPLATE,
            min_vram_gb=80,
            min_cpus=16,
            min_ram_gb=64,
            min_disk_gb=200,
            min_download_mbps=500,
            min_ports=3,
            max_price_per_gpu_hour=2.5,
            country="DE",
            docker_in_docker=True,
            volume_id=VOLUME,
            ports=5,
            ssh_keys=[PUBLIC_KEY],
            enable_volume_encryption=False,
            backup_id=BACKUP,
            restore_path="/root/restored",
            termination_hours=4,
            enable_backups=False,
        ),
        lambda lium: lium.executors.rent_by_spec(
            RentBySpecRequest(
                gpu_type="H100",
                gpu_count=2,
                pod_name="train-a1",
                template_id=TEMPLATE,
                min_vram_gb=80,
                min_cpus=16,
                min_ram_gb=64,
                min_disk_gb=200,
                min_download_mbps=500,
                min_ports=3,
                max_price_per_gpu_hour=2.5,
                country="DE",
                docker_in_docker=True,
                volume_id=VOLUME,
                initial_port_count=5,
                user_public_key=[PUBLIC_KEY],
                enable_volume_encryption=False,
                backup_log_id=BACKUP,
                restore_path="/root/restored",
                termination_hours=4,
                enable_backups=False,
            ),
            idempotency_key=IDEMPOTENCY_KEY,
        ),
        what="with everything",
        answers={"rentBySpec": _rented_by_spec()},
    ),
    Case(
        "rentCluster",
        official("up_cluster", [NODE, OTHER_NODE], name="dist-1", template_id=TEMPLATE, ssh_keys=[PUBLIC_KEY]),
        lambda lium: lium.clusters.rent(_CLUSTER, idempotency_key=IDEMPOTENCY_KEY),
        answers={"listPods": _cluster_members()},
    ),
    Case(
        "deleteCluster",
        official("rm_cluster", {"cluster": CLUSTER}),
        lambda lium: lium.clusters.remove(CLUSTER),
        answers={"listPods": _cluster_members()},
    ),
]

PODS = [
    Case("listPods", official("ps"), lambda lium: lium.pods.list()),
    Case("getPod", official("pod", POD), lambda lium: lium.pods.get(POD)),
    Case("deletePod", official("down", THE_POD), lambda lium: lium.pods.remove(POD)),
    Case(
        "deletePod",
        official("rm", THE_POD, feedback="slow disk", rating=2),
        lambda lium: lium.pods.remove(
            POD, feedback=FeedbackRequest(feedback_text="slow disk", rating=2, reason="unrent")
        ),
        what="with feedback",
    ),
    Case("rebootPod", official("reboot", THE_POD), lambda lium: lium.pods.reboot(POD)),
    Case(
        "rebootPod",
        official("reboot", THE_POD, volume_id=VOLUME),
        lambda lium: lium.pods.reboot(POD, volume_id=VOLUME),
        what="with a volume",
    ),
    Case(
        "resetGpu",
        official("reset_gpu", THE_POD),
        lambda lium: lium.pods.reset_gpus(POD),
        what="of all",
        answers={"resetGpu": examples()["getGpuReset"]["response"]["body"]},
    ),
    Case(
        "resetGpu",
        official("reset_gpu", THE_POD, [0, 1]),
        lambda lium: lium.pods.reset_gpus(POD, gpu_indices=[0, 1]),
        what="of two",
        answers={"resetGpu": examples()["getGpuReset"]["response"]["body"]},
    ),
    Case(
        "getGpuReset",
        official("reset_gpu", THE_POD),
        lambda lium: lium.pods.get_gpu_reset(POD, RESTORE),
    ),
    Case("streamPodLogs", official("logs", POD), lambda lium: lium.pods.logs(POD)),
    Case("streamPodLogs", official("logs", POD, tail=5), lambda lium: lium.pods.logs(POD, tail=5), what="five lines"),
    Case("listPodEvents", official("pod_events", POD), lambda lium: lium.pods.events(POD)),
    Case("getPodRecord", official("pod_record", POD), lambda lium: lium.pods.record(POD)),
    Case(
        "sendPodFeedback",
        official("pod_feedback", THE_POD, "fast", rating=5),
        lambda lium: lium.pods.send_feedback(POD, FeedbackRequest(feedback_text="fast", rating=5)),
    ),
    Case(
        "switchPodTemplate",
        official("switch_template", THE_POD, template_id=TEMPLATE),
        lambda lium: lium.pods.switch_template(POD, template_id=TEMPLATE),
        # The official SDK 0.32.0 fails with a TypeError on an answer that names the node.
        answers={"switchPodTemplate": {"id": POD, "status": "PENDING"}},
    ),
    Case(
        "scheduleRemoval",
        official("schedule_termination", POD, termination_time="2026-12-01T12:00:00Z"),
        lambda lium: lium.pods.schedule_removal(POD, at=NOON),
    ),
    Case(
        "cancelScheduledRemoval",
        official("cancel_scheduled_termination", THE_POD),
        lambda lium: lium.pods.cancel_removal(POD),
    ),
    Case(
        "installJupyter",
        official("install_jupyter", THE_POD, jupyter_internal_port=8888),
        lambda lium: lium.pods.install_jupyter(POD, port=8888),
    ),
]

STORAGE = [
    Case(
        "createBackupConfig",
        official("backup_create", THE_POD, path="/root/checkpoints", frequency_hours=12, retention_days=30),
        lambda lium: lium.backup_schedules.create(
            POD, backup_path="/root/checkpoints", backup_frequency_hours=12, retention_days=30
        ),
    ),
    Case("listBackupConfigs", official("backup_list"), lambda lium: lium.backup_schedules.list()),
    Case(
        "getBackupConfigForPod",
        official("backup_config", THE_POD),
        lambda lium: lium.backup_schedules.get_for_pod(POD),
    ),
    Case(
        "updateBackupConfig",
        official("backup_update", SCHEDULE, path="/root/checkpoints", frequency_hours=12, retention_days=30),
        lambda lium: lium.backup_schedules.update(
            SCHEDULE, backup_path="/root/checkpoints", backup_frequency_hours=12, retention_days=30
        ),
    ),
    Case(
        "deleteBackupConfig",
        official("backup_delete", SCHEDULE),
        lambda lium: lium.backup_schedules.delete(SCHEDULE),
    ),
    Case(
        "backupPodNow",
        official("backup_now", THE_POD, name="before-deploy", description="all of it"),
        lambda lium: lium.backups.start(POD, name="before-deploy", description="all of it"),
    ),
    Case("listBackupLogs", official("backup_logs_all"), lambda lium: lium.backups.list()),
    Case("listBackupLogsForPod", official("backup_logs", THE_POD), lambda lium: lium.backups.list(pod_id=POD)),
    Case("getBackupLog", official("backup_log", BACKUP), lambda lium: lium.backups.get(BACKUP)),
    Case("cancelBackup", official("backup_cancel", BACKUP), lambda lium: lium.backups.cancel(BACKUP)),
    Case("deleteBackupLog", official("backup_log_delete", BACKUP), lambda lium: lium.backups.delete(BACKUP)),
    Case(
        "restoreBackup",
        official("restore", THE_POD, backup_id=BACKUP, restore_path="/root/restored"),
        lambda lium: lium.restores.start(POD, backup_id=BACKUP, restore_path="/root/restored"),
    ),
    Case("listRestoreLogs", official("restore_logs", THE_POD), lambda lium: lium.restores.list(POD)),
    Case("cancelRestore", official("restore_cancel", RESTORE), lambda lium: lium.restores.cancel(RESTORE)),
    Case("listVolumes", official("volumes"), lambda lium: lium.volumes.list()),
    Case("getVolume", official("volume", VOLUME), lambda lium: lium.volumes.get(VOLUME)),
    Case(
        "createVolume",
        official("volume_create", "data (1)", description="training set"),
        lambda lium: lium.volumes.create(name="data (1)", description="training set"),
        answers={"createVolume": _made("createVolume", name="data (1)")},
    ),
    Case(
        "updateVolume",
        official("volume_update", VOLUME, name="renamed"),
        lambda lium: lium.volumes.update(VOLUME, name="renamed"),
    ),
    Case("deleteVolume", official("volume_delete", VOLUME), lambda lium: lium.volumes.delete(VOLUME)),
]

TEMPLATES = [
    Case("listTemplates", official("templates"), lambda lium: lium.templates.list()),
    Case("getTemplate", official("get_template", TEMPLATE), lambda lium: lium.templates.get(TEMPLATE)),
    Case(
        "createTemplate",
        official("create_template", "my-env", "daturaai/pytorch"),
        lambda lium: lium.templates.create(_TEMPLATE),
        what="with defaults",
        answers={"createTemplate": _made("createTemplate", docker_image_tag=_TEMPLATE.docker_image_tag)},
    ),
    Case(
        "createTemplate",
        official(
            "create_template",
            "my-env",
            "daturaai/pytorch",
            docker_image_tag="2.8.0",
            ports=[22, 8080],
            start_command="python main.py",
            category="PYTORCH",
            is_private=False,
            volumes=["/root"],
            description="training",
            environment={"MODE": "train"},
            entrypoint="/bin/sh",
            one_time_template=True,
            readme="how to",
        ),
        lambda lium: lium.templates.create(
            _TEMPLATE.model_copy(
                update={
                    "docker_image_tag": "2.8.0",
                    "internal_ports": [22, 8080],
                    "startup_commands": "python main.py",
                    "category": "PYTORCH",
                    "is_private": False,
                    "volumes": ["/root"],
                    "description": "training",
                    "environment": {"MODE": "train"},
                    "entrypoint": "/bin/sh",
                    "one_time_template": True,
                    "readme": "how to",
                }
            )
        ),
        what="with everything",
        answers={"createTemplate": _made("createTemplate", docker_image_tag="2.8.0")},
    ),
    Case(
        "updateTemplate",
        official("edit", POD, startup_commands="python main.py", environment={"DEBUG": "1"}),
        lambda lium: lium.templates.update(
            TEMPLATE, TemplateChanges(startup_commands="python main.py", environment={"DEBUG": "1"})
        ),
    ),
]

ACCOUNT = [
    Case("listSshKeys", official("list_ssh_keys"), lambda lium: lium.ssh_keys.list()),
    Case(
        "createSshKey",
        official("register_ssh_key", name="laptop", public_key=PUBLIC_KEY),
        lambda lium: lium.ssh_keys.create(name="laptop", public_key=PUBLIC_KEY),
    ),
    Case("getMe", official("me"), lambda lium: lium.account.me()),
    Case("listAudit", official("audit_log"), lambda lium: lium.account.audit()),
    Case(
        "listAudit",
        official(
            "audit_log",
            action="pod.",
            source="cli",
            cursor="b3BhcXVl+/=",
            limit=5,
        ),
        lambda lium: lium.account.audit(
            action="pod.",
            source="cli",
            cursor="b3BhcXVl+/=",
            limit=5,
        ),
        what="filtered",
    ),
    Case(
        "createCheckoutSession",
        official("topup_checkout_link", 25.0),
        lambda lium: lium.account.create_checkout(amount_usd=25.0),
    ),
    Case("getBillingStatement", official("billing_statement"), lambda lium: lium.account.billing_statement()),
    Case(
        "getBillingStatement",
        official("billing_statement", start_day="2026-10-01", end_day="2026-10-06"),
        lambda lium: lium.account.billing_statement(start_day=date(2026, 10, 1), end_day=date(2026, 10, 6)),
        what="of a period",
    ),
]

CASES = [*MARKET, *RENTING, *PODS, *STORAGE, *TEMPLATES, *ACCOUNT]

# Paths in the SDK's source that are no route of the renter contract, by how they begin.
OUTSIDE_THE_CONTRACT = {
    "/payments/": "payments",
    "/tao/": "payments",
    "/tmc-pay/": "payments",
    "/billing": "a page of the website",
    "/tmp/": "a file on a pod",  # noqa: S108 - a path in the SDK's source, not one of ours
    "/workspace": "a directory on a pod",
}
