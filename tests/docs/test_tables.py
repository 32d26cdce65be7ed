"""What the documents say is what the code does: tables are generated, and checked here."""

from pathlib import Path

import pytest

from lium_mcp.settings_table import SETTINGS
from lium_mcp.tools.catalog import TOOLSETS
from tests.docs.documents import ROOT, hold_parts
from tests.docs.tables import ASKS, GENERATED, GROUPS, install


@pytest.mark.parametrize("document", GENERATED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_generated_parts_of_a_document_are_what_the_code_says(document: Path) -> None:
    hold_parts(document, {marker: content() for marker, content in GENERATED[document].items()})


def test_what_people_paste_names_the_package_once_an_index_has_it() -> None:
    today, then = install(published=False), install(published=True)
    assert "$ uv tool install .\n" in today
    assert "$ uv tool install lium-mcp\n" in then
    assert "clone" in today
    assert "clone" not in then


def test_of_every_tool_that_asks_it_is_said_when() -> None:
    asking = {spec.name for toolset in TOOLSETS for spec in toolset.specs if spec.asks is not None}
    assert asking == ASKS.keys()


def test_every_setting_is_in_one_table() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(SETTINGS)
