"""The picture of the README is what the demo shows, and fetches nothing."""

import re
from pathlib import Path

from tests.docs.documents import hold
from tests.docs.picture import PICTURE, picture


async def test_the_picture_is_what_the_demo_shows(tmp_path: Path) -> None:
    hold(PICTURE, await picture(tmp_path))


def test_the_picture_fetches_nothing() -> None:
    addresses = re.findall(r"https?://[^\s\"<)]+", PICTURE.read_text())
    assert set(addresses) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}
