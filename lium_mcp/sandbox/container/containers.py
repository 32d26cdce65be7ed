"""The containers of all running pods, and the data that outlives them: volumes and backups.

A container belongs to one boot of its pod, and its files end with it. But the local volume survives a reboot, an
attached volume lives as long as the account has it, and a finished backup keeps the files that were under its path.
"""

import posixpath
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from lium_mcp.sandbox.container.commands import PROGRAMS
from lium_mcp.sandbox.container.files import (
    Directory,
    File,
    FileSystem,
    Storage,
    copy_into,
    free,
    walk,
)
from lium_mcp.sandbox.container.host import Host
from lium_mcp.sandbox.container.processes import Kernel, Process
from lium_mcp.sandbox.container.shell import Shell, positional, shell_doing
from lium_mcp.sandbox.container.streams import Stream
from lium_mcp.sandbox.node_rows import gpu_uuid
from lium_mcp.sandbox.records import StoredPod, StoredTransfer
from lium_mcp.sandbox.world import World

POD_BYTES: Final = 256 * 2**20
SMALL_BYTES: Final = 4096
HOME: Final = "/root"
VOLUME_PATH: Final = "/mnt"
_HOST_UP_SECONDS: Final = 86_400
_TICKS_PER_SECOND: Final = 100


@dataclass
class Container:
    """What runs in a pod from one boot to the next."""

    pod: StoredPod
    boot: int
    kernel: Kernel
    files: FileSystem
    volume_path: str
    restarts: int
    # It belongs to the SSH server, and is kept here because a new container has a new one as a rule.
    host_key: object = None

    @property
    def is_up(self) -> bool:
        """Whether the pod still runs this container, and what was started in it."""
        return self.has_files and self.pod.restarts == self.restarts

    @property
    def has_files(self) -> bool:
        """Whether the pod still runs a container with these files: they stay where it starts again by itself."""
        return self.pod.boot == self.boot and self.pod.status == "RUNNING"

    def start(self, script: str | None, streams: dict[int, Stream], environment: dict[str, str]) -> Process:
        """Start a login shell with a script, or one that reads its input; the caller then lets the kernel run."""
        variables = {
            **environment,
            "HOME": HOME,
            "PWD": HOME,
            "USER": "root",
            "SHELL": "/bin/bash",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME": self.kernel.host.hostname,
        }
        main = shell_doing(Shell.run_input if script is None else partial(Shell.run_text, script=script), PROGRAMS)
        return self.kernel.start(main, streams=streams, cwd=HOME, variables=variables | positional("bash"))


