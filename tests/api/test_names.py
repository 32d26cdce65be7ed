"""GPU names and huids are read as the official client reads them.

The tables are what the functions of lium.io 0.32.0 return, run offline on these inputs.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.api import gpu_type_matches, huid, matching_machine_names, normalize_gpu_name, short_gpu_type
from lium_mcp.api.gpu_names import machine_name_contains

SHORT_TYPES = {
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 NVL": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA H20": "H20",
    "NVIDIA B200": "B200",
    "NVIDIA B300 SXM6 AC": "B300",
    "NVIDIA GB200": "B200",
    "NVIDIA L4": "L4",
    "NVIDIA L40": "L40",
    "NVIDIA L40S": "L40S",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA A100 80GB PCIe": "A100",
    "NVIDIA A40": "A40",
    "NVIDIA A10G": "A10",
    "NVIDIA RTX A6000": "A6000",
    "NVIDIA RTX 6000 Ada Generation": "RTX6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTXPRO6000",
    "NVIDIA RTX PRO 6000D Blackwell Workstation Edition": "RTXPRO6000D",
    "NVIDIA RTX PRO 4500 Blackwell": "RTXPRO4500",
    "NVIDIA GeForce RTX 4090": "RTX4090",
    "NVIDIA GeForce RTX 4090 D": "RTX4090",
    "NVIDIA GeForce RTX 3090 Ti": "RTX3090",
    "NVIDIA GeForce GTX 1080 Ti": "Ti",
    "NVIDIA TITAN Xp": "Xp",
    "NVIDIA TITAN RTX": "RTX",
    "Tesla V100-SXM2-32GB": "V100-SXM2-32GB",
    "Tesla T4": "T4",
    "AMD Instinct MI300X": "MI300X",
    "Quadro RTX 8000": "RTX8000",
    "geforce rtx 4090": "RTX4090",
    "NVIDIA-RTX-4090": "NVIDIA-RTX-4090",
    "": "Unknown",
    "   ": "Unknown",
}

MATCHES = {
    "H100": ["H100"],
    "h100": ["H100"],
    "100": ["A100", "H100"],
    "200": ["B200", "H200"],
    "4090": ["NVIDIA-RTX-4090", "RTX4090"],
    "rtx4090": ["RTX4090"],
    "RTX 4090": ["RTX4090"],
    "rtx-4090": ["RTX4090"],
    "rtx_4090": ["RTX4090"],
    "90": [],
    "6000": ["A6000", "RTX6000", "RTXPRO6000", "RTXPRO6000D"],
    "PRO6000": ["RTXPRO6000"],
    "rtx pro 6000": ["RTXPRO6000"],
    "RTX6000PRO": ["RTXPRO6000"],
    "6000pro": ["RTXPRO6000"],
    "PRO6000D": ["RTXPRO6000D"],
    "6000D": [],
    "A6000": ["A6000"],
    "RTX A6000": [],
    "RTX6000": ["RTX6000"],
    "L40": ["L40"],
    "40": ["A40", "L40", "L40S"],
    "10": ["A10"],
    "ti": ["Ti"],
    "Xp": ["Xp"],
    "4": ["L4", "T4"],
    "V100": [],
    "32GB": [],
    "MI300X": ["MI300X"],
    "300": ["B300", "MI300X"],
    "": [],
    "   ": [],
    "RTX": ["RTX"],
}

HUIDS = {
    "5bc8fbbc-bde5-4099-8164-d8399f767c45": "golden-raven-21",
    "d76d4330-f144-4bea-b0c1-1fdecb91ce37": "calm-orbit-b8",
    "87b0b125-ec1d-4da0-a6eb-8c9ebd69fe29": "zesty-eagle-1b",
    "c6a53877-7733-4bdb-9721-0dff076ce2ef": "brave-matrix-38",
    "0d464138-a623-4255-bfc1-ea36f17fd374": "zesty-wolf-cb",
    "5f2dd97f-1cfb-40f6-a827-688de6a16a3b": "swift-raven-3d",
    "617959ce-3f1f-45a8-9e52-71007814e8a2": "noble-comet-75",
    "3fd42359-92ed-4f45-9a1a-fe878b33e968": "golden-fox-53",
    "687c966c-377b-4aa2-bb2e-db20035b7399": "cosmic-orbit-18",
    "de11cc9d-ea95-4c21-ae9c-82b1478c281d": "lunar-comet-12",
    "8b0d2f14-6e35-4c19-8f7a-2a91c3d4e5f6": "brave-lion-cd",
    "a": "cosmic-matrix-61",
    "": "invalid",
}


@pytest.mark.parametrize(("machine_name", "expected"), SHORT_TYPES.items())
def test_short_type_of_a_machine_name(machine_name: str, expected: str) -> None:
    assert short_gpu_type(machine_name) == expected


@pytest.mark.parametrize(("wanted", "expected"), MATCHES.items())
def test_shorthand_matches_the_types_it_names(wanted: str, expected: list[str]) -> None:
    assert [name for name in sorted(set(SHORT_TYPES.values())) if gpu_type_matches(wanted, name)] == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("nvidia h200", ["H200"]),
        ("NVIDIA H100", ["H100"]),
        ("nvidia geforce rtx 4090", ["RTX4090"]),
        ("NVIDIA-RTX-4090", ["RTX4090"]),
        ("GeForce 3090", ["RTX3090"]),
        ("AMD MI300X", ["MI300X"]),
        ("NVIDIA", []),
        ("nvidia ", []),
    ],
)
def test_a_makers_name_before_the_type_is_left_out(wanted: str, expected: list[str]) -> None:
    types = sorted(set(SHORT_TYPES.values()) - {"NVIDIA-RTX-4090"})
    assert [name for name in types if gpu_type_matches(wanted, name)] == expected


def test_matching_names_keep_their_order() -> None:
    names = ["NVIDIA H200", "NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe", "NVIDIA A100 80GB PCIe"]
    assert matching_machine_names("100", names) == names[1:]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("NVIDIA H100", True),
        ("h100 80gb", True),
        ("H100-80GB-HBM3", True),
        ("H100 8", False),
        ("100 80GB", False),
        ("NVIDIA 80GB", False),
        ("H100", False),
        ("", False),
    ],
)
def test_part_of_a_full_name_must_be_whole_words(wanted: str, expected: bool) -> None:
    assert machine_name_contains(wanted, "NVIDIA H100 80GB HBM3") is expected


@given(text=st.text(max_size=60))
def test_names_of_any_text_are_read_without_failing_and_match_themselves(text: str) -> None:
    short = short_gpu_type(text)
    assert short
    assert gpu_type_matches(short, short) is bool(normalize_gpu_name(short))
    assert normalize_gpu_name(normalize_gpu_name(text)) == normalize_gpu_name(text)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", ["1" * 200_000 + "!", "RTX" + " " * 200_000, "A1" * 100_000, "X" * 200_000])
def test_very_long_names_take_no_time(text: str) -> None:
    gpu_type_matches("4090", short_gpu_type(text))
    gpu_type_matches("4090", text)


@pytest.mark.parametrize(("identifier", "expected"), HUIDS.items())
def test_huid_of_an_id(identifier: str, expected: str) -> None:
    assert huid(identifier) == expected


@given(identifier=st.text(max_size=40) | st.just("\ud800"))
def test_every_id_has_a_huid(identifier: str) -> None:
    assert huid(identifier) == "invalid" or huid(identifier).count("-") == 2
