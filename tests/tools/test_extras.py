"""What is rarely needed: Jupyter, GPU resets, ratings, the audit log, demands, SSH keys."""

import json
from typing import Any

import pytest

from lium_mcp.sandbox import OTHER_API_KEY, Sandbox
from tests.harness import PUBLIC_KEY, Agent, Mode, agent_on
from tests.wires import Wire, answering, ask, ask_as_person, editing, lag, rent, truth

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])

Row = dict[str, Any]


def pod_of(sandbox: Sandbox, pod_id: str) -> Row:
    return next(pod for pod in truth(sandbox, "pods") if pod["id"] == pod_id)


async def port_of(sandbox: Sandbox, pod_id: str) -> int:
    """An internal port of a pod that is open to the outside and not SSH's."""
    mapping = (await ask(sandbox, "GET", f"/pods/{pod_id}"))["ports_mapping"]
    return next(int(port) for port in mapping if port != "22")


# --- money -----------------------------------------------------------------------------------------------------------


async def billing_key(sandbox: Sandbox) -> str:
    return str((await ask_as_person(sandbox, "POST", "/keys", {"name": "till", "scopes": ["billing"]}))["key"])


@both_eras
async def test_a_person_gets_a_page_to_pay_on_and_nothing_is_charged(sandbox: Sandbox, mode: Mode) -> None:
    key = await billing_key(sandbox)
    balance = truth(sandbox, "balance")
    wire = Wire(sandbox)
    async with agent_on(sandbox, mode=mode, transport=wire, api_key=key) as agent:
        link = await agent.call("create_top_up_link", amount_usd="25.5")
        assert (await agent.refused("create_top_up_link", amount_usd=9.99)).code == "invalid_argument"
    assert link["url"].startswith("https://checkout.stripe.com/c/pay/cs_test_")
    assert link["amount_usd"] == 25.5
    assert link["expires_at"] > link["now"]
    (sent,) = wire.sent("POST", "/stripe/create-checkout-session")
    assert json.loads(sent.content) == {
        "amount": 25.5,
        "success_url": "https://lium.io/billing?success=true",
        "cancel_url": "https://lium.io/billing",
        "mode": "payment",
    }
    assert truth(sandbox, "balance") == balance


async def test_a_key_that_may_not_top_up_says_who_can(agent: Agent) -> None:
    refused = await agent.refused("create_top_up_link", amount_usd=10)
    assert refused.code == "top_up_not_possible"
    assert "scope billing" in refused.text
    assert "on lium.io" in refused.text


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        7,
        "http://checkout.stripe.com/x",
        "javascript:alert(1)",
        "https://lium.io@evil.example/x",
        "https://localhost/x",
        "https://evil.example/a b",
        "https://evil.example/\u202e",
        "https://[::1",
        f"https://a.b/{'x' * 4000}",
    ],
)
async def test_an_address_that_is_not_surely_of_an_encrypted_page_is_not_shown(sandbox: Sandbox, url: Any) -> None:
    wire = Wire(sandbox)
    wire.on("POST", "/stripe/create-checkout-session", answering(200, {"url": url}))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("create_top_up_link", amount_usd=10)
    assert refused.code == "unsafe_address"
    assert "evil" not in refused.text
    assert "Nothing was charged" in refused.text


@pytest.mark.parametrize(
    ("host", "is_known"),
    [("checkout.stripe.com", True), ("lium.io", True), ("evil.example", False), ("xlium.io", False)],
)
async def test_an_address_of_somebody_else_is_named(sandbox: Sandbox, host: str, is_known: bool) -> None:
    wire = Wire(sandbox)
    wire.on("POST", "/stripe/create-checkout-session", answering(200, {"url": f"https://{host}/pay"}))
    async with agent_on(sandbox, transport=wire) as agent:
        link = await agent.call("create_top_up_link", amount_usd=10)
    assert (f"at {host}, which is not of Stripe" in link["next"]) is not is_known


