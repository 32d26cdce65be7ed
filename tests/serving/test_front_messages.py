"""What clients really send first is answered before the SDK is there, and as the SDK answers it.

`first_messages/` holds it to the byte, of one version of each client.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

from lium_mcp.server import build_server
from lium_mcp.serving.front_messages import UnknownForm, check_params, read_message
from lium_mcp.serving.prepared import CURRENT
from lium_mcp.settings import Settings
from tests.processes import cold, environment
from tests.serving.recording import answers_of, request

RECORDED: Final = Path(__file__).parent / "first_messages"
WITHOUT_SDK: Final = """
import sys, time
class Never:
    def find_spec(self, name, path=None, target=None):
        if name == "mcp":
            time.sleep(60)
sys.meta_path.insert(0, Never())
"""


@pytest.mark.parametrize("client", sorted(file.stem for file in RECORDED.glob("*.jsonl")))
async def test_what_a_client_sends_first_is_answered_before_the_sdk_is_there(client: str, tmp_path: Path) -> None:
    lines = (RECORDED / f"{client}.jsonl").read_text().splitlines()
    messages = [json.loads(line) for line in lines]
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_SDK)
    path = os.pathsep.join((str(tmp_path), environment()["PYTHONPATH"]))
    async with cold(PYTHONPATH=path) as server:
        for line, message in zip(lines, messages, strict=True):
            await server.send(line)
            if "id" in message:
                await server.receive()
    expected = await answers_of(build_server(Settings()), messages)
    assert [line.encode() for line in server.lines] == expected


@pytest.mark.parametrize("level", ["verbose", "", 7, None])
def test_a_level_that_the_protocol_does_not_have_is_left_to_the_server(level: Any) -> None:
    asked = request("tools/list", 1, CURRENT)
    asked["params"]["_meta"]["io.modelcontextprotocol/logLevel"] = level
    with pytest.raises(UnknownForm):
        check_params(CURRENT, read_message(json.dumps(asked).encode()))
