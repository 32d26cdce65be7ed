"""What calls do beyond sending a body: filters, pages, fallbacks, merges, logs, local refusals."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import datetime
from typing import Any

import httpx2
import pytest

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import (
    FirewallBlocked,
    InvalidRequest,
    LiumError,
    NotFound,
    NotLium,
    UnreadableResponse,
)
from lium_mcp.api.pods.models import FeedbackRequest
from lium_mcp.api.templates import TemplateChanges, TemplateCreate
from tests.api.fakes import NODE_ID, POD_ID, Reply, client_on, ok, refusal, scripted

# Pods.


async def test_feedback_that_the_firewall_blocks_does_not_stop_a_removal() -> None:
    blocked = httpx2.Response(403, html="<html>blocked</html>")
    wire = scripted(blocked, ok())
    async with client_on(wire) as client:
        await client.pods.remove(POD_ID, feedback=FeedbackRequest(feedback_text="see http://203.0.113.1"))
    assert [request.method for request in wire.requests] == ["DELETE", "DELETE"]
    assert wire.requests[1].content == b""


async def test_removal_that_the_firewall_blocks_without_feedback_is_an_error() -> None:
    async with client_on(scripted(httpx2.Response(403, html="<html>blocked</html>"))) as client:
        with pytest.raises(FirewallBlocked):
            await client.pods.remove(POD_ID)


@pytest.mark.parametrize(
    ("said", "is_going"),
    [
        ("Pod is already being terminated", True),
        (f"Pod {POD_ID} was already deleted", True),
        ("Pod cannot be removed: backup deletion already in progress", False),
        ("The pod is not removed while its volume is being deleted", False),
        ("Pod is already starting", False),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 409])
async def test_removal_is_refused_only_where_it_is_not_under_way(status: int, said: str, is_going: bool) -> None:
    async with client_on(scripted(refusal(status, {"success": False, "message": said}))) as client:
        with nullcontext() if is_going else pytest.raises(LiumError, match=said):
            await client.pods.remove(POD_ID)


@pytest.mark.parametrize("reply", [ok(), httpx2.Response(200, text="OK"), httpx2.Response(204), httpx2.Response(202)])
async def test_any_success_acknowledges(reply: httpx2.Response) -> None:
    async with client_on(scripted(reply)) as client:
        await client.pods.remove(POD_ID)


async def test_change_whose_answer_cannot_be_read_may_have_happened() -> None:
    async with client_on(scripted(ok([]))) as client:
        with pytest.raises(UnreadableResponse) as caught:
            await client.pods.reboot(POD_ID)
    assert caught.value.effect == "unknown"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.volumes.update(NODE_ID, name="data"),
        lambda c: c.templates.update(NODE_ID, TemplateChanges(name="data")),
        lambda c: c.backup_schedules.update(NODE_ID, backup_path="/root", backup_frequency_hours=6, retention_days=7),
    ],
    ids=["volume", "template", "schedule"],
)
async def test_what_was_changed_is_read_where_the_answer_is_a_bare_success(
    change: Callable[[LiumClient], Awaitable[Any]],
) -> None:
    def reply(request: httpx2.Request) -> httpx2.Response:
        row = {"id": NODE_ID, "name": "shown", "retention_days": 7}
        listed = request.url.path.endswith("/backup-configs")
        return ok({"success": True} if request.method == "PUT" else [row] if listed else row)

    wire = scripted(*[reply] * 3)
    async with client_on(wire) as client:
        changed = await change(client)
    assert changed.id == NODE_ID
    assert wire.requests[-1].method == "GET"


async def test_reboot_attaches_a_volume() -> None:
    wire = scripted(ok({"id": POD_ID}))
    async with client_on(wire) as client:
        await client.pods.reboot(POD_ID, volume_id=NODE_ID)
    assert wire.sent_json() == {"volume_id": NODE_ID}


async def test_gpu_reset_of_all_gpus_says_null_and_waits_longer() -> None:
    wire = scripted(ok({"ok": True}))
    async with client_on(wire) as client:
        assert (await client.pods.reset_gpus(POD_ID)).state == "done"
    assert wire.sent_json() == {"gpu_indices": None}
    assert wire.requests[0].extensions["timeout"]["read"] == 120


LOG = b"\n".join(
    [
        b'data: {"log": "first\\n"}',
        b"",
        b'data: {"log": "second"}\r',
        b": keep-alive",
        b"event: log",
        b"id: 7",
        b"retry: 3000",
        b'data:{"log": ""}',
        b'data: {"type": "ping"}',
        b"data: {}",
        b'data: "bare"',
        b"plain text: of a server that frames nothing",
        b"data: not json",
        b'data: {"other": 1}',
        b'data: ["log"]',
        b"data: " + b"[" * 5000,
        b"\xff\xfe",
    ]
)


async def test_log_lines_are_unwrapped_and_what_only_frames_them_is_left_out() -> None:
    wire = scripted(httpx2.Response(200, content=LOG))
    async with client_on(wire) as client:
        lines = (await client.pods.logs(POD_ID, tail=10)).lines
    assert lines == [
        "first",
        "second",
        "",
        "bare",
        "plain text: of a server that frames nothing",
        "not json",
        '["log"]',
        "[" * 5000,
        "\ufffd\ufffd",
    ]
    assert dict(wire.requests[0].url.params) == {"tail": "10", "follow": "false"}


async def test_log_keeps_its_newest_lines_within_the_limit() -> None:
    text = "".join(f"line {number:04}\n" for number in range(1000))
    async with client_on(scripted(*[httpx2.Response(200, text=text) for _ in range(3)])) as client:
        assert await client.pods.logs(POD_ID, max_bytes=25) == (["line 0998", "line 0999"], True, True)
        assert await client.pods.logs(POD_ID, max_bytes=5) == ([], True, True)
        assert await client.pods.logs(POD_ID, tail=1) == (["line 0999"], False, True)


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_very_long_log_line_comes_in_pieces(end: bytes) -> None:
    async with client_on(scripted(httpx2.Response(200, content=b"x" * 900_000 + end))) as client:
        lines = (await client.pods.logs(POD_ID)).lines
    assert "".join(lines) == "x" * 900_000
    assert max(map(len, lines)) <= 2**18


@pytest.mark.parametrize(
    ("page", "content_type"),
    [
        ("hello", "text/html; charset=utf-8"),
        ("\ufeff\n <!DOCTYPE HTML>\n", "text/plain"),
        ("<html>", "text/event-stream"),
    ],
)
async def test_web_page_is_no_log(page: str, content_type: str) -> None:
    answer = httpx2.Response(200, text=page, headers={"Content-Type": content_type})
    async with client_on(scripted(answer)) as client:
        with pytest.raises(NotLium):
            await client.pods.logs(POD_ID)


async def test_log_is_opened_again_after_what_passes_and_refused_for_good_reasons() -> None:
    wire = scripted(refusal(502), refusal(429), httpx2.Response(200, text='data: {"log": "up"}\n\n'), refusal(404))
    async with client_on(wire) as client:
        assert (await client.pods.logs(POD_ID)).lines == ["up"]
        with pytest.raises(NotFound):
            await client.pods.logs(POD_ID)


# Templates.


async def test_template_update_sends_the_whole_template_with_the_changes() -> None:
    current = {
        "id": NODE_ID,
        "user_id": POD_ID,
        "status": "CREATED",
        "name": "env",
        "docker_image": "img",
        "environment": None,
        "volumes": None,
        "entrypoint": None,
        "is_temporary": True,
        "one_time_template": False,
        "supports_docker": True,
        "docker_credential_id": POD_ID,
        "created_at": "2026-01-01T00:00:00",
        "from_tomorrow": 1,
    }
    wire = scripted(ok(current), ok(current))
    async with client_on(wire) as client:
        await client.templates.update(NODE_ID, TemplateChanges(environment={"A": "1"}))
    assert wire.sent_json() == {
        "name": "env",
        "docker_image": "img",
        "environment": {"A": "1"},
        "supports_docker": True,
        "docker_credential_id": POD_ID,
        "from_tomorrow": 1,
    }


async def test_one_time_template_stays_one() -> None:
    wire = scripted(ok({"id": NODE_ID, "name": "a", "one_time_template": True}), ok({"id": NODE_ID}))
    async with client_on(wire) as client:
        await client.templates.update(NODE_ID, TemplateChanges(name="b"))
    assert wire.sent_json() == {"name": "b", "one_time_template": True}


async def test_template_that_cannot_be_read_is_not_overwritten() -> None:
    wire = scripted(ok([]))
    async with client_on(wire) as client:
        with pytest.raises(UnreadableResponse) as caught:
            await client.templates.update(NODE_ID, TemplateChanges(name="b"))
    assert len(wire.requests) == 1
    assert caught.value.effect == "none"


async def test_new_template_may_name_a_registry_login() -> None:
    wire = scripted(ok({"id": NODE_ID}))
    async with client_on(wire) as client:
        await client.templates.create(
            TemplateCreate(name="a", docker_image="i", description="d", docker_credential_id=POD_ID)
        )
    sent = wire.sent_json()
    assert (sent["docker_credential_id"], sent["description"], sent["readme"]) == (POD_ID, "d", "a")


# Backups, restores, paging.


def page(*ids: str, has_next: bool) -> httpx2.Response:
    return ok({"items": [{"id": identifier, "status": "COMPLETED"} for identifier in ids], "has_next": has_next})


async def test_all_pages_are_fetched() -> None:
    wire = scripted(page("1", "2", has_next=True), page("3", has_next=False))
    async with client_on(wire) as client:
        backups = await client.backups.list()
    assert [backup.id for backup in backups] == ["1", "2", "3"]
    assert [request.url.params["page"] for request in wire.requests] == ["1", "2"]
    assert not backups.truncated


async def test_bare_list_of_an_older_server_is_the_only_page() -> None:
    async with client_on(scripted(ok([{"id": "1"}, {}]), ok([{"id": "1"}]))) as client:
        backups = await client.backups.list(pod_id=POD_ID)
        assert (len(backups), backups.skipped) == (1, 1)
        assert len(await client.restores.list(POD_ID)) == 1


@pytest.mark.parametrize(("different", "asked"), [(1, 2), (100, 100)])
async def test_server_that_never_ends_is_left_after_a_bound(different: int, asked: int) -> None:
    wire = scripted(*[page(str(number % different), has_next=True) for number in range(100)])
    async with client_on(wire) as client:
        backups = await client.backups.list()
    assert (len(backups), len(wire.requests)) == (different, asked)
    assert backups.truncated


async def test_empty_page_ends_the_list_whatever_it_promises() -> None:
    async with client_on(scripted(page("1", has_next=True), page(has_next=True))) as client:
        assert len(await client.backups.list()) == 1


async def test_pod_without_backups_or_restores_has_none() -> None:
    async with client_on(scripted(refusal(404), refusal(404), refusal(404))) as client:
        assert await client.backups.list(pod_id=POD_ID) == []
        assert await client.restores.list(POD_ID) == []
        with pytest.raises(NotFound):
            await client.backups.list()


async def test_volume_can_be_renamed() -> None:
    wire = scripted(ok({"id": NODE_ID}))
    async with client_on(wire) as client:
        assert (await client.volumes.update(NODE_ID, name="b")).huid == "golden-eagle-e5"
    assert wire.sent_json() == {"name": "b"}


@pytest.mark.parametrize("body", [{"restore_log_id": "r"}, {"operation_id": "r"}, {"restore_id": "r"}])
async def test_restore_has_an_id_whatever_the_server_calls_it(body: dict[str, str]) -> None:
    async with client_on(scripted(ok(body))) as client:
        started = await client.restores.start(POD_ID, backup_id=NODE_ID, restore_path="/root/restored")
    assert started.id == "r"


@pytest.mark.parametrize("content", [b"null", b"", b"{}"])
async def test_empty_schedule_is_none(content: bytes) -> None:
    async with client_on(scripted(httpx2.Response(200, content=content))) as client:
        assert await client.backup_schedules.get_for_pod(POD_ID) is None


# Answers in the wrong shape.


@pytest.mark.parametrize("reply", [ok({}), ok("text"), ok(7), ok({"items": {}}), httpx2.Response(200, text="<html>")])
async def test_list_in_another_shape_is_not_an_empty_list(reply: Reply) -> None:
    async with client_on(scripted(reply)) as client:
        with pytest.raises(UnreadableResponse):
            await client.pods.list()


# Local refusals.

Call = Callable[[LiumClient], Awaitable[Any]]
SENSELESS: dict[str, Call] = {
    "machine_name": lambda c: c.machines.request(" ", gpu_count=1),
    "gpu_count": lambda c: c.machines.request("NVIDIA H200", gpu_count=0),
    "executor_id": lambda c: c.executors.quote("", hours=1),
    "template_id": lambda c: c.pods.switch_template(POD_ID, template_id="a/b"),
    "gpu_indices": lambda c: c.pods.reset_gpus(POD_ID, gpu_indices=[]),
    "negative": lambda c: c.pods.reset_gpus(POD_ID, gpu_indices=[-1]),
    "tail": lambda c: c.pods.logs(POD_ID, tail=0),
    "rating": lambda c: c.pods.send_feedback(POD_ID, FeedbackRequest(rating=6)),
    "time zone": lambda c: c.pods.schedule_removal(POD_ID, at=datetime(2026, 1, 1)),  # noqa: DTZ001 - the point
    "port": lambda c: c.pods.install_jupyter(POD_ID, port=0),
    "name": lambda c: c.volumes.create(name="a" * 101),
    "description": lambda c: c.volumes.update(NODE_ID),
    "letters": lambda c: c.volumes.update(NODE_ID, name="a\n"),
    "docker_image": lambda c: c.templates.create(TemplateCreate(name="a", docker_image="")),
    "No field": lambda c: c.templates.update(NODE_ID, TemplateChanges()),
    "backup_frequency_hours": lambda c: c.backup_schedules.create(POD_ID, backup_path="", backup_frequency_hours=169),
    "retention_days": lambda c: c.backup_schedules.create(POD_ID, backup_path="", retention_days=0),
    "name is empty": lambda c: c.backups.start(POD_ID, name=""),
    "restore_path": lambda c: c.restores.start(POD_ID, backup_id=NODE_ID, restore_path="root"),
    "public_key": lambda c: c.ssh_keys.create(name="a", public_key=""),
    "private key": lambda c: c.ssh_keys.create(name="a", public_key="-----BEGIN OPENSSH PRIVATE KEY-----"),
}


@pytest.mark.parametrize(("named", "call"), SENSELESS.items(), ids=SENSELESS)
async def test_senseless_argument_is_named_and_nothing_is_sent(named: str, call: Call) -> None:
    async with client_on(scripted()) as client:
        with pytest.raises(InvalidRequest, match=named) as caught:
            await call(client)
    assert caught.value.effect == "none"
    assert isinstance(caught.value, ValueError)
