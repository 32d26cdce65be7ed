"""Secrets come out nowhere: not in results, errors, logs, reprs, traces, resources or the ledger.

Each secret is planted where an agent, Lium or other people could put it, and then looked for in all that leaves.
"""

import base64
import codecs
import html
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, quote_plus, unquote

import httpx2
import mcp.shared._otel
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from mcp import MCPError
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan

from lium_mcp.guard.redaction import Redactor, redact, redact_text
from lium_mcp.sandbox import API_KEY, Sandbox
from lium_mcp.secret_forms import REDACTED
from lium_mcp.server import make_runtime
from lium_mcp.serving.callers import Caller
from lium_mcp.serving.logs import Lines
from lium_mcp.settings import Settings, ToolsetName
from lium_mcp.toolkit.listing import read_listing
from tests.harness import PUBLIC_KEY, agent_on, text_of
from tests.wires import Forward, Row, Wire, answering, first, make_template, rent

OWN_KEY = API_KEY
OTHER_KEY = "sk_live_4f9a2bC-77e"
SESSION = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlc2ln"
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\nAAAAB\n-----END OPENSSH PRIVATE KEY-----"
CUT_KEY = "-----BEGIN RSA PRIVATE KEY-----\nTUlJRXBBSUJBQUtD"
ADDRESS = "https://bot:hunter2@ter@registry.example/v2?x=1"
DATABASE = "postgresql://svc:hunter2ter@db.example:5432/rents"
PLANTED = (
    f"{OWN_KEY} {OTHER_KEY} key={OTHER_KEY}, {SESSION} {ADDRESS} {DATABASE} Authorization: Bearer abcd.efgh-1234_5678 "
    f"'X-API-Key': 'q9q9q9q9q9q9' X-API-KEY: q9q9q9q9q9q9 Authorization: Basic Ym90Omh1bnRlcjI= {PRIVATE_KEY} {CUT_KEY}"
)
# The distinctive part of each; none of them may be seen.
SECRET = re.compile(
    r"sk_sandbox|4f9a2b|c2lnbmF0|b3BlbnNz|TUlJRXB|hunter2|abcd\.efgh|q9q9q9|Ym90Omh1|r3g1stry|env1ronment|pgS3cret"
)


def assert_clean(text: str, where: str = "") -> None:
    found = SECRET.search(text)
    assert found is None, f"{where}: {text[max(0, found.start() - 200) : found.end() + 50]}"


@pytest.fixture(autouse=True)
def _everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is logged in a test is written as the program writes it, in both formats, and searched."""
    streams = {as_json: io.StringIO() for as_json in (False, True)}
    handlers = []
    for as_json, stream in streams.items():
        handler = logging.StreamHandler(stream)
        handler.setFormatter(Lines(Redactor([OWN_KEY, "pgS3cret"]), as_json=as_json))
        logging.getLogger().addHandler(handler)
        handlers.append(handler)
    caplog.set_level(logging.DEBUG, "lium_mcp")
    yield
    for handler in handlers:
        logging.getLogger().removeHandler(handler)
    for stream in streams.values():
        assert_clean(stream.getvalue(), "log")


# --- what Lium and other people say ----------------------------------------------------------------------------------

# Not what the program acts on: ids, states, times, and commands that it parses.
_KEPT = re.compile(
    r"(?:^|_)(?:id|ids|uuids?|status|state|at|cmd|key|type|code|image|tag|path|day|country_code|features|count|price|url)$"
)

# Names of GPUs, of which words are taken.
_CUT_UP = ("specs", "machine_name", "gpu_name")


def poisoned(value: Any, name: str = "") -> Any:
    """A secret in every text of an answer that is shown and not acted upon."""
    if isinstance(value, dict):
        return {key: item if key in _CUT_UP else poisoned(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, name) for item in value]
    if isinstance(value, str) and not _KEPT.search(name):
        return f"{value} {PLANTED}"
    return value


async def _poison(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    response = await forward(request)
    content = await response.aread()
    try:
        body = json.loads(content)
    except ValueError:
        return response
    headers = {name: response.headers[name] for name in ("Date",) if name in response.headers}
    headers["X-Request-Id"] = f"r {PLANTED}".replace("\n", " ")
    return httpx2.Response(response.status_code, json=poisoned(body), headers=headers)


def hostile(sandbox: Sandbox) -> Wire:
    wire = Wire(sandbox)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        for depth in range(1, 6):
            wire.on(method, "/*" * depth, _poison)
    wire.on("GET", "/machines", first(lambda: None))  # names of GPUs too
    return wire


every_tool_on = partial(agent_on, toolsets=frozenset(get_args(ToolsetName)), log_level="DEBUG")


class _Span(NonRecordingSpan):
    def __init__(self, seen: list[str]) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self._seen = seen

    def set_attribute(self, *arguments: Any) -> None:
        self._seen.append(repr(arguments))

    def set_attributes(self, *arguments: Any) -> None:
        self._seen.append(repr(arguments))

    def add_event(self, *arguments: Any, **options: Any) -> None:
        self._seen.append(repr((arguments, options)))

    def set_status(self, *arguments: Any) -> None:
        self._seen.append(repr(arguments))

    def record_exception(self, exception: BaseException, *_: Any, **__: Any) -> None:
        self._seen.append(repr(exception) + str(exception))


class _Tracer:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def start_as_current_span(self, name: str, **options: Any) -> Iterator[_Span]:
        self.seen.append(repr((name, options)))
        yield _Span(self.seen)


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> _Tracer:
    """In the place of OpenTelemetry's: keeps everything that a span is told."""
    recording = _Tracer()
    monkeypatch.setattr(mcp.shared._otel, "_tracer", recording)
    return recording


