"""Resources and completions: what tools read, by address, and no more than the tools that are offered."""

import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from mcp import Client, MCPError
from mcp.types import PromptReference, ResourceTemplateReference, TextResourceContents

from lium_mcp.sandbox import OTHER_API_KEY, Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.tools.catalog import TOOLSETS
from tests.harness import Agent, Mode, Person, agent_on
from tests.wires import Wire, answering, ask, editing, failing, rent, truth

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
FIXED = {"pods", "market", "templates", "volumes", "backups", "account", "policy", "rents"}
TEMPLATES = {
    "lium://pods/{pod}",
    "lium://market/{gpu_type}/{country}",
    "lium://templates/{template}",
    "lium://backups/{backup_id}",
}

Row = dict[str, Any]


async def read(agent: Agent, address: str) -> Row:
    (content,) = (await agent.client.read_resource(address)).contents
    assert isinstance(content, TextResourceContents)
    assert content.mime_type == "application/json"
    return dict(json.loads(content.text))


async def completed(agent: Agent, name: str, value: str, *, of: str = "lium://pods/{pod}") -> list[str]:
    argument = {"name": name, "value": value}
    return list((await agent.client.complete(ResourceTemplateReference(uri=of), argument)).completion.values)


# --- lists -----------------------------------------------------------------------------------------------------------


@both_eras
async def test_everything_is_listed_without_a_key_and_without_the_network(sandbox: Sandbox, mode: Mode) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, mode=mode, transport=wire, api_key=None) as agent:
        listed = (await agent.client.list_resources()).resources
        templates = (await agent.client.list_resource_templates()).resource_templates
        prompts = (await agent.client.list_prompts()).prompts
    readings = [resource for resource in listed if resource.mime_type == "application/json"]
    assert {resource.uri for resource in readings} == {f"lium://{name}" for name in FIXED}
    assert {template.uri_template for template in templates} == TEMPLATES
    assert len(prompts) == 4
    items: list[Any] = [*readings, *templates]
    for item in items:
        assert item.title
        assert item.description
        assert item.mime_type == "application/json"
    assert wire.requests == []


async def test_the_lists_may_be_kept_for_an_hour_by_all_and_readings_by_nobody(agent: Agent) -> None:
    lists: list[Any] = [
        await agent.client.list_resources(),
        await agent.client.list_resource_templates(),
        await agent.client.list_prompts(),
    ]
    assert {(result.ttl_ms, result.cache_scope) for result in lists} == {(3_600_000, "public")}
    reading = await agent.client.read_resource("lium://account")
    assert reading.ttl_ms == 0
    assert reading.cache_scope == "private"


# --- readings --------------------------------------------------------------------------------------------------------


async def test_the_parts_of_an_address_are_read_like_arguments(agent: Agent) -> None:
    everywhere = await read(agent, "lium://market/A100/")
    assert everywhere["total"]
    assert everywhere == await read(agent, "lium://market/A100/%20")
    for address, said in (
        ("lium://pods/%20", "pod: must not be empty"),
        ("lium://backups/", "backup_id: must not be empty"),
        (f"lium://templates/{'x' * 201}", "template: String should have at most 200 characters"),
    ):
        with pytest.raises(MCPError, match=said):
            await read(agent, address)


@both_eras
async def test_a_resource_says_what_its_tool_says(sandbox: Sandbox, mode: Mode) -> None:
    pod_id = await rent(sandbox, "worker")
    await ask(sandbox, "POST", "/volumes", {"name": "data"})
    await ask(sandbox, "POST", "/templates", {"name": "mine", "docker_image": "a", "is_private": False})
    async with agent_on(sandbox, mode=mode) as agent:
        backup = await agent.call("create_backup", pod="worker", wait_seconds=300)
        for name, tool, arguments in (
            ("pods", "list_pods", {"limit": 100}),
            ("market", "get_gpu_prices", {}),
            ("templates", "list_templates", {"mine": True}),
            ("volumes", "list_volumes", {}),
            ("backups", "list_backups", {}),
            ("account", "get_balance", {}),
            (f"pods/{pod_id}", "get_pod", {"pod": pod_id}),
            ("pods/worker", "get_pod", {"pod": "worker"}),
            ("templates/mine", "get_template", {"template": "mine"}),
            (f"backups/{backup['backup']['backup_id']}", "get_backup", {"backup_id": backup["backup"]["backup_id"]}),
        ):
            assert await read(agent, f"lium://{name}") == await agent.call(tool, **arguments), name


async def test_reading_a_pod_that_starts_does_not_wait_for_it(agent: Agent, sandbox: Sandbox) -> None:
    await rent(sandbox, "worker", boot=False)
    shown = await read(agent, "lium://pods/worker")
    assert shown["outcome"] == "pending"
    assert agent.clock.slept_seconds == 0


