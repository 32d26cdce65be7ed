"""Arguments that do not fit: every tool, every parameter, and what hypothesis makes of the listed schemas."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.types import Tool

from lium_mcp.sandbox import Sandbox
from tests.arguments import TRICKS, properties, random_arguments, required, smallest
from tests.harness import Agent, Mode, agent_on, text_of
from tests.standing import Standing

# What a request's path may look like: segments that are words or ids, none of which climbs.
PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]{1,128})+/?")
# A test that calls many tools meets Lium's limit on polls sooner than any agent.
POLLS = 10**6


@asynccontextmanager
async def asking(mode: Mode = "auto") -> AsyncIterator[Agent]:
    sandbox = Sandbox(seed=7, speed=0, pod_polls_per_minute=POLLS)
    async with agent_on(sandbox, mode=mode) as agent:
        yield agent


async def tools(agent: Agent) -> list[Tool]:
    return (await agent.client.list_tools()).tools


async def refusal(agent: Agent, tool: Tool, arguments: dict[str, Any]) -> str:
    failure = await agent.refused(tool.name, **arguments)
    assert failure.code == "invalid_argument", (tool.name, failure.text)
    assert "Nothing was changed." in failure.text
    return failure.text


def paths(agent: Agent) -> list[str]:
    noted = agent.sandbox.state()["requests"]
    assert isinstance(noted, list)
    return [str(note["path"]) for note in noted if isinstance(note, dict)]


both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


@both_eras
async def test_a_wrong_type_is_refused_by_the_name_of_its_parameter(mode: Mode) -> None:
    async with asking(mode) as agent:
        for tool in await tools(agent):
            for name in properties(tool):
                text = await refusal(agent, tool, smallest(tool) | {name: {"a": 1}})
                assert re.search(rf"\b{name}(\.a)?: ", text), text
        assert not paths(agent)


@both_eras
async def test_an_unknown_parameter_is_refused_by_its_name(mode: Mode) -> None:
    async with asking(mode) as agent:
        for tool in await tools(agent):
            text = await refusal(agent, tool, smallest(tool) | {"fancy_option": 1})
            assert "fancy_option: there is no such parameter" in text
        assert not paths(agent)


@both_eras
async def test_a_missing_parameter_is_named(mode: Mode) -> None:
    async with asking(mode) as agent:
        for tool in await tools(agent):
            for name in required(tool):
                arguments = {key: value for key, value in smallest(tool).items() if key != name}
                assert f"{name}: Field required" in await refusal(agent, tool, arguments)
        assert not paths(agent)


async def test_a_needed_text_that_is_empty_is_refused_by_the_name_of_its_parameter() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name in required(tool):
                schema = properties(tool)[name]
                if schema.get("items", schema).get("type") == "string" and "enum" not in schema:
                    texts = [""] * schema["minItems"] if schema["type"] == "array" else ""
                    text = await refusal(agent, tool, smallest(tool) | {name: texts})
                    assert re.search(rf"\b{name}(\.0)?: must not be empty", text), (tool.name, text)
        assert not paths(agent)


async def test_a_text_of_a_megabyte_is_refused_by_the_name_of_its_parameter_and_not_repeated() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name, schema in properties(tool).items():
                if schema["type"] == "string":
                    text = await refusal(agent, tool, smallest(tool) | {name: "x" * 2**20})
                    assert name in text, (tool.name, name, text)
                    assert "xxxx" not in text
        assert not paths(agent)


async def test_many_wrong_items_and_endless_names_leave_room_for_what_to_do() -> None:
    async with asking() as agent:
        template = {"name": "t", "image": "i"}
        wrong = await agent.refused("create_template", **template, environment=[{}] * 400)
        assert "; and 395 more. Nothing was changed. Correct them" in wrong.text
        unknown = await agent.refused("list_templates", **{"x" * 10_000: 1})
        assert "x" * 61 not in unknown.text
        many = await agent.refused("create_template", **template, environment=["A=1"] * 501)
        assert "environment: List should have at most 500 items" in many.text
        assert not paths(agent)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
async def test_a_number_that_is_none_is_refused_by_the_name_of_its_parameter(value: str) -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name, schema in properties(tool).items():
                if schema["type"] in {"number", "integer"}:
                    assert f"{name}: " in await refusal(agent, tool, smallest(tool) | {name: value})
        assert not paths(agent)


async def test_control_characters_are_refused_by_the_name_of_their_parameter() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name, schema in properties(tool).items():
                # Longer ones are scripts, whose lines are the pod's affair.
                if schema["type"] == "string" and schema.get("maxLength", 10_000) <= 2048:
                    for value in ("x\x00y", "x\ny", "x\x1b[31my", "x\u202ey", "\ufeffx"):
                        assert name in await refusal(agent, tool, smallest(tool) | {name: value}), (tool.name, name)
        assert not paths(agent)


async def test_texts_that_look_like_paths_reach_no_path() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name, schema in properties(tool).items():
                if name in required(tool) and schema["type"] == "string":
                    for value in TRICKS:
                        # What a call begins it need not see to its end.
                        hasty = {"wait_seconds": 0} if "wait_seconds" in properties(tool) else {}
                        result = await agent.raw(tool.name, **(smallest(tool) | hasty | {name: value}))
                        assert "internal_error" not in text_of(result), (tool.name, name, value)
        assert paths(agent)
        assert [path for path in paths(agent) if not PATH.fullmatch(path)] == []


def test_no_arguments_break_a_tool() -> None:
    with Standing(asking()) as fuzzed:

        @settings(max_examples=300, suppress_health_check=list(HealthCheck), database=None)
        @given(data=st.data())
        def fuzz(data: st.DataObject) -> None:
            tool = data.draw(st.sampled_from(fuzzed.tools), label="tool")
            arguments = data.draw(random_arguments(tool), label="arguments")
            text = fuzzed.call(tool, arguments)
            assert "internal_error" not in text
            assert "Traceback" not in text
            assert len(text) < 100_000

        fuzz()
        assert [path for path in paths(fuzzed.agent) if not PATH.fullmatch(path)] == []


# --- as hosts send them ----------------------------------------------------------------------------------------------

MEANT: dict[str, list[Any]] = {
    "string": [12, 12.5],
    "integer": ["1", "1.0"],
    "number": ["1.5", 2, "2"],
    "boolean": ["true", "False", 1],
}


def optional(tool: Tool) -> dict[str, dict[str, Any]]:
    return {name: schema for name, schema in properties(tool).items() if name not in required(tool)}


def absent(schema: dict[str, Any]) -> list[Any]:
    """All ways in which hosts say that a parameter is not given."""
    counts = schema["type"] == "integer" and schema.get("minimum") == 1
    return [None, *(["", " "] if schema["type"] == "string" else []), *([0, "0"] if counts else [])]


def forms(ways: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """What a host sends that fills in all there is, once with the first value of each, once with the second..."""
    return [{name: values[turn % len(values)] for name, values in ways.items()} for turn in range(3)]


async def taken(agent: Agent, tool: Tool, given: dict[str, Any]) -> str:
    """The answer to arguments that get past the first check, whatever comes of them."""
    text = text_of(await agent.raw(tool.name, **given))
    assert "cannot take these arguments" not in text, (tool.name, given, text)
    assert "internal_error" not in text
    return text.partition(", request_id")[0]


async def test_what_is_absent_is_absent_however_a_host_says_so() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for form in forms({name: absent(schema) for name, schema in optional(tool).items()}):
                text = await taken(agent, tool, form | smallest(tool))
                if tool.annotations and tool.annotations.read_only_hint:
                    assert text == await taken(agent, tool, smallest(tool))


async def test_what_is_needed_is_asked_for_where_it_comes_as_null() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name in required(tool):
                assert f"{name}: Field required" in await refusal(agent, tool, smallest(tool) | {name: None})
        assert not paths(agent)


async def test_a_limit_never_vanishes_because_it_says_nothing() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name, schema in optional(tool).items():
                ceiling = name.startswith("max_") or name == "hours"
                nothing = [0, "0", 0.0, -1] if ceiling else []
                for value in nothing if schema["type"] == "string" else ["", " ", *nothing]:
                    text = await refusal(agent, tool, smallest(tool) | {name: value})
                    assert re.search(rf"\b{name}: [^;]+, but may be left out", text), (tool.name, name, value, text)
                for value in ("null", " null ") if schema["type"] != "string" else ():
                    assert f"{name}: " in await refusal(agent, tool, smallest(tool) | {name: value})
        assert not paths(agent)


def meanings(schema: dict[str, Any]) -> list[Any]:
    """Values of another kind that mean one of the schema's own."""
    least = schema.get("minimum", 0)
    return MEANT[schema["type"]] if least <= 1 else [str(least), f"{least}.0"]


