"""What the ledger keeps of an order tells nobody a secret, and what an earlier version wrote is still carried out."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from lium_mcp.api.templates import Template
from lium_mcp.rentals import LazyLedger, Task, digest
from lium_mcp.rentals.tables import TASKS
from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on
from tests.orders import CHEAP, account_of_two, look_at_once, looked, order, prices, rented, shown, wish_in_vain
from tests.wires import Wire, ask, editing, living, make_template, rents, truth

_WHAT_RUNS = (
    "docker_image docker_image_tag docker_image_digest startup_commands entrypoint environment volumes internal_ports "
    "container_start_immediately docker_credential_id shm_size"
)


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_once(monkeypatch)


@pytest.fixture
def sandbox() -> Sandbox:
    return account_of_two()


async def _task(state_url: str) -> Task:
    """The one task of a ledger."""
    ledger = LazyLedger(state_url)
    [task] = await ledger.tasks().newest(2)
    await ledger.aclose()
    return task


async def _plain_digest(sandbox: Sandbox, template_id: str) -> str:
    """What an earlier version wrote down of a template."""
    template = Template.model_validate(await ask(sandbox, "GET", f"/templates/{template_id}"))
    return digest(template.model_dump(mode="json", include=set(_WHAT_RUNS.split())))


async def test_no_secret_of_a_template_can_be_guessed_from_the_ledger(sandbox: Sandbox, tmp_path: Path) -> None:
    template_id = await make_template(sandbox, "mine", environment={"PIN": "1234"})
    kept = set()
    for key in ("sk_sandbox", "sk_colleague"):
        state_url = f"sqlite:///{tmp_path / key}.db"
        async with agent_on(sandbox, state_url=state_url, api_key=key) as agent:
            await order(agent, template="mine")
        payload = (await _task(state_url)).payload
        assert await _plain_digest(sandbox, template_id) not in json.dumps(payload)
        kept.add(payload["template_digest"])
    assert len(kept) == 2


async def test_no_secret_of_a_command_can_be_guessed_from_the_ledger(sandbox: Sandbox, tmp_path: Path) -> None:
    kept, run = set(), {"name": "job", "gpu_type": "RTX 4090", "max_total_usd": 5, "command": "unlock 1234"}
    for key in ("sk_sandbox", "sk_colleague"):
        state_url = f"sqlite:///{tmp_path / key}.db"
        async with agent_on(sandbox, state_url=state_url, api_key=key) as agent:
            await agent.call("run_job", **run, wait_seconds=0)
        kept.add((await _task(state_url)).payload["call"])
        for pod in living(sandbox):
            sandbox.clock.advance(minutes=2)
            await ask(sandbox, "DELETE", f"/pods/{pod['id']}")
    assert len(kept) == 2


@pytest.mark.parametrize("change", [{}, {"environment": {"PIN": "4321"}}], ids=["as it was", "changed"])
async def test_an_order_of_an_earlier_version_is_carried_out(
    sandbox: Sandbox, state_url: str, change: dict[str, Any]
) -> None:
    template_id = await make_template(sandbox, "mine", environment={"PIN": "1234"})
    async with agent_on(sandbox, state_url=state_url) as agent:
        await order(agent, template="mine")
    task, ledger = await _task(state_url), LazyLedger(state_url)
    payload = task.payload | {"template_digest": await _plain_digest(sandbox, template_id)}
    del payload["expires_at"]
    await ledger.open().database.run(lambda connection: connection.execute(update(TASKS).values(payload=payload)))
    await ledger.aclose()
    template = await ask(sandbox, "GET", f"/templates/{template_id}")
    await ask(sandbox, "PUT", f"/templates/{template_id}", template | change)
    prices(sandbox, CHEAP)
    async with agent_on(sandbox, state_url=state_url) as agent:
        if change:
            await looked(sandbox, state_url)
            assert "was changed since" in (await shown(agent))["because"]
        else:
            assert (await rented(agent))["pod_id"] == living(sandbox)[0]["id"]


def _without_how_it_splits(rows: Any) -> Any:
    """The nodes with several GPUs, of which none says how it splits."""
    several = [row for row in rows if int(row["gpu_count"]) > 1]
    return [{name: value for name, value in row.items() if name != "min_gpu_count_for_rental"} for row in several]


@pytest.mark.parametrize("is_left_to_lium", [True, False])
async def test_an_order_plans_only_where_a_rent_would_come_of_it(
    sandbox: Sandbox, state_url: str, is_left_to_lium: bool
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(_without_how_it_splits))
    async with agent_on(sandbox, transport=wire, state_url=state_url) as agent:
        await order(agent, **{} if is_left_to_lium else {"min_ram_gb": 1})
        prices(sandbox, CHEAP)
        if is_left_to_lium:
            assert (await rented(agent))["pod_id"] == living(sandbox)[0]["id"]
            return
        await looked(sandbox, state_url)
        begun = len(wire.requests)
        await looked(sandbox, state_url)
        asked = {request.url.path for request in wire.requests[begun:]}
        assert "/api/executors" in asked
        assert not asked & {"/api/machines", "/api/templates", "/api/ssh-keys"}
        assert rents(sandbox) == []


async def test_an_order_waits_for_a_node_that_is_cheap_enough_for_all_hours(sandbox: Sandbox, state_url: str) -> None:
    nodes = await ask(sandbox, "GET", "/executors?view=summary")
    price = min(node["price_per_gpu"] for node in nodes if "A100" in node["machine_name"])
    wish = {"max_usd_per_gpu_hour": 100, "hours": 100, "max_total_usd": price * 50}
    async with agent_on(sandbox, state_url=state_url) as agent:
        planned = await agent.call("rent_pod", **await wish_in_vain(sandbox, **wish), dry_run=True)
        assert planned["order"]["status"] == "not_placed"
        assert "of the 100 hours asked for fit" in planned["order"]["because"]
        await order(agent, **wish)
        await looked(sandbox, state_url)
        assert "of the 100 hours asked for fit" in (await shown(agent))["because"]
        assert rents(sandbox) == []
        prices(sandbox, CHEAP)
        await rented(agent)
    [body] = [note["body"] for note in truth(sandbox, "requests") if "body" in note]
    assert body["termination_hours"] == 100
