"""What the front answers is what the SDK answers, byte for byte, whatever the settings offer."""

import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import lium_mcp
from lium_mcp.server import build_server
from lium_mcp.serving.front_settings import find_offer
from lium_mcp.serving.prepared import (
    CURRENT,
    FILE_NAME,
    HANDSHAKE,
    HANDSHAKE_VERSIONS,
    Prepared,
    read_file,
    read_records,
)
from lium_mcp.settings import Settings
from lium_mcp.settings_table import SETTINGS, TOOLSETS
from lium_mcp.toolkit.listing import read_listing
from tests.serving.recording import SHOWS_PAGES, answers_of, plain_requests, record

RECORDED = Path(lium_mcp.__file__).parent / "serving" / FILE_NAME
ROOT = Path(lium_mcp.__file__).parent.parent
NAMES = [item.name for item in read_listing()]


async def test_the_recorded_answers_are_those_of_the_server() -> None:
    recorded = await record()
    if os.environ.get("UPDATE_SNAPSHOTS"):
        RECORDED.write_bytes(recorded)
    assert RECORDED.read_bytes() == recorded, "run `make snapshots`, and look at the diff"


def test_the_sdk_is_pinned_to_the_minor_version_that_was_recorded() -> None:
    recorded = read_records().sdk
    assert version("mcp") == recorded
    major, minor = map(int, recorded.split(".")[:2])
    assert f'"mcp>={major}.{minor},<{major}.{minor + 1}"' in (ROOT / "pyproject.toml").read_text()
    assert re.search(rf"^mcp=={re.escape(recorded)} ", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE)
    assert read_records().are_of_this_sdk()


def test_records_of_another_minor_version_of_the_sdk_are_not_used() -> None:
    records = read_records()
    records.sdk = "2.99.0"
    assert not records.are_of_this_sdk()


CHOICES: list[dict[str, str]] = [
    {},
    {"read_only": "true"},
    {"toolsets": ",".join(TOOLSETS)},
    {"toolsets": "account", "read_only": "yes"},
    {"toolsets": "clusters,extras"},
    {"allow_tools": "rent_pod"},
    {"allow_tools": "rent_pod, list_gpus, get_pod", "read_only": "1"},
    {"deny_tools": "rent_pod,remove_pod,list_gpus"},
    {"allow_tools": "list_clusters"},
    {"max_pods": "3", "budget_usd": "10", "confirm": "always", "allow_gpu_types": "H100"},
    {"max_pods": "3", "policy_mode": "shadow"},
    {"max_pods": "3", "read_only": "true"},
    {
        "max_price_per_hour_usd": "2.50",
        "max_hours": "1.5",
        "max_burn_per_hour_usd": "123456789.01",
        "budget_usd": "0",
        "budget_since": "2026-01-28",
        "allow_gpu_types": "H100,A100, H100",
        "allow_countries": "us,DE",
        "allow_templates": "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0",
    },
]


@pytest.mark.parametrize("version", [CURRENT, *HANDSHAKE_VERSIONS])
@pytest.mark.parametrize("chosen", CHOICES, ids=str)
async def test_prepared_answers_are_those_of_the_sdk(chosen: dict[str, str], version: str) -> None:
    await compare(chosen, version)
    await compare(chosen, version, SHOWS_PAGES)


@given(
    toolsets=st.sets(st.sampled_from(TOOLSETS), min_size=1),
    allow_tools=st.sets(st.sampled_from(NAMES), max_size=8),
    deny_tools=st.sets(st.sampled_from(NAMES), max_size=8),
    read_only=st.sampled_from(["true", "false"]),
    version=st.sampled_from([CURRENT, *HANDSHAKE_VERSIONS]),
)
@examples(max_examples=20)
async def test_prepared_answers_are_those_of_the_sdk_for_any_choice_of_tools(
    read_only: str, version: str, **lists: set[str]
) -> None:
    values = {name: ",".join(sorted(entries)) for name, entries in lists.items() if entries}
    await compare(values | {"read_only": read_only}, version)


async def compare(values: dict[str, str], version: str, capabilities: dict[str, Any] | None = None) -> None:
    era = CURRENT if version == CURRENT else HANDSHAKE
    settings: dict[str, Any] = values
    server = build_server(Settings(**settings))
    asked = plain_requests(version, capabilities)
    records = read_records()
    environment = {"HOME": "/nowhere"} | {SETTINGS[name].variable: value for name, value in values.items()}
    offer = find_offer([], environment, records.tools(), read_file)
    assert offer is not None
    prepared = Prepared(records, offer)
    assert all(prepared.knows(era, message["method"]) for message in asked)
    ours = [
        prepared.answer(era, message["method"], b"%d" % message["id"], version, shows_page=capabilities is not None)
        for message in asked
    ]
    assert ours == await answers_of(server, asked)
