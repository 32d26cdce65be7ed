"""docs/compatibility.md says what the tests hold: its tables are generated, and checked here."""

import os
from pathlib import Path

from tests.compat.differences import INTENDED
from tests.compat.operations import CASES
from tests.compat.recorder import contract_operations
from tests.tools.test_parity import NOT_OFFERED

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"


def differences_table() -> str:
    rows = ["| where | what | official | ours | why |", "|---|---|---|---|---|"]
    rows += [f"| {row.where} | {row.aspect} | `{row.official}` | `{row.ours}` | {row.reason} |" for row in INTENDED]
    return "\n".join(rows)


def left_out_table() -> str:
    rows = ["| operation | why |", "|---|---|"]
    return "\n".join(rows + [f"| `{operation}` | {reason} |" for operation, reason in sorted(NOT_OFFERED.items())])


def ours_alone() -> str:
    shared = {case.operation for case in CASES} | NOT_OFFERED.keys()
    return ", ".join(f"`{operation}`" for operation in contract_operations().values() if operation not in shared) + "."


def test_the_document_says_what_is_compared() -> None:
    text = expected = DOCUMENT.read_text()
    for marker, content in {
        "differences": differences_table(),
        "left out": left_out_table(),
        "ours alone": ours_alone(),
    }.items():
        before, rest = expected.split(f"<!-- {marker}:begin -->\n")
        _, after = rest.split(f"<!-- {marker}:end -->")
        expected = f"{before}<!-- {marker}:begin -->\n{content}\n<!-- {marker}:end -->{after}"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        DOCUMENT.write_text(expected)
    else:
        assert text == expected, "`make snapshots` writes the tables"
