"""The official SDK works against the sandbox, unchanged, also where answers are lost or servers are old."""

import gzip
import math
from base64 import b64encode

import pytest

from tests.compat.driver import Official, OfficialError
from tests.compat.simulated import Simulated
from tests.harness import PUBLIC_KEY

RENT = {"method": "POST", "path": "/executors/*/rent"}


def test_ls_near_a_place(official: Official, sandbox_server: Simulated) -> None:
    everything = official.sdk("ls")
    near = official.sdk("ls", lat=50.11, lon=8.68, max_distance_miles=500)
    placed = [row for row in everything if "lat" in (row["location"] or {})]
    within = {row["id"] for row in placed if miles(50.11, 8.68, row["location"]["lat"], row["location"]["lon"]) <= 500}
    assert {row["id"] for row in near} == within
    assert 0 < len(within) < len(everything)


def test_ls_without_nodes_that_often_fail_to_start(official: Official, sandbox_server: Simulated) -> None:
    everything, reliable = official.sdk("ls"), official.sdk("ls", reliable=True)
    assert {row["id"] for row in reliable} == {row["id"] for row in everything if not row["frequent_rent_failures"]}
    assert len(reliable) < len(everything)


def test_a_pod_becomes_ready(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    ready = official.sdk("wait_ready", running_pod)
    pod = sandbox_server.pod(running_pod)
    assert (ready["status"], ready["ssh_cmd"]) == ("RUNNING", pod["ssh_connect_cmd"])
    assert ready["ports"] == pod["ports_mapping"]
    assert ready["gpu_count"] == 1
    assert ready["executor"]["price_per_hour"] == pod["price"]


def test_a_pod_that_does_not_start_says_why(official: Official, sandbox_server: Simulated) -> None:
    sandbox_server.fault("boot_fails", message="no space left on device")
    created = official.sdk("up", executor_id=sandbox_server.node("A100")["id"], name="train", gpu_count=1)
    sandbox_server.turn(60)
    with pytest.raises(OfficialError, match="no space left on device") as failed:
        official.sdk("wait_ready", created["id"])
    assert failed.value.type == "PodStartError"
    assert failed.value.details["status"] == "CREATION_FAILED"
    sandbox_server.turn(minutes=4)
    assert official.sdk("ps") == []


def test_a_whole_node_is_rented_without_a_count(official: Official, sandbox_server: Simulated) -> None:
    node = sandbox_server.node("A100", free=2)
    created = official.sdk("up", executor_id=node["id"], name="all")
    assert sandbox_server.pod(created["id"])["gpu_count"] == str(node["available_gpu_count"])
    assert official.sdk("get_executor", node["id"]) is None


def test_a_lost_answer_leaves_one_pod(official: Official, sandbox_server: Simulated) -> None:
    sandbox_server.fault("lost_answer", match=RENT)
    created = official.sdk("up", executor_id=sandbox_server.node("A100")["id"], name="train", gpu_count=1)
    [pod] = sandbox_server.state()["pods"]
    assert created["id"] == pod["id"]


def test_a_repeated_key_returns_the_first_pod(official: Official, sandbox_server: Simulated) -> None:
    node_id = sandbox_server.node("A100", free=3)["id"]
    key = "6f1d2c3b-4a59-4687-9abc-def012345678"
    rent = {"executor_id": node_id, "name": "train", "gpu_count": 1, "idempotency_key": key}
    first, again = official.sdk("up", **rent), official.sdk("up", **rent)
    assert first["id"] == again["id"]
    assert len(sandbox_server.state()["rents"]) == 1
    other = official.sdk("up", **rent | {"idempotency_key": "0e68a2fb-34d9-4e03-a7de-665f5527fafb"})
    assert other["id"] != first["id"]


def test_a_change_is_repeated_after_a_rate_limit_and_after_nothing_else(
    official: Official, sandbox_server: Simulated
) -> None:
    match = {"method": "POST", "path": "/volumes"}
    sandbox_server.fault("rate_limit", match=match)
    official.sdk("volume_create", "first")
    assert [request["status"] for request in sandbox_server.requests("POST", "/volumes")] == [429, 200]

    sandbox_server.fault("error", status=502, match=match)
    with pytest.raises(OfficialError) as failed:
        official.sdk("volume_create", "second")
    assert failed.value.type == "LiumServerError"
    assert len(sandbox_server.requests("POST", "/volumes")) == 3
    assert [volume["name"] for volume in sandbox_server.state()["volumes"]] == ["first"]


def test_an_old_server_makes_the_sdk_choose_the_node_itself(official: Official, sandbox_server: Simulated) -> None:
    sandbox_server.fault("old_server", times=100)
    assert official.sdk("features") == []
    result = official.sdk("rent", gpu_type="H100", gpu_count=1, dry_run=True)
    assert result["server_side"] is False
    assert sandbox_server.requests("POST", "/executors/rent-by-spec") == []


def test_rent_by_spec_says_which_constraint_nothing_meets(official: Official, sandbox_server: Simulated) -> None:
    with pytest.raises(OfficialError, match=r"min_vram_gb=999.*best on offer") as refused:
        official.sdk("rent", gpu_type="H100", min_vram_gb=999)
    assert refused.value.type == "LiumError"
    assert refused.value.details["request_id"].startswith("req-")
    assert sandbox_server.state()["rents"] == []


def test_rent_by_spec_takes_the_cheapest_node_that_fits(official: Official, sandbox_server: Simulated) -> None:
    listed = official.sdk("ls", gpu_type="H100", min_cpus=16)
    nodes = {node["id"]: node for node in sandbox_server.state()["nodes"]}
    fits = [
        row
        for row in listed
        if (row["location"] or {}).get("country_code") == "US"
        and 1 in {row["gpu_count"], nodes[row["id"]]["min_gpu_count_for_rental"]}
    ]
    rented = official.sdk("rent", gpu_type="H100", country="US", min_cpus=16, name="cheap")
    assert rented["price_per_hour"] == min(row["price_per_gpu"] for row in fits)
    assert sandbox_server.pod(rented["pod"]["id"])["executor_id"] == rented["executor"]["id"]


def test_a_dry_run_chooses_and_rents_nothing(official: Official, sandbox_server: Simulated) -> None:
    chosen = official.sdk("rent", gpu_type="NVIDIA GeForce RTX 4090", min_ram_gb=32, dry_run=True)
    assert chosen["dry_run"] is True
    assert chosen["pod"] is None
    assert chosen["executor"]["gpu_type"] == "RTX4090"
    prices = [row["price_per_gpu"] for row in chosen["alternatives"]]
    assert prices == sorted(prices)
    assert chosen["executor"]["price_per_gpu"] <= prices[0]
    assert chosen["candidates"] > len(prices) > 0
    assert sandbox_server.state()["rents"] == []


def test_a_pending_pod_cannot_be_removed_yet(official: Official, sandbox_server: Simulated) -> None:
    created = official.sdk("up", executor_id=sandbox_server.node("A100")["id"], name="train", gpu_count=1)
    with pytest.raises(OfficialError, match="400"):
        official.sdk("rm", {"pod": created["id"]})
    sandbox_server.turn(60)
    official.sdk("rm", {"pod": created["id"]})
    assert official.sdk("ps") == []


def test_hours_of_life_count_from_the_boot(official: Official, sandbox_server: Simulated) -> None:
    created = official.sdk(
        "up", executor_id=sandbox_server.node("A100")["id"], name="train", gpu_count=1, termination_hours=2
    )
    assert sandbox_server.pod(created["id"])["removal_scheduled_at"] is None
    sandbox_server.turn(60)
    assert official.sdk("ps")[0]["removal_scheduled_at"] is not None
    sandbox_server.turn(hours=2, minutes=2)
    assert official.sdk("ps") == []


def test_spending_is_capped_by_a_scheduled_removal(
    official: Official, sandbox_server: Simulated, running_pod: str
) -> None:
    at = official.sdk("cap_spend", {"pod": running_pod}, budget_usd=5)
    assert at.startswith(sandbox_server.pod(running_pod)["removal_scheduled_at"])
    official.sdk("cancel_scheduled_termination", {"pod": running_pod})
    assert sandbox_server.pod(running_pod)["removal_scheduled_at"] is None
    with pytest.raises(OfficialError, match="400"):
        official.sdk("schedule_termination", running_pod, termination_time="2020-01-01T00:00:00Z")


def test_a_template_is_made_checked_and_used(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    made = official.sdk("create_template", "mine", "ubuntu", docker_image_tag="22.04")
    assert made["id"] in [row["id"] for row in official.sdk("templates", only_my=True)]
    sandbox_server.turn(minutes=5)
    assert official.sdk("wait_template_ready", made["id"])["status"] == "VERIFY_SUCCESS"
    assert official.sdk("get_template", "mine")["id"] == made["id"]

    created = official.sdk(
        "up", executor_id=sandbox_server.node("A100")["id"], name="mine", gpu_count=1, template_id=made["id"]
    )
    sandbox_server.turn(60)
    official.sdk("edit", created["id"], startup_commands="python main.py", environment={"DEBUG": "1"})
    pod = sandbox_server.pod(created["id"])
    assert pod["status"] == "REBOOT_PENDING"
    assert (pod["template"]["startup_commands"], pod["template"]["environment"]) == ("python main.py", {"DEBUG": "1"})


def test_a_template_that_fails_its_check_says_so(official: Official, sandbox_server: Simulated) -> None:
    sandbox_server.fault("template_verify_fails")
    made = official.sdk("create_template", "mine", "no/such/image")
    sandbox_server.turn(minutes=5)
    with pytest.raises(OfficialError, match="verification failed"):
        official.sdk("wait_template_ready", made["id"])


def test_a_pod_switches_its_template(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    before = sandbox_server.pod(running_pod)["template"]
    other = next(row for row in official.sdk("templates") if row["docker_image"] != before["docker_image"])
    # The official SDK 0.32.0 sends the request and then fails on an answer that names the node, as the API's does.
    with pytest.raises(OfficialError, match="missing 1 required positional argument: 'ip'"):
        official.sdk("switch_template", {"pod": running_pod}, template_id=other["id"])
    pod = sandbox_server.pod(running_pod)
    assert pod["status"] == "PENDING"
    assert pod["template"]["docker_image"] == other["docker_image"]
    sandbox_server.turn(minutes=2)
    assert sandbox_server.pod(running_pod)["status"] == "RUNNING"


def test_an_image_becomes_a_template_that_goes_with_the_pod(official: Official, sandbox_server: Simulated) -> None:
    created = official.sdk(
        "up", executor_id=sandbox_server.node("A100")["id"], name="image", gpu_count=1, image="python:3.11"
    )
    template = sandbox_server.pod(created["id"])["template"]
    assert (template["docker_image"], template["docker_image_tag"]) == ("python", "3.11")
    assert template["id"] in {row["id"] for row in sandbox_server.state()["templates"]}
    sandbox_server.turn(60)
    official.sdk("rm", {"pod": created["id"]})
    sandbox_server.turn(minutes=5)
    assert template["id"] not in {row["id"] for row in sandbox_server.state()["templates"]}


def test_a_backup_is_restored_into_a_new_pod(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    official.sdk("backup_create", {"pod": running_pod}, path="/root/out")
    backup_id = official.sdk("backup_now", {"pod": running_pod}, name="first")["backup_log_id"]
    sandbox_server.turn(minutes=20)
    created = official.sdk(
        *("up",),
        executor_id=sandbox_server.node("A100")["id"],
        name="copy",
        gpu_count=1,
        backup_id=backup_id,
        restore_path="/root/restored",
    )
    sandbox_server.turn(minutes=20)
    [restore] = official.sdk("restore_logs", {"pod": created["id"]})
    assert (restore["backup_id"], restore["status"]) == (backup_id, "COMPLETED")
    assert sandbox_server.state()["restores"][0]["pod_id"] == created["id"]


def test_jupyter_is_installed(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    internal = next(port for port in sandbox_server.pod(running_pod)["ports_mapping"] if port != "22")
    official.sdk("install_jupyter", {"pod": running_pod}, jupyter_internal_port=int(internal))
    sandbox_server.turn(minutes=5)
    [pod] = official.sdk("ps")
    assert pod["jupyter_installation_status"] == "SUCCESS"
    assert pod["jupyter_url"] == sandbox_server.pod(running_pod)["jupyter_url"] is not None


def test_gpus_are_reset(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    sandbox_server.run_at(60)
    done = official.sdk("reset_gpu", {"pod": running_pod}, [0])
    assert (done["ok"], [gpu["index"] for gpu in done["gpus"]]) == (True, [0])
    with pytest.raises(OfficialError) as refused:
        official.sdk("reset_gpu", {"pod": running_pod}, [7])
    assert refused.value.details["code"] == "invalid_gpu_index"


def test_an_image_is_built_from_an_uploaded_context(official: Official, sandbox_server: Simulated) -> None:
    archive = b64encode(gzip.compress(b"a tar of one file")).decode()
    digest = official.sdk("upload_build_context", {"base64": archive})
    created = official.sdk(
        *("up",),
        executor_id=sandbox_server.node("A100")["id"],
        name="built",
        gpu_count=1,
        dockerfile_content="FROM ubuntu\nCOPY file /\n",
        build_context_sha256=digest,
        ssh_keys=[PUBLIC_KEY],
    )
    sandbox_server.turn(minutes=10)
    assert sandbox_server.pod(created["id"])["status"] == "RUNNING"


def test_many_backups_are_read_page_by_page(official: Official, sandbox_server: Simulated) -> None:
    created = official.sdk("up", executor_id=sandbox_server.node("RTX 3090")["id"], name="train", gpu_count=1)
    sandbox_server.turn(60)
    official.sdk("backup_create", {"pod": created["id"]}, path="/root/out", frequency_hours=1)
    sandbox_server.turn(hours=130)
    backups = official.sdk("backup_logs", {"pod": created["id"]})
    assert len(backups) == len(sandbox_server.state()["backups"]) > 100
    assert len({backup["id"] for backup in backups}) == len(backups)
    assert len(sandbox_server.requests("GET", f"/backup-logs/pod/{created['id']}")) == 2
    assert len(official.sdk("backup_logs_all")) == len(backups)


def test_what_runs_is_told_by_the_ledger(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    sandbox_server.turn(hours=3)
    pod = sandbox_server.pod(running_pod)
    assert official.sdk("balance") == pytest.approx(sandbox_server.state()["balance"], abs=0.0001)
    [row] = official.sdk("billing_statement")["pods"]
    assert row["pod_id"] == running_pod
    assert sum(day["amount"] for day in row["days"]) == pytest.approx(row["total"], abs=0.001)
    record = official.sdk("pod_record", running_pod)
    assert record["total"] == pytest.approx(row["total"], abs=0.001)
    assert record["gpu_count"] == 1
    assert row["total"] == pytest.approx(3 * pod["price"], abs=0.1)


def test_a_session_manages_keys_and_a_key_cannot(official: Official, sandbox_server: Simulated) -> None:
    with pytest.raises(OfficialError) as refused:
        official.sdk("api_keys.list")
    assert refused.value.type == "LiumSessionError"

    official.point_at(sandbox_server.base_url, session_token="sandbox-session")
    made = official.sdk("api_keys.create", "ci", ["read", "rent"], daily_budget_usd=5, pod_visibility="own")
    assert official.sdk("api_keys.update", made["id"], daily_budget_usd=None)["daily_budget_usd"] is None
    assert made["id"] in [key["id"] for key in official.sdk("api_keys.list")]
    assert [scope["scope"] for scope in official.sdk("api_keys.scopes")] == ["read", "rent", "manage", "billing"]

    official.point_at(sandbox_server.base_url, api_key=made["key"])
    assert official.sdk("me")["workspace"]["id"] == made["workspace_id"]
    official.point_at(sandbox_server.base_url, session_token="sandbox-session")
    official.sdk("api_keys.revoke", made["id"])
    official.point_at(sandbox_server.base_url, api_key=made["key"])
    with pytest.raises(OfficialError) as revoked:
        official.sdk("ps")
    assert revoked.value.type == "LiumAuthError"


def test_a_key_that_sees_its_own_pods_sees_no_others(
    official: Official, sandbox_server: Simulated, running_pod: str
) -> None:
    official.point_at(sandbox_server.base_url, session_token="sandbox-session")
    made = official.sdk("api_keys.create", "ci", pod_visibility="own")
    official.point_at(sandbox_server.base_url, api_key=made["key"])
    assert official.sdk("ps") == []
    created = official.sdk("up", executor_id=sandbox_server.node("A100")["id"], name="own", gpu_count=1)
    assert [pod["id"] for pod in official.sdk("ps")] == [created["id"]]
    official.point_at(sandbox_server.base_url)
    assert {pod["id"] for pod in official.sdk("ps")} == {running_pod, created["id"]}
    assert [pod["id"] for pod in official.sdk("ps", api_key_id=made["id"])] == [created["id"]]


def miles(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """The distance along the surface of the earth."""
    angles = [math.radians(angle) for angle in (lat, lon, other_lat, other_lon)]
    half = math.sin((angles[2] - angles[0]) / 2) ** 2
    half += math.cos(angles[0]) * math.cos(angles[2]) * math.sin((angles[3] - angles[1]) / 2) ** 2
    return 2 * 3958.8 * math.asin(math.sqrt(half))
