"""The picture of the README: what `lium-mcp demo` shows at a terminal, up to the rent, with the clock turned."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from mcp.types import ElicitRequestParams, ElicitResult
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from lium_mcp.cli.demo import Demo, rent_use_remove, say_yes
from lium_mcp.sandbox import Sandbox
from tests.docs.conversations import START, in_any_play
from tests.docs.documents import DOCS
from tests.harness import Person, agent_on, make_key_pair

PICTURE: Final = DOCS / "demo.svg"
_COLUMNS: Final = 104
# The first step only lists tools, and after the rent not much happens that one has to see.
_FIRST_SHOWN: Final = "Find an A100"
_NOT_SHOWN: Final = "Read its logs and what it costs"
# It would fetch letters from elsewhere.
_FORMAT: Final = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Enough(Exception):
    """What follows is not shown."""


class _BeginningOfDemo(Demo):
    """Ends where a pod is rented, which is removed all the same."""

    def title(self, text: str) -> None:
        if text == _NOT_SHOWN:
            raise _Enough
        super().title(text)


class _Viewer(Person):
    """Is shown what the person is asked."""

    async def __call__(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        return await say_yes(context, params)


async def picture(folder: Path) -> str:
    """The SVG."""
    said = _Terminal()
    key = folder / "key"
    make_key_pair(key)
    sandbox = Sandbox(seed=7, speed=0, start=START, ssh=True)
    with pytest.MonkeyPatch.context() as patches:
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(_COLUMNS), "LC_ALL": "C.UTF-8"}.items():
            patches.setenv(name, value)
        patches.delenv("NO_COLOR", raising=False)
        patches.setattr(sys, "stdout", said)
        async with agent_on(sandbox, person=_Viewer(), ssh_key_path=key, max_price_per_hour_usd=1.5) as agent:
            with pytest.raises(_Enough):
                await rent_use_remove(_BeginningOfDemo(agent.client, folder))
    await sandbox.aclose()
    steps = re.split(r"(?m)^(?=\S*\d\. )", in_any_play(said.getvalue()))
    first = next(number for number, step in enumerate(steps) if _FIRST_SHOWN in step)
    return _drawn("".join(steps[first:-1]))


def _drawn(shown: str) -> str:
    console = Console(width=_COLUMNS, record=True, file=io.StringIO(), color_system="truecolor", legacy_windows=False)
    for line in shown.rstrip().splitlines():
        for part in _wrapped(Text.from_ansi(line), console):
            console.print(part, highlight=False)
    return console.export_svg(
        title="lium-mcp demo", theme=DIMMED_MONOKAI, code_format=_FORMAT, unique_id="demo", font_aspect_ratio=0.61
    )


def _wrapped(line: Text, console: Console) -> Iterator[Text]:
    """The line as the terminal has room for it, with what is left over below its beginning."""
    indent = len(line.plain) - len(line.plain.lstrip())
    if line.cell_len <= _COLUMNS:
        yield line
        return
    for number, part in enumerate(line[indent:].wrap(console, _COLUMNS - indent - 3)):
        yield Text(" " * (indent + (3 if number else 0))) + part
