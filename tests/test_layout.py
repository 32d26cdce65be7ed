"""How the files of the house are named, which no linter checks."""

from collections import defaultdict
from pathlib import Path

HOUSE = Path(__file__).parent.parent / "lium_mcp"
# One thing has a file of its name in each of these: a resource of the API, its routes in the sandbox, and its toolset.
OF_A_RESOURCE = {"api", "sandbox/routes", "tools"}
# Users type the name of a command, so it is that of what the command is about, wherever that is.
OF_A_COMMAND = {"cli"}
# A resource that is a folder has these two, and its path tells which is meant.
PARTS_OF_A_RESOURCE = {f"api/{part.parent.name}" for part in (HOUSE / "api").glob("*/__init__.py")}
PARTS = {"models.py", "calls.py"}


def test_the_name_of_a_file_says_which_is_meant() -> None:
    folders: dict[str, set[str]] = defaultdict(set)
    for path in HOUSE.rglob("*.py"):
        folder = path.parent.relative_to(HOUSE).as_posix()
        is_part = path.name in PARTS and folder in PARTS_OF_A_RESOURCE
        if path.name != "__init__.py" and folder not in OF_A_COMMAND and not is_part:
            folders[path.name].add(folder)
    assert {name: at for name, at in folders.items() if len(at) > 1 and not at <= OF_A_RESOURCE} == {}