@pytest.mark.parametrize("name", ["a b", "50%", "ünï-cöde", "a?b#c", "pod:1"])
async def test_a_name_is_written_into_an_address_as_any_address_is(agent: Agent, sandbox: Sandbox, name: str) -> None:
    pod_id = await rent(sandbox, name)
    assert (await read(agent, f"lium://pods/{quote(name, safe='')}"))["pod"]["pod_id"] == pod_id


async def test_the_policy_in_force_is_what_the_settings_say(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, toolsets=Settings().toolsets) as agent:
        policy = await read(agent, "lium://policy")
        tools = (await agent.client.list_tools()).tools
        assert sorted(policy.pop("toolsets")) == sorted(Settings().toolsets)
        assert policy == {"read_only": False, "tool_count": len(tools), "confirm": "auto", "asks_person": False}
    settings: Row = {"read_only": True, "toolsets": frozenset({"pods"}), "deny_tools": frozenset({"get_pod"})}
    async with agent_on(sandbox, **settings) as agent:
        policy = await read(agent, "lium://policy")
        tools = (await agent.client.list_tools()).tools
        assert policy == {
            "read_only": True,
            "toolsets": ["pods"],
            "deny_tools": ["get_pod"],
            "tool_count": len(tools),
            "confirm": "auto",
            "asks_person": False,
        }
    for confirm, is_asked in (("auto", True), ("never", False)):
        async with agent_on(sandbox, confirm=confirm, person=Person("yes")) as agent:
            assert (await read(agent, "lium://policy"))["asks_person"] is is_asked


@both_eras
async def test_what_is_not_offered_as_a_tool_cannot_be_read_around_it(sandbox: Sandbox, mode: Mode) -> None:
    await rent(sandbox, "worker")
    denied = frozenset({"get_balance", "get_pod", "list_backups"})
    async with agent_on(sandbox, mode=mode, deny_tools=denied) as agent:
        resources = (await agent.client.list_resources()).resources
        listed = {resource.uri for resource in resources if resource.uri.startswith("lium:")}
        assert listed == {f"lium://{name}" for name in FIXED - {"account", "backups"}}
        before = len(truth(sandbox, "requests"))
        for address in ("lium://account", "lium://pods/worker", "lium://backups"):
            with pytest.raises(MCPError):
                await agent.client.read_resource(address)
        assert len(truth(sandbox, "requests")) == before
        assert await completed(agent, "backup_id", "") == []


# --- what fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("lium://pods/nobody", "No pod of yours is named nobody"),
        ("lium://templates/nobody", "No template of yours is named nobody"),
        ("lium://backups/00000000-0000-4000-8000-00000000dead", "Backup"),
        ("lium://nothing", "nothing"),
        ("lium://pods/", "pod"),
    ],
)
async def test_what_is_not_there_is_a_wrong_address(agent: Agent, address: str, said: str) -> None:
    with pytest.raises(MCPError, match=said) as caught:
        await agent.client.read_resource(address)
    assert caught.value.error.code == -32602


async def test_somebody_elses_things_have_no_address(agent: Agent, sandbox: Sandbox) -> None:
    theirs = await ask(
        sandbox, "POST", "/templates", {"name": "t", "docker_image": "a"}, **{"X-API-KEY": OTHER_API_KEY}
    )
    with pytest.raises(MCPError):
        await read(agent, f"lium://templates/{theirs['id']}")


