"""What a pod must be to be kept: what was asked for and allowed, held against what Lium states of it.

A pod is given back only for what Lium states and what contradicts. A figure that is missing or makes no sense is told.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from lium_mcp.api.executors.models import Executor
from lium_mcp.api.fields import read_float, read_int
from lium_mcp.api.gpu_names import gpu_contradicts
from lium_mcp.api.pods.models import Pod, PodEvent
from lium_mcp.countries import Countries, named
from lium_mcp.figures import is_above, rate_in_usd
from lium_mcp.rentals.entries import Entry

PRICE_TOLERANCE_USD: Final = 0.0001
DEARER: Final = "it came out dearer than allowed"
_MOST_GPUS_OF_A_POD: Final = 1024
_MOST_NAMED: Final = 10
_NOT_ENCRYPTED: Final = frozenset({"UNSUPPORTED_IMAGE", "DISABLED", "FAILED"})
_VOLUME_FAILED: Final = "ExternalVolumeFailed"
_LOOK_AT_MNT: Final = "Look at /mnt with mountpoint /mnt first: what is written there may be lost with the pod."
_FEWER_GPUS: Final = (
    "reboot_pod may bring them back, which loses what lies outside the local volume; remove_pod ends the billing, and "
    "another node can be rented."
)
_MORE_GPUS: Final = "Others may rent the rest: set CUDA_VISIBLE_DEVICES to as many as are billed."
_LISTS: Final = ("executor_ids", "gpu_types", "allowed_gpu_types", "countries", "excluded_countries")
_TEXTS: Final = ("tier", "template_id", "template_image")
_FLAGS: Final = ("is_memory_listed", "nvlink", "docker_in_docker", "is_agreed")
_STATED: Final = {
    "what it costs": ("ceiling_per_hour_usd", "ceiling_per_pod_hour_usd", "ceiling_per_gpu_hour_usd"),
    "which node it is on": ("executor_ids",),
    "which GPU it has": ("gpu_types", "allowed_gpu_types"),
    "how many GPUs it has": ("gpu_count",),
    "how much memory its GPUs have": ("min_vram_gb",),
    "how much memory its host has": ("min_ram_gb",),
    "which country it is in": ("countries", "excluded_countries"),
    "of which tier it is": ("tier",),
    "whether it has NVLink": ("nvlink",),
    "whether Docker works in it": ("docker_in_docker",),
    "which CUDA its driver supports": ("min_cuda",),
    "how fast it downloads": ("min_download_mbps",),
    "which template it runs": ("template_id", "template_image"),
}
"""By what Lium may leave unstated, see `Expected.unverified`: the fields that are checked against it."""


def costs_more(price_per_hour_usd: float, ceiling_per_hour_usd: float | None) -> bool:
    """Whether a price is above a ceiling."""
    return ceiling_per_hour_usd is not None and is_above(price_per_hour_usd, ceiling_per_hour_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What each pod of a rent must be. None or an empty list means anything.

    Attributes:
        executor_ids: Nodes that were asked for; it must be on one of these.
        gpu_types: GPU names; it must have one of these.
        allowed_gpu_types: The same, from the limits.
        gpu_count: GPUs of each pod.
        min_vram_gb: Least nominal memory of each GPU.
        min_ram_gb: Least memory of the host that pods can get, GB of 10^9 bytes.
        min_cuda: Least CUDA version that the driver supports.
        min_download_mbps: Least download speed, as Lium rates it. Free disk is not held: the pod itself takes of it.
        is_memory_listed: The node was chosen by its listed memory, and what else of its machine was asked for, which
            the pod's row need not repeat.
        countries: Two-letter codes; it must be in one of these.
        excluded_countries: It must be in none of these.
        tier: `secure` or `spot`.
        nvlink: Its GPUs must be on NVLink.
        docker_in_docker: Docker must work in it.
        template_id: The template that was asked for.
        template_image: That template's image with its tag: a copy of it, made for a pod, has another id.
        ceiling_per_hour_usd: The most that all pods of the rent together may cost.
        ceiling_per_pod_hour_usd: The most that each may cost.
        ceiling_per_gpu_hour_usd: The most that each GPU may cost.
        is_agreed: A person was asked about this very rent, and said yes.
    """

    executor_ids: tuple[str, ...] = ()
    gpu_types: tuple[str, ...] = ()
    allowed_gpu_types: tuple[str, ...] = ()
    gpu_count: int | None = None
    min_vram_gb: float | None = None
    min_ram_gb: float | None = None
    min_cuda: float | None = None
    min_download_mbps: float | None = None
    is_memory_listed: bool = False
    countries: tuple[str, ...] = ()
    excluded_countries: tuple[str, ...] = ()
    tier: str | None = None
    nvlink: bool = False
    docker_in_docker: bool = False
    template_id: str | None = None
    template_image: str | None = None
    ceiling_per_hour_usd: float | None = None
    ceiling_per_pod_hour_usd: float | None = None
    ceiling_per_gpu_hour_usd: float | None = None
    is_agreed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Write what is set, for the ledger."""
        written = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in written.items() if value not in (None, []) and value is not False}

    @classmethod
    def from_json(cls, written: object) -> "Expected":
        """Read it back from the ledger, without keys of another version of this program."""
        row = written if isinstance(written, dict) else {}
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(cls)):
            value = row.get(name)
            if name in _LISTS:
                values[name] = tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
            elif name in _FLAGS:
                values[name] = value is True
            elif name in _TEXTS:
                values[name] = value if isinstance(value, str) else None
            else:
                values[name] = read_int(value) if name == "gpu_count" else read_float(value)
        return cls(**values)

    def contradiction(self, pod: Pod) -> str | None:
        """Say in words what Lium states of a pod that is not as asked or allowed; None if nothing contradicts."""
        return " and ".join(filter(None, (self.other_than_asked(pod), self._dearer(pod)))) or None

    def is_dearer(self, pods: Sequence[Pod]) -> bool:
        """Whether pods of the rent cost more than allowed, together or one alone, as far as Lium says."""
        total = sum(pod.price or 0 for pod in pods)
        return costs_more(total, self.ceiling_per_hour_usd) or any(self._dearer(pod) for pod in pods)

    def left_after(self, pods: Sequence[Pod]) -> "Expected":
        """What is still to be checked of all pods of the rent: what Lium has not stated of each while it runs.

        What a pod is before it runs may come out otherwise; what changes afterwards is somebody's decision.
        """
        if not all(pod.is_ready for pod in pods):
            return self
        missing = {what for pod in pods for what in self.unverified(pod)}
        settled = [name for what, names in _STATED.items() if what not in missing for name in names]
        return replace(self, **{name: getattr(ANYTHING, name) for name in settled})

    def without_template(self) -> "Expected":
        """The same, but with any template."""
        return replace(self, template_id=None, template_image=None)

    def unverified(self, pod: Pod) -> list[str]:
        """Say in words what was asked for and Lium does not state."""
        ceilings = (self.ceiling_per_hour_usd, self.ceiling_per_pod_hour_usd, self.ceiling_per_gpu_hour_usd)
        missing = {
            "what it costs": any(ceiling is not None for ceiling in ceilings) and pod.price is None,
            "which node it is on": bool(self.executor_ids) and not pod.node_id,
            "which GPU it has": bool(self.gpu_types or self.allowed_gpu_types) and not pod.gpu_name,
            "how many GPUs it has": self.gpu_count is not None and _count(pod) is None,
            **self._unstated(pod.executor or _NO_HOST),
            "which template it runs": self.template_id is not None and not (pod.template and pod.template.id),
        }
        return [what for what, is_missing in missing.items() if is_missing]

    def _unstated(self, host: Executor) -> dict[str, bool]:
        """What of it that was asked for is not stated of a pod's host."""
        listed = {
            "how much memory its GPUs have": self.min_vram_gb is not None and not host.vram_gb_per_gpu,
            "how much memory its host has": self.min_ram_gb is not None and not host.ram_gb,
            "which CUDA its driver supports": self.min_cuda is not None and host.cuda_version is None,
            "how fast it downloads": self.min_download_mbps is not None and host.download_mbps is None,
            "of which tier it is": self.tier is not None and not host.tier,
            "whether it has NVLink": self.nvlink and host.has_nvlink is None,
            "whether Docker works in it": self.docker_in_docker and host.docker_in_docker is None,
        }
        return ({} if self.is_memory_listed else listed) | {
            "which country it is in": bool(self._where) and not host.country_code
        }

    def other_than_asked(self, pod: Pod) -> str | None:
        """Say in words what Lium states of a pod that is not as asked, its price aside; None if nothing contradicts."""
        node, host, count = pod.node_id, pod.executor or _NO_HOST, _count(pod)
        if self.executor_ids and node and node.casefold() not in {one.casefold() for one in self.executor_ids}:
            return f"it is on node {node[:40]}, not on {' or '.join(self.executor_ids)[:200]}"
        for wanted in (self.gpu_types, self.allowed_gpu_types):
            if pod.gpu_name and wanted and gpu_contradicts(",".join(wanted), pod.gpu_name, host.vram_gb_per_gpu):
                return f"it has {pod.gpu_name[:80]}, not {' or '.join(wanted)[:200]}"
        if self.gpu_count is not None and count is not None and count != self.gpu_count:
            return f"it has {count} GPUs, not {self.gpu_count}"
        return next(self._other_host(host), None) or self._other_template(pod)

    def _other_host(self, host: Executor) -> Iterator[str]:
        """Say in words what Lium states of a pod's host that is not as asked."""
        vram, ram, cuda, country = host.vram_gb_per_gpu, host.ram_gb, host.cuda_version, host.country_code
        if self.min_vram_gb is not None and vram is not None and vram < self.min_vram_gb:
            yield f"its GPUs have {vram:g} GB, less than {self.min_vram_gb:g}"
        if self.min_ram_gb is not None and ram is not None and ram < self.min_ram_gb:
            yield f"its host has {ram:.1f} GB of RAM, less than {self.min_ram_gb:g}"
        if self.min_cuda is not None and cuda is not None and cuda < self.min_cuda:
            yield f"its driver supports CUDA {cuda:g}, less than {self.min_cuda:g}"
        speed, least = host.download_mbps, self.min_download_mbps
        if least is not None and speed is not None and speed < least:
            yield f"it downloads at {speed:g} Mbps, less than {least:g}"
        if country and not Countries.of(self._where).admits(country):
            yield f"it is in {country[:40]}, not in {named(self.countries) or 'a country that was not excluded'}"
        if self.tier and host.tier and host.tier.casefold() != self.tier:
            yield f"it is of the tier {host.tier[:40]}, not {self.tier}"
        if self.nvlink and host.has_nvlink is False:
            yield "its GPUs are not on NVLink"
        if self.docker_in_docker and host.docker_in_docker is False:
            yield "Docker does not work in it"

    @property
    def _where(self) -> str:
        """Where it may be, as a list of countries."""
        return ",".join([*self.countries, *(f"!{code}" for code in self.excluded_countries)]).upper()

    def _other_template(self, pod: Pod) -> str | None:
        template = pod.template
        if self.template_id is None or template is None or not template.id:
            return None
        if template.id.casefold() == self.template_id.casefold() or template.image is None:
            return None
        if self.template_image is None or self.template_image.startswith(template.image):
            return None
        return f"it runs {template.image[:120]}, not {self.template_image[:120]}"

    def _dearer(self, pod: Pod) -> str | None:
        if pod.price is None:
            return None
        count = _count(pod)
        # A pod for which Lium states more GPUs than were asked for is not cheaper for it.
        asked = self.gpu_count or count or 1
        per_gpu = pod.price / (count if count is not None and count <= asked else asked)
        is_dearer = (
            costs_more(pod.price, self.ceiling_per_hour_usd)
            or costs_more(pod.price, self.ceiling_per_pod_hour_usd)
            or costs_more(per_gpu, self.ceiling_per_gpu_hour_usd)
        )
        return f"it costs {rate_in_usd(pod.price, 4)} an hour, more than allowed" if is_dearer else None


