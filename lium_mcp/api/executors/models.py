"""What the API says about nodes (its executors): rows, quotes, rent answers.

Sizes on the wire are KiB for memory and disk, MiB for GPU memory, Mbps for networks. The properties convert: memory and
disk to GB of 10^9 bytes, GPU memory to the size that the maker sells the card with.
"""

from functools import cached_property
from typing import Annotated

from pydantic import BeforeValidator

from lium_mcp.api.fields import (
    ApiBool,
    ApiFloat,
    ApiId,
    ApiInt,
    ApiModel,
    ApiNested,
    ApiNotice,
    ApiStr,
    ApiText,
    ApiTuple,
    read_int,
)
from lium_mcp.api.gpu_names import gpu_fits, gpu_label, holds_model_number, nominal_vram_gb
from lium_mcp.api.huids import huid

_BYTES_PER_KIB = 2**10
_BYTES_PER_GB = 10**9
_LEAST_RAM_KIB = 2**20
_UNREADABLE_COUNT = 0
_MOST_VRAM_MIB = 2**23


class Location(ApiModel):
    """Where a node's address is thought to be."""

    country: ApiStr = None
    country_code: ApiStr = None
    iso_code: ApiStr = None


class Interconnect(ApiModel):
    """How the GPUs of a node are wired to each other."""

    nvlink: ApiBool = None


class GpuDetail(ApiModel):
    """One card of a node; `capacity` is MiB."""

    name: ApiText = ""
    capacity: ApiFloat = None


class GpuSpecs(ApiModel):
    """The GPUs of a node as its last check saw them."""

    count: ApiInt = None
    driver: ApiStr = None
    details: ApiTuple[GpuDetail] = ()


class CpuSpecs(ApiModel):
    """The processor of a node; `count` is threads."""

    count: ApiInt = None


class RamSpecs(ApiModel):
    """Memory in KiB; `pod_reserve` is what pods do not get."""

    total: ApiInt = None
    pod_reserve: ApiInt = None


class DiskSpecs(ApiModel):
    """Disk in KiB."""

    total: ApiInt = None
    free: ApiInt = None


class ExecutorSpecs(ApiModel):
    """The result of a node's last check."""

    gpu: ApiNested[GpuSpecs] = None
    cpu: ApiNested[CpuSpecs] = None
    ram: ApiNested[RamSpecs] = None
    hard_disk: ApiNested[DiskSpecs] = None
    available_port_count: ApiInt = None
    sysbox_runtime: ApiBool = None
    interconnect: ApiNested[Interconnect] = None


def _read_smallest_count(value: object) -> int | None:
    # Null means "whole node only", so what cannot be read must not become null.
    return None if value is None else (read_int(value) or _UNREADABLE_COUNT)


def _gb(kib: int) -> float:
    return kib * _BYTES_PER_KIB / _BYTES_PER_GB


