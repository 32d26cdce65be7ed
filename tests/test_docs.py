"""What the documents say is what the code does: tables are generated, and checked here."""

import json
import os
import re
from pathlib import Path

from lium_mcp.guard.limits import read_policy_file
from lium_mcp.settings import Settings, environment_name
from lium_mcp.tools.catalog import TOOLSETS

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        if isinstance(default, frozenset | tuple):
            default = ",".join(sorted(default))
        shown = f"`{default}`" if default not in (None, "") else ""
        rows.append(f"| `{environment_name(name)}` | {shown} | {field.description} |")
    return "\n".join(rows)


def tools_table() -> str:
    rows = ["| toolset | tools |", "|---|---|"]
    for toolset in TOOLSETS:
        names = ", ".join(f"`{spec.name}`" for spec in toolset.specs)
        rows.append(f"| `{toolset.name}` | {names} |")
    return "\n".join(rows)


def with_generated(text: str, marker: str, content: str) -> str:
    before, rest = text.split(f"<!-- {marker}:begin -->\n")
    _, after = rest.split(f"<!-- {marker}:end -->")
    return f"{before}<!-- {marker}:begin -->\n{content}\n<!-- {marker}:end -->{after}"


def test_the_readme_lists_the_tools_and_settings_that_exist() -> None:
    text = README.read_text()
    expected = with_generated(with_generated(text, "tools", tools_table()), "settings", settings_table())
    if os.environ.get("UPDATE_SNAPSHOTS"):
        README.write_text(expected)
    assert README.read_text() == expected, "`make snapshots` writes the tables of the README"


def test_the_policy_file_of_the_readme_can_be_used(tmp_path: Path) -> None:
    found = re.search(r"<!-- example:policy.toml -->\n```toml\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    file = tmp_path / "policy.toml"
    file.write_text(found[1])
    limits, mode = read_policy_file(file)
    assert limits.any
    assert mode is None


def test_the_readme_starts_what_a_clone_has() -> None:
    text = README.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (README.parent / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\$ make ([a-z-]+)", text, re.MULTILINE)) | {"install"} <= targets
    found = re.search(r"```json\n(\{\n.*?)```", text, re.DOTALL)
    assert found
    entry = json.loads(found[1])["mcpServers"]["lium"]
    assert entry["command"].endswith("/.venv/bin/lium-mcp")
    assert entry["args"] == [], "the package is not on PyPI yet, and the command takes no name of one"