# What makes a call of a tool get as far as it can; every other text is a planted one.
NAMED: Row = {
    "pod": "train",
    "template": "mine",
    "volume": "data",
    "gpu_type": "RTX4090",
    "hours": 1,
    "wait_seconds": 0,
}


def arguments_of(schema: Row, planted: str) -> Row:
    arguments: Row = {}
    for name, what in schema["properties"].items():
        if name in NAMED:
            arguments[name] = NAMED[name]
        elif name in schema.get("required", ()):
            kinds = {"string": planted, "integer": 1, "number": 1, "boolean": False, "array": [planted]}
            arguments[name] = kinds[what["type"]]
    return arguments


async def test_no_tool_lets_one_out(sandbox: Sandbox, tracer: _Tracer, caplog: pytest.LogCaptureFixture) -> None:
    """Every tool, called twice over an API that puts secrets into every text: as far as it gets, and with nonsense."""
    pod_id = await rent(sandbox, "train", termination_hours=9)
    template_id = await make_template(sandbox, "mine", environment={"TOKEN": "env1ronment-value"})
    async with every_tool_on(sandbox, transport=hostile(sandbox)) as agent:
        seen = 0
        for item in read_listing():
            for planted in (OTHER_KEY, ADDRESS):
                arguments = arguments_of(item.tool.input_schema, planted)
                arguments |= {"pod": pod_id} if "pod" in arguments else {}
                arguments |= {"template": template_id} if "template" in arguments and "rent" not in item.name else {}
                answer = await agent.raw(item.name, **arguments)
                assert_clean(answer.model_dump_json(), item.name)
                seen += REDACTED in text_of(answer)
        assert seen > 30, "the secrets were planted"
        assert_clean(" ".join(agent.progress), "progress")
        for resource in (await agent.client.list_resources()).resources:
            assert_clean((await agent.client.read_resource(resource.uri)).model_dump_json(), str(resource.uri))
        for address in (
            f"pods/{pod_id}",
            "pods/sk_live_4f9a2bC-77e",
            f"templates/{template_id}",
            f"backups/{OTHER_KEY}",
        ):
            try:
                read = await agent.client.read_resource(f"lium://{address}")
            except MCPError as error:
                assert_clean(str(error), address)
            else:
                assert_clean(read.model_dump_json(), address)
    assert len(tracer.seen) > 100
    assert len(caplog.records) > 80
    assert_clean(" ".join(text for text in tracer.seen if "resources/read" not in text), "traces")
    for file in Path.home().glob("ledger-*"):
        assert_clean(file.read_bytes().decode(errors="replace"), file.name)


