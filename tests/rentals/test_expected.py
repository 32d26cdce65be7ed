"""What a pod must be to be kept: only what Lium states and what contradicts is held against it."""

from typing import Any

import pytest

from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import Expected

HOST = {
    "id": "node",
    "specs": {
        "gpu": {"details": [{"capacity": 81559}]},
        "ram": {"total": 500_000_000, "pod_reserve": 0},
    },
    "location": {"country_code": "DE"},
}
POD = {
    "id": "pod",
    "gpu_name": "NVIDIA H100 PCIe",
    "gpu_count": "2",
    "price": 3.0,
    "executor": HOST,
    "template": {"id": "T-1", "docker_image": "me/mine", "docker_image_tag": "1"},
}
ASKED = Expected(
    gpu_types=("h100",),
    allowed_gpu_types=("A100", "H100 PCIe"),
    gpu_count=2,
    min_vram_gb=80,
    min_ram_gb=500,
    countries=("de", "FR"),
    template_id="t-1",
    template_image="me/mine:1",
    ceiling_per_hour_usd=3.0,
    ceiling_per_gpu_hour_usd=1.5,
)


def pod(**changes: Any) -> Pod:
    return Pod.model_validate(POD | changes)


def test_what_is_as_asked_contradicts_nothing() -> None:
    assert ASKED.contradiction(pod()) is None
    assert ASKED.unverified(pod()) == []
    assert not ASKED.is_dearer([pod()])
    assert Expected().contradiction(pod()) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpu_name": "NVIDIA H200"}, "H200"),
        ({"gpu_name": "NVIDIA H100 NVL"}, "H100 NVL"),
        ({"gpu_count": 1}, "1 GPUs"),
        ({"gpu_count": "8"}, "8 GPUs"),
        ({"executor": HOST | {"specs": {"gpu": {"details": [{"capacity": 40960}]}}}}, "40 GB"),
        ({"executor": HOST | {"specs": {"ram": {"total": 400_000_000}}}}, "RAM"),
        ({"executor": HOST | {"location": {"country_code": "us"}}}, "US"),
        ({"template": {"id": "t-2", "docker_image": "evil/other", "docker_image_tag": "1"}}, "evil/other:1"),
        ({"price": 3.1}, "more than allowed"),
        ({"price": 9.0, "gpu_name": "NVIDIA H200"}, "H200, not h100 and it costs $9.0000 an hour"),
    ],
    ids=str,
)
def test_what_is_stated_and_contradicts_is_said(changes: dict[str, Any], said: str) -> None:
    assert said in (ASKED.contradiction(pod(**changes)) or "")


UNREADABLE: tuple[Any, ...] = (None, "", [])
NO_LEDGER: tuple[object, ...] = (
    None,
    [],
    "x",
    {"unheard_of": 1, "gpu_count": "two", "gpu_types": "H100", "countries": [7]},
)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in ("gpu_name", "gpu_count", "price", "executor", "template") for value in UNREADABLE),
        {"gpu_count": -1},
        {"gpu_count": 10**9},
        {"gpu_count": "many"},
        {"gpu_name": "GPU"},
        {"gpu_name": "custom box"},
        {"executor": {"id": "node", "specs": {"gpu": {"details": [{"capacity": "NaN"}]}, "ram": 7}, "location": 3}},
        {"template": {"id": "a-copy", "docker_image": "me/mine", "docker_image_tag": "1"}},
        {"template": {"id": "a-copy"}},
    ],
    ids=str,
)
def test_what_is_missing_or_makes_no_sense_keeps_the_pod(changes: dict[str, Any]) -> None:
    assert ASKED.contradiction(pod(**changes)) is None


def test_a_node_whose_card_nobody_named_holds_nothing_against_a_pod() -> None:
    assert Expected(gpu_types=("custom box",)).contradiction(pod()) is None


def test_what_could_not_be_checked_is_said() -> None:
    bare = Pod.model_validate({"id": "pod"})
    assert ASKED.contradiction(bare) is None
    assert ASKED.unverified(bare) == [
        "what it costs",
        "which GPU it has",
        "how many GPUs it has",
        "how much memory its GPUs have",
        "how much memory its host has",
        "which country it is in",
        "which template it runs",
    ]
    assert Expected().unverified(bare) == []


def test_pods_of_one_rent_are_dear_together_or_one_of_them() -> None:
    cluster = Expected(ceiling_per_hour_usd=7, ceiling_per_pod_hour_usd=4)
    assert not cluster.is_dearer([pod(), pod(price=4.0)])
    assert cluster.is_dearer([pod(price=3.6), pod(price=3.6)])
    assert cluster.is_dearer([pod(price=4.1), pod(price=None)])


def test_it_survives_the_ledger_and_other_versions_of_it() -> None:
    assert Expected.from_json(ASKED.to_json()) == ASKED
    assert Expected().to_json() == {}
    for nonsense in NO_LEDGER:
        assert Expected.from_json(nonsense) == Expected()
