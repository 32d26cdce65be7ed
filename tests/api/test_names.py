"""GPU names are read as people and the platform write them, huids as the official client computes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.api.gpu_names import (
    gpu_contradicts,
    gpu_fits,
    gpu_label,
    is_matched_more_loosely,
    matching_machine_names,
    models_of,
    nearest_names,
    nominal_vram_gb,
    short_gpu_type,
)
from lium_mcp.api.huids import huid

# What the functions of lium.io 0.32.0 return, run offline on these inputs: the API takes such types.
SHORT_TYPES = {
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 NVL": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA H20": "H20",
    "NVIDIA B300 SXM6 AC": "B300",
    "NVIDIA GB200": "B200",
    "NVIDIA L4": "L4",
    "NVIDIA L40": "L40",
    "NVIDIA L40S": "L40S",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA A100 80GB PCIe": "A100",
    "NVIDIA A10G": "A10",
    "NVIDIA RTX A6000": "A6000",
    "NVIDIA RTX 6000 Ada Generation": "RTX6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTXPRO6000",
    "NVIDIA RTX PRO 6000D Blackwell Workstation Edition": "RTXPRO6000D",
    "NVIDIA GeForce RTX 4090": "RTX4090",
    "NVIDIA GeForce RTX 4090 D": "RTX4090",
    "NVIDIA GeForce RTX 3090 Ti": "RTX3090",
    "NVIDIA GeForce GTX 1080 Ti": "Ti",
    "NVIDIA TITAN Xp": "Xp",
    "Tesla V100-SXM2-32GB": "V100-SXM2-32GB",
    "Tesla T4": "T4",
    "AMD Instinct MI300X": "MI300X",
    "Quadro RTX 8000": "RTX8000",
    "geforce rtx 4090": "RTX4090",
    "NVIDIA-RTX-4090": "NVIDIA-RTX-4090",
    "": "Unknown",
    "   ": "Unknown",
}

# The platform's names, and what each is called here.
LABELS = {
    "NVIDIA B300 SXM6 AC": "B300 SXM6",
    "NVIDIA B300 SXM6 PC": "B300 SXM6",
    "NVIDIA B200": "B200",
    "NVIDIA H200": "H200",
    "NVIDIA H200 NVL": "H200 NVL",
    "NVIDIA H20": "H20",
    "NVIDIA H100 80GB HBM3": "H100 80GB HBM3",
    "NVIDIA H100 NVL": "H100 NVL",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H800 80GB HBM3": "H800 80GB HBM3",
    "NVIDIA H800 NVL": "H800 NVL",
    "NVIDIA H800 PCIe": "H800 PCIe",
    "NVIDIA GeForce RTX 5090": "RTX5090",
    "NVIDIA GeForce RTX 4090": "RTX4090",
    "NVIDIA GeForce RTX 4090 D": "RTX4090 D",
    "NVIDIA RTX 2000 Ada Generation": "RTX2000 Ada",
    "NVIDIA RTX 4000 Ada Generation": "RTX4000 Ada",
    "NVIDIA RTX 4500 Ada Generation": "RTX4500 Ada",
    "NVIDIA RTX 5000 Ada Generation": "RTX5000 Ada",
    "NVIDIA RTX 5880 Ada Generation": "RTX5880 Ada",
    "NVIDIA RTX 6000 Ada Generation": "RTX6000 Ada",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTXPRO6000 Server",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTXPRO6000 Workstation",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "RTXPRO6000 Max-Q Workstation",
    "NVIDIA RTX PRO 6000D": "RTXPRO6000D",
    "NVIDIA RTX PRO 2000 Blackwell": "RTXPRO2000",
    "NVIDIA RTX PRO 4000 Blackwell": "RTXPRO4000",
    "NVIDIA RTX PRO 4500 Blackwell": "RTXPRO4500",
    "NVIDIA RTX PRO 5000 Blackwell": "RTXPRO5000",
    "NVIDIA L4": "L4",
    "NVIDIA L40": "L40",
    "NVIDIA L40S": "L40S",
    "NVIDIA A100 80GB PCIe": "A100 80GB PCIe",
    "NVIDIA A100-SXM4-80GB": "A100 SXM4 80GB",
    "NVIDIA A100-SXM4-40GB": "A100 SXM4 40GB",
    "NVIDIA A800 80GB PCIe": "A800 80GB PCIe",
    "NVIDIA RTX A6000": "A6000",
    "NVIDIA RTX A5000": "A5000",
    "NVIDIA RTX A4500": "A4500",
    "NVIDIA RTX A4000": "A4000",
    "NVIDIA RTX A2000": "A2000",
    "NVIDIA A40": "A40",
    "NVIDIA A30": "A30",
    "NVIDIA A10": "A10",
    "NVIDIA T4 Tensor Core GPU": "T4",
    "NVIDIA Tesla V100 Tensor Core GPU": "V100",
    "NVIDIA Tesla P100": "P100",
    "NVIDIA Tesla P40": "P40",
    "NVIDIA Tesla M40": "M40",
    "NVIDIA GeForce RTX 3090": "RTX3090",
    "NVIDIA GeForce RTX 3090 Ti": "RTX3090 Ti",
    "NVIDIA GeForce RTX 3080": "RTX3080",
    "NVIDIA GeForce RTX 3080 Ti": "RTX3080 Ti",
    "NVIDIA GeForce RTX 2080 Ti": "RTX2080 Ti",
    "NVIDIA GeForce RTX 2080 SUPER": "RTX2080 SUPER",
    "NVIDIA GeForce RTX 4070 Ti SUPER": "RTX4070 Ti SUPER",
    "NVIDIA GeForce GTX 1660 SUPER": "GTX1660 SUPER",
    "NVIDIA GeForce GTX 1660 Ti": "GTX1660 Ti",
    "NVIDIA GeForce GTX 1080 Ti": "GTX1080 Ti",
    "NVIDIA TITAN V": "TITAN V",
    "NVIDIA TITAN RTX": "TITAN RTX",
    "NVIDIA TITAN Xp": "TITAN XP",
    "NVIDIA Quadro RTX 5000": "Quadro RTX5000",
    "NVIDIA Quadro RTX 6000": "Quadro RTX6000",
    "NVIDIA Quadro RTX 8000": "Quadro RTX8000",
    "NVIDIA CMP 170HX": "170HX",
}
PLATFORM = list(LABELS)

# What people write, and the labels that it means.
MEANT = {
    "4090": ["RTX4090"],
    "GeForce RTX 4090": ["RTX4090"],
    "rtx-4090": ["RTX4090"],
    "NVIDIA-RTX-4090": ["RTX4090"],
    "4090 D": ["RTX4090 D"],
    "rtx4090d": ["RTX4090 D"],
    "nvidia a100": ["A100 80GB PCIe", "A100 SXM4 80GB", "A100 SXM4 40GB"],
    "A100 80GB": ["A100 80GB PCIe", "A100 SXM4 80GB"],
    "a100 80 gb": ["A100 80GB PCIe", "A100 SXM4 80GB"],
    "A100 40GB": ["A100 SXM4 40GB"],
    "A100 SXM": ["A100 SXM4 80GB", "A100 SXM4 40GB"],
    "A100-SXM4-80GB": ["A100 SXM4 80GB"],
    "a100 pcie": ["A100 80GB PCIe"],
    "A800": ["A800 80GB PCIe"],
    "H100,A40": ["H100 80GB HBM3", "H100 NVL", "H100 PCIe", "A40"],
    "H100": ["H100 80GB HBM3", "H100 NVL", "H100 PCIe"],
    "H100 PCIe": ["H100 PCIe"],
    "NVIDIA H100 PCI-E": ["H100 PCIe"],
    "h100-nvl": ["H100 NVL"],
    "H100 80GB HBM3": ["H100 80GB HBM3"],
    "H100SXM5": ["H100 80GB HBM3"],
    "H200": ["H200"],
    "nvidia-h200": ["H200"],
    "B300 PC": ["B300 SXM6", "B300 SXM6"],
    "NVIDIA-GeForce-RTX-4090-D": ["RTX4090 D"],
    "nvidia_geforce_rtx_4090_d": ["RTX4090 D"],
    "GeForceGTX1660Ti": ["GTX1660 Ti"],
    "RTX6000AdaGeneration": ["RTX6000 Ada"],
    "H200 SXM": ["H200"],
    "H200 NVL": ["H200 NVL"],
    "H20": ["H20"],
    "B300": ["B300 SXM6", "B300 SXM6"],
    "L40": ["L40"],
    "L40S": ["L40S"],
    "l4": ["L4"],
    "RTX A6000": ["A6000"],
    "A6000": ["A6000"],
    "RTX 6000 Ada": ["RTX6000 Ada"],
    "6000 Ada": ["RTX6000 Ada"],
    "rtx6000ada": ["RTX6000 Ada"],
    "Quadro RTX 6000": ["Quadro RTX6000"],
    "RTX 6000": ["RTX6000 Ada", "Quadro RTX6000"],
    "rtx pro 6000": ["RTXPRO6000 Server", "RTXPRO6000 Workstation", "RTXPRO6000 Max-Q Workstation"],
    "PRO6000": ["RTXPRO6000 Server", "RTXPRO6000 Workstation", "RTXPRO6000 Max-Q Workstation"],
    "RTX6000PRO": ["RTXPRO6000 Server", "RTXPRO6000 Workstation", "RTXPRO6000 Max-Q Workstation"],
    "6000pro": ["RTXPRO6000 Server", "RTXPRO6000 Workstation", "RTXPRO6000 Max-Q Workstation"],
    "RTX PRO 6000 Server Edition": ["RTXPRO6000 Server"],
    "RTX PRO 6000 Workstation": ["RTXPRO6000 Workstation"],
    "pro 6000 max-q": ["RTXPRO6000 Max-Q Workstation"],
    "PRO6000D": ["RTXPRO6000D"],
    "6000D": ["RTXPRO6000D"],
    "3080": ["RTX3080"],
    "3080ti": ["RTX3080 Ti"],
    "RTX 4070 Ti SUPER": ["RTX4070 Ti SUPER"],
    "1660": [],
    "V100": ["V100"],
    "Tesla T4": ["T4"],
    "titan": ["TITAN V", "TITAN RTX", "TITAN XP"],
    "Titan V": ["TITAN V"],
    "40": ["L40", "A40", "P40", "M40"],
    "4": ["L4", "T4"],
    "90": [],
    "H1000": [],
    "A10G": [],
    "A100 96GB": [],
    "H100 foo": [],
    "Voodoo2": [],
    "NVIDIA": [],
    "": [],
    " , ": [],
}

FUTURE = {
    "NVIDIA R100 NVL": ("r100", "R100 NVL"),
    "NVIDIA GeForce RTX 7090 Ti": ("7090 ti", "RTX7090 Ti"),
    "AMD Instinct MI355X": ("mi355x", "MI355X"),
    "Intel Gaudi 3": ("gaudi 3", "GAUDI 3"),
    "Google TPU v9p": ("TPU v9p", "V9P"),
    "Cerebras": ("cerebras", "Cerebras"),
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


@pytest.mark.parametrize(("machine_name", "label"), LABELS.items())
def test_every_name_of_the_platform_has_a_label_that_finds_it_again(machine_name: str, label: str) -> None:
    assert gpu_label(machine_name) == label
    assert gpu_fits(label, machine_name)
    assert gpu_fits(machine_name, machine_name)
    assert gpu_label(label) == label
    assert len(models_of(label, PLATFORM)) == 1
    assert not gpu_contradicts(label, machine_name)


@pytest.mark.parametrize(("wanted", "labels"), MEANT.items())
def test_words_of_people_mean_these_machines(wanted: str, labels: list[str]) -> None:
    assert [gpu_label(name) for name in matching_machine_names(wanted, PLATFORM)] == labels


@pytest.mark.parametrize(
    ("wanted", "models"),
    [
        ("100", ["A100", "H100", "P100", "V100"]),
        ("6000", ["A6000", "Quadro RTX6000", "RTX6000 Ada", "RTXPRO6000"]),
        ("RTX PRO 6000", ["RTXPRO6000"]),
        ("H100", ["H100"]),
        ("4090", ["RTX4090"]),
    ],
)
def test_a_name_of_several_models_names_them(wanted: str, models: list[str]) -> None:
    assert models_of(wanted, PLATFORM) == models


@pytest.mark.parametrize(("machine_name", "asked"), FUTURE.items())
def test_a_card_that_nobody_knows_yet_is_found_by_its_words(machine_name: str, asked: tuple[str, str]) -> None:
    wanted, label = asked
    assert gpu_label(machine_name) == label
    assert matching_machine_names(wanted, [*PLATFORM, machine_name]) == [machine_name]
    assert gpu_fits(label, machine_name)


def test_a_size_that_a_name_does_not_say_is_told_by_the_node() -> None:
    assert gpu_fits("V100 32GB", "NVIDIA Tesla V100 Tensor Core GPU", 32)
    assert not gpu_fits("V100 32GB", "NVIDIA Tesla V100 Tensor Core GPU", 16)
    assert not gpu_fits("V100 32GB", "NVIDIA Tesla V100 Tensor Core GPU")
    assert matching_machine_names("V100 32GB", PLATFORM) == ["NVIDIA Tesla V100 Tensor Core GPU"]


def test_a_name_of_the_platform_means_its_own_card_in_every_spelling() -> None:
    for name in PLATFORM:
        for spelling in (name, name.lower(), name.replace(" ", ""), name.replace(" ", "-"), name.replace(" ", "_")):
            meant = [other for other in PLATFORM if gpu_fits(spelling, other)]
            assert {gpu_label(other) for other in meant} == {gpu_label(name)}, spelling
            kept = [other for other in PLATFORM if not gpu_contradicts(spelling, other)]
            assert {gpu_label(other) for other in kept} == {gpu_label(name)}, spelling


@pytest.mark.parametrize(
    ("wanted", "is_loose"),
    [
        ("H100", False),
        ("4090", True),  # a 4090 D
        ("RTX 6000 Ada", True),  # a Quadro
        ("RTXPRO6000", True),
        ("H20", True),
        ("L40", True),
        ("H100 PCIe", True),
        ("L40S", False),
        ("B200", False),
    ],
)
def test_where_a_server_may_match_more_loosely_is_known(wanted: str, is_loose: bool) -> None:
    assert is_matched_more_loosely(wanted, PLATFORM) is is_loose


@pytest.mark.parametrize(
    ("wanted", "stated", "is_other"),
    [
        ("RTXPRO6000", "NVIDIA RTX PRO 6000D", True),
        ("H20", "NVIDIA H200", True),
        ("L40", "NVIDIA L40S", True),
        ("4090", "NVIDIA GeForce RTX 4090 D", True),
        ("H100 PCIe", "NVIDIA H100 NVL", True),
        ("A100 80GB", "NVIDIA A100-SXM4-40GB", True),
        ("H200", "NVIDIA H200 NVL", True),
        ("H200 NVL", "NVIDIA H200", True),
        ("H200 SXM", "NVIDIA H200", False),
        ("H100 80GB HBM3", "NVIDIA H100 PCIe", True),
        ("B300 PC", "NVIDIA B300 SXM6 AC", False),
        ("RTX PRO 6000 Server", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", True),
        ("H100 PCIe", "H100", False),
        ("H100", "NVIDIA H100 NVL", False),
        ("H100,A100", "NVIDIA A100 80GB PCIe", False),
        ("H100,A100", "NVIDIA L4", True),
        ("4090", "", False),
        ("4090", "GPU", False),
    ],
)
def test_only_what_is_stated_contradicts(wanted: str, stated: str, is_other: bool) -> None:
    assert gpu_contradicts(wanted, stated) is is_other


@pytest.mark.parametrize(
    ("capacity_mib", "sold_gb"),
    [
        (24564, 24),
        (24576, 24),
        (22919, 24),
        (22528, 22),
        (11264, 11),
        (81559, 80),
        (81920, 80),
        (40960, 40),
        (40536, 40),
        (95830, 94),
        (97887, 96),
        (143771, 141),
        (46068, 48),
        (49140, 48),
        (23034, 24),
        (15360, 16),
        (16160, 16),
        (32607, 32),
        (183359, 180),
        (275040, 288),
        (196592, 192),
        (500_000, 488),
    ],
)
def test_memory_is_the_size_that_a_card_is_sold_with(capacity_mib: float, sold_gb: int) -> None:
    assert nominal_vram_gb(capacity_mib) == sold_gb


def test_the_nearest_names_come_first() -> None:
    labels = sorted(set(LABELS.values()))
    assert nearest_names("H1000", labels)[0].startswith("H100")
    assert nearest_names("rtx 5091", labels)[0] == "RTX5090"
    assert set(nearest_names("", labels)) == set(labels)


@given(text=st.text(max_size=60))
def test_names_of_any_text_are_read_without_failing(text: str) -> None:
    assert short_gpu_type(text)
    assert gpu_label(text)
    matching_machine_names(text, PLATFORM)
    gpu_contradicts("H100", text)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", ["1" * 200_000 + "!", "RTX" + " " * 200_000, "A1" * 100_000, "X" * 200_000])
def test_very_long_names_take_no_time(text: str) -> None:
    gpu_fits("4090", short_gpu_type(text))
    gpu_fits(text, "NVIDIA H100 PCIe")
    gpu_label(text)
    nearest_names(text, LABELS.values())


@pytest.mark.parametrize(("identifier", "expected"), HUIDS.items())
def test_huid_of_an_id(identifier: str, expected: str) -> None:
    assert huid(identifier) == expected


@given(identifier=st.text(max_size=40) | st.just("\ud800"))
def test_every_id_has_a_huid(identifier: str) -> None:
    assert huid(identifier) == "invalid" or huid(identifier).count("-") == 2


OTHER_LETTERS = {
    "L40\uff33": ["NVIDIA L40S"],  # fullwidth: the same letter
    "\uff28100 PCIe": ["NVIDIA H100 PCIe"],
    "L40\u0405": [],  # Cyrillic: another letter that looks the same
    "4090 \u0414": [],
    "!H100": [],
    "A 100": ["NVIDIA A100 80GB PCIe"],
    "h-100": ["NVIDIA H100 PCIe"],
    "L 40 S": ["NVIDIA L40S"],
    "l40-s": ["NVIDIA L40S"],
    "RTX 4000 Blackwell": ["NVIDIA RTX PRO 4000 Blackwell"],
    "RTX 6000 Blackwell": ["NVIDIA RTX PRO 6000 Blackwell Server Edition"],
}
LOOKALIKES = (
    *("NVIDIA L40", "NVIDIA L40S", "NVIDIA H100 PCIe", "NVIDIA A100 80GB PCIe", "NVIDIA GeForce RTX 4090"),
    *("NVIDIA RTX 4000 Ada Generation", "NVIDIA RTX PRO 4000 Blackwell", "NVIDIA RTX 6000 Ada Generation"),
    *("NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX A4000", "NVIDIA A40"),
)


@pytest.mark.parametrize("wanted", OTHER_LETTERS)
def test_a_name_in_other_letters_or_gaps_means_what_it_says_or_nothing(wanted: str) -> None:
    assert [name for name in LOOKALIKES if gpu_fits(wanted, name)] == OTHER_LETTERS[wanted]