ANYTHING: Final = Expected()
_NO_HOST: Final = Executor(id="unknown")


def still_expected(entry: Entry) -> Expected:
    """What is still to be checked of a rent's pods, by the ledger; nothing where the call that rented them has."""
    return Expected.from_json(entry.expected)


def expected_after(entry: Entry, pods: Sequence[Pod]) -> dict[str, Any] | None:
    """What is still to be checked of a rent's pods once these rows were held against what is expected."""
    if entry.expected is None or len(pods) != len(entry.pod_ids) + entry.missing_count:
        return entry.expected
    return still_expected(entry).left_after(pods).to_json() or None


def shortfalls(
    pod: Pod,
    *,
    volume_id: str | None,
    visible_gpus: int | None,
    is_volume_mounted: bool | None,
    events: Sequence[PodEvent],
) -> list[str]:
    """Say in sentences what a running pod has less of than it was rented with.

    That is no reason to give it back: it may still do, and only its user can tell.

    Args:
        pod: The pod.
        volume_id: The volume that it was to have; None if none is known.
        visible_gpus: How many GPUs its own `nvidia-smi` names; None if nobody could look.
        is_volume_mounted: Whether something is mounted at /mnt in it; None if nobody could look.
        events: What happened to it, oldest first.
    """
    count, open_ports = _count(pod), pod.open_ports
    sentences = []
    if visible_gpus is not None and count is not None and visible_gpus != count:
        advice = _FEWER_GPUS if visible_gpus < count else _MORE_GPUS
        sentences.append(f"{count} GPUs are billed and {visible_gpus or 'none'} can be seen in it. {advice}")
    asked_ports = set(pod.template.internal_ports) if pod.template else set()
    if open_ports is not None and (closed := sorted(asked_ports - open_ports)):
        more = f" and {len(closed) - _MOST_NAMED} more" if len(closed) > _MOST_NAMED else ""
        sentences.append(f"Ports {', '.join(map(str, closed[:_MOST_NAMED]))}{more} of its template are not open.")
    elif open_ports is not None and not open_ports:
        sentences.append("Lium shows no open port of it.")
    if missing := _without_volume(pod, volume_id, is_volume_mounted, events):
        sentences.append(missing)
    encryption = (pod.volume_encryption_status or "").upper()
    if encryption in _NOT_ENCRYPTED and pod.enable_volume_encryption:
        sentences.append(f"Its local volume is not encrypted, which was asked for ({encryption}).")
    return sentences


