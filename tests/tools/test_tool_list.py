"""The tool list is the product's face and is paid for by every user on every turn: its rules, and its snapshots."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mcp.types import Tool

import lium_mcp
from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.toolkit.listing import FILE_NAME, ListedTool, write_listing
from lium_mcp.toolkit.registry import as_listed, publish
from lium_mcp.tools.catalog import TOOLSETS
from lium_mcp.values import SettingsError
from release.tool_budget import over_budget
from tests.harness import ALL_TOOLSETS, agent_on

LISTING = Path(lium_mcp.__file__).parent / "toolkit" / FILE_NAME
SNAPSHOTS = Path(__file__).parent.parent / "snapshots" / "tools"
EVALS = Path(lium_mcp.__file__).parent.parent / "evals"
VERBS = {
    "list",
    "get",
    "create",
    "update",
    "delete",
    "remove",
    "rent",
    "run",
    "schedule",
    "cancel",
    "add",
    "quote",
    "reboot",
    "set",
    "switch",
    "restore",
    "install",
    "reset",
    "rate",
    "request",
    "start",
    "stop",
    "upload",
    "download",
}
# Scanners flag shouting and words that try to steer a model.
SUSPICIOUS = re.compile(r"\b(IMPORTANT|CRITICAL|MUST|ALWAYS|NEVER|ignore|override|system prompt)\b")
UNITS = ("usd", "hour", "second", "gb", "mbps", "day")


async def listed(**settings: Any) -> list[Tool]:
    """What a server lists; every tool there is, unless the settings say otherwise."""
    return await build_server(Settings(**({"toolsets": ALL_TOOLSETS} | settings))).list_tools()


async def listed_by_default() -> list[Tool]:
    return await build_server(Settings()).list_tools()


def properties(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(schema.get("properties", {}).items())


def declared() -> list[ListedTool]:
    """The tools as their declarations make them."""
    return [ListedTool(toolset.name, as_listed(publish(spec))) for toolset in TOOLSETS for spec in toolset.specs]


def test_the_list_that_servers_read_is_what_the_declarations_make() -> None:
    if os.environ.get("UPDATE_SNAPSHOTS"):
        LISTING.write_text(write_listing(declared()))
    assert LISTING.read_text() == write_listing(declared()), "`make snapshots` writes lium_mcp/toolkit/listing.json"


async def test_each_tool_is_what_its_snapshot_says() -> None:
    update = bool(os.environ.get("UPDATE_SNAPSHOTS"))
    tools = await listed()
    if update:
        for old in SNAPSHOTS.glob("*.json"):
            old.unlink()
    for tool in tools:
        path = SNAPSHOTS / f"{tool.name}.json"
        now = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
        if update:
            path.write_text(json.dumps(now, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        assert path.is_file(), f"{tool.name} has no snapshot: `make snapshots` writes it"
        assert json.loads(path.read_text()) == now, f"{tool.name} changed: review the diff that `make snapshots` makes"
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} == {tool.name for tool in tools}


async def test_the_list_stays_within_its_budget() -> None:
    assert list(over_budget(await listed(), await listed_by_default())) == []


async def test_every_tool_has_a_title_all_hints_and_a_verb() -> None:
    for tool in await listed():
        assert tool.title, tool.name
        assert tool.name.split("_")[0] in VERBS, tool.name
        assert len(tool.name) <= 40
        assert tool.annotations is not None
        hints = tool.annotations
        for hint in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint):
            assert isinstance(hint, bool), tool.name
        assert not (hints.read_only_hint and hints.destructive_hint), tool.name


async def test_what_most_tasks_begin_with_is_shown_at_once_and_the_rest_is_found_in_a_users_words() -> None:
    loaded, hints = set(), {}
    for tool in await listed():
        meta = tool.meta or {}
        if meta.get("anthropic/alwaysLoad") is True:
            loaded.add(tool.name)
        else:
            hints[tool.name] = meta["anthropic/searchHint"]
        assert len(meta) == 1
    assert len(loaded) <= 8
    ways = (EVALS / "ways.tsv").read_text().splitlines()[1:]
    begun = Counter(way.split("\t")[3].partition(" ")[0] for way in ways if way.split("\t")[3])
    assert {name for name, _ in begun.most_common(5)} < loaded, "what most ways of agents begin with"
    assert len(set(hints.values())) == len(hints)
    for name, hint in hints.items():
        assert 3 <= len(hint.split()) <= 14, (name, hint)
        assert hint.isascii()
        # What the name says already is found by the name.
        assert name.replace("_", " ") not in hint


async def test_every_description_is_two_or_three_short_sentences_without_shouting() -> None:
    for tool in await listed():
        text = tool.description or ""
        sentences = re.split(r"(?<=[.!?]) ", text)
        assert 2 <= len(sentences) <= 4, (tool.name, text)
        assert 80 <= len(text) <= 450, (tool.name, len(text))
        assert text.isascii(), tool.name
        assert "\n" not in text
        assert not SUSPICIOUS.search(json.dumps(tool.model_dump(mode="json"))), tool.name


async def test_every_parameter_is_described_with_its_unit() -> None:
    for tool in await listed():
        for name, schema in properties(tool.input_schema):
            assert len(schema.get("description", "").split()) > 1, f"{tool.name}.{name} is described by a word at most"
            if schema["type"] in {"number", "integer"} and any(unit in name for unit in UNITS):
                words = f"{name} {schema['description']}".lower()
                assert any(unit in words for unit in UNITS), f"{tool.name}.{name} does not say its unit"


async def test_input_schemas_stay_in_the_plain_subset() -> None:
    allowed = {
        "type",
        "description",
        "default",
        "enum",
        "items",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
    }
    for tool in await listed():
        assert set(tool.input_schema) <= {"type", "properties", "required", "additionalProperties"}, tool.name
        assert tool.input_schema["additionalProperties"] is False
        for name, schema in properties(tool.input_schema):
            assert set(schema) <= allowed, (tool.name, name, set(schema) - allowed)
            assert schema["type"] in {"string", "integer", "number", "boolean", "array"}
            if schema["type"] == "array":
                assert schema["items"]["type"] in {"string", "integer", "number"}


def check_plain(schema: Any, place: str) -> None:
    """What a strict validator without any extras compiles: one type each, and no keyword beyond these."""
    kind = schema["type"]
    own = {"object": {"properties", "required", "additionalProperties"}, "array": {"items"}, "string": {"enum"}}
    assert set(schema) <= {"type", *own.get(kind, set())}, place
    assert kind in {*own, "integer", "number", "boolean"}, place
    if kind == "array":
        check_plain(schema["items"], f"{place}[]")
    if kind == "object":
        assert "properties" in schema or "additionalProperties" in schema, place
        assert set(schema.get("required", ())) <= set(schema.get("properties", {})), place
        for name, field in schema.get("properties", {"*": schema.get("additionalProperties")}).items():
            check_plain(field, f"{place}.{name}")


async def test_output_schemas_name_their_fields_and_stay_in_the_plain_subset() -> None:
    for tool in await listed():
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        assert tool.output_schema["properties"], tool.name
        check_plain(tool.output_schema, tool.name)


async def test_read_only_hides_every_tool_that_writes_whatever_else_is_asked_for() -> None:
    names = {tool.name for tool in await listed(read_only=True, allow_tools=frozenset({"list_pods", "rent_pod"}))}
    assert names == {"list_pods"}
    for tool in await listed(read_only=True):
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint, tool.name


async def test_a_hidden_tool_cannot_be_called(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, read_only=True) as agent:
        with pytest.raises(Exception, match="no tool of that name"):
            await agent.raw("remove_pod", pod="x")


async def test_toolsets_and_deny_list_choose_what_is_listed() -> None:
    tools = await listed(toolsets=frozenset({"account"}), deny_tools=frozenset({"get_spending"}))
    assert [tool.name for tool in tools] == ["get_balance"]


async def test_a_list_that_names_no_tool_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="LIUM_MCP_DENY_TOOLS: there is no tool named rent_pods"):
        build_server(Settings(deny_tools=frozenset({"rent_pods"})))


async def test_the_order_is_the_same_each_time() -> None:
    assert [tool.name for tool in await listed()] == [tool.name for tool in await listed()]
