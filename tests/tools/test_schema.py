"""Schemas as every host can read them: no references, no null unions, no noise, and still true."""

import json
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from lium_mcp.inputs import UNLISTED
from lium_mcp.toolkit.schema import plain


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    """A leaf."""

    title: str
    default: int = 7
    weight: float | None = None


class Branch(BaseModel):
    leaf: Leaf
    spare: Leaf | None = Field(default=None, description="Another leaf.")
    leaves: list[Leaf] = []
    by_name: dict[str, Leaf] = {}
    either: Literal["first", "second"] | Literal["none"] = "none"
    at: datetime | None = None


class Tree(BaseModel):
    branches: list[Branch]
    colour: Colour = Colour.RED
    anyOf: str = "a property may be named like a keyword"  # noqa: N815 - that is the point
    properties: dict[str, int] = {}
    maybe: int | None = None
    always: Literal["so"] = "so"


class Arguments(BaseModel):
    pod: Annotated[str, Field(min_length=1, description="Which.")]
    count: Annotated[int | None, Field(ge=1, le=8, description="How many.")] = None
    at_least: Annotated[int, Field(ge=0)] = 0
    more_than: Annotated[float, Field(gt=0, le=9)] = 1
    names: Annotated[list[str] | None, Field(description="Some.")] = None
    sort: Literal["price", "vram"] = "price"
    tier: Literal["secure", "spot"] | None = None
    wait_seconds: int = 45
    deep: bool = False
    hidden: Annotated[bool, Field(json_schema_extra={UNLISTED: True})] = False


def keys_of(node: Any) -> set[str]:
    """The keywords of a schema: property names are data, not keywords."""
    if isinstance(node, list):
        return {key for item in node for key in keys_of(item)}
    if not isinstance(node, dict):
        return set()
    found = set(node)
    for key, value in node.items():
        found |= (
            {inner for item in value.values() for inner in keys_of(item)} if key == "properties" else keys_of(value)
        )
    return found


@pytest.mark.parametrize("model", [Leaf, Branch, Tree, Arguments])
def test_nothing_is_left_that_a_host_may_not_read(model: type[BaseModel]) -> None:
    slim = plain(model.model_json_schema())
    assert not keys_of(slim) & {"$ref", "$defs", "title", "const", "anyOf", "format", "description", UNLISTED}
    assert not keys_of(plain(model.model_json_schema(), closed=True)) & {"$ref", "$defs", "title", "const", "anyOf"}
    assert '"null"' not in json.dumps(slim)
    assert slim["type"] == "object"
    jsonschema.Draft202012Validator.check_schema(slim)


def test_properties_keep_their_names_even_those_of_keywords() -> None:
    tree = plain(Tree.model_json_schema())["properties"]
    assert set(tree) == {"branches", "colour", "anyOf", "properties", "maybe", "always"}
    branch = tree["branches"]["items"]["properties"]
    assert set(branch["leaf"]["properties"]) == {"title", "default", "weight"}
    assert tree["properties"]["additionalProperties"] == {"type": "integer"}
    assert tree["maybe"] == {"type": "integer"}


def test_choices_are_one_list_and_other_unions_are_a_mistake() -> None:
    tree = plain(Tree.model_json_schema())["properties"]
    assert tree["always"] == {"type": "string", "enum": ["so"]}
    either = tree["branches"]["items"]["properties"]["either"]
    assert either == {"type": "string", "enum": ["first", "second", "none"]}

    class Undecided(BaseModel):
        either: Leaf | str

    with pytest.raises(TypeError, match="no plain schema says"):
        plain(Undecided.model_json_schema())


def test_a_reference_becomes_what_it_names_and_keeps_its_own_words() -> None:
    branch = plain(Branch.model_json_schema(), closed=True)["properties"]
    assert branch["leaf"]["description"] == "A leaf."
    assert branch["spare"]["description"] == "Another leaf."
    assert branch["spare"]["properties"] == branch["leaf"]["properties"] == branch["leaves"]["items"]["properties"]
    assert branch["by_name"]["additionalProperties"]["type"] == "object"


def test_a_parameter_that_may_be_null_may_be_absent_instead() -> None:
    slim = plain(Arguments.model_json_schema(), closed=True)
    assert slim["properties"]["count"] == {"type": "integer", "minimum": 1, "maximum": 8, "description": "How many."}
    assert slim["properties"]["names"] == {"type": "array", "items": {"type": "string"}, "description": "Some."}
    assert slim["properties"]["tier"] == {"type": "string", "enum": ["secure", "spot"]}
    assert slim["required"] == ["pod"]


def test_only_what_tells_a_model_something_is_listed() -> None:
    properties = plain(Arguments.model_json_schema(), closed=True)["properties"]
    assert properties["pod"] == {"type": "string", "minLength": 1, "description": "Which."}
    assert properties["at_least"] == {"type": "integer", "minimum": 0}
    assert properties["more_than"] == {"type": "number", "exclusiveMinimum": 0, "maximum": 9, "default": 1}
    assert properties["sort"] == {"type": "string", "enum": ["price", "vram"]}
    assert properties["wait_seconds"]["default"] == 45
    assert "default" not in properties["deep"]
    assert "hidden" not in properties


def test_arguments_are_closed_and_answers_are_open() -> None:
    assert plain(Arguments.model_json_schema(), closed=True)["additionalProperties"] is False
    assert "additionalProperties" not in plain(Leaf.model_json_schema())


def test_an_object_without_fields_says_so() -> None:
    class Nothing(BaseModel):
        pass

    assert plain(Nothing.model_json_schema(), closed=True) == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


def test_the_schema_that_comes_in_is_left_as_it_is() -> None:
    schema = Tree.model_json_schema()
    before = json.dumps(schema)
    plain(schema, closed=True)
    assert json.dumps(schema) == before


leaves = st.builds(Leaf, title=st.text(), default=st.integers(), weight=st.none() | st.floats(-1e9, 1e9))
branches = st.builds(
    Branch,
    leaf=leaves,
    spare=st.none() | leaves,
    leaves=st.lists(leaves, max_size=2),
    by_name=st.dictionaries(st.text(max_size=3), leaves, max_size=2),
    either=st.sampled_from(["first", "second", "none"]),
    at=st.none() | st.datetimes(),
)
trees = st.builds(
    Tree,
    branches=st.lists(branches, max_size=2),
    colour=st.sampled_from(Colour),
    maybe=st.none() | st.integers(),
)
SCHEMA = plain(Tree.model_json_schema(mode="serialization"))


@settings(max_examples=30)
@given(trees)
def test_every_answer_without_its_nulls_fits_its_schema(tree: Tree) -> None:
    jsonschema.validate(tree.model_dump(mode="json", exclude_none=True), SCHEMA)


@settings(max_examples=30)
@given(trees, st.sampled_from(["branches", "colour"]), st.sampled_from([7, [[]], {"no": "thing"}]))
def test_what_does_not_fit_the_model_does_not_fit_the_schema(tree: Tree, name: str, nonsense: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree.model_dump(mode="json", exclude_none=True) | {name: nonsense}, SCHEMA)