REFUSALS = {
    "json": (
        400,
        {"error": {"code": "x", "message": PLANTED, "hint": PLANTED, "request_id": PLANTED}, "message": PLANTED},
    ),
    "detail": (403, {"detail": PLANTED}),
    "validation": (422, {"detail": [{"loc": ["body", PLANTED], "msg": PLANTED, "type": "x"}]}),
    "server": (500, {"detail": {"message": PLANTED}}),
    "text": (502, PLANTED),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_no_refusal_repeats_one(sandbox: Sandbox, tracer: _Tracer, kind: str) -> None:
    status, body = REFUSALS[kind]
    wire = Wire(sandbox)
    async with agent_on(
        sandbox, transport=wire, allow_tools="rent_pod,list_pods,remove_pod", log_level="DEBUG"
    ) as agent:
        await agent.call("rent_pod", name="first", gpu_type="RTX4090", hours=1)
        wire.on("POST", "/executors/*", answering(status, body))
        wire.on("POST", "/executors/*/rent", answering(status, body))
        wire.on("DELETE", "/pods/*", answering(status, body))
        for tool, arguments in (
            ("rent_pod", {"name": "train", "gpu_type": "RTX4090", "wait_seconds": 0}),
            ("remove_pod", {"pod": "first"}),
            ("list_pods", {}),
        ):
            assert_clean((await agent.raw(tool, **arguments)).model_dump_json(), tool)
    assert_clean(" ".join(tracer.seen), "traces")
    [ledger] = Path.home().glob("ledger-*.db")
    for file in Path.home().glob(f"{ledger.name}*"):
        assert_clean(file.read_bytes().decode(errors="replace"), file.name)


async def test_a_registry_password_stays_in_its_variable(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_MCP_REGISTRY_DOCKER", "r3g1stryPassw0rd")
    monkeypatch.setenv("OTHER_SECRET", "r3g1stry-other")
    wire = Wire(sandbox)
    for status in (400, 403, 422, 500):
        wire.on("POST", "/docker-credentials/", answering(status, {"detail": "no r3g1stryPassw0rd"}), times=1)
    tools = "add_registry_credential"
    async with agent_on(sandbox, transport=wire, toolsets=frozenset({"extras"}), allow_tools=tools) as agent:
        for variable in ("LIUM_MCP_REGISTRY_DOCKER",) * 4 + ("OTHER_SECRET", "LIUM_API_KEY", "r3g1stryPassw0rd"):
            failure = await agent.refused(tools, username="bot", password_variable=variable)
            assert_clean(failure.text)
        assert_clean(str(await agent.call(tools, username="bot", password_variable="LIUM_MCP_REGISTRY_DOCKER")))


async def test_values_of_an_environment_stay_in_their_template(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    echo = {"detail": "bad value env1ronment-value-1 in TOKEN"}
    wire.on("POST", "/templates", answering(422, echo), times=1)
    tools = frozenset({"create_template", "update_template", "get_template", "list_templates"})
    async with agent_on(sandbox, transport=wire, allow_tools=tools, confirm="never") as agent:
        arguments: Row = {"name": "t", "image": "me/mine:1", "environment": ["TOKEN=env1ronment-value-1"]}
        assert_clean((await agent.refused("create_template", **arguments)).text)
        assert_clean(str(await agent.call("create_template", **arguments)))
        for value in ("env1ronment-value-1", "TOKEN=env1ronment\nvalue", "=env1ronment"):
            answer = await agent.raw("update_template", template="t", environment=[value])
            assert_clean(answer.model_dump_json())
        assert_clean(str(await agent.call("get_template", template="t")))
        assert_clean(str(await agent.call("list_templates", mine=True)))


@pytest.mark.parametrize(
    "database", ["postgresql://svc:pgS3cret@127.0.0.1:1/db", "postgresql://svc:pgS3cret@no.invalid/db"]
)
async def test_a_database_that_is_not_there_does_not_tell_its_password(sandbox: Sandbox, database: str) -> None:
    async with agent_on(sandbox, state_url=database, allow_tools="rent_pod,list_pods", log_level="DEBUG") as agent:
        failure = await agent.refused("rent_pod", name="train", gpu_type="RTX4090")
        assert failure.code == "ledger_unavailable"
        assert_clean(failure.text)
        assert_clean((await agent.raw("list_pods")).model_dump_json())


# --- what this program says of itself --------------------------------------------------------------------------------


def test_no_representation_holds_one(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_API_KEY", OTHER_KEY)
    settings = Settings(state_url="postgresql://svc:pgS3cret@127.0.0.1/db", base_url="http://127.0.0.1/api")
    runtime, accounts = make_runtime(settings, (), transport=sandbox.transport())
    own = accounts.own
    for thing in (settings, runtime, accounts, own, own.lium, own.renter, runtime.policy, Caller(OTHER_KEY)):
        for text in (repr(thing), str(thing), f"{thing}"):
            assert_clean(text, type(thing).__name__)
    assert_clean(settings.model_dump_json())
    assert OTHER_KEY in settings.find_secrets()
    assert "pgS3cret" in settings.find_secrets()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_crash_is_logged_without_one(as_json: bool) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(Redactor([OWN_KEY, "pgS3cret"]), as_json=as_json))
    logger = logging.getLogger("lium_mcp.tests.crash")
    logger.addHandler(handler)
    cause = ValueError(f"{PLANTED} pgS3cret".replace(CUT_KEY, ""))  # after a cut key nothing is shown

    def crash() -> None:
        raise RuntimeError(f"{OTHER_KEY} {ADDRESS}") from cause

    try:
        crash()
    except RuntimeError:
        logger.exception(
            "It failed with %s",
            PLANTED.replace(CUT_KEY, ""),
            extra={"fields": {"tool": OTHER_KEY, "password": "hunter2"}},
        )
    written = stream.getvalue()
    assert "RuntimeError" in written
    assert_clean(written)
    if as_json:
        assert json.loads(written)["level"] == "ERROR"


# --- the rules themselves --------------------------------------------------------------------------------------------

FIELDS = (
    "password", "docker_password", "dockerPassword", "api_key", "apiKey", "API_KEY", "api-key", "X-API-Key", "token",
    "session_token", "accessToken", "secret", "client_secret", "authorization", "Authorization", "cookie",
    "private_key", "privateKey", "environment", "env", "credentials", "passphrase", "environment_values",
    "password_value",
)  # fmt: skip
NO_SECRET_FIELDS = (
    "environment_names", "registry_credential_id", "key_id", "next_cursor", "public_key", "pod_id", "tokens", "total",
    "fingerprint", "env_count", "api_key_name", "password_variable", "jupyter_url", "by_key",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_holds_a_secret_is_blank(field: str) -> None:
    value = redact({field: {"A": "plain words", "B": ["x", 3]}, "name": "plain words"})
    assert value == {field: {"A": REDACTED, "B": [REDACTED, 3]}, "name": "plain words"}


@pytest.mark.parametrize("field", NO_SECRET_FIELDS)
def test_a_field_that_holds_none_stays(field: str) -> None:
    assert redact({field: "plain words"}) == {field: "plain words"}


texts = st.text() | st.lists(
    st.sampled_from(
        [*PLANTED.split(" "), " ", "\n", "@", ":", "://", "sk_", "-----", "Bearer ", "X-API-KEY: ", REDACTED]
    )
).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=8,
)


@given(texts)
@example(f"a://u:{OTHER_KEY}@h")
@example("X-API-KEY: Bearer X-API-KEY: abcdefghij")
def test_a_text_that_was_redacted_stays_as_it_is(text: str) -> None:
    redact_own = Redactor([OWN_KEY])
    once = redact_own(text)
    assert redact_own(once) == once
    assert OWN_KEY not in once


@given(values)
def test_a_value_that_was_redacted_stays_as_it_is(value: Any) -> None:
    once = redact(value)
    assert repr(redact(once)) == repr(once)  # NaN is no equal of itself


@given(st.text("abcdefghij XYZ0123456789.,-()\n"), st.text("abcdefghij XYZ0123456789.,-()\n"))
def test_a_secret_goes_wherever_it_stands(before: str, after: str) -> None:
    for secret in (f"{OTHER_KEY} ", ADDRESS, DATABASE, f"{SESSION} ", PRIVATE_KEY, CUT_KEY):
        assert_clean(redact_text(f"{before} {secret}{after}"))


HARMLESS = (
    "9902b705-b801-4570-93d1-66d82920809c",
    PUBLIC_KEY,
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 me@laptop",
    "SHA256:uNiVztksCsDhcc0u9e8BrrJXVQ6Xq8TUGDFyNwfkYxo",
    "daturaai/pytorch:2.6.0-py3.11-cuda12.8",
    "ghcr.io/owner/image@sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b",
    "ssh root@203.0.113.7 -p 31022",
    "http://203.0.113.7:31808/lab?token=f3a1c09be4d94a7f8e1c2b3a4d5e6f70",
    "https://lium.io/api/pods?view=summary&user=a@b.c",
    "git@github.com:owner/repository.git",
    "https://user@host.example/path",
    "mail me@example.com: today",
    "cosmic-hawk-f2",
    "NVIDIA GeForce RTX 4090, 24564 MiB",
    "2026-11-20T12:00:00Z",
    "/root/.ssh/id_ed25519",
    "-----BEGIN CERTIFICATE-----",
    "task_skipped sk_ desk_lamp1",
    "over HTTP, send it in the header X-API-Key), and restart the server",
    r"C:\new\tools\x41 \u0041\\n",
    "100% of a%20b%2Fc%C3%A9 &amp; &lt;b&gt; &#65;",
    '{"level": "info", "text": "a \\"quoted\\" word\\n"}',
    "AAAAB3NzaC1yc2EAAAADAQABAAABgQC7dXNlcjpub2JvZHk=",
)


@pytest.mark.parametrize(
    "text",
    [
        "BEARER abcd.efgh-1234_5678",
        "Author\u0130zation: Basic Ym90Omh1bnRlcjI=",
        "author\u0131zation: Ba\u017f\u0131c Ym90Omh1bnRlcjI=",
        "x-ap\u0130-\u212aey: q9q9q9q9q9q9",
    ],
)
def test_a_secret_goes_in_whatever_letters_its_name_is_written(text: str) -> None:
    assert_clean(redact_text(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text
    assert redact_text(f"see {text}, and more") == f"see {text}, and more"
    assert redact({"name": text}) == {"name": text}


@given(
    st.uuids().map(str) | st.from_regex(r"[a-z0-9]{1,20}(/[a-z0-9._-]{1,20}){0,2}:[a-z0-9._-]{1,20}", fullmatch=True)
)
def test_ids_and_images_stay(text: str) -> None:
    assert redact_text(text) == text


def test_long_texts_are_searched_in_no_time() -> None:
    for text in (
        "sk_" * 50_000,
        "a" * 200_000,
        "x://" * 50_000,
        "a:" * 100_000,
        "-----BEGIN " * 20_000,
        "eyJ" * 70_000,
        "eyJ-" * 50_000,
        "\\" * 200_000,
        "%" + "25" * 100_000,
        "\\u0041" * 30_000,
        "&amp;" * 40_000,
        "\\n" * 100_000,
    ):
        redact_text(text)
    redact_text("X-API-KEY " + " " * 100_000)
    redact_text("eyJ" + "a" * 100_000 + "." + "b" * 100_000)


# --- secrets that other programs have escaped ------------------------------------------------------------------------

PASSWORDS = (
    'x"RegPw77',
    "pa ss+w0rd/&%41",
    "p\\ass'w0rd<7>",
    "geh\u00e9im \U0001f511 w0rt",
    "%2541\\u0041 pw",
    "aaaa\\\\bbbb",
)
ENCODERS: dict[str, Callable[[str], str]] = {
    "json": lambda text: json.dumps(text)[1:-1],
    "json as it is": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "path": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "lower path": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "html": html.escape,
    "unicode": lambda text: "".join(f"\\u{unit:04x}" for unit in utf16(text)),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "url base64": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}


def utf16(text: str) -> Iterator[int]:
    raw = text.encode("utf-16-be")
    return (int.from_bytes(raw[place : place + 2], "big") for place in range(0, len(raw), 2))


@pytest.mark.parametrize("outer", ["", *ENCODERS])
@pytest.mark.parametrize("inner", ["", *ENCODERS])
@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_is_found_in_every_form(password: str, inner: str, outer: str) -> None:
    if outer.endswith("base64") and inner not in {"", "json", "json as it is"}:
        return  # in base64 a text is looked for as it is, and as JSON has it
    logins = [f"{user}:{password}:end" for user in ("", "u", "us")]  # base64 spells it by where it begins
    for login in logins:
        text = login
        for name in (inner, outer):
            text = ENCODERS[name](text) if name else text
        clean = Redactor([password])(f"login {text} refused")
        assert clean.startswith("login ")
        assert clean.endswith(" refused")
        assert REDACTED in clean
        bare = text.strip("=")
        assert bare not in clean
        assert len(clean) < len(f"login {text} refused") + len(REDACTED) - len(password) // 2


def _spellings(char: str) -> list[str]:
    spelt = [
        f"\\u{ord(char):04x}",
        f"\\u{ord(char):04X}",
        f"\\x{ord(char):02x}",
        f"%{ord(char):02X}",
        f"&#{ord(char)};",
    ]
    return [*spelt, f"%{ord(char):02x}", f"&#x{ord(char):X};", *([] if char.isalnum() else [f"\\{char}"]), char]


@given(st.data(), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=24))
def test_a_secret_is_found_however_each_of_its_characters_is_spelt(data: st.DataObject, secret: str) -> None:
    text = "".join(data.draw(st.sampled_from(_spellings(char))) for char in secret)
    redact_it = Redactor([secret])
    assert redact_it(f"zz{secret}zz") == f"zz{REDACTED}zz"
    assume(not re.search(r"[\\%&]", secret))  # it would be an escape itself, whose parts nobody escapes one by one
    assert redact_it(f"zz{text}zz") == f"zz{REDACTED}zz"
    for encode in (json.dumps, quote, html.escape):
        assert redact_it(f"zz {encode(text)} zz").replace('"', "") == f"zz {REDACTED} zz"


@given(
    st.lists(
        st.sampled_from([*"abc u0041x25%&;\\\"'{}+\n", "%41", "\\u0042", "\\n", "&amp;", "&#65;", "\\ud83d", "%C3%A9"])
    )
)
def test_a_text_without_the_secret_stays_as_it_is(parts: list[str]) -> None:
    text = "".join(parts)
    assert Redactor(["Zq9!Zq9!", 'x"RegPw77'])(text) == text


@pytest.mark.parametrize("form", ["json", "path", "html", "unicode"])
def test_what_looks_like_a_secret_does_so_when_it_is_escaped(form: str) -> None:
    for planted in (
        OTHER_KEY,
        ADDRESS,
        DATABASE,
        SESSION,
        PRIVATE_KEY,
        "Authorization: Basic Ym90Omh1bnRlcjI=",
        "\n" + OTHER_KEY,
    ):
        text = ENCODERS[form](f"see {planted} there")
        clean = redact_text(text)
        assert REDACTED in clean
        assert_clean(codecs.decode(unquote(clean).encode("ascii", "backslashreplace"), "unicode_escape"))
    docker = json.dumps({"auths": {"registry.example": {"auth": "Ym90Omh1bnRlcjI="}}})
    assert_clean(redact_text(docker))
    assert_clean(redact_text(json.dumps(docker)))


async def test_lium_repeats_a_registry_password_in_every_form(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = PASSWORDS[0]
    monkeypatch.setenv("LIUM_MCP_REGISTRY_DOCKER", password)
    tools = frozenset({"add_registry_credential", "list_pods"})
    for encode in ENCODERS.values():
        said = encode(f"bot:{password}")
        wire = Wire(sandbox)
        error = {"code": said, "message": f"not {said}", "hint": said, "request_id": said}
        wire.on("POST", "/docker-credentials/", answering(400, {"error": error}), times=1)
        wire.on("GET", "/pods", answering(403, {"detail": said}), times=1)
        async with agent_on(
            sandbox, transport=wire, toolsets=frozenset({"extras", "pods"}), allow_tools=tools
        ) as agent:
            stored = await agent.refused(
                "add_registry_credential", username="bot", password_variable="LIUM_MCP_REGISTRY_DOCKER"
            )
            for failure in (stored, await agent.refused("list_pods")):
                assert REDACTED in failure.text
                assert "RegPw77" not in codecs.decode(html.unescape(unquote(failure.text)), "unicode_escape")
                assert base64.b64encode(password.encode()).decode()[2:10] not in failure.text
            assert REDACTED in (stored.request_id or "")


@pytest.mark.parametrize("between", ["\x1b[31m", "\u200b", "\r\n   ", "\n"])
async def test_a_secret_in_pieces_is_found_wherever_it_comes_out(sandbox: Sandbox, between: str) -> None:
    # A line may end with another's key, of which nobody could say where it ends.
    others = "" if "\n" in between else OTHER_KEY.replace("4f9", f"4f9{between}")
    said = f"not {OWN_KEY[:6]}{between}{OWN_KEY[6:]} {others} there"
    wire = Wire(sandbox)
    wire.on("GET", "/pods", answering(403, {"detail": said}), times=1)
    async with agent_on(sandbox, transport=wire, allow_tools=frozenset({"list_pods"})) as agent:
        refused = (await agent.refused("list_pods")).text
        await rent(sandbox, said)
        listed = json.dumps((await agent.call("list_pods"))["pods"])
    for text in (refused, listed, Redactor([OWN_KEY])(said), Redactor([OWN_KEY])(json.dumps(said))):
        assert REDACTED in text
        assert "there" in text
        assert "dbox_" not in text
        assert "a2bC" not in text
