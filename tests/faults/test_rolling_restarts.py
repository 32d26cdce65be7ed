"""Replicas are exchanged one by one: servers of two versions rent from one ledger at once, and nothing twice."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp.types import CallToolResult
from sqlalchemy import create_engine, text

from tests.compat.simulated import Simulated, simulating, simulating_elsewhere
from tests.deployment import MINE, deployed
from tests.harness import PUBLIC_KEY, text_of
from tests.http_server import Served, calling, serving, serving_newer
from tests.load import Load
from tests.newer import NEWER_VERSION
from tests.postgres import Postgres
from tests.proxies import CADDY, HAPROXY, NGINX, Proxy

_HASTE = 40
_COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "manifests" / "compose" / "compose.yaml").read_text())
_SHUTDOWN_DELAY: str = _COMPOSE["x-server"]["environment"]["LIUM_MCP_SHUTDOWN_DELAY_SECONDS"]


@pytest.fixture
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(balance_usd=5000)
        yield simulated


@pytest.fixture
def settings(lium: Simulated, state_url: str) -> dict[str, str]:
    return {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_STATE_URL": state_url, "LIUM_MCP_MAX_PODS": "20"}


def a_rent(name: str) -> dict[str, Any]:
    return {"name": name, "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}


async def rent(server: Served, name: str) -> CallToolResult:
    async with calling(server.url, "modern", MINE) as caller:
        return await caller.raw("rent_pod", **a_rent(name))


async def add_key(server: Served) -> None:
    async with calling(server.url, "modern", MINE) as caller:
        await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)


def version_of(url: str) -> int:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.begin() as connection:
            return int(connection.execute(text("SELECT version FROM ledger_version")).scalar_one())
    finally:
        engine.dispose()


async def test_servers_of_two_versions_rent_from_one_ledger_at_the_same_time(
    lium: Simulated, tmp_path: Path, state_url: str, settings: dict[str, str]
) -> None:
    with serving(tmp_path / "old", **settings) as old:
        await add_key(old)
        assert not (await rent(old, "before")).is_error
        with serving_newer(tmp_path / "newer", settings) as newer:
            # While one brings the ledger up to date, the other one rents.
            results = await asyncio.gather(
                *(rent(newer, "first-of-newer"), rent(old, "during"), rent(newer, "same"), rent(old, "same"))
            )
            assert [text_of(result) for result in results if result.is_error] == []
            assert version_of(state_url) == NEWER_VERSION
            for server, name in ((old, "old-goes-on"), (newer, "newer-goes-on")):
                assert not (await rent(server, name)).is_error
            # One that starts anew, or is put back, takes the ledger as it is.
            with serving(tmp_path / "put-back", **settings) as back:
                assert not (await rent(back, "put-back")).is_error
                names = {"before", "first-of-newer", "during", "same", "old-goes-on", "newer-goes-on", "put-back"}
                for server in (old, newer, back):
                    async with calling(server.url, "modern", MINE) as caller:
                        listed = await caller.call("list_pods")
                        assert {pod["name"] for pod in listed["pods"]} == names
                        assert (await caller.call("rent_pod", **a_rent("before")))["already_rented"]
            assert version_of(state_url) == NEWER_VERSION
    assert sorted(rent["pod_name"] for rent in lium.state()["rents"]) == sorted(names)


async def test_replicas_are_exchanged_one_after_the_other_while_callers_rent(
    lium: Simulated, tmp_path: Path, settings: dict[str, str]
) -> None:
    serving_now: list[Served] = []
    results: dict[str, CallToolResult] = {}
    over = asyncio.Event()

    async def keep_renting(number: int) -> None:
        count = 0
        while not over.is_set():
            name = f"pod-{number}-{count}"
            count += 1
            try:
                results[name] = await rent(serving_now[number % len(serving_now)], name)
            except* Exception:  # noqa: BLE001 - its server was stopped meanwhile: the caller calls another one
                results[name] = await rent(serving_now[-1], name)
            await asyncio.sleep(0.5)

    async def goes_on() -> None:
        def count() -> int:
            return len([name for name, result in results.items() if not result.is_error])

        before = count()
        async with asyncio.timeout(60):
            while count() < before + 2:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as callers:
        old = [stack.enter_context(serving(tmp_path / f"old-{number}", **settings)) for number in range(2)]
        await add_key(old[0])
        serving_now += old
        for number in range(2):
            callers.create_task(keep_renting(number))
        for number, leaving in enumerate(old):
            await goes_on()
            new = stack.enter_context(serving_newer(tmp_path / f"new-{number}", settings))
            serving_now[:] = [*(server for server in serving_now if server is not leaving), new]
            await asyncio.to_thread(leaving.stop)
        await goes_on()
        over.set()
    rented = {name for name, result in results.items() if not result.is_error}
    refused = {str((result.meta or {})["lium-mcp/error"]["code"]) for result in results.values() if result.is_error}
    assert len(rented) >= 4
    # A server that was stopped in the middle says so; nobody hears that the ledger could not be used.
    assert refused <= {"policy_refused", "rent_unsettled", "server_stopping"}, refused
    names = [rent["pod_name"] for rent in lium.state()["rents"]]
    assert len(names) == len(set(names))
    assert rented <= set(names)


@pytest.mark.external
@pytest.mark.timeout(300)
@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY], ids=lambda proxy: proxy.program)
async def test_behind_a_proxy_no_call_is_lost_while_both_replicas_are_exchanged(
    postgres: Postgres, tmp_path: Path, proxy: Proxy
) -> None:
    delay = _SHUTDOWN_DELAY if proxy.asks else "0"
    with (
        postgres.database() as state_url,
        simulating_elsewhere(tmp_path / "lium", speed=_HASTE) as lium,
        deployed(
            tmp_path,
            lium_url=lium.base_url,
            state_url=state_url,
            haste=_HASTE,
            proxy=proxy,
            LIUM_MCP_SHUTDOWN_DELAY_SECONDS=delay,
        ) as deployment,
    ):
        load = Load(deployment.url)
        assert await load.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        async with load.going_on(renting=2, reading=2):
            for number in range(2):
                await load.goes_on()
                assert await asyncio.to_thread(deployment.stop, number) == 0
                await asyncio.to_thread(deployment.start, number, newer=True)
            await load.goes_on()
        assert version_of(state_url) == NEWER_VERSION
        names = [rent["pod_name"] for rent in lium.state()["rents"]]
    assert load.lost == []
    # Rents of an account take turns. A server that stops says so, or answers a rent before its pod runs: Lium refuses
    # to remove one that still starts, and the caller does it again.
    assert set(load.refusals) <= {"rent_unsettled", "server_stopping", "removal_refused"}, load.refusals
    assert sorted(names) == sorted(load.rented)
    assert len(names) >= 3
