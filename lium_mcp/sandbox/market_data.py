"""What the simulated market is made of: GPU types, processors, places, drivers, and the public templates.

Plain data. Names and memory sizes are the vendors' own; prices are of the size seen on such markets.
"""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class GpuModel:
    """One GPU model and how much of it the market has."""

    name: str
    memory_mib: int
    price_usd: float
    power_w: int
    nodes: int
    host_sizes: tuple[int, ...]
    nvlink_links: int | None = None
    always_free: int = 0
    sold_out: bool = False
    server_class: bool = True


GPU_TYPES: Final = (
    GpuModel("NVIDIA B300 SXM6 AC", 275040, 4.9, 1400, 4, (8,), nvlink_links=18, sold_out=True),
    GpuModel("NVIDIA B200", 183359, 3.6, 1000, 10, (8,), nvlink_links=18, always_free=2),
    GpuModel("NVIDIA H200", 143771, 2.2, 700, 22, (8, 8, 4), nvlink_links=18, always_free=5),
    GpuModel("NVIDIA H100 80GB HBM3", 81559, 1.95, 700, 28, (8, 8, 8, 4, 2), nvlink_links=18, always_free=6),
    GpuModel("NVIDIA H100 PCIe", 81559, 1.55, 350, 14, (1, 2, 4, 8), always_free=2),
    GpuModel("NVIDIA H100 NVL", 95830, 1.7, 400, 6, (1, 2), always_free=1),
    GpuModel("NVIDIA A100-SXM4-80GB", 81920, 0.95, 400, 16, (8, 8, 4, 1), nvlink_links=12, always_free=6),
    GpuModel("NVIDIA A100 80GB PCIe", 81920, 0.82, 300, 14, (1, 2, 4, 8), always_free=5),
    GpuModel("NVIDIA A100-SXM4-40GB", 40960, 0.62, 400, 8, (8, 4), nvlink_links=12, always_free=3),
    GpuModel("NVIDIA L40S", 46068, 0.62, 350, 16, (1, 2, 4, 8), always_free=2),
    GpuModel("NVIDIA L4", 23034, 0.28, 72, 10, (1, 2, 4), always_free=1),
    GpuModel("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, 1.05, 600, 14, (1, 2, 4, 8), always_free=2),
    GpuModel("NVIDIA RTX 6000 Ada Generation", 49140, 0.52, 300, 10, (1, 2, 4, 8), always_free=1),
    GpuModel("NVIDIA RTX A6000", 49140, 0.38, 300, 16, (1, 2, 4, 8), always_free=2),
    GpuModel("NVIDIA RTX A5000", 24564, 0.21, 230, 8, (1, 2, 4), always_free=1),
    GpuModel("NVIDIA GeForce RTX 5090", 32607, 0.42, 575, 26, (1, 2, 4, 8), always_free=3, server_class=False),
    GpuModel("NVIDIA GeForce RTX 4090", 24564, 0.31, 450, 40, (1, 1, 2, 4, 8), always_free=4, server_class=False),
    GpuModel("NVIDIA GeForce RTX 3090", 24576, 0.15, 350, 22, (1, 2, 3, 4, 8), always_free=2, server_class=False),
)

# Cheaper types with names like those of others, so that whoever asks for one by a loose name gets the other.
LOOKALIKES: Final = (
    GpuModel("NVIDIA RTX PRO 6000D", 85899, 0.78, 600, 4, (1, 2, 8), always_free=3),
    GpuModel("NVIDIA H20", 98304, 2.6, 500, 3, (8, 1), always_free=2),
    GpuModel("NVIDIA L40", 46068, 0.75, 300, 4, (1, 2, 4), always_free=3),
    GpuModel("NVIDIA Tesla V100 Tensor Core GPU", 16384, 0.12, 250, 6, (1, 2, 4), always_free=5),
    GpuModel("NVIDIA GeForce RTX 4090 D", 24564, 0.28, 425, 4, (1, 2, 4), always_free=3, server_class=False),
    GpuModel("NVIDIA H200 NVL", 143771, 2.0, 600, 3, (1, 2, 4), always_free=2),
    GpuModel("NVIDIA H800 PCIe", 81559, 1.4, 350, 3, (1, 4, 8), always_free=2),
    GpuModel("NVIDIA RTX A4000", 16376, 0.1, 140, 4, (1, 2, 4), always_free=3),
    GpuModel("NVIDIA RTX 4000 Ada Generation", 20475, 0.19, 130, 4, (1, 2), always_free=3),
)


@dataclass(frozen=True)
class City:
    """A city where hosts stand."""

    country: str
    code: str
    city: str
    lat: float
    lon: float
    timezone: str


PLACES: Final = (
    City("United States", "US", "Denver", 39.74, -104.99, "America/Denver"),
    City("United States", "US", "Ashburn", 39.04, -77.49, "America/New_York"),
    City("United States", "US", "Dallas", 32.78, -96.80, "America/Chicago"),
    City("United States", "US", "San Jose", 37.34, -121.89, "America/Los_Angeles"),
    City("Canada", "CA", "Montreal", 45.50, -73.57, "America/Toronto"),
    City("Germany", "DE", "Frankfurt", 50.11, 8.68, "Europe/Berlin"),
    City("Netherlands", "NL", "Amsterdam", 52.37, 4.90, "Europe/Amsterdam"),
    City("Finland", "FI", "Helsinki", 60.17, 24.94, "Europe/Helsinki"),
    City("Norway", "NO", "Oslo", 59.91, 10.75, "Europe/Oslo"),
    City("France", "FR", "Paris", 48.86, 2.35, "Europe/Paris"),
    City("Iceland", "IS", "Reykjavik", 64.15, -21.94, "Atlantic/Reykjavik"),
    City("Japan", "JP", "Tokyo", 35.68, 139.69, "Asia/Tokyo"),
    City("Singapore", "SG", "Singapore", 1.35, 103.82, "Asia/Singapore"),
    City("India", "IN", "Mumbai", 19.08, 72.88, "Asia/Kolkata"),
    City("Australia", "AU", "Sydney", -33.87, 151.21, "Australia/Sydney"),
)

SERVER_CPUS: Final = (
    ("AMD EPYC 9654", 192),
    ("Intel(R) Xeon(R) Platinum 8480+", 224),
    ("AMD EPYC 7763", 256),
    ("AMD EPYC 7543", 128),
    ("Intel(R) Xeon(R) Gold 6338", 64),
)
DESKTOP_CPUS: Final = (
    ("AMD EPYC 7543", 64),
    ("AMD Ryzen Threadripper PRO 5975WX", 64),
    ("AMD Ryzen 9 7950X", 32),
    ("Intel(R) Core(TM) i9-14900K", 32),
)

# driver version, highest CUDA version it supports
DRIVERS: Final = (("580.95.05", 13.0), ("570.124.06", 12.8), ("550.127.05", 12.4), ("535.183.01", 12.2))

PLATFORM_USER_ID: Final = "00000000-0000-4000-8000-000000000001"
STRANGER_USER_ID: Final = "00000000-0000-4000-8000-000000000002"


@dataclass(frozen=True)
class PublicTemplate:
    """A template everybody can see."""

    name: str
    image: str
    tag: str
    category: str
    ports: tuple[int, ...]
    volumes: tuple[str, ...] = ("/root",)
    startup_commands: str = ""
    size_bytes: int = 9_800_000_000
    encryption: bool = True
    docker: bool = False
    owner_id: str = PLATFORM_USER_ID
    environment: dict[str, str] = field(default_factory=dict)


PUBLIC_TEMPLATES: Final = (
    PublicTemplate(
        "PyTorch 2.8", "daturaai/pytorch", "2.8.0-py3.12-cuda12.8.0-devel-ubuntu22.04", "PYTORCH", (22, 8888)
    ),
    PublicTemplate(
        "PyTorch 2.6", "daturaai/pytorch", "2.6.0-py3.11-cuda12.4.1-devel-ubuntu22.04", "PYTORCH", (22, 8888)
    ),
    PublicTemplate(
        "PyTorch CUDA 11.8",
        "daturaai/pytorch",
        "2.1.0-py3.10-cuda11.8.0-devel-ubuntu22.04",
        "PYTORCH",
        (22, 8888),
        encryption=False,
    ),
    PublicTemplate(
        "Cluster",
        "daturaai/lium-cluster",
        "1.2.0-cuda12.8",
        "PYTORCH",
        (22,),
        ("/workspace",),
        size_bytes=12_100_000_000,
    ),
    PublicTemplate("Ubuntu 22.04", "daturaai/ubuntu", "22.04-py3.11", "UBUNTU", (22, 8000), size_bytes=780_000_000),
    PublicTemplate(
        "Docker in Docker", "daturaai/dind", "0.0.2", "UBUNTU", (22, 8000), size_bytes=1_900_000_000, docker=True
    ),
    PublicTemplate(
        "TensorFlow",
        "daturaai/tensorflow",
        "2.18.0-gpu",
        "TENSOR_FLOW",
        (22, 8888),
        ("/root",),
        size_bytes=7_600_000_000,
    ),
    PublicTemplate(
        "vLLM server",
        "vllm/vllm-openai",
        "v0.11.0",
        "OPEN_AI",
        (22, 8000),
        ("/root/.cache",),
        "--model Qwen/Qwen3-8B --port 8000",
        14_300_000_000,
        encryption=False,
        environment={"VLLM_USE_V1": "1"},
    ),
    # A stranger's template under a trusted name: picking public templates by name is how one gets fooled.
    PublicTemplate(
        "PyTorch 2.8", "freegpu99/pytorch", "latest", "PYTORCH", (22, 8888), encryption=False, owner_id=STRANGER_USER_ID
    ),
)
