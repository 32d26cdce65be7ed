"""What goes on after a call is not for callers with keys of their own: it is refused before anything is asked or spent.

Their key is used for one request and not stored, so that nobody could do it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from mcp import Client

from lium_mcp.rentals import LazyLedger, TaskKind
from lium_mcp.sandbox import API_KEY
from lium_mcp.toolkit.listing import read_listing
from tests.compat.simulated import Simulated, simulating
from tests.guard.test_confirm import staged
from tests.harness import PUBLIC_KEY, Person, text_of
from tests.http_server import Served, serving
from tests.replicas import client_of

RENT: Final = {"name": "new", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
JOB: Final = {"pod": "train", "command": "true", "name": "fit"}
RUN: Final = {"name": "fit", "command": "true", "gpu_type": "RTX4090", "max_total_usd": 1, "hours": 2, "max_hours": 1}

Case = tuple[str, dict[str, Any], str]
BY_KIND: Final[dict[TaskKind, list[Case]]] = {
    "standing_order": [
        ("rent_pod", RENT | {"keep_trying_hours": 5}, "not_for_callers"),
        ("rent_pod", RENT | {"keep_trying_hours": 5, "max_usd_per_gpu_hour": 0.001}, "not_for_callers"),
        ("rent_pod", RENT | {"keep_trying_hours": 5, "dry_run": True}, "not_for_callers"),
    ],
    "job_run": [
        ("run_job", RUN | {"then": then}, "no_work_for_callers") for then in ("keep", "remove", "backup_and_remove")
    ],
    "follow_up": [
        ("start_job", JOB | {"then": then}, "no_ssh_for_callers") for then in ("backup", "backup_and_remove")
    ],
    "idle_watch": [
        ("schedule_pod_removal", {"pod": "train", "idle_minutes": 30}, "idle_not_watched"),
        ("schedule_pod_removal", {"pod": "train", "idle_minutes": 30, "hours_from_now": 2}, "idle_not_watched"),
    ],
}
# Transfers and commands log in from this machine, with its SSH key.
FROM_THIS_MACHINE: Final[list[Case]] = [
    ("run_command", {"pod": "train", "command": "true"}, "no_ssh_for_callers"),
    ("start_job", JOB, "no_ssh_for_callers"),
    ("upload_files", {"pod": "train", "local_path": "data", "pod_path": "/root/data"}, "no_ssh_for_callers"),
    ("download_files", {"pod": "train", "pod_path": "/root/data", "local_path": "data"}, "no_ssh_for_callers"),
]
CASES: Final = [case for cases in (*BY_KIND.values(), FROM_THIS_MACHINE) for case in cases]
# By these parameters, and by these tools, an agent asks for something that happens after its call.
PARAMETERS: Final = {"keep_trying_hours", "then", "idle_minutes"}


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture(scope="module")
def hosted(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    home = tmp_path_factory.mktemp("hosted")
    state_url = f"sqlite:///{home / 'ledger.db'}"
    with serving(home, LIUM_BASE_URL=simulated.base_url, LIUM_MCP_STATE_URL=state_url) as served:
        yield served, state_url


def test_every_kind_of_work_and_every_parameter_for_it_is_here() -> None:
    assert set(BY_KIND) == set(get_args(TaskKind))
    asked = {(item.name, name) for item in read_listing() for name in item.tool.input_schema["properties"]}
    wanted = {(tool, name) for tool, name in asked if name in PARAMETERS}
    assert wanted == {(tool, name) for tool, arguments, _ in CASES for name in arguments if name in PARAMETERS}


@pytest.mark.parametrize(("tool", "arguments", "code"), CASES, ids=lambda case: case if isinstance(case, str) else "")
async def test_work_after_a_call_is_refused_to_a_caller_with_a_key(
    simulated: Simulated, hosted: tuple[Served, str], tmp_path: Path, tool: str, arguments: dict[str, Any], code: str
) -> None:
    served, state_url = hosted
    simulated.begin(balance_usd=5000)
    stage, _, _ = await staged(simulated.playing, "remove_pod")
    person = Person("yes")
    async with client_of([served], person=person) as client:
        await add_key(client)
        before, asked_before = stage.state(), len(simulated.state()["requests"])
        result = await client.call_tool(tool, arguments)
        assert f"code: {code}" in text_of(result), text_of(result)
        assert result.is_error
    assert person.questions == [], "refused before anybody is asked"
    assert stage.state() == before
    methods = {request["method"] for request in simulated.state()["requests"][asked_before:]}
    assert methods <= {"GET"}
    ledger = LazyLedger(state_url)
    try:
        assert await ledger.tasks().newest(10) == []
    finally:
        await ledger.aclose()


async def add_key(client: Client) -> None:
    result = await client.call_tool("add_ssh_key", {"name": "laptop", "public_key": PUBLIC_KEY})
    assert not result.is_error, text_of(result)


async def test_without_those_parameters_the_same_callers_are_served(
    simulated: Simulated, hosted: tuple[Served, str]
) -> None:
    served, _ = hosted
    simulated.begin(balance_usd=5000)
    async with client_of([served], key=API_KEY, person=Person("yes")) as client:
        await add_key(client)
        for tool, arguments in (("rent_pod", RENT), ("schedule_pod_removal", {"pod": "new", "hours_from_now": 2})):
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