async def test_a_failure_of_lium_is_told_in_a_sentence_and_not_logged_as_a_crash(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent_on(sandbox) as agent:
        sandbox.add_fault("error", times=None, status=500, match={"path": "/pods"})
        with pytest.raises(MCPError, match="Lium") as caught:
            await read(agent, "lium://pods")
        assert caught.value.error.code == -32603
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_without_a_key_the_market_is_read_and_the_rest_says_how_to_get_one(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, api_key=None) as agent:
        assert (await read(agent, "lium://market"))["gpu_types"]
        assert (await read(agent, "lium://policy"))["tool_count"] > 0
        for name in FIXED - {"market", "policy"}:
            with pytest.raises(MCPError, match="LIUM_API_KEY"):
                await read(agent, f"lium://{name}")
        for name in ("pod", "template", "backup_id"):
            assert await completed(agent, name, "") == []


async def test_a_key_that_lium_repeats_and_control_characters_do_not_come_out(sandbox: Sandbox) -> None:
    key = "sk_planted_0123456789"
    wire = Wire(sandbox)
    volume = {"id": "1", "name": f"\x1b[31m{key}\u202e"}
    wire.on("GET", "/volumes", answering(200, [volume]))
    wire.on("GET", "/pods", answering(200, []))
    async with agent_on(sandbox, transport=wire, api_key=key) as agent:
        (content,) = (await agent.client.read_resource("lium://volumes")).contents
        assert isinstance(content, TextResourceContents)
        wire.on("GET", "/volumes", answering(403, {"message": f"key {key} is blocked, see `lium keys` \x1b[2J"}))
        with pytest.raises(MCPError, match="blocked") as caught:
            await agent.client.read_resource("lium://volumes")
    assert "blocked, see Lium's web site" in str(caught.value)
    for text in (content.text, str(caught.value)):
        assert key not in text
        assert "\x1b" not in text
        assert "\u202e" not in text


@both_eras
async def test_a_cursor_that_no_list_gave_is_refused(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        client = agent.client
        for list_all in (client.list_tools, client.list_prompts, client.list_resources, client.list_resource_templates):
            assert (await list_all()).next_cursor is None
            with pytest.raises(MCPError, match="no page") as refused:
                await list_all(cursor="page 2")
            assert refused.value.code == -32602


# --- completions -----------------------------------------------------------------------------------------------------


@both_eras
async def test_arguments_are_completed_by_what_there_is(sandbox: Sandbox, mode: Mode) -> None:
    for name in ("train-1", "train-2", "serve"):
        await rent(sandbox, name)
    await ask(sandbox, "POST", "/templates", {"name": "mine", "docker_image": "a"})
    async with agent_on(sandbox, mode=mode) as agent:
        assert await completed(agent, "pod", "TRAIN") == ["train-1", "train-2"]
        assert await completed(agent, "template", "") == ["mine"], "never what others call theirs"
        assert await completed(agent, "unknown", "") == []
        backup = await agent.call("create_backup", pod="serve", wait_seconds=300)
        await agent.call("create_backup", pod="serve", wait_seconds=0)
        assert await completed(agent, "backup_id", "") == [backup["backup"]["backup_id"]], "only what can be restored"
        reference = PromptReference(name="deploy_below_price")
        argument = {"name": "gpu_type", "value": "h"}
        assert set((await agent.client.complete(reference, argument)).completion.values) == {"H100", "H200"}


@both_eras
async def test_what_is_of_no_prompt_is_not_completed(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        with pytest.raises(MCPError, match="no prompt") as refused:
            await agent.client.complete(PromptReference(name="deploy"), {"name": "gpu_type", "value": "h"})
    assert refused.value.code == -32602


async def test_a_name_that_two_have_completes_to_their_ids(agent: Agent, sandbox: Sandbox) -> None:
    twins = {await rent(sandbox, "twin"), await rent(sandbox, "twin")}
    assert await completed(agent, "pod", "twin") == []
    assert set(await completed(agent, "pod", "")) == twins


async def test_typing_never_fails(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods", answering(500, {"message": "sorry"}))
    wire.on("GET", "/machines", failing(OSError("no network")))
    wire.on("GET", "/backup-logs/", editing(lambda _: ["nonsense", 7]))
    async with agent_on(sandbox, transport=wire) as agent:
        for name in ("pod", "backup_id"):
            assert await completed(agent, name, "") == []


async def test_many_values_are_cut_and_counted(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods", answering(200, [{"id": str(number), "pod_name": f"p{number:03}"} for number in range(150)]))
    async with agent_on(sandbox, transport=wire) as agent:
        reference = ResourceTemplateReference(uri="lium://pods/{pod}")
        completion = (await agent.client.complete(reference, {"name": "pod", "value": "p"})).completion
    assert len(completion.values) == 100
    assert (completion.total, completion.has_more) == (150, True)


async def test_a_server_with_every_tool_serves_the_same_resources() -> None:
    server = build_server(Settings(toolsets=frozenset(toolset.name for toolset in TOOLSETS)))
    async with Client(server) as client:
        assert {item.name for item in (await client.list_resources()).resources} >= FIXED


async def test_the_rents_of_the_ledger_are_the_callers_own(sandbox: Sandbox) -> None:
    async with agent_on(sandbox) as agent:
        assert (await read(agent, "lium://rents"))["rents"] == []
        rented = await agent.call("rent_pod", name="mine", gpu_type="A100", hours=2, wait_seconds=0)
        record = await read(agent, "lium://rents")
        [kept] = record["rents"]
        assert (kept["name"], kept["pod_ids"], kept["hours"]) == ("mine", [rented["pod_id"]], 2)
        assert kept["price_per_hour_usd"] > 0
        assert "Pods that were rented elsewhere" in record["note"]
        # The same ledger, with the key of another account.
        async with agent_on(sandbox, api_key=OTHER_API_KEY) as other:
            assert (await read(other, "lium://rents"))["rents"] == []
    async with agent_on(sandbox, toolsets=frozenset({"marketplace"})) as agent:
        assert "lium://rents" not in {str(item.uri) for item in (await agent.client.list_resources()).resources}
