"""Judges the end of a task: the state of the world, the dollars, and what the final answer claims, never its words."""

import json
from collections.abc import Mapping
from typing import Any, Final

from evals.facts import Facts, fact
from evals.tasks import Task

_NEAR: Final = 0.02
_SHOWN: Final = 100
_OPERATORS: Final = frozenset({"at_most", "at_least", "about", "in", "has", "not"})


def grade(task: Task, facts: Facts, claims: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with the end of a task, a line each; nothing where the task was done.

    Args:
        task: What was asked.
        facts: What is so now, with what was `before`.
        claims: The final answer, where one could be read.
    """
    problems = [
        f"{path} is {_short(fact(facts, path))}, not {_short(expected)}"
        for path, expected in task.state.items()
        if not holds(fact(facts, path), expected, facts)
    ]
    if claims is None:
        return [*problems, "the last message has no JSON object"]
    return problems + [
        f"{name} is claimed to be {_short(claims.get(name))}, not {_short(_meant(claim.expected, facts))}"
        for name, claim in task.claims.items()
        if claims.get(name) is None or not holds(claims[name], claim.expected, facts)
    ]


def holds(actual: Any, expected: Any, facts: Facts) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Whether something is as expected.

    What is expected is a value, a fact (`$pods/train/id`), or a table of conditions: `at_most`, `at_least`, `about` (2
    percent), `in` (one of a list), `has` (a text or a list with all of these in it), `not`. Text is compared
    without regard to case, lists without regard to order.
    """
    wanted = _meant(expected, facts)
    if isinstance(wanted, dict) and wanted.keys() <= _OPERATORS and wanted:
        return all(_meets(actual, name, condition, facts) for name, condition in wanted.items())
    if isinstance(wanted, list):
        return isinstance(actual, list) and sorted(map(_plain, actual)) == sorted(map(_plain, wanted))
    return actual is not None and _plain(actual) == _plain(wanted) if wanted is not None else actual is None


def claims_in(text: str) -> dict[str, Any] | None:
    """The last JSON object of a message, if there is one."""
    decoder = json.JSONDecoder()
    found = None
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            found = value if isinstance(value, dict) else found
        start = text.find("{", end)
    return found


def _meant(expected: Any, facts: Facts) -> Any:  # noqa: ANN401 - whatever JSON holds
    return fact(facts, expected[1:]) if isinstance(expected, str) and expected.startswith("$") else expected


def _meets(actual: Any, name: str, condition: Any, facts: Facts) -> bool:  # noqa: ANN401 - whatever JSON holds
    wanted = _meant(condition, facts)
    match name:
        case "not":
            return not holds(actual, condition, facts)
        case "in":
            return any(holds(actual, item, facts) for item in wanted or ())
        case "has":
            parts = [_plain(item) for item in (wanted if isinstance(wanted, list) else [wanted])]
            held = [_plain(item) for item in actual] if isinstance(actual, list) else str(_plain(actual or ""))
            return all(part in held for part in parts)
    number, bound = _number(actual), _number(wanted)
    if number is None or bound is None:
        return False
    if name == "about":
        return abs(number - bound) <= max(_NEAR * abs(bound), 0.005)
    return number <= bound + 1e-9 if name == "at_most" else number >= bound - 1e-9


def _number(value: Any) -> float | None:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A form in which what means the same is the same, as text, so that it can be sorted."""
    number = _number(value)
    return " ".join(str(value).casefold().split()) if number is None else f"{number:.6g}"


def _short(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
