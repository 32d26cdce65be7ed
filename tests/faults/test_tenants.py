"""Drawn rounds of calls by tenants of one server, or of two replicas, who must not meet; each round is at once.

A caller reads, changes, leaves in the middle, asks for a yes and lets others bring it, names what is others', and tries
their sessions. Nobody may hear a word of another account, act on what is its, or be kept from its own calls; and in the
end the sandbox has, account by account, just what the answers to that account said.

Some rounds run as a test, more in `make fuzz`; this takes 5,000 acts on each place:
`TENANT_ACTS=5000 python -m pytest -n0 -s --timeout 7200 tests/faults/test_tenants.py`
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.compat.simulated import Simulated, simulating
from tests.faults.tenant_acts import Act, Acting
from tests.faults.tenants import HOUSE_KEY, HOUSE_TOKEN, Tenancy
from tests.http_server import Served, serving
from tests.postgres import Postgres
from tests.replicas import replicas

ACTS: Final = int(os.environ.get("TENANT_ACTS", "0"))
IS_FUZZED: Final = "TEST_ALL_INPUTS" in os.environ
EXAMPLES: Final = 40 if IS_FUZZED else 2
ROUNDS: Final = 12
AT_ONCE: Final = 4
SETTINGS: Final = {"LIUM_MCP_CALLS_AT_ONCE": "8", "LIUM_MCP_CALLS_PER_MINUTE": "100000"}

CALLERS: Final = ("ada", "ada", "ada too", "ada own", "ada reads", "bob", "bob", "eve", "house", "nobody")
acts = st.builds(
    Act,
    what=st.sampled_from(Acting.WHATS),
    who=st.sampled_from(CALLERS),
    other=st.sampled_from(CALLERS),
    server=st.integers(0, 1),
    which=st.integers(0, 5),
    is_own=st.sampled_from([True, True, True, False]),
    by_name=st.booleans(),
    asks=st.booleans(),
    says=st.sampled_from(["accept", "accept", "decline"]),
    leaves_after=st.sampled_from([*[None] * 12, 0.01, 0.05, 0.2]),
)
# Hypothesis begins with the shortest.
plans = st.lists(st.lists(acts, min_size=2, max_size=AT_ONCE), min_size=ROUNDS // 2, max_size=ROUNDS)


@dataclass
class Place:
    """The servers of a test, and what was done on them."""

    lium: Simulated
    servers: list[Served]
    house: bool
    seen: Counter[str]


PLACES: Final = (
    *("one server", "two replicas"),
    pytest.param("two replicas on PostgreSQL", marks=pytest.mark.external),
)


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home: Path = tmp_path_factory.mktemp("tenants")
    with ExitStack() as stack:
        lium = stack.enter_context(simulating())
        given = SETTINGS | {"LIUM_BASE_URL": lium.base_url}
        if request.param == "one server":
            own = {"LIUM_API_KEY": HOUSE_KEY, "LIUM_MCP_SERVER_TOKEN": HOUSE_TOKEN}
            servers = [stack.enter_context(serving(home, **given, **own))]
        else:
            state_url = f"sqlite:///{home / 'shared.db'}"
            if "PostgreSQL" in request.param:
                postgres: Postgres = request.getfixturevalue("postgres")
                state_url = stack.enter_context(postgres.database())
            servers = stack.enter_context(replicas(home, 2, state_url, **given))
        yield Place(lium, servers, request.param == "one server", Counter())


@pytest.mark.hypothesis
@pytest.mark.timeout(0 if ACTS else 1800 if IS_FUZZED else 600)  # to make short what fails takes minutes
def test_tenants_do_not_meet(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with asyncio.Runner() as runner:

        @settings(
            max_examples=max(EXAMPLES, ACTS // (ROUNDS * AT_ONCE)),
            derandomize=not (ACTS or IS_FUZZED),
            # By hand, what fails is looked at first: to make it short takes minutes.
            phases=[Phase.generate] if ACTS else tuple(Phase),
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(plan=plans)
        def play(plan: list[list[Act]]) -> None:
            runner.run(played(place, plan))

        while True:
            play()
            if place.seen["acts"] >= ACTS:
                break
    assert place.seen["done"], "nothing was ever done"
    with capsys.disabled():
        if ACTS:
            print(*sorted(place.seen.items()), sep="\n")  # noqa: T201 - for whoever runs it by hand


async def played(place: Place, plan: list[list[Act]]) -> None:
    """Play a plan on a fresh sandbox, and look at what is there then."""
    tenancy = Tenancy(place.lium, place.servers, has_house=place.house)
    await tenancy.furnish()
    acting = Acting(tenancy, place.seen)
    async with acting.watching():
        for number, acts_at_once in enumerate(plan):
            acting.round = number
            async with asyncio.TaskGroup() as group:
                for act in acts_at_once:
                    group.create_task(acting.perform(act))
            assert tenancy.leaks == []
    await acting.check_all()
    assert tenancy.leaks == []
