"""Arguments for any tool, made from its listed schema alone: the smallest valid ones, broken ones, and random ones."""

from typing import Any, Final

from hypothesis import strategies as st
from mcp.types import Tool

from tests.harness import PUBLIC_KEY

Arguments = dict[str, Any]

ID: Final = "00000000-0000-4000-8000-000000000000"
# Ways out of a path segment, and other texts that mean more than they look.
TRICKS: Final = (
    "../x",
    "../../../../../../../../../../../../",  # as long as an id
    "%2e%2e%2fusers%2fme",
    "a/b",
    "a?b=c#d",
    "..",
    "\\..\\x",
    "x\x00",
    "x\r\nX-API-KEY: y",
    "\u202ex",
    " ",
)
# What a schema cannot say: which optional parameters a call needs, and what a text must look like.
_ALSO_NEEDED: Final[dict[str, Arguments]] = {
    "rent_pod": {"gpu_type": "A100"},
    "run_command": {"pod": ID},
    "run_job": {"max_total_usd": 1.5},
    "upload_files": {"content": "x", "pod_path": "x"},
}
_VALUES: Final[dict[str, Any]] = {"public_key": PUBLIC_KEY, "gpu_type": "B200"}


def properties(tool: Tool) -> dict[str, dict[str, Any]]:
    return dict(tool.input_schema["properties"])


def required(tool: Tool) -> list[str]:
    return list(tool.input_schema.get("required", []))


def smallest(tool: Tool) -> Arguments:
    """The fewest arguments that say something."""
    given = {name: _example(name, properties(tool)[name]) for name in required(tool)}
    return given | _ALSO_NEEDED.get(tool.name, {})


def random_arguments(tool: Tool) -> st.SearchStrategy[Arguments]:
    """Mostly of the right kind, so that they get past the first check, with values that no test thought of."""
    each = {name: _values(name, schema) for name, schema in properties(tool).items()}
    optional = {name: values for name, values in each.items() if name not in required(tool)}
    return st.fixed_dictionaries({name: each[name] for name in required(tool)}, optional=optional)


def _example(name: str, schema: dict[str, Any]) -> Any:
    if name in _VALUES:
        return _VALUES[name]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"]
    if kind == "string":
        return ID
    if kind == "array":
        return [f"{number}{ID[1:]}" for number in range(schema.get("minItems", 1))]
    return {"integer": schema.get("minimum", 1), "number": max(1.5, schema.get("minimum", 0)), "boolean": True}[kind]


def _values(name: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    texts = st.sampled_from((*TRICKS, ID, "A100", "x" * 300)) | st.text(max_size=40)
    kind = schema["type"]
    # A wait that runs its full time is the same as one that runs 3 s, only slower.
    whole = st.integers(0, 3) if name == "wait_seconds" else st.integers(-2, 200) | st.integers()
    likely: dict[str, st.SearchStrategy[Any]] = {
        "string": st.sampled_from(schema["enum"]) if "enum" in schema else texts,
        "integer": whole,
        "number": st.floats() | st.integers(-2, 200),
        "boolean": st.booleans(),
        "array": st.lists(texts, max_size=5),
    }
    unlikely = st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=3) | st.just({"a": 1})
    return st.one_of(likely[kind], likely[kind], likely[kind], unlikely)
