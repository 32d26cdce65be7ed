"""Models read what servers of any age send: nothing crashes, nothing known is lost, secrets stay out of sight."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lium_mcp.api.account import Me
from lium_mcp.api.backups import Backup
from lium_mcp.api.docker_credentials import DockerCredential
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.fields import read_float, read_int, read_text, read_time
from lium_mcp.api.machines import Machine
from lium_mcp.api.pods.models import GpuResetState, Pod, PodDetail, SshTarget
from lium_mcp.api.restores import Restore
from lium_mcp.api.templates import Template
from lium_mcp.api.volumes import Volume
from tests.api.fakes import NODE_ID, POD_ID, client_on, ok, scripted


def executor(**fields: Any) -> Executor:
    return Executor.model_validate({"id": NODE_ID, **fields})


def pod(**fields: Any) -> Pod:
    return Pod.model_validate({"id": POD_ID, **fields})


# Numbers, times, texts.


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, 2),
        ("2", 2),
        (" 2 ", 2),
        ("2\x1f", 2),
        ("2.0", 2),
        (2.9, 2),
        ("-3", -3),
        ("1e3", 1000),
        (2**63, None),
        ("9" * 40, None),
        (True, None),
        ("", None),
        ("two", None),
        ("1_000", None),
        ("\u0662", None),
        (None, None),
        ([], None),
        (float("nan"), None),
        (float("inf"), None),
        ("NaN", None),
    ],
)
def test_whole_number_is_read_or_left_out(value: object, expected: int | None) -> None:
    assert read_int(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("2.5", 2.5), (".5", 0.5), ("1e400", None), (10**400, None), ("inf", None), (True, None), ({}, None)],
)
def test_number_is_read_or_left_out(value: object, expected: float | None) -> None:
    assert read_float(value) == expected


@pytest.mark.parametrize(("value", "expected"), [("a", "a"), (7, "7"), (True, None), ({}, None)])
def test_text_is_read_or_left_out(value: object, expected: str | None) -> None:
    assert read_text(value) == expected


def test_number_too_long_to_write_has_no_text() -> None:
    assert read_text(10**5000) is None


@given(number=st.integers(-(2**63) + 1, 2**63 - 1))
def test_whole_number_survives_as_number_and_as_text(number: int) -> None:
    assert read_int(number) == read_int(str(number)) == number


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_number_survives_as_number_and_as_text(number: float) -> None:
    assert read_float(number) == read_float(repr(number)) == number


@given(value=st.text() | st.integers() | st.floats() | st.binary() | st.booleans() | st.none())
def test_any_value_is_read_or_left_out(value: object) -> None:
    for read in (read_int, read_float, read_time, read_text):
        read(value)


@pytest.mark.parametrize(
    "text",
    [
        "2026-10-06T12:00:00",
        "2026-10-06T12:00:00Z",
        "2026-10-06t12:00:00z",
        "2026-10-06 12:00:00.000000",
        "2026-10-06T14:00:00+02:00",
        " 2026-10-06T12:00:00.0Z",
    ],
)
def test_time_is_utc_with_and_without_a_zone(text: str) -> None:
    read = read_time(text)
    assert read == datetime(2026, 10, 6, 12, tzinfo=UTC)
    assert read is not None
    assert read.utcoffset() == timedelta()


@pytest.mark.parametrize("value", ["", "soon", "2026-13-01", 1780000000, None, "0001-01-01T00:00:00+23:59", {}])
def test_what_is_no_time_is_left_out(value: object) -> None:
    assert read_time(value) is None


@given(moment=st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_time_survives_being_written(moment: datetime) -> None:
    expected = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        expected = expected.astimezone(UTC)
    except OverflowError:
        assert read_time(moment.isoformat()) is None
    else:
        assert read_time(moment.isoformat()) == expected


# Rows.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data(), model=st.sampled_from([Executor, Pod, PodDetail, Template, Backup, Restore, Volume, Me]))
def test_row_with_an_id_is_readable_whatever_else_it_holds(data: st.DataObject, model: type[Executor | Pod]) -> None:
    names = st.sampled_from(sorted(model.model_fields)) | st.text(max_size=10)
    row = {**data.draw(st.dictionaries(names, JSON, max_size=8)), "id": POD_ID}
    read = model.model_validate(row)
    assert read.id == POD_ID
    repr(read)
    for name in dir(type(read)):
        if isinstance(getattr(type(read), name), property) and not name.startswith("model_") and name[0] != "_":
            getattr(read, name)


async def test_unreadable_row_is_counted_and_the_others_kept() -> None:
    rows = [{"id": POD_ID}, {"pod_name": "no id"}, None, 7, {"id": ""}, {"id": None}, {"id": NODE_ID, "price": "x"}]
    async with client_on(scripted(ok(rows))) as client:
        pods = await client.pods.list()
    assert [item.id for item in pods] == [POD_ID, NODE_ID]
    assert pods.skipped == 5
    assert pods == list(pods)


def test_unknown_values_survive_and_unknown_fields_are_left_out() -> None:
    read = pod(status="HIBERNATING", brand_new={"a": 1}, phase="warming up")
    assert (read.status, read.phase) == ("HIBERNATING", "warming up")
    assert "brand_new" not in read.model_dump()
    assert (read.is_ready, read.is_terminal, read.is_billing) == (False, False, False)


def test_models_cannot_be_changed() -> None:
    read = pod()
    with pytest.raises(ValidationError):
        setattr(read, "status", "RUNNING")  # noqa: B010 - a plain assignment is refused by the type checker already


@pytest.mark.parametrize(
    "read",
    [
        DockerCredential.model_validate({"id": "1", "docker_username": "u", "docker_password": "s3cr3t"}),
        Template.model_validate(
            {"id": "1", "environment": {"T": "s3cr3t"}, "startup_commands": "s3cr3t", "entrypoint": "s3cr3t"}
        ),
        pod(template={"environment": {"T": "s3cr3t"}, "startup_commands": "s3cr3t"}, jupyter_url="https://x/?t=s3cr3t"),
        pod(brand_new_password="s3cr3t"),
    ],
)
def test_secrets_do_not_show(read: object) -> None:
    assert "s3cr3t" not in f"{read!r} {read}"


# Executors.


def test_gpu_count_falls_back_in_the_contracts_order() -> None:
    details = [{"name": "NVIDIA H100"}] * 3
    assert executor(gpu_count="8", specs={"gpu": {"count": 4, "details": details}}).total_gpu_count == 8
    assert executor(specs={"gpu": {"count": "4", "details": details}}).total_gpu_count == 4
    assert executor(gpu_count="many", specs={"gpu": {"details": details}}).total_gpu_count == 3
    assert executor(specs=None).total_gpu_count is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"min_gpu_count_for_rental": 2}, 2),
        ({"min_gpu_count_for_rental": "2"}, 2),
        ({"min_gpu_count_for_rental": None}, 8),
        ({}, None),
        ({"min_gpu_count_for_rental": "few"}, None),
        ({"min_gpu_count_for_rental": 0}, None),
        ({"min_gpu_count_for_rental": -1}, None),
    ],
)
def test_null_smallest_count_is_the_whole_node_and_an_absent_one_is_unknown(
    fields: dict[str, Any], expected: int | None
) -> None:
    assert executor(gpu_count=8, **fields).smallest_rentable_gpu_count == expected


def test_gpu_type_comes_from_the_cards_where_the_machine_name_says_nothing() -> None:
    specs = {"gpu": {"details": [{"name": "NVIDIA GeForce RTX 4090"}]}}
    assert executor(machine_name="custom box", specs=specs).gpu_type == "RTX4090"
    assert executor(machine_name="NVIDIA H200", specs=specs).gpu_type == "H200"
    assert executor(machine_name="custom box").gpu_type == "box"


def test_sizes_are_converted_and_memory_is_less_the_reserve() -> None:
    gib = 2**20
    read = executor(
        specs={
            "ram": {"total": 64 * gib, "pod_reserve": 4 * gib},
            "hard_disk": {"total": 900 * gib, "free": 500 * gib},
            "gpu": {"details": [{"capacity": 24564}]},
            "cpu": {"count": "32"},
            "sysbox_runtime": True,
            "available_port_count": 7,
        },
        effective_download_speed_mbps="900.5",
        effective_upload_speed_mbps=100,
        location={"country_code": "de"},
        max_cuda_version="12.8",
    )
    assert (read.ram_gb, read.disk_gb) == pytest.approx((60 * 1.024**3, 500 * 1.024**3))
    assert (read.vram_gb_per_gpu, read.cpu_count) == (24, 32)
    assert (read.download_mbps, read.country_code) == (900.5, "DE")
    assert (read.docker_in_docker, read.port_count, read.cuda_version) == (True, 7, 12.8)


def test_sizes_have_floors_and_fallbacks() -> None:
    assert executor(specs={"ram": {"total": 10, "pod_reserve": 2**30}}).ram_gb == 1.073741824
    assert executor(specs={"hard_disk": {"total": 2**20}}).disk_gb == 1.073741824
    bare = executor(specs={"gpu": None, "cpu": [], "ram": "x"})
    assert (bare.ram_gb, bare.disk_gb, bare.vram_gb_per_gpu, bare.cpu_count, bare.country_code) == (None,) * 5
    assert bare.huid == "golden-eagle-e5"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"nvlink": True}, True),
        ({"nvlink": False, "interconnect": {"nvlink": True}}, False),
        ({"interconnect": {"nvlink": True}}, True),
        ({"specs": {"interconnect": {"nvlink": False}}}, False),
        ({}, None),
    ],
)
def test_nvlink_verdict_is_found_where_the_server_puts_it(fields: dict[str, Any], expected: bool | None) -> None:
    assert executor(**fields).has_nvlink is expected


# Pods.


@pytest.mark.parametrize(
    ("status", "ready", "terminal", "billing"),
    [
        ("PENDING", False, False, False),
        ("running", True, False, True),
        ("REBOOT_PENDING", False, False, True),
        ("REBOOT_FAILED", False, True, True),
        ("CREATION_FAILED", False, True, False),
        ("DELETING", False, True, False),
    ],
)
def test_pod_state_says_what_it_means(status: str, ready: bool, terminal: bool, billing: bool) -> None:
    read = pod(status=status, ssh_connect_cmd="ssh root@203.0.113.24 -p 31022")
    assert (read.is_ready, read.is_terminal, read.is_billing) == (ready, terminal, billing)


def test_running_pod_without_ssh_is_not_ready() -> None:
    assert not pod(status="RUNNING", ssh_connect_cmd=None).is_ready


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ssh root@203.0.113.24 -p 31022", SshTarget("root", "203.0.113.24", 31022)),
        ("ssh root@node-1.example.com", SshTarget("root", "node-1.example.com", 22)),
        ("ssh ubuntu@2001:db8::1 -p 22", SshTarget("ubuntu", "2001:db8::1", 22)),
        (None, None),
        ("", None),
        ("ssh root@203.0.113.24 -p 0", None),
        ("ssh root@203.0.113.24 -p 65536", None),
        ("ssh root@203.0.113.24 -p 22; rm -rf /", None),
        ("ssh -oProxyCommand=evil root@203.0.113.24", None),
        ("ssh -root@203.0.113.24 -p 22", None),
        ("ssh root@-oProxyCommand=evil", None),
        ("ssh root@$(id) -p 22", None),
        ("ssh root@host:22", None),
        ("ssh root@a..b- -p 22", None),
        ("ssh root@host\n-p 22", None),
        ("ssh 'root@203.0.113.24'", None),
        ("scp root@203.0.113.24 -p 22", None),
        ("ssh root@203.0.113.24 -p \u0662\u0662", None),
    ],
)
def test_only_a_plain_ssh_command_is_a_target(command: str | None, expected: SshTarget | None) -> None:
    assert pod(ssh_connect_cmd=command).ssh == expected


def test_pod_reads_what_older_servers_write() -> None:
    read = pod(gpu_count="2", price="4.4", removal_scheduled_at="2026-10-06T18:00:00")
    assert (read.rented_gpu_count, read.price) == (2, 4.4)
    assert read.removal_scheduled_at == datetime(2026, 10, 6, 18, tzinfo=UTC)
    assert read.huid == "brave-lion-cd"


def test_volume_root_is_the_mount_then_the_templates_then_root() -> None:
    template = {"volumes": ["/workspace", "/data"]}
    assert pod(local_volume_path="/mnt2", template=template).volume_root == "/mnt2"
    assert pod(template=template).volume_root == "/workspace"
    assert pod(template={"volumes": None}).volume_root == pod().volume_root == "/root"


def test_public_ports_are_the_readable_ones() -> None:
    mapping = {"22": 31022, "8000": "31023", "x": 1, "80": None, "81": 70000, "0": 5}
    assert pod(ports_mapping=mapping).public_ports == {22: 31022, 8000: 31023}
    assert pod(ports_mapping=None).public_ports == {}


# Runs and resets.


@pytest.mark.parametrize(
    ("status", "final", "completed"),
    [("COMPLETED", True, True), ("success", True, True), ("ERROR", True, False), ("IN_PROGRESS", False, False)],
)
def test_backup_state_reads_older_spellings(status: str, final: bool, completed: bool) -> None:
    read = Backup.model_validate({"id": "1", "status": status})
    assert (read.is_final, read.is_completed) == (final, completed)


@pytest.mark.parametrize(("status", "final"), [("FAILED", True), ("error", True), ("PENDING", False), ("", False)])
def test_restore_state_reads_older_spellings(status: str, final: bool) -> None:
    assert Restore.model_validate({"id": "1", "status": status}).is_final is final


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"status": "RUNNING"}, "running"),
        ({"ok": True}, "done"),
        ({"ok": False}, "failed"),
        ({"success": True}, "done"),
        ({"success": True, "request_id": "1"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_gpu_reset_of_an_old_server_has_a_state(body: dict[str, Any], state: str) -> None:
    assert GpuResetState.model_validate(body).state == state


@pytest.mark.parametrize(
    ("status", "ready", "failed"),
    [("CREATED", True, False), ("verify_success", True, False), ("VERIFY_FAILED", False, True), (None, False, False)],
)
def test_template_status_says_whether_a_pod_can_start(status: str | None, ready: bool, failed: bool) -> None:
    read = Template.model_validate({"id": "1", "status": status})
    assert (read.is_ready, read.has_failed) == (ready, failed)


@pytest.mark.parametrize(
    ("value", "expected"), [("a\nb", "a\nb"), (["a", None, 2], "a\n2"), (None, ""), ({}, ""), (7, "7")]
)
def test_template_logs_are_text_whole_or_in_lines(value: object, expected: str) -> None:
    read = Template.model_validate({"id": "1", "verification_logs": value})
    assert read.verification_logs == expected
    assert "verification_logs" not in repr(read)


def test_machine_is_called_by_its_model() -> None:
    assert Machine.model_validate({"name": "NVIDIA H100 PCIe"}).gpu_type == "H100"


def test_lists_lose_only_their_unreadable_items() -> None:
    read = Template.model_validate(json.loads('{"id": 7, "internal_ports": [22, "8000", null, "x"], "volumes": "no"}'))
    assert (read.id, read.internal_ports, read.volumes) == ("7", (22, 8000), None)
