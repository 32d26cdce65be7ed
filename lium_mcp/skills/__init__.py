"""Skills: what an agent should know to do one thing well, each a folder with a `SKILL.md` of the Agent Skills format.

The same files are resources of the server and part of the plugin for hosts. They name tools as a model calls them:
`rent_pod(name, hours)`.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

FILE_NAME: Final = "SKILL.md"
_PARTS: Final = re.compile(r"---\nname: (?P<name>.+)\ndescription: (?P<description>.+)\n---\n\n# (?P<title>.+)\n")
_WORD_IN_CODE: Final = re.compile(r"`([a-z_]+)[`(]")


class Skill(NamedTuple):
    """A skill.

    Attributes:
        name: That of its folder.
        title: Its headline.
        description: What it is for and when to use it, which is all that a model sees before it loads the rest.
        text: The whole file.
    """

    name: str
    title: str
    description: str
    text: str

    @property
    def address(self) -> str:
        """Where a server has it, as a resource."""
        return f"skill://{self.name}/{FILE_NAME}"

    def words_in_code(self) -> set[str]:
        """What it writes as code and might be the name of a tool."""
        return set(_WORD_IN_CODE.findall(self.text))


@cache
def read_skills() -> tuple[Skill, ...]:
    """Every skill there is, by name."""
    found = [folder / FILE_NAME for folder in files(__package__).iterdir()]
    return tuple(sorted(_read(file.read_text(encoding="utf-8")) for file in found if file.is_file()))


def _read(text: str) -> Skill:
    parts = _PARTS.match(text)
    if parts is None:
        raise ValueError(f"A skill does not begin with a name, a description and a headline: {text[:100]!r}")
    return Skill(parts["name"], parts["title"], parts["description"], text)
