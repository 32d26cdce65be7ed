"""The conversations of the pages are what the server says today."""

from pathlib import Path

import pytest

from tests.docs.conversations import CONVERSATIONS
from tests.docs.documents import DOCS, hold_parts
from tests.orders import look_at_once


@pytest.mark.parametrize("page", CONVERSATIONS, ids=lambda path: path.relative_to(DOCS).as_posix())
async def test_a_conversation_goes_as_it_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_once(monkeypatch)
    # Lium gives ids and times to restores as they come in.
    monkeypatch.setattr("lium_mcp.services.backups.restoring._AT_ONCE", 1)
    folder = tmp_path / "work"
    folder.mkdir()
    hold_parts(page, {"conversation": await CONVERSATIONS[page](folder)})