class Executor(ApiModel):
    """One node. Inside a pod row it describes the whole host, and its price is not the pod's.

    What is worked out is worked out once: those who look at one market filter the same nodes again and again.
    """

    id: ApiId
    machine_name: ApiText = ""
    price_per_gpu: ApiFloat = None
    gpu_count: ApiInt = None
    available_gpu_count: ApiInt = None
    min_gpu_count_for_rental: Annotated[int | None, BeforeValidator(_read_smallest_count)] = None
    location: ApiNested[Location] = None
    tier: ApiStr = None
    max_cuda_version: ApiFloat = None
    effective_download_speed_mbps: ApiFloat = None
    interconnect: ApiNested[Interconnect] = None
    nvlink: ApiBool = None
    gpu_power_limited: ApiBool = None
    gpu_power_limit_w: ApiInt = None
    gpu_power_limit_default_w: ApiInt = None
    frequent_rent_failures: ApiBool = None
    notice_period: ApiNotice = None
    reliability_score: ApiFloat = None
    specs: ApiNested[ExecutorSpecs] = None

    @property
    def huid(self) -> str:
        """The short name that clients derive from the id."""
        return huid(self.id)

    @property
    def _specs(self) -> ExecutorSpecs:
        return self.specs or ExecutorSpecs()

    @property
    def _gpu(self) -> GpuSpecs:
        return self._specs.gpu or GpuSpecs()

    @cached_property
    def total_gpu_count(self) -> int | None:
        """GPUs of the whole host; `None` if the API does not say how many."""
        counts = (self.gpu_count, self._gpu.count, len(self._gpu.details))
        return next((count for count in counts if count is not None and count > 0), None)

    @cached_property
    def gpu_name(self) -> str:
        """The full name of its GPUs, as far as the row says it."""
        if not holds_model_number(self.machine_name) and self._gpu.details and self._gpu.details[0].name:
            return self._gpu.details[0].name
        return self.machine_name

    @cached_property
    def gpu_type(self) -> str | None:
        """The name of its GPUs in answers, such as `RTX4090` or `H100 PCIe`; `None` if the row names none."""
        return gpu_label(self.gpu_name) if self.gpu_name.strip() else None

    def is_gpu(self, wanted: str) -> bool:
        """Whether a person's words, one name or several with commas between, mean the GPUs of this node."""
        size_gb = self.vram_gb_per_gpu
        return gpu_fits(wanted, self.gpu_name, size_gb) or (
            self.machine_name != self.gpu_name and gpu_fits(wanted, self.machine_name, size_gb)
        )

    @cached_property
    def smallest_rentable_gpu_count(self) -> int | None:
        """The fewest GPUs a rent may take: all of them on a node that rents only whole; `None` if unknown."""
        if "min_gpu_count_for_rental" not in self.model_fields_set:
            return None
        if self.min_gpu_count_for_rental is None:
            return self.total_gpu_count
        return self.min_gpu_count_for_rental if self.min_gpu_count_for_rental > 0 else None

    @cached_property
    def vram_gb_per_gpu(self) -> int | None:
        """Memory of one GPU: the maker's nominal size."""
        capacity = self._gpu.details[0].capacity if self._gpu.details else None
        return nominal_vram_gb(capacity) if capacity is not None and 0 < capacity < _MOST_VRAM_MIB else None

    @property
    def ram_gb(self) -> float | None:
        """Host memory that pods can get, GB of 10^9 bytes: the total less the reserve, never below 1 GiB."""
        ram = self._specs.ram
        if ram is None or not ram.total:
            return None
        return _gb(max(ram.total - (ram.pod_reserve or 0), _LEAST_RAM_KIB))

    @property
    def disk_gb(self) -> float | None:
        """Free disk of the host, GB of 10^9 bytes, or the whole where the free part is not reported."""
        disk = self._specs.hard_disk or DiskSpecs()
        kib = disk.free if disk.free is not None else disk.total
        return _gb(kib) if kib else None

    @property
    def cpu_count(self) -> int | None:
        """Processor threads of the host."""
        return self._specs.cpu.count if self._specs.cpu else None

    @property
    def download_mbps(self) -> float | None:
        """Download speed as Lium rates it."""
        return self.effective_download_speed_mbps

    @property
    def country_code(self) -> str | None:
        """ISO country code, upper case."""
        location = self.location or Location()
        code = location.country_code or location.iso_code
        return code.upper() if code else None

    @property
    def docker_in_docker(self) -> bool | None:
        """Whether Docker works inside a pod of this node."""
        return self._specs.sysbox_runtime

    @property
    def cuda_version(self) -> float | None:
        """The highest CUDA version the driver supports."""
        return self.max_cuda_version

    @property
    def port_count(self) -> int | None:
        """Free public ports of the host."""
        return self._specs.available_port_count

    @property
    def has_nvlink(self) -> bool | None:
        """Whether every GPU pair is on NVLink; `None` if nobody has judged it."""
        if self.nvlink is not None:
            return self.nvlink
        wiring = self.interconnect or self._specs.interconnect
        return wiring.nvlink if wiring else None


class QuoteLine(ApiModel):
    """One position of a quote; egress has no amount, and a note that says why."""

    item: ApiText = ""
    unit: ApiText = ""
    rate_usd: ApiFloat = None
    quantity: ApiFloat = None
    amount_usd: ApiFloat = None
    note: ApiText = ""


class Quote(ApiModel):
    """What a rental would cost; it reserves nothing.

    The balance must be more than `rent_balance_required_usd`, which is sent only to a key; 0 means exempt.
    """

    executor_id: ApiId
    gpu_count: ApiInt = None
    hours: ApiFloat = None
    price_per_hour: ApiFloat = None
    lines: ApiTuple[QuoteLine] = ()
    total_usd: ApiFloat = None
    rent_balance_required_usd: ApiFloat = None


class RentBySpecResponse(ApiModel):
    """Which node fits a specification best."""

    price_per_hour: ApiFloat = None
    selected_executor: ApiNested[Executor] = None


class DefaultImage(ApiModel):
    """A recommended image, best first."""

    docker_image: ApiText
    docker_image_tag: ApiText = ""
