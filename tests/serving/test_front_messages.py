"""What clients really send first is answered before the SDK is there, and as the SDK answers it.

`first_messages/` holds it to the byte, of one version of each client; `make test-hosts` records that of the hosts.
"""

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from lium_mcp.server import build_server
from lium_mcp.serving.front_messages import UnknownForm, check_params, read_message
from lium_mcp.serving.prepared import CURRENT, HANDSHAKE, HANDSHAKE_VERSIONS, Prepared, read_records
from lium_mcp.settings import Settings
from lium_mcp.settings_table import Offer
from tests.hosts.hosts import HOSTS, Cline, Host
from tests.processes import cold, environment
from tests.serving.recording import answers_of, plain_requests, request

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


@pytest.mark.parametrize("host", [host for host in HOSTS if host is not Cline], ids=lambda host: host.key)
def test_the_messages_of_a_host_are_of_the_version_that_is_run(host: type[Host]) -> None:
    """All say it to servers but Cline, which calls itself 0.0.0."""
    line, *_ = (RECORDED / f"{host.key}.jsonl").read_text().splitlines()
    params = json.loads(line)["params"]
    client = params.get("clientInfo") or params["_meta"]["io.modelcontextprotocol/clientInfo"]
    assert host.title().endswith(f" {client['version']}"), "`make test-hosts` records them"


@pytest.mark.parametrize("level", ["verbose", "", 7, None])
def test_a_level_that_the_protocol_does_not_have_is_left_to_the_server(level: Any) -> None:
    asked = request("tools/list", 1, CURRENT)
    asked["params"]["_meta"]["io.modelcontextprotocol/logLevel"] = level
    with pytest.raises(UnknownForm):
        check_params(CURRENT, read_message(json.dumps(asked).encode()))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)
WORDS = """
jsonrpc id method params _meta cursor capabilities clientInfo protocolVersion progressToken roots sampling tools
elicitation experimental extensions tasks listChanged form url context name version title icons websiteUrl traceparent
io.modelcontextprotocol/protocolVersion io.modelcontextprotocol/clientCapabilities io.modelcontextprotocol/clientInfo
io.modelcontextprotocol/logLevel
"""
NAMES = st.sampled_from(WORDS.split())
KNOWN = st.sampled_from(
    [{}, {"listChanged": True}, {"form": {}}, {"tools": {}}, "2025-06-18", CURRENT, "debug", 1, "a", ""]
)


@st.composite
def nearly_plain(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A request whose answer is prepared, and what a client might make of it: members more, less, or others."""
    version = draw(st.sampled_from([CURRENT, *HANDSHAKE_VERSIONS]))
    message = json.loads(json.dumps(draw(st.sampled_from(plain_requests(version)))))
    for _ in range(draw(st.integers(0, 3))):
        place: dict[str, Any] = message
        while (inner := [value for value in place.values() if isinstance(value, dict)]) and draw(st.integers(0, 3)) > 0:
            place = inner[draw(st.integers(0, len(inner) - 1))]
        name = draw(NAMES | st.sampled_from(sorted(place)) if place else NAMES)
        if draw(st.integers(0, 4)) == 0:
            place.pop(name, None)
        else:
            place[name] = deepcopy(draw(KNOWN | KNOWN | VALUES))
    return version, message


@given(nearly_plain())
@examples(max_examples=150)
async def test_whatever_is_answered_at_once_is_answered_as_the_sdk_does(case: tuple[str, dict[str, Any]]) -> None:
    version, message = case
    era = CURRENT if version == CURRENT else HANDSHAKE
    try:
        read = read_message(json.dumps(message, ensure_ascii=False).encode())
        prepared = Prepared(read_records(), Offer())
        if read.request_id is None or not prepared.knows(era, read.method):
            return
        asked_version = check_params(era, read)
    except ValueError:
        return
    ours = prepared.answer(era, read.method, json.dumps(read.request_id).encode(), asked_version)
    opening = [] if era == CURRENT or read.method == "initialize" else plain_requests(version)[:1]
    assert ours == (await answers_of(build_server(Settings()), [*opening, message]))[-1]


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_of_any_line_it_is_said_whether_its_form_is_known(line: bytes) -> None:
    try:
        read = read_message(line)
    except ValueError:
        return
    assert read.method
