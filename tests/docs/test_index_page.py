"""What a package index shows of the README leads somewhere from there."""

import re

from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from manifests.source import read
from tests.docs.documents import README, ROOT


def test_every_link_of_the_page_leads_to_a_file_of_the_project_or_elsewhere() -> None:
    core = ProjectMetadata(str(ROOT), PluginManager()).core
    assert core.readme_content_type == "text/markdown"
    links = re.findall(r"\]\(([^)]*)\)", core.readme)
    assert len(links) == len(re.findall(r"\]\(", README.read_text())) > 20
    own = [link.removeprefix(f"{read().repository}/") for link in links if link.startswith(read().repository)]
    paths = [re.sub(r"^(blob|raw)/main/|#.*$", "", link) for link in own]
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    assert all(link.startswith("https://") for link in links)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", core.readme)
    names = ("demo.svg", "page/pods-1280-light.png")
    assert pictures == [f"{read().repository}/raw/main/docs/{name}" for name in names]


def test_the_readme_fits_two_screens() -> None:
    assert len(README.read_text().splitlines()) <= 120