class Containers:
    """The containers by pod, made when they are first asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._containers: dict[str, Container] = {}
        # What survives a container: local volumes by pod, each with its template, attached volumes and backups by id.
        self._local: dict[str, tuple[str, Directory]] = {}
        self._volumes: dict[str, Directory] = {}
        self._backups: dict[str, Directory] = {}
        self._host_keys: dict[str, object] = {}

    def of(self, pod: StoredPod) -> Container | None:
        """Return the container of a pod; None while it does not run."""
        if pod.status != "RUNNING" or pod.removed_at is not None:
            return None
        there = self._containers.get(pod.id)
        if there is None or there.boot != pod.boot:
            self._end(pod.id)
            there = self._containers[pod.id] = self._made(pod)
            if self._world.faults.is_armed("host_key_stays"):
                there.host_key = self._host_keys.get(pod.id)
        elif not there.is_up:
            there.kernel.run()
            there = self._containers[pod.id] = self._started(pod, there.files, there.volume_path, there.host_key)
        return there

    def _end(self, pod_id: str) -> None:
        """End what runs in a pod's old container, and remember its host key."""
        if container := self._containers.pop(pod_id, None):
            container.kernel.run()
            self._host_keys[pod_id] = container.host_key

    def tidy(self) -> None:
        """End what runs in old containers, and forget data that nobody can reach."""
        for pod_id, container in list(self._containers.items()):
            if not container.has_files:
                self._end(pod_id)
            elif not container.is_up:
                self.of(container.pod)
        for pod_id in [pod_id for pod_id in self._local if self._world.pods[pod_id].removed_at is not None]:
            del self._local[pod_id]
            self._host_keys.pop(pod_id, None)
        for volume_id in self._volumes.keys() - self._world.volumes.keys():
            del self._volumes[volume_id]
        kept = {run.id for run in self._world.transfers.values() if run.status == "COMPLETED"}
        for run_id in self._backups.keys() - kept:
            del self._backups[run_id]

    def measure(self, pod: StoredPod, path: str) -> tuple[int, int]:
        """Count the bytes and files under a backup's path; an empty path means the local volume."""
        with suppress(OSError):
            if (container := self.of(pod)) is not None:
                return _amount(container.files.directory(path or container.volume_path))
        return 0, 0

    def save(self, pod: StoredPod, run: StoredTransfer) -> tuple[int, int]:
        """Keep the files under a finished backup's path; return how many bytes and files they are."""
        saved = self._backups[run.id] = Directory(Storage(POD_BYTES), self._seconds())
        with suppress(OSError):
            if (container := self.of(pod)) is not None:
                copy_into(container.files.directory(run.path or container.volume_path), saved, self._seconds())
        return _amount(saved)

    def restore(self, pod: StoredPod, run: StoredTransfer) -> str | None:
        """Write a backup's files into a pod; return what went wrong, if anything."""
        saved = self._backups.get(run.backup_id or "")
        if saved is None or (container := self.of(pod)) is None:
            return None
        try:
            container.files.make_directory(run.path, parents=True)
            target = container.files.directory(run.path)
            copy_into(saved, target, self._seconds(), below=run.path.count("/"))
        except OSError as error:
            return f"the restore could not write its files: {error.strerror}"
        return None

    def small_files(self, pod: StoredPod) -> dict[str, str]:
        """Read the small files of a running pod below the login folder and the attached volume, by path."""
        small: dict[str, str] = {}
        if (container := self.of(pod)) is not None:
            for root in (HOME, VOLUME_PATH):
                with suppress(OSError):
                    small |= {
                        posixpath.join(root, path): node.data.decode(errors="replace")
                        for path, node in walk(container.files.directory(root))
                        if isinstance(node, File) and len(node.data) <= SMALL_BYTES
                    }
        return small

    def _made(self, pod: StoredPod) -> Container:
        world = self._world
        template = world.templates.get(pod.template_id)
        volume_path = posixpath.normpath(template.local_volume if template is not None else HOME)
        files = FileSystem(Directory(Storage(POD_BYTES), self._seconds()), self._seconds)
        for path in ("/bin", "/dev", "/etc", "/tmp", "/usr/bin", "/var/log", HOME):  # noqa: S108 - in memory
            files.make_directory(path, parents=True)
        files.write_file("/dev/null", b"")
        files.open_file("/dev/null").swallows = True
        host = self._host(pod)
        files.write_file("/etc/hostname", f"{host.hostname}\n".encode())
        files.write_file("/etc/os-release", b'PRETTY_NAME="Lium sandbox"\nID=sandbox\n')
        kept_for, local = self._local.get(pod.id, ("", None))
        is_switched = kept_for != pod.template_id and not world.faults.is_armed("switch_keeps_volume")
        if local is None or is_switched:
            local = Directory(Storage(POD_BYTES), self._seconds())
        self._local[pod.id] = (pod.template_id, local)
        self._mount(files, volume_path, local)
        attached = None
        if pod.volume_id is not None and not pod.volume_failed:
            attached = self._volumes.setdefault(pod.volume_id, Directory(Storage(POD_BYTES), self._seconds()))
            self._mount(files, VOLUME_PATH, attached)
        mounted = {volume_path: "ext4", **({VOLUME_PATH: "fuse.s3fs"} if attached is not None else {})}
        lines = ["overlay / overlay rw 0 0\n", *(f"{kind} {path} {kind} rw 0 0\n" for path, kind in mounted.items())]
        files.make_directory("/proc", parents=True)
        files.write_file("/proc/mounts", "".join(lines).encode())
        return self._started(pod, files, volume_path)

    def _started(self, pod: StoredPod, files: FileSystem, volume_path: str, host_key: object = None) -> Container:
        """Start a container in which nothing runs yet but its main process."""
        host = self._host(pod)
        between = " ".join(["0"] * 18)
        with suppress(OSError):  # its disk may be full by then
            files.make_directory("/proc/1", parents=True)
            files.write_file("/proc/1/stat", f"1 (sleep) S {between} {host.started_ticks} 0\n".encode())
            files.write_file("/proc/stat", f"cpu 0\nbtime {host.booted_at}\n".encode())
        container: Container
        kernel = Kernel(files, host, self._world, lambda: container.is_up)
        container = Container(pod, pod.boot, kernel, files, volume_path, pod.restarts, host_key)
        return container

    @staticmethod
    def _mount(files: FileSystem, path: str, directory: Directory) -> None:
        files.make_directory(path, parents=True)
        place = files.find(path)
        if not place.parents or place.node is None:
            return
        free(place.node)
        place.parents[-1].entries[place.names[-1]] = directory

    def _host(self, pod: StoredPod) -> Host:
        node = self._world.market.nodes[pod.node_id]
        booted_at = int(pod.created_at.timestamp()) - _HOST_UP_SECONDS
        started_at = pod.started_at or pod.created_at
        return Host(
            pod_id=pod.id,
            hostname=pod.id.replace("-", "")[:12],
            gpu_name=node.gpu.name,
            gpu_uuids=tuple(
                gpu_uuid(node, card) for card in range(pod.gpu_count if pod.visible_gpus is None else pod.visible_gpus)
            ),
            gpu_memory_mib=node.gpu.memory_mib,
            gpu_power_watts=node.gpu.power_w,
            driver=node.driver,
            cuda=str(node.cuda),
            booted_at=booted_at,
            started_ticks=int((started_at.timestamp() - booted_at) * _TICKS_PER_SECOND),
        )

    def _seconds(self) -> float:
        return self._world.now.timestamp()


def _amount(directory: Directory) -> tuple[int, int]:
    sizes = [len(node.data) for _, node in walk(directory) if isinstance(node, File)]
    return sum(sizes), len(sizes)
