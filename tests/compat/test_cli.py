"""The official command line works against the sandbox, unchanged: what it prints and what it does both hold."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.compat.driver import Official
from tests.compat.simulated import Simulated
from tests.harness import PUBLIC_KEY

Row = dict[str, Any]


# What each filter of `lium ls` keeps, told from the rows that it prints without one.
FILTERS: dict[str, Callable[[Row], bool]] = {
    "--gpu A100": lambda row: row["gpu_type"] == "A100",
    "--gpu 4090": lambda row: row["gpu_type"] == "RTX4090",
    "--count 8": lambda row: row["gpu_count"] == 8,
    "--country US,NL": lambda row: row["country_code"] in {"US", "NL"},
    "--tier spot": lambda row: row["tier"] == "spot",
    "--min-vram 80": lambda row: (row["vram_gb"] or 0) >= 80,
    "--max-price 1": lambda row: row["price_per_gpu_hour"] <= 1,
    "--min-cpus 64": lambda row: (row["cpu_count"] or 0) >= 64,
    "--min-cuda 12.8": lambda row: (row["max_cuda_version"] or 0) >= 12.8,
    "--min-download 1000": lambda row: row["download_source"] == "measured" and row["download_mbps"] >= 1000,
    "--nvlink": lambda row: row["nvlink"] is True,
}


@pytest.mark.parametrize("options", FILTERS)
def test_ls_filters(options: str, official: Official, sandbox_server: Simulated) -> None:
    everything = official.succeed("ls", "--format", "json").json
    filtered = official.succeed("ls", *options.split(), "--format", "json").json

    expected = {row["id"] for row in everything if FILTERS[options](row)}
    assert {row["id"] for row in filtered} == expected
    assert 0 < len(expected) < len(everything)
    [*_, request] = sandbox_server.requests("GET", "/executors")
    assert "view=summary" in request["query"]


def test_ls_shows_the_market_of_the_sandbox(official: Official, sandbox_server: Simulated) -> None:
    rows = official.succeed("ls", "--format", "json").json

    nodes = {node["id"]: node for node in sandbox_server.state()["nodes"]}
    for row in rows:
        node = nodes[row["id"]]
        assert row["machine_name"] == node["machine_name"]
        assert row["gpu_count"] == node["gpu_count"]
        assert row["available_gpu_count"] == node["available_gpu_count"] > 0
        assert row["price_per_gpu_hour"] == pytest.approx(node["price_per_gpu"], abs=0.001)
        assert row["country_code"] in {node["country_code"], None}
    assert [row["price_per_gpu_hour"] for row in rows] == sorted(row["price_per_gpu_hour"] for row in rows)


def test_ls_says_that_a_gpu_type_is_unknown(official: Official, sandbox_server: Simulated) -> None:
    printed = official.succeed("ls", "--gpu", "nonsense")
    assert "No GPU type matches 'nonsense'" in printed.stdout
    assert "H100" in printed.stdout


def test_quote_prices_a_job(official: Official, sandbox_server: Simulated) -> None:
    node = sandbox_server.node("A100", free=2)
    quoted = official.succeed(
        "quote", node["id"], "--hours", "10", "--gpus", "2", "--volume-gb", "100", "--format", "json"
    ).json

    price = 2 * node["price_per_gpu"]
    amounts = {line["item"]: line["amount_usd"] for line in quoted["lines"]}
    assert quoted["price_per_hour"] == pytest.approx(price)
    assert amounts["compute"] == pytest.approx(10 * price)
    assert amounts["egress"] is None
    assert quoted["total_usd"] == pytest.approx(sum(amount for amount in amounts.values() if amount is not None))
    assert quoted["rent_balance_required_usd"] == pytest.approx(price / 4)
    assert sandbox_server.state()["rents"] == []


def test_up_rents_part_of_a_node_until_its_time_is_over(official: Official, sandbox_server: Simulated) -> None:
    node = sandbox_server.node("A100", free=2)
    sandbox_server.run_at(60)
    printed = official.succeed("up", node["id"], "-c", "1", "--name", "train", "--ttl", "6h", "-y", "--json")
    sandbox_server.run_at(0)

    shown = printed.json["pod"]
    pod = sandbox_server.pod(shown["id"])
    assert (shown["name"], shown["status"], shown["gpu_type"], shown["gpu_count"]) == ("train", "RUNNING", "A100", 1)
    assert (pod["pod_name"], pod["status"], pod["gpu_count"]) == ("train", "RUNNING", "1")
    assert pod["executor_id"] == node["id"]
    assert shown["ssh_cmd"] == pod["ssh_connect_cmd"]
    assert shown["price_per_hour"] == pod["price"]
    removal = datetime.fromisoformat(pod["removal_scheduled_at"]).replace(tzinfo=UTC)
    assert printed.json["termination_time"] == removal.isoformat()
    assert removal - datetime.now(UTC) == pytest.approx(timedelta(hours=6), abs=timedelta(minutes=1))

    state = sandbox_server.state()
    [rent] = state["rents"]
    assert rent["pod_id"] == shown["id"]
    assert rent["idempotency_key"] is not None
    assert [key["public_key"] for key in state["ssh_keys"]] == [PUBLIC_KEY]
    assert {entry["source"] for entry in state["audit"]} == {"cli"}

    sandbox_server.turn(hours=6, minutes=2)
    assert official.succeed("ps", "--format", "json").json == []
    assert sandbox_server.pod(shown["id"])["close_reason"] == "scheduled_termination"


def test_up_by_spec_lets_the_server_choose(official: Official, sandbox_server: Simulated) -> None:
    sandbox_server.run_at(60)
    printed = official.succeed(
        "up", "--gpu", "H100", "--country", "US", "--min-cpus", "16", "--no-backup", "--name", "cheap", "-y", "--json"
    )
    sandbox_server.run_at(0)

    pod = sandbox_server.pod(printed.json["pod"]["id"])
    assert pod["gpu_count"] == "1"
    assert "H100" in pod["gpu_name"]
    assert pod["executor"]["location"]["country_code"] == "US"
    assert "cheapest of" in printed.stderr
    dry_run, rent = sandbox_server.requests("POST", "/executors/rent-by-spec")
    assert dry_run["body"]["dry_run"] is True
    assert "idempotency-key" not in dry_run["headers"]
    assert rent["body"]["enable_backups"] is False
    assert "idempotency-key" in rent["headers"]


def test_up_with_a_budget_schedules_the_removal(official: Official, sandbox_server: Simulated) -> None:
    node = sandbox_server.node("A100")
    sandbox_server.run_at(60)
    printed = official.succeed("up", node["id"], "-c", "1", "--budget", "5", "-n", "capped", "-y", "--json")
    sandbox_server.run_at(0)

    pod = sandbox_server.pod(printed.json["pod"]["id"])
    life = datetime.fromisoformat(pod["removal_scheduled_at"]) - datetime.fromisoformat(pod["created_at"])
    assert life / timedelta(hours=1) * pod["price"] == pytest.approx(5, abs=0.01)


def test_ps_shows_the_pods(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    [shown] = official.succeed("ps", "--format", "json").json
    pod = sandbox_server.pod(running_pod)
    assert (shown["id"], shown["name"], shown["status"]) == (running_pod, "train", "RUNNING")
    assert shown["ports"] == pod["ports_mapping"]
    assert shown["price_per_hour"] == pod["price"]
    assert shown["template"] == pod["template"]["name"]
    assert "train" in official.succeed("ps").stdout
    [alone] = official.succeed("ps", "train", "--format", "json").json
    assert alone["last_event"]["to_status"] == "RUNNING"
    assert official.succeed("ps", "--filter", "status=PENDING", "--format", "json").json == []


def test_ps_shows_how_far_a_pod_is(official: Official, sandbox_server: Simulated) -> None:
    node = sandbox_server.node("A100")
    official.sdk("up", executor_id=node["id"], name="train", gpu_count=1)
    [shown] = official.succeed("ps", "--format", "json").json
    assert shown["status"] == "PENDING"
    assert shown["eta_hint"].startswith("est. ready in")
    assert "est. ready in" in official.succeed("ps").stdout


def test_describe_shows_everything_about_a_pod(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    shown = official.succeed("describe", "train", "--json").json
    pod = sandbox_server.pod(running_pod)
    node = pod["executor"]
    assert shown["machine"]["executor_id"] == node["id"]
    assert shown["machine"]["location"] == node["location"]
    assert shown["gpu"]["model"] == node["machine_name"]
    assert shown["access"]["ssh_cmd"] == pod["ssh_connect_cmd"]
    assert shown["ports"]["mapping"] == pod["ports_mapping"]
    assert shown["billing"]["price_per_hour"] == pod["price"]
    assert "RUNNING" in official.succeed("describe", "train").stdout


def test_logs_print_what_the_container_wrote(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    lines = official.succeed("logs", "train", "-n", "3").stdout.splitlines()
    assert len(lines) == 3
    assert not any(line.startswith("data:") for line in lines)
    sandbox_server.turn(minutes=5)
    assert official.succeed("logs", "train", "-n", "3").stdout.splitlines() != lines


def test_rm_removes_a_pod_and_its_history_stays(
    official: Official, sandbox_server: Simulated, running_pod: str
) -> None:
    sandbox_server.turn(hours=1)
    printed = official.succeed("rm", "train", "-y", "--rating", "2", "--feedback", "slow disk", "--format", "json")
    assert [pod["id"] for pod in printed.json["removed"]] == [running_pod]
    assert printed.json["failed"] == []
    assert official.succeed("ps", "--format", "json").json == []

    sandbox_server.turn(minutes=5)
    pod = sandbox_server.pod(running_pod)
    assert pod["removed_at"] is not None
    assert pod["feedback"]["rating"] == 2
    gone = official.succeed("describe", running_pod, "--json").json
    assert gone["last_event"]["to_status"] == "DELETED"
    record = official.succeed("record", running_pod, "--format", "json").json
    assert record["removed"] is True
    assert record["close_reason"] == pod["close_reason"]
    assert record["total"] == pytest.approx(pod["charged_usd"], abs=0.0001)
    assert record["billed_seconds"] == pod["billed_seconds"] == pytest.approx(3600, abs=60)


def test_a_removal_is_scheduled_and_called_off(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    printed = official.succeed("rm", "train", "--in", "2h", "-y", "--format", "json")
    assert [pod["id"] for pod in printed.json["scheduled"]] == [running_pod]
    scheduled = sandbox_server.pod(running_pod)["removal_scheduled_at"]
    assert printed.json["termination_time"].startswith(scheduled)
    assert "(1 total)" in official.succeed("schedules").stdout

    official.succeed("schedules", "rm", "1")
    assert sandbox_server.pod(running_pod)["removal_scheduled_at"] is None
    assert "train" not in official.succeed("schedules", "list").stdout
    sandbox_server.turn(hours=3)
    assert sandbox_server.pod(running_pod)["status"] == "RUNNING"


def test_reboot_attaches_a_volume(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    official.succeed("volumes", "new", "data", "--desc", "training set")
    [volume] = sandbox_server.state()["volumes"]
    assert "Reboot requested" in official.succeed("reboot", "train", "--volume-id", volume["id"]).stdout
    assert sandbox_server.pod(running_pod)["status"] == "REBOOT_PENDING"
    sandbox_server.turn(minutes=2)
    pod = sandbox_server.pod(running_pod)
    assert pod["status"] == "RUNNING"
    assert pod["volume"]["id"] == volume["id"]

    refused = official.run("volumes", "rm", volume["id"], "-y")
    assert refused.exit_code == 1
    assert "attached" in refused.stdout
    assert len(sandbox_server.state()["volumes"]) == 1


def test_volumes_are_made_listed_and_removed(official: Official, sandbox_server: Simulated) -> None:
    assert "No volumes" in official.succeed("volumes").stdout
    assert "Created volume" in official.succeed("volumes", "new", "data", "--desc", "training set").stdout
    [volume] = sandbox_server.state()["volumes"]
    assert (volume["name"], volume["description"]) == ("data", "training set")
    listed = official.succeed("volumes", "list").stdout
    assert "data" in listed
    assert "training set" in listed
    official.succeed("volumes", "rm", "1", "-y")
    assert sandbox_server.state()["volumes"] == []


def test_templates_are_listed(official: Official, sandbox_server: Simulated) -> None:
    shown = official.succeed("templates", "--format", "json").json
    assert {row["id"] for row in shown} == {row["id"] for row in sandbox_server.state()["templates"]}
    found = official.succeed("templates", "pytorch", "--format", "json").json
    assert found
    assert all("pytorch" in (row["name"] + row["docker_image"]).lower() for row in found)
    assert 0 < len(official.succeed("templates", "--arch", "blackwell", "--format", "json").json) < len(shown)


def test_a_backup_is_configured_taken_restored_and_deleted(
    official: Official, sandbox_server: Simulated, running_pod: str
) -> None:
    assert "No backup configuration" in official.succeed("bk", "show", "train").stdout
    assert official.run("bk", "now", "train").exit_code == 1

    official.succeed("bk", "set", "train", "--path", "/root/out", "--every", "12h", "--keep", "30d", "-y")
    [config] = sandbox_server.state()["backup_configs"]
    assert (config["path"], config["frequency_hours"], config["retention_days"]) == ("/root/out", 12, 30)
    official.succeed("bk", "set", "train", "--path", "/root/all", "--every", "6h", "--keep", "7d", "-y")
    [changed] = sandbox_server.state()["backup_configs"]
    assert changed["id"] == config["id"]
    assert "path=/root/all, every=6h, keep=7d" in official.succeed("bk", "show", "train").stdout
    refused = official.run("bk", "set", "train", "--path", "/mnt/data", "-y")
    assert refused.exit_code == 3

    official.succeed("bk", "now", "train", "-n", "before-deploy")
    [backup] = sandbox_server.state()["backups"]
    assert (backup["name"], backup["status"]) == ("before-deploy", "PENDING")
    busy = official.run("bk", "now", "train", "-n", "again")
    assert busy.exit_code == 3
    assert backup["id"] in busy.stdout + busy.stderr
    sandbox_server.turn(minutes=20)
    assert "COMPLETED" in official.succeed("bk", "logs", "train").stdout
    assert "Progress: 100%" in official.succeed("bk", "logs", "--id", backup["id"][:8]).stdout

    official.succeed("bk", "restore", "train", "--id", backup["id"], "-y")
    [restore] = sandbox_server.state()["restores"]
    assert (restore["backup_id"], restore["path"]) == (backup["id"], "/root/restored")
    sandbox_server.turn(minutes=20)
    assert "COMPLETED" in official.succeed("bk", "restore-logs", "train").stdout

    official.succeed("bk", "restore", "train", "--id", backup["id"], "--to", "/root/second", "-y")
    second = sandbox_server.state()["restores"][-1]
    official.succeed("bk", "restore-cancel", "--id", second["id"][:8], "-y")
    assert "CANCELLED" in official.succeed("bk", "restore-logs", "--id", second["id"]).stdout

    official.succeed("bk", "delete", "--id", backup["id"][:8], "-y")
    sandbox_server.turn(minutes=20)
    assert "DELETED" in official.succeed("bk", "logs", "--id", backup["id"]).stdout
    official.succeed("bk", "rm", "train", "-y")
    assert sandbox_server.state()["backup_configs"] == []


def test_a_backup_is_cancelled(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    official.succeed("bk", "set", "train", "--path", "/root/out", "-y")
    official.succeed("bk", "now", "train")
    [backup] = sandbox_server.state()["backups"]
    official.succeed("bk", "cancel", "--id", backup["id"][:8], "-y")
    sandbox_server.turn(minutes=20)
    assert "CANCELLED" in official.succeed("bk", "logs", "train").stdout


def test_balance_and_spend_tell_the_money(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    sandbox_server.turn(hours=2)
    pod, balance_usd = sandbox_server.pod(running_pod), sandbox_server.state()["balance"]
    assert balance_usd == pytest.approx(100 - 2 * pod["price"], abs=0.1)
    assert official.succeed("balance", "--json").json["balance_usd"] == pytest.approx(balance_usd, abs=0.0001)
    spent = official.succeed("spend", "--format", "json").json
    assert spent["burn_per_hour"] == pytest.approx(pod["price"], abs=0.0001)
    assert spent["balance_usd"] == pytest.approx(balance_usd, abs=0.0001)
    [row] = spent["pods"]
    assert row["billable"] is True
    history = official.succeed("billing", "history", "--format", "json").json
    assert [(charged["pod_id"], charged["total"]) for charged in history["pods"]] == [
        (running_pod, pytest.approx(pod["charged_usd"], abs=0.0001))
    ]


def test_audit_tells_who_did_what(official: Official, sandbox_server: Simulated, running_pod: str) -> None:
    official.succeed("reboot", "train")
    sandbox_server.turn(minutes=2)
    official.succeed("ssh-keys", "sync")
    official.succeed("rm", "train", "-y")
    sandbox_server.turn(minutes=5)

    events = official.succeed("audit", "--json").json
    assert {event["id"] for event in events} == {event["id"] for event in sandbox_server.state()["events"]}
    told = official.succeed("audit").stdout
    for phrase in ("rent requested", "created", "reboot requested", "delete requested", "SSH key added"):
        assert phrase in told
    assert "sandbox-key" in told
    assert not re.search(r"[a-z]+-[a-z]+\.[a-z]+", told), "an event by a name that the official client has no words for"
    mine = official.succeed("audit", "--pod", running_pod, "--json").json
    assert {event["pod_id"] for event in mine} == {running_pod}

    account = official.succeed("audit", "--account", "--action", "pod.", "--json").json
    assert [(entry["action"], entry["resource_id"]) for entry in account["items"]] == [
        ("pod.delete", running_pod),
        ("pod.reboot", running_pod),
        ("pod.rent", running_pod),
    ]
    assert {entry["source"] for entry in account["items"]} == {"sdk"}


def test_the_audit_log_is_read_page_by_page(official: Official, sandbox_server: Simulated) -> None:
    for number in range(5):
        official.succeed("volumes", "new", f"data {number}")
    seen, cursor = [], None
    for _ in range(3):
        page = official.succeed(
            "audit", "--account", "--limit", "2", "--json", *(["--cursor", cursor] if cursor else [])
        ).json
        seen += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert len(set(seen)) == 5


def test_ssh_keys_are_registered_once(official: Official, sandbox_server: Simulated) -> None:
    assert "No SSH keys registered" in official.succeed("ssh-keys", "list").stdout
    assert "Registered 1 key(s)" in official.succeed("ssh-keys", "sync").stdout
    assert "Nothing to register" in official.succeed("ssh-keys", "sync").stdout
    assert [key["public_key"] for key in sandbox_server.state()["ssh_keys"]] == [PUBLIC_KEY]
    assert "(1 total)" in official.succeed("ssh-keys", "list").stdout


def test_a_cluster_is_rented_and_removed_whole(official: Official, sandbox_server: Simulated) -> None:
    fabrics = official.succeed("clusters", "--format", "json").json
    assert fabrics
    rented = official.succeed("clusters", "up", "1", "--nodes", "2", "-n", "job", "--no-wait", "-y", "--format", "json")
    pods = [pod for pod in sandbox_server.state()["pods"] if pod["pod_name"] == "job"]
    assert sorted(pod["cluster_overlay_ip"] for pod in pods) == ["10.42.0.1", "10.42.0.2"]
    [cluster_id] = {pod["cluster_id"] for pod in pods}
    assert cluster_id in rented.stdout
    sandbox_server.turn(minutes=2)
    assert "RUNNING" in official.succeed("clusters", "ps").stdout
    assert "10.42.0.2" in official.succeed("clusters", "show", "job").stdout
    official.succeed("clusters", "rm", "job", "-y")
    assert {pod["status"] for pod in sandbox_server.state()["pods"]} == {"DELETING"}


def test_a_refusal_keeps_the_codes_that_the_official_client_knows(
    official: Official, sandbox_server: Simulated
) -> None:
    official.point_at(sandbox_server.base_url, api_key="sk_nobody")
    refused = official.run("up", sandbox_server.node("A100")["id"], "-c", "1", "-y", "--json")
    assert (refused.exit_code, refused.error["code"]) == (3, "invalid_api_key")

    official.point_at(sandbox_server.base_url)
    refused = official.run("up", "--gpu", "H100", "--min-cpus", "9999", "-y", "--json")
    assert (refused.exit_code, refused.error["code"]) == (1, "node_selection_failed")
    assert "min_cpus=9999" in refused.error["message"]
    assert refused.error["data"]["request_id"]

    node = sandbox_server.node("A100")
    sandbox_server.fault("node_taken", executor_id=node["id"])
    refused = official.run("up", node["id"], "-c", "1", "-y", "--json")
    assert (refused.exit_code, refused.error["code"]) == (3, "node_unavailable")
    assert sandbox_server.state()["rents"] == []


def test_a_key_without_the_scope_cannot_rent(official: Official, sandbox_server: Simulated) -> None:
    official.point_at(sandbox_server.base_url, session_token="sandbox-session")
    reader = official.sdk("api_keys.create", "reader", ["read"])
    official.point_at(sandbox_server.base_url, api_key=reader["key"])
    assert official.succeed("ps", "--format", "json").json == []
    refused = official.run("up", sandbox_server.node("A100")["id"], "-c", "1", "-y", "--json")
    assert (refused.exit_code, refused.error["code"]) == (6, "missing_scope")
    assert sandbox_server.state()["rents"] == []


def test_a_key_over_its_budget_loses_its_pods_and_cannot_rent(official: Official, sandbox_server: Simulated) -> None:
    now = datetime.fromisoformat(sandbox_server.state()["now"])
    if now.hour > 20:  # the pod is to spend the budget of one day
        sandbox_server.turn(minutes=(24 - now.hour) * 60)
    node = sandbox_server.node("A100", free=2)
    official.point_at(sandbox_server.base_url, session_token="sandbox-session")
    limited = official.sdk("api_keys.create", "limited", daily_budget_usd=1)
    official.point_at(sandbox_server.base_url, api_key=limited["key"])
    rented = official.sdk("up", executor_id=node["id"], name="train", gpu_count=1)
    sandbox_server.turn(minutes=90 / node["price_per_gpu"])

    assert official.succeed("ps", "--format", "json").json == []
    assert "budget" in sandbox_server.pod(rented["id"])["close_reason"]
    refused = official.run("up", node["id"], "-c", "1", "-y", "--json")
    assert (refused.exit_code, refused.error["code"]) == (6, "API_KEY_BUDGET_EXCEEDED")
    assert (refused.error["data"]["window"], refused.error["data"]["budget_usd"]) == ("daily", 1)
    assert [row["window"] for row in official.sdk("api_keys.refusals", limited["id"])] == ["daily"]


def test_a_poor_account_cannot_rent(official: Official, sandbox_server: Simulated) -> None:
    sandbox_server.begin(balance_usd=0.1)
    refused = official.run("up", sandbox_server.node("A100")["id"], "-c", "1", "-y", "--json")
    assert (refused.exit_code, refused.error["code"]) == (6, "insufficient_balance")
    assert "balance is $0.10" in refused.error["message"]
    assert sandbox_server.state()["rents"] == []