async def test_numbers_and_booleans_as_text_and_lists_as_json_are_what_they_mean() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            said = smallest(tool)
            meant = {
                name: [json.dumps(said.get(name, ["22"]))] if schema["type"] == "array" else meanings(schema)
                for name, schema in properties(tool).items()
                if "enum" not in schema
            }
            for form in forms(meant):
                await taken(agent, tool, said | form)


async def test_a_yes_is_no_figure() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name, schema in properties(tool).items():
                if schema["type"] in {"integer", "number"}:
                    assert f"{name}: " in await refusal(agent, tool, smallest(tool) | {name: True})
                elif schema["type"] == "array" and schema["items"]["type"] == "integer":
                    assert f"{name}.0: " in await refusal(agent, tool, smallest(tool) | {name: [True]})
        assert not paths(agent)


def edges(schema: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """What the bounds of a schema just take, and what they just do not."""
    match schema:
        case {"type": "string", "maxLength": most}:
            return ["x" * most], ["x" * (most + 1)]
        case {"type": "array", "maxItems": most, "items": {"type": "string", "maxLength": longest}}:
            return [["x" * longest] * most], [["x"] * (most + 1), ["x" * (longest + 1)] * 2]
        case {"type": "array", "maxItems": most, "items": item}:
            inside, outside = edges(item)
            return [inside * (most // len(inside))], [[inside[0]] * (most + 1), *([value] for value in outside)]
    least, most = schema.get("minimum", -5), schema.get("maximum", 10**9)
    above = schema.get("exclusiveMinimum")
    inside = [0.001 if above == 0 else least, most]
    # Below 1 in counting is 0, which says nothing.
    outside = [0] if above == 0 else [-1 if least == 1 else least - 1] if "minimum" in schema else []
    return inside, [*outside, *([most + 1] if "maximum" in schema else [])]


# Their limits hold too, and are not listed to save tokens: of most the lower one, of the wait both.
UNLISTED = {("run_job", name) for name in ("max_usd_per_hour", "max_total_usd", "max_hours", "hours", "gpu_count")}
UNBOUNDED = {("run_job", "wait_seconds")}


async def test_the_bounds_that_are_listed_are_those_that_hold() -> None:
    async with asking() as agent:
        for tool in await tools(agent):
            for name, schema in properties(tool).items():
                if "enum" in schema or schema["type"] == "boolean" or (tool.name, name) in UNBOUNDED:
                    continue
                inside, outside = edges(schema)
                if (tool.name, name) in UNLISTED:
                    inside = inside[1:]
                named = re.compile(rf"(?<!\w){name}(\.\d+)?: ")
                for value in outside:
                    assert named.search(await refusal(agent, tool, smallest(tool) | {name: value})), (tool.name, name)
                for value in inside:  # refused for another reason, so that nothing comes of it
                    text = await refusal(agent, tool, smallest(tool) | {name: value, "no_such": 1})
                    assert not named.search(text), (tool.name, text)
        assert not paths(agent)


@both_eras
async def test_names_that_a_host_adds_are_dropped_unless_the_tool_has_them(mode: Mode) -> None:
    added = {"toolCallId": "call_1", "sessionId": "s", "action": "sendMessage", "chatInput": "rent me a GPU"}
    async with asking(mode) as agent:
        for tool in await tools(agent):
            assert not {*added} & {*properties(tool)} or tool.name == "list_activity"
            await taken(agent, tool, added | smallest(tool))
        assert (await agent.call("list_activity", action="pod."))["activities"]
        assert not (await agent.call("list_activity", action="no.such"))["activities"]


@pytest.mark.parametrize(
    ("tool", "given", "nearest"),
    [
        ("rent_pod", "gpuType", "gpu_type"),
        ("rent_pod", "maxUsdPerGpuHour", "max_usd_per_gpu_hour"),
        ("rent_pod", "maxPrice", "max_usd_per_hour"),
        ("get_pod", "pod_id", "pod"),
        ("get_pod", "timeout", ""),
        ("run_command", "timeout", "timeout_seconds"),
        ("list_gpus", "Sort", "sort"),
    ],
)
async def test_an_unknown_name_is_refused_with_the_nearest_one_and_all_there_are(
    tool: str, given: str, nearest: str
) -> None:
    async with asking() as agent:
        (listed,) = [item for item in await tools(agent) if item.name == tool]
        text = await refusal(agent, listed, smallest(listed) | {given: None})
        problem = f"{given}: there is no such parameter" + (f", {nearest} is the nearest" if nearest else "")
        assert f"{problem}. Nothing was changed." in text
        assert f"{tool} has these parameters: {', '.join(properties(listed))}" in text
        without = await agent.refused("get_balance", **{given: 1})
        assert "get_balance has no parameters" in without.text
        assert not paths(agent)


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize("ours_first", [True, False])
async def test_a_name_of_the_official_server_fills_in_what_ours_leaves_open(nothing: Any, ours_first: bool) -> None:
    async with asking() as agent:
        for given, open_ in (("template", "template_id"), ("template_id", "template")):
            pair = {given: "no-such-template", open_: nothing}
            arguments = pair if (given == "template") is ours_first else dict(reversed(pair.items()))
            failure = await agent.refused("rent_pod", name="x", gpu_type="A100", **arguments)
            assert failure.code == "template_not_found"