@pytest.mark.parametrize("expires", [None, "soon", 10**14, -5, "1791331200"])
async def test_a_page_whose_end_cannot_be_read_has_none(sandbox: Sandbox, expires: Any) -> None:
    wire = Wire(sandbox)
    page = {"url": "https://checkout.stripe.com/c/pay/cs_live_a1#fid", "expires_at": expires}
    wire.on("POST", "/stripe/create-checkout-session", answering(200, page))
    async with agent_on(sandbox, transport=wire) as agent:
        link = await agent.call("create_top_up_link", amount_usd=10)
    assert link["url"] == page["url"]
    assert ("expires_at" in link) == (expires == "1791331200")


@pytest.mark.parametrize(("seconds", "is_over"), [(-1, True), (0, True), (60, False)])
async def test_a_page_that_is_over_already_is_told_of(sandbox: Sandbox, seconds: int, is_over: bool) -> None:
    wire = Wire(sandbox)
    expires = int(sandbox.clock.now().timestamp()) + seconds
    page = {"url": "https://checkout.stripe.com/c/pay/cs_live_a1#fid", "expires_at": expires}
    wire.on("POST", "/stripe/create-checkout-session", answering(200, page))
    async with agent_on(sandbox, transport=wire) as agent:
        link = await agent.call("create_top_up_link", amount_usd=10)
    assert ("is over already" in link["next"]) is is_over


# --- Jupyter ---------------------------------------------------------------------------------------------------------


@both_eras
async def test_jupyter_is_waited_for_and_its_address_is_given(sandbox: Sandbox, mode: Mode) -> None:
    pod_id = await rent(sandbox, "worker")
    port = await port_of(sandbox, pod_id)
    async with agent_on(sandbox, mode=mode) as agent:
        pending = await agent.call("install_jupyter", pod="worker", port=port, wait_seconds=0)
        assert pending["outcome"] == "pending"
        done = await agent.call("install_jupyter", pod="worker", port=port, wait_seconds=120)
    assert done["outcome"] == "done"
    assert done["url"] == pod_of(sandbox, pod_id)["jupyter_url"]
    asked = [note for note in truth(sandbox, "requests") if note["path"].endswith("/install-jupyter")]
    assert len(asked) == 1, "an installation under way is not started again"


@pytest.mark.parametrize(
    ("ports", "shown"), [({"22": 31000, "8000": 31001}, "ports: 22, 8000."), ({}, "ports: none.")], ids=["two", "none"]
)
async def test_jupyter_on_a_port_that_is_not_exposed_is_refused_before_it_is_sent(
    sandbox: Sandbox, ports: Row, shown: str
) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"ports_mapping": ports}))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("install_jupyter", pod="worker", port=8888)
    assert refused.code == "port_not_exposed"
    assert shown in refused.text
    assert "Nothing was changed" in refused.text
    assert not wire.sent("POST", "/pods/*/install-jupyter")


@pytest.mark.parametrize(
    "unknown",
    [{"ports_mapping": None}, {"ports_mapping": {"22": 31000, "8888": None}}, {"ports_mapping": {}, "status": "BUSY"}],
    ids=["no ports", "an odd port", "not running"],
)
async def test_jupyter_is_lium_s_to_refuse_where_ports_are_unknown(sandbox: Sandbox, unknown: Row) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | unknown))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("install_jupyter", pod="worker", port=4242)
    assert refused.code == "refused"
    assert "4242" in refused.text
    assert len(wire.sent("POST", "/pods/*/install-jupyter")) == 1


