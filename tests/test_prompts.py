"""Prompts: they name tools that exist, in an order that works, and are offered only where all of those are."""

import re
from typing import Any

import pytest
from mcp import MCPError
from mcp.types import INVALID_PARAMS, GetPromptRequest, GetPromptRequestParams, GetPromptResult, TextContent

from lium_mcp.prompts import PROMPTS
from lium_mcp.sandbox import Sandbox
from lium_mcp.toolkit.listing import read_listing
from lium_mcp.tools.catalog import TOOLSETS
from tests.harness import Agent, Mode, agent_on

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
ARGUMENTS = {
    "deploy_below_price": {"gpu_type": "H100", "max_usd_per_gpu_hour": "1.5", "name": "deal", "hours": "2"},
    "run_job": {"gpu_type": "A100", "task": "count to ten", "hours": "3"},
    "fan_out_backup": {"backup_id": "b-1", "pods": "one, two"},
    "sync_templates": {"wanted": "trainer: image a:1"},
}
TOOLS = {spec.name for toolset in TOOLSETS for spec in toolset.specs}


async def text_of(agent: Agent, name: str, arguments: dict[str, str]) -> str:
    (message,) = (await agent.client.get_prompt(name, arguments)).messages
    assert message.role == "user"
    assert isinstance(message.content, TextContent)
    return message.content.text


async def unchecked(agent: Agent, name: str, arguments: dict[str, Any]) -> GetPromptResult:
    """What hosts send that do not hold to the protocol, which knows texts only."""
    params = GetPromptRequestParams.model_construct(name=name, arguments=arguments)
    request = GetPromptRequest.model_construct(method="prompts/get", params=params)
    return await agent.client.session.send_request(request, GetPromptResult)


@both_eras
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_a_prompts_arguments_are_read_as_hosts_send_them(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        given = ARGUMENTS["run_job"] | {"hours": 3, "toolCallId": "call_1", "sessionId": None}
        (message,) = (await unchecked(agent, "run_job", given)).messages
        assert message.content == TextContent(type="text", text=await text_of(agent, "run_job", ARGUMENTS["run_job"]))


@both_eras
async def test_each_prompt_has_its_arguments_described_and_in_its_text(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        prompts = (await agent.client.list_prompts()).prompts
        assert {prompt.name for prompt in prompts} == set(ARGUMENTS)
        for prompt in prompts:
            assert prompt.title
            assert prompt.description
            assert {argument.name for argument in prompt.arguments or ()} == set(ARGUMENTS[prompt.name])
            for argument in prompt.arguments or ():
                assert argument.description
                assert argument.required
            text = await text_of(agent, prompt.name, ARGUMENTS[prompt.name])
            for value in ARGUMENTS[prompt.name].values():
                assert value in text
            assert "{" not in text
            assert not [line for line in text.splitlines() if line.startswith(" ")], "one line for each step"


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.write.__name__)
def test_a_prompt_needs_exactly_the_tools_that_it_names(prompt: Any) -> None:
    text = prompt.write(**ARGUMENTS[prompt.write.__name__])
    named = {word for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text) if word in TOOLS}
    assert named == set(prompt.tools)
    parameters = set(re.findall(r"\b([a-z]+(?:_[a-z]+)+)=", text))
    known = {name for item in read_listing() for name in item.tool.input_schema["properties"]}
    assert parameters <= known, "a parameter that no tool has"


async def test_a_prompt_is_not_offered_where_a_tool_of_it_is_missing(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, read_only=True) as agent:
        assert (await agent.client.list_prompts()).prompts == []
        with pytest.raises(MCPError):
            await agent.client.get_prompt("run_job", ARGUMENTS["run_job"])
    async with agent_on(sandbox, deny_tools=frozenset({"quote_rental"})) as agent:
        names = {prompt.name for prompt in (await agent.client.list_prompts()).prompts}
        assert names == {"run_job", "fan_out_backup", "sync_templates"}


@both_eras
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("run_job", {}, "Prompt run_job needs these arguments too: gpu_type, task, hours"),
        ("run_job", {"gpu_type": "A100", "task": "t"}, "Prompt run_job needs these arguments too: hours"),
        (
            "run_job",
            {"gpu_type": "", "task": " ", "hours": None},
            "Prompt run_job needs these arguments too: gpu_type, task, hours",
        ),
        ("run_job", ARGUMENTS["run_job"] | {"hours": "abc"}, "hours: a number above 0 is needed"),
        ("run_job", ARGUMENTS["run_job"] | {"hours": "nan"}, "hours: a number above 0 is needed"),
        (
            "deploy_below_price",
            ARGUMENTS["deploy_below_price"] | {"max_usd_per_gpu_hour": "0"},
            "max_usd_per_gpu_hour: a number above 0 is needed",
        ),
        ("run_job", ARGUMENTS["run_job"] | {"color": "red"}, "color: "),
        ("no_such", {}, "There is no prompt of that name"),
    ],
)
async def test_what_cannot_be_a_prompt_is_said_to_be_the_callers_mistake(
    sandbox: Sandbox, mode: Mode, name: str, arguments: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        with pytest.raises(MCPError) as refused:
            await unchecked(agent, name, arguments)
    assert refused.value.error.code == INVALID_PARAMS
    assert said in refused.value.error.message
    assert "Traceback" not in caplog.text