def _without_volume(pod: Pod, volume_id: str | None, is_mounted: bool | None, events: Sequence[PodEvent]) -> str | None:
    """Say that its volume is missing, if it is: what was seen in the pod counts for more than what Lium shows."""
    wanted = volume_id or pod.attached_volume_id
    if is_mounted is False and wanted:
        return (
            f"Volume {wanted} is not mounted: what is written to /mnt is lost with the container. reboot_pod with this "
            "volume attaches it, which loses what lies outside the local volume; or keep results elsewhere."
        )
    if _volume_failed(events) and not is_mounted:
        return f"Lium says that its volume could not be attached. {_LOOK_AT_MNT}"
    if volume_id is not None and pod.attached_volume_id is None:
        there = "Something is mounted at /mnt: see whether it is that." if is_mounted else _LOOK_AT_MNT
        return f"Lium does not show volume {volume_id} as attached to it. {there}"
    return None


def _volume_failed(events: Sequence[PodEvent]) -> bool:
    """Whether Lium says that the volume of the container that runs now could not be attached."""
    for event in reversed(events):
        if (event.to_status or "").upper() in ("PENDING", "REBOOT_PENDING"):
            return False
        said = (event.event_type, event.sub_event_type, event.reason, event.detail, event.error)
        if any(_VOLUME_FAILED in text for text in said if text):
            return True
    return False


def _count(pod: Pod) -> int | None:
    """How many GPUs a pod is stated to have, if the number makes sense."""
    count = pod.rented_gpu_count
    return count if count is not None and 0 < count <= _MOST_GPUS_OF_A_POD else None