async def test_jupyter_that_fails(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    sandbox.add_fault("jupyter_fails", pod_id=pod_id)
    port = await port_of(sandbox, pod_id)
    failed = await agent.call("install_jupyter", pod="worker", port=port, wait_seconds=120)
    assert failed["outcome"] == "failed"
    assert "url" not in failed
    again = await agent.call("install_jupyter", pod="worker", port=port, wait_seconds=120)
    assert again["outcome"] == "done"


@pytest.mark.parametrize("fails_first", [False, True])
@pytest.mark.parametrize(("lag_seconds", "outcome"), [(3, "done"), (3600, "pending")])
async def test_the_jupyter_of_before_is_not_told_for_a_new_one(
    sandbox: Sandbox, fails_first: bool, lag_seconds: float, outcome: str
) -> None:
    pod_id = await rent(sandbox, "worker")
    port = await port_of(sandbox, pod_id)
    if fails_first:
        sandbox.add_fault("jupyter_fails", pod_id=pod_id)
    await ask(sandbox, "POST", f"/pods/{pod_id}/install-jupyter", {"jupyter_internal_port": port})
    sandbox.clock.advance(minutes=5)
    wire = Wire(sandbox)
    lag(wire, sandbox, "POST", "/pods/*/install-jupyter", f"/pods/{pod_id}", seconds=lag_seconds)
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("install_jupyter", pod="worker", port=port, wait_seconds=120)
    assert answer["outcome"] == outcome
    if outcome == "done":
        assert answer["url"] == pod_of(sandbox, pod_id)["jupyter_url"]
    else:
        assert "url" not in answer
        assert "Jupyter of before" in answer["next"]


# --- GPU reset -------------------------------------------------------------------------------------------------------


@both_eras
async def test_a_gpu_reset_is_polled_until_it_is_done(sandbox: Sandbox, mode: Mode) -> None:
    pod_id = await rent(sandbox, "worker")
    async with agent_on(sandbox, mode=mode) as agent:
        done = await agent.call("reset_pod_gpus", pod="worker", wait_seconds=180)
        assert done["outcome"] == "done"
        assert done["gpus"] == ["0: reset"]
        assert any("running" in line for line in agent.progress)
    logged = [event["sub_event_type"] for event in truth(sandbox, "events") if "gpu-reset" in event["event_type"]]
    assert logged[-1] == "pod-gpu-reset.success"
    assert pod_of(sandbox, pod_id)["status"] == "RUNNING"


async def test_a_pending_reset_is_waited_for_by_its_id_and_not_begun_again(agent: Agent, sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    begun = await agent.call("reset_pod_gpus", pod="worker", wait_seconds=0)
    assert begun["outcome"] == "pending"
    assert "reset_id" in begun["next"]
    running = await agent.refused("reset_pod_gpus", pod="worker")
    assert running.code == "conflict"
    done = await agent.call("reset_pod_gpus", pod="worker", reset_id=begun["reset_id"], wait_seconds=180)
    assert (done["outcome"], done["reset_id"]) == ("done", begun["reset_id"])
    posts = [note for note in truth(sandbox, "requests") if note["method"] == "POST" and "reset-gpu" in note["path"]]
    assert [note["status"] for note in posts] == [202, 409]
    for unknown in ("00000000-0000-4000-8000-00000000dead", "../../pods"):
        refused = await agent.refused("reset_pod_gpus", pod="worker", reset_id=unknown)
        assert refused.code in {"not_found", "invalid_argument"}


async def test_gpus_are_reset_once_a_minute_at_most_and_a_limit_is_not_retried(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    limited = {"Retry-After": "31"}
    wire.on("POST", "/pods/*/reset-gpu", answering(429, {"message": "slow down"}, **limited))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("reset_pod_gpus", pod="worker")
    assert refused.code == "rate_limited"
    assert "31 seconds" in refused.text
    assert len(wire.sent("POST", "/pods/*/reset-gpu")) == 1


async def test_a_reset_that_fails_says_which_gpu(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    sandbox.add_fault("gpu_reset_fails", pod_id=pod_id)
    failed = await agent.call("reset_pod_gpus", pod="worker", gpu_indices=[0], wait_seconds=180)
    assert failed["outcome"] == "failed"
    assert failed["gpus"] == ["0: failed"]
    assert "did not come back" in failed["problem"]


@pytest.mark.parametrize(
    "said",
    [
        {"ok": False, "gpus": [{"index": 0, "result": "failed"}]},
        {"ok": None, "gpus": [{"index": 0, "result": "reset"}, {"index": 1, "result": "Failed"}]},
    ],
    ids=["not ok", "one of two"],
)
@pytest.mark.parametrize("status", ["done", None])
async def test_a_reset_that_is_over_and_went_wrong_is_not_done(sandbox: Sandbox, said: Row, status: str | None) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/reset-gpu", answering(200, {"status": status, "success": True, "error": None} | said))
    async with agent_on(sandbox, transport=wire) as agent:
        failed = await agent.call("reset_pod_gpus", pod="worker")
    assert failed["outcome"] == "failed"


@pytest.mark.parametrize("indices", [[7], [-1], []])
async def test_a_gpu_that_the_pod_does_not_have_is_refused(agent: Agent, sandbox: Sandbox, indices: list[int]) -> None:
    await rent(sandbox, "worker")
    refused = await agent.refused("reset_pod_gpus", pod="worker", gpu_indices=indices)
    assert refused.code in {"refused", "invalid_argument"}
    assert not [event for event in truth(sandbox, "events") if "gpu-reset" in (event["sub_event_type"] or "")]


async def test_an_old_server_answers_a_reset_at_once(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/reset-gpu", answering(200, {"ok": True, "gpus": [{"index": 0, "result": "reset"}]}))
    async with agent_on(sandbox, transport=wire) as agent:
        done = await agent.call("reset_pod_gpus", pod="worker")
    assert (done["outcome"], done["gpus"]) == ("done", ["0: reset"])
    assert "reset_id" not in done


@pytest.mark.parametrize(("said", "outcome"), [({"success": True}, "done"), ({"message": "started"}, "pending")])
async def test_a_reset_without_an_id_is_neither_waited_for_nor_begun_again(
    sandbox: Sandbox, said: Row, outcome: str
) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/reset-gpu", answering(200, said))
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("reset_pod_gpus", pod="worker")
        assert agent.clock.slept_seconds == 0
    assert answer["outcome"] == outcome
    assert ("reset them again" in answer.get("next", "")) is (outcome == "pending")
    assert "this reset_id" not in answer.get("next", "")


# --- ratings, audit, demands -----------------------------------------------------------------------------------------


async def test_a_rating_counts_once(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    assert await agent.call("rate_pod", pod="worker", rating=2, text="slow disk") == {"pod_id": pod_id, "rating": 2}
    await agent.call("rate_pod", pod="worker", rating=5)
    feedback = pod_of(sandbox, pod_id)["feedback"]
    assert (feedback["rating"], feedback["feedback_text"]) == (2, "slow disk")
    for rating in (0, 6):
        assert (await agent.refused("rate_pod", pod="worker", rating=rating)).code == "invalid_argument"


@both_eras
async def test_activity_is_paged_to_its_end_and_filtered(sandbox: Sandbox, mode: Mode) -> None:
    for number in range(7):
        await ask(sandbox, "POST", "/volumes", {"name": f"v{number}"}, **{"X-Source": "cli"})
    await rent(sandbox, "worker")
    await ask(sandbox, "POST", "/volumes", {"name": "theirs"}, **{"X-API-KEY": OTHER_API_KEY})
    account = truth(sandbox, "accounts")[0]["id"]
    async with agent_on(sandbox, mode=mode) as agent:
        seen: list[Row] = []
        cursor = ""
        for _ in range(10):
            page = await agent.call("list_activity", limit=3, cursor=cursor)
            seen += page["activities"]
            cursor = page.get("next_cursor", "")
            if not cursor:
                break
        recorded = [row for row in truth(sandbox, "audit") if row["actor"]["user_id"] == account]
        assert [row["resource_id"] for row in seen] == [row["resource_id"] for row in reversed(recorded)]
        volumes = await agent.call("list_activity", action="volume.", source="cli", limit=100)
        assert {row["action"] for row in volumes["activities"]} == {"volume.create"}
        assert len(volumes["activities"]) == 7
        assert volumes["activities"][0]["by_key"] == "sandbox-key"
        assert (await agent.call("list_activity", source="portal")) == {"activities": []}
        assert (await agent.refused("list_activity", cursor="nonsense")).code == "invalid_argument"


async def test_a_server_without_an_audit_log_says_that_there_is_none(agent: Agent, sandbox: Sandbox) -> None:
    sandbox.add_fault("old_server", times=None)
    assert (await agent.refused("list_activity")).code == "not_supported"


async def test_a_demand_goes_to_one_gpu_type(agent: Agent, sandbox: Sandbox) -> None:
    asked = await agent.call("request_gpus", gpu_type="B300", gpu_count=8)
    assert asked["machine_name"] == "NVIDIA B300 SXM6 AC"
    (note,) = [note for note in truth(sandbox, "requests") if note["path"] == "/machine-requests"]
    assert note["status"] == 200
    ambiguous = await agent.refused("request_gpus", gpu_type="H100")
    assert ambiguous.code == "ambiguous_name"
    assert "NVIDIA H100 PCIe" in ambiguous.text
    assert (await agent.refused("request_gpus", gpu_type="Voodoo2")).code == "gpu_type_not_found"
    full = await agent.call("request_gpus", gpu_type="NVIDIA H100 PCIe")
    assert full["machine_name"] == "NVIDIA H100 PCIe"
    assert len([note for note in truth(sandbox, "requests") if note["path"] == "/machine-requests"]) == 2


# --- Registry logins -------------------------------------------------------------------------------------------------


async def test_a_registry_password_comes_from_the_environment_and_never_comes_out(
    agent: Agent, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LIUM_MCP_REGISTRY_HUB", "hunter2-very-secret")
    monkeypatch.setenv("OTHER_SECRET", "not-for-lium")
    for variable in ("OTHER_SECRET", "LIUM_MCP_REGISTRY_MISSING", "PATH"):
        refused = await agent.refused("add_registry_credential", username="ci-bot", password_variable=variable)
        assert refused.code == "password_not_found"
    sandbox.add_fault(
        "error", status=400, body='{"detail": "bad password hunter2-very-secret"}', match={"method": "POST"}
    )
    echoed = await agent.refused(
        "add_registry_credential", username="ci-bot", password_variable="LIUM_MCP_REGISTRY_HUB"
    )
    added = await agent.call("add_registry_credential", username="ci-bot", password_variable="LIUM_MCP_REGISTRY_HUB")
    again = await agent.call("add_registry_credential", username="ci-bot", password_variable="LIUM_MCP_REGISTRY_HUB")
    assert (added["already_stored"], again["already_stored"]) == (False, True)
    assert added["credential_id"] == again["credential_id"]
    assert "hunter2" not in echoed.text + str(added) + caplog.text
    (stored,) = await ask(sandbox, "GET", "/docker-credentials/")
    assert (stored["id"], stored["docker_username"]) == (added["credential_id"], "ci-bot")


# --- SSH keys --------------------------------------------------------------------------------------------------------


async def test_an_ssh_key_is_deleted_by_its_id_once(agent: Agent, sandbox: Sandbox) -> None:
    key_id = (await ask(sandbox, "POST", "/ssh-keys", {"name": "laptop", "public_key": PUBLIC_KEY}))["id"]
    for wrong in ("laptop", "../users/me"):
        assert (await agent.refused("delete_ssh_key", key_id=wrong)).code == "invalid_argument"
    assert await agent.call("delete_ssh_key", key_id=key_id) == {"key_id": key_id}
    assert truth(sandbox, "ssh_keys") == []
    assert (await agent.refused("delete_ssh_key", key_id=key_id)).code == "not_found"


async def test_pods_that_only_a_person_can_tell_apart_are_left_alone(agent: Agent, sandbox: Sandbox) -> None:
    twins = [await rent(sandbox, "twin"), await rent(sandbox, "twin")]
    for tool, more in (
        ("install_jupyter", {"port": 8000}),
        ("reset_pod_gpus", {}),
        ("rate_pod", {"rating": 1}),
    ):
        refused = await agent.refused(tool, pod="twin", **more)
        assert refused.code == "ambiguous_name"
        assert all(pod_id in refused.text for pod_id in twins)
    assert not [note for note in truth(sandbox, "requests") if "reset-gpu" in note["path"]]


async def test_an_answer_with_holes_is_shown_as_far_as_it_goes(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    odd = {"id": "1", "action": "pod.\x1b[31mdelete", "created_at": "yesterday", "actor": None, "status_code": "x"}
    wire.on("GET", "/account/audit", editing(lambda _: {"items": [None, {}, odd], "next_cursor": 7}))
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("list_activity")
    assert answer["activities"][-1] == {"action": "pod.delete"}


async def test_what_became_of_a_gpu_is_not_made_up(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on(
        "POST",
        "/pods/*/reset-gpu",
        answering(200, {"request_id": "r1", "status": "done", "gpus": [{"index": 0}, {"result": "reset"}]}),
    )
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("reset_pod_gpus", pod="worker")
    assert answer["gpus"] == ["0: Lium does not say", "A GPU: reset"]
