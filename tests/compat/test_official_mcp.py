"""The official `lium mcp` server works against the sandbox, unchanged, spoken to as an MCP host does."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import TextContent

from tests.compat.driver import Official
from tests.compat.simulated import Simulated


class Host:
    """An MCP host with the official server."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool. The official server says in the result, not with `isError`, whether it worked."""
        result = await self.client.call_tool(tool, arguments)
        [block] = result.content
        assert isinstance(block, TextContent)
        answer: dict[str, Any] = json.loads(block.text)
        return answer

    async def succeed(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.call(tool, **arguments)
        assert answer["ok"] is True, answer
        return answer


@asynccontextmanager
async def hosting(official: Official) -> AsyncIterator[Host]:
    command, *arguments = official.environment.lium("mcp")
    server = StdioServerParameters(command=command, args=arguments, env=official.variables, cwd=official.home)
    async with Client(stdio_client(server)) as client:
        yield Host(client)


async def test_an_agent_rents_a_pod_and_removes_it(official: Official, sandbox_server: Simulated) -> None:
    sandbox_server.run_at(60)
    async with hosting(official) as host:
        assert {tool.name for tool in (await host.client.list_tools()).tools} == {
            *("list_gpus", "rent_pod", "list_pods", "run_command", "remove_pod", "get_balance")
        }
        assert (await host.succeed("get_balance"))["balance_usd"] == sandbox_server.state()["balance"] == 100

        cheapest, *_ = (await host.succeed("list_gpus", gpu_type="A100", limit=5))["nodes"]
        node = {"executor_id": cheapest["executor_id"]}
        quote = await host.succeed("rent_pod", **node, name="train", dry_run=True)
        assert quote["cost_per_hour_usd"] == cheapest["rent_price_per_hour_usd"]
        assert sandbox_server.state()["rents"] == []

        rented = (await host.succeed("rent_pod", **node, name="train"))["pod"]
        pod = sandbox_server.pod(rented["pod_id"])
        assert rented["status"] == pod["status"] == "RUNNING"
        assert rented["price_per_hour_usd"] == pod["price"]
        assert pod["gpu_count"] == str(quote["gpus_rented"])
        [listed] = (await host.succeed("list_pods"))["pods"]
        assert listed["pod_id"] == rented["pod_id"]
        refused = await host.call("rent_pod", **node, name="second", known_pod_ids=[rented["pod_id"]])
        assert "not in the current listing" in refused["error"]["message"]

        assert (await host.succeed("remove_pod", pod="train"))["removed"] == rented["pod_id"]
        assert (await host.succeed("list_pods"))["pods"] == []
    state = sandbox_server.state()
    assert len(state["rents"]) == 1
    assert {entry["source"] for entry in state["audit"]} == {"mcp"}


async def test_a_rent_whose_answer_was_lost_is_settled_by_its_key(
    official: Official, sandbox_server: Simulated
) -> None:
    node = sandbox_server.node("A100")
    sandbox_server.fault("lost_answer", match={"method": "POST", "path": "/executors/*/rent"})
    async with hosting(official) as host:
        unclear = await host.call("rent_pod", executor_id=node["id"], name="train")
        assert unclear["error"]["code"] == "rent_outcome_unknown"
        [recovered] = (await host.succeed("list_pods"))["recovered_rentals"]
    state = sandbox_server.state()
    [rent] = state["rents"]
    assert recovered["pod_ids"] == [rent["pod_id"]]
    keys = [
        request["headers"]["idempotency-key"]
        for request in sandbox_server.requests("POST", f"/executors/{node['id']}/rent")
    ]
    assert keys == [rent["idempotency_key"]] * 2
