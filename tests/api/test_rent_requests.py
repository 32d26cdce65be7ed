"""A rent is sent once, and every outcome is either proven or said to be unknown."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clusters import ClusterRentRequest
from lium_mcp.api.errors import (
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    Conflict,
    ConnectionFailed,
    FirewallBlocked,
    IdempotencyConflict,
    InsufficientBalance,
    InvalidRequest,
    LiumError,
    MissingApiKey,
    NoExecutorMatches,
    NotFound,
    RateLimited,
    RentOutcomeUnknown,
    UntrustedRedirect,
    ValidationFailed,
)
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest
from tests.api.fakes import IDEMPOTENCY_KEY, NODE_ID, POD_ID, PUBLIC_KEY, Reply, client_on, ok, refusal, scripted
from tests.wires import Wire

REQUEST = RentRequest(pod_name="train", template_id=NODE_ID, user_public_key=[PUBLIC_KEY], gpu_count=1)
BY_SPEC = RentBySpecRequest(pod_name="train", user_public_key=[PUBLIC_KEY], gpu_type="H100")
CLUSTER = ClusterRentRequest(
    pod_name="train", template_id=NODE_ID, executor_uuids=[NODE_ID, POD_ID], user_public_key=[PUBLIC_KEY]
)

Rent = Callable[[LiumClient], Awaitable[Any]]
RENTS: dict[str, Rent] = {
    "plain": lambda c: c.executors.rent(NODE_ID, REQUEST, idempotency_key=IDEMPOTENCY_KEY),
    "by spec": lambda c: c.executors.rent_by_spec(BY_SPEC, idempotency_key=IDEMPOTENCY_KEY),
    "cluster": lambda c: c.clusters.rent(CLUSTER, idempotency_key=IDEMPOTENCY_KEY),
}
every_rent = pytest.mark.parametrize("rent", RENTS.values(), ids=RENTS)


def coded(status: int, code: str, **headers: str) -> httpx2.Response:
    body = {"success": False, "error": {"code": code, "message": code}, "message": code, "status_code": status}
    return refusal(status, body, **headers)


async def outcome_of(rent: Rent, reply: Reply) -> tuple[LiumError, Wire]:
    wire = scripted(reply)
    async with client_on(wire) as client:
        with pytest.raises(LiumError) as caught:
            await rent(client)
    assert len(wire.requests) == 1
    return caught.value, wire


@every_rent
@pytest.mark.parametrize(
    "reply",
    [
        refusal(500),
        refusal(502),
        refusal(503, **{"Idempotent-Replayed": "true"}),
        refusal(408),
        refusal(418),
        coded(409, "idempotency_in_progress"),
        coded(409, "idempotency_outcome_unknown", **{"Idempotent-Replayed": "true"}),
        httpx2.ReadError("reset"),
        httpx2.WriteError("reset"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut"),
        ok({}),
        ok({"success": True}),
        ok({"pod_id": None, "id": ""}),
        ok({"pod_id": {"id": POD_ID}}),
        ok({"pod_id": "../volumes"}),
        ok([]),
        ok("done"),
        httpx2.Response(200, text="<html>ok</html>"),
        httpx2.Response(204),
        httpx2.Response(302, headers={"Location": "/login"}),
        httpx2.Response(302, headers={"Location": "https://evil.example/"}),
        httpx2.Response(304),
    ],
)
async def test_rent_with_nothing_proven_is_unknown_and_sent_once(rent: Rent, reply: Reply) -> None:
    if isinstance(reply, httpx2.Response) and reply.headers.get("Location") == "/login":
        wire = scripted(reply, ok({"id": POD_ID, "pod_ids": [POD_ID]}))
        async with client_on(wire) as client:
            with pytest.raises(RentOutcomeUnknown) as caught:
                await rent(client)
        error: LiumError = caught.value
        assert [request.method for request in wire.requests] == ["POST", "GET"]
    else:
        error, _ = await outcome_of(rent, reply)
    assert isinstance(error, RentOutcomeUnknown)
    assert error.effect == "unknown"
    assert error.idempotency_key == IDEMPOTENCY_KEY
    assert error.pod_name == "train"
    assert error.__cause__ is error.cause


@every_rent
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (refusal(400), BadRequest),
        (refusal(401), AuthenticationFailed),
        (refusal(402), BudgetExceeded),
        (coded(403, "insufficient_balance"), InsufficientBalance),
        (httpx2.Response(403, html="<html>blocked</html>"), FirewallBlocked),
        (refusal(404), NotFound),
        (refusal(409), Conflict),
        (coded(409, "no_executor_matches_spec"), NoExecutorMatches),
        (coded(409, "idempotency_key_reused"), IdempotencyConflict),
        (refusal(422), ValidationFailed),
        (refusal(429), RateLimited),
        (httpx2.ConnectError("refused"), ConnectionFailed),
        (httpx2.ConnectTimeout("slow"), ConnectionFailed),
        (httpx2.PoolTimeout("full"), ConnectionFailed),
        (httpx2.Response(307, headers={"Location": "https://evil.example/"}), UntrustedRedirect),
    ],
)
async def test_rent_that_was_refused_rented_nothing(rent: Rent, reply: Reply, expected: type[LiumError]) -> None:
    error, _ = await outcome_of(rent, reply)
    assert type(error) is expected
    assert error.effect == "none"
    assert error.replayed is False


@every_rent
async def test_stored_refusal_says_that_it_is_one(rent: Rent) -> None:
    error, _ = await outcome_of(rent, refusal(409, **{"Idempotent-Replayed": "true"}))
    assert type(error) is Conflict
    assert error.replayed


@every_rent
async def test_redirected_rent_keeps_method_body_and_key(rent: Rent) -> None:
    wire = scripted(
        httpx2.Response(307, headers={"Location": "/api/elsewhere"}), ok({"pod_id": POD_ID, "pod_ids": [POD_ID]})
    )
    async with client_on(wire) as client:
        await rent(client)
    first, second = wire.requests
    assert second.method == "POST"
    assert second.content == first.content
    assert second.headers["Idempotency-Key"] == IDEMPOTENCY_KEY


@every_rent
async def test_nothing_is_sent_without_a_key_or_with_an_impossible_idempotency_key(rent: Rent) -> None:
    async with client_on(scripted(), api_key=None) as client:
        with pytest.raises(MissingApiKey):
            await rent(client)


@pytest.mark.parametrize("key", ["", "a\r\nX-Evil: 1", "a b", "\u00e9", "x" * 129])
async def test_impossible_idempotency_key_is_refused(key: str) -> None:
    async with client_on(scripted()) as client:
        with pytest.raises(InvalidRequest, match="idempotency_key"):
            await client.executors.rent(NODE_ID, REQUEST, idempotency_key=key)


@pytest.mark.parametrize("body", [{"success": True, "pod_id": POD_ID}, {"id": POD_ID, "pod_name": "train"}])
async def test_rent_names_the_pod_whichever_way_the_server_says_it(body: dict[str, Any]) -> None:
    wire = scripted(ok(body))
    async with client_on(wire) as client:
        rented = await client.executors.rent(NODE_ID, REQUEST, idempotency_key=IDEMPOTENCY_KEY)
    assert rented == POD_ID
    assert wire.requests[0].headers["Idempotency-Key"] == IDEMPOTENCY_KEY


async def test_rent_by_spec_names_the_pod_and_is_no_dry_run() -> None:
    wire = scripted(ok({"pod_id": POD_ID, "selected_executor": {"id": NODE_ID}}))
    async with client_on(wire) as client:
        rented = await client.executors.rent_by_spec(BY_SPEC, idempotency_key=IDEMPOTENCY_KEY)
    assert rented == POD_ID
    assert wire.sent_json()["dry_run"] is False


async def test_dry_run_carries_no_key_and_is_repeated_like_a_read() -> None:
    wire = scripted(refusal(502), httpx2.ReadError("lost"), ok({"selected_executor": {"id": NODE_ID}}))
    async with client_on(wire) as client:
        selected = await client.executors.select_by_spec(BY_SPEC)
    assert selected.selected_executor is not None
    assert all("Idempotency-Key" not in request.headers for request in wire.requests)
    assert wire.sent_json()["dry_run"] is True


async def test_failed_dry_run_changed_nothing() -> None:
    async with client_on(scripted(*[refusal(500)] * 3)) as client:
        with pytest.raises(LiumError) as caught:
            await client.executors.select_by_spec(BY_SPEC)
    assert caught.value.effect == "none"


async def test_cluster_refused_inside_a_success_is_a_refusal() -> None:
    wire = scripted(ok({"success": False, "message": "Nodes are on different\nfabrics"}))
    async with client_on(wire) as client:
        with pytest.raises(Conflict, match="different fabrics") as caught:
            await client.clusters.rent(CLUSTER, idempotency_key=IDEMPOTENCY_KEY)
    assert caught.value.effect == "none"


async def test_cluster_that_contradicts_itself_is_unknown() -> None:
    wire = scripted(ok({"success": False, "pod_ids": [POD_ID]}))
    async with client_on(wire) as client:
        with pytest.raises(RentOutcomeUnknown):
            await client.clusters.rent(CLUSTER, idempotency_key=IDEMPOTENCY_KEY)


@pytest.mark.parametrize("kind", ["plain", "by spec"])
async def test_a_refusal_of_a_rent_inside_a_success_proves_nothing(kind: str) -> None:
    said = {"success": False, "message": "paused", "status_code": 409}
    error, _ = await outcome_of(RENTS[kind], ok(said))
    assert isinstance(error, RentOutcomeUnknown)
    async with client_on(scripted(ok({**said, "pod_id": POD_ID}))) as client:
        assert await RENTS[kind](client) == POD_ID


async def test_a_cluster_that_is_removed_in_part_says_so_pod_by_pod() -> None:
    rows = [{"pod_id": POD_ID, "success": True}, {"pod_id": NODE_ID, "success": False}]
    async with client_on(scripted(ok({"success": False, "pods": rows}))) as client:
        removed = await client.clusters.remove(NODE_ID)
    assert [row.success for row in removed.pods] == [True, False]


async def test_bodies_have_the_keys_and_nulls_of_the_official_client() -> None:
    wire = scripted(ok({"pod_id": POD_ID}), ok({"pod_id": POD_ID}))
    async with client_on(wire) as client:
        await client.executors.rent(
            NODE_ID,
            RentRequest(pod_name="train", template_id=NODE_ID, user_public_key=[PUBLIC_KEY]),
            idempotency_key=IDEMPOTENCY_KEY,
        )
        await client.executors.rent_by_spec(
            RentBySpecRequest(
                pod_name="train",
                user_public_key=[PUBLIC_KEY],
                gpu_type="H100",
                docker_in_docker=False,
                dockerfile_content="FROM scratch",
                build_context_sha256="ab" * 32,
            ),
            idempotency_key=IDEMPOTENCY_KEY,
        )
    common = {
        "pod_name": "train",
        "volume_id": None,
        "user_public_key": [PUBLIC_KEY],
        "initial_port_count": None,
        "backup_log_id": None,
        "restore_path": None,
        "enable_backups": True,
    }
    assert wire.sent_json(0) == {
        **common,
        "template_id": NODE_ID,
        "dockerfile_content": None,
        "enable_volume_encryption": False,
    }
    assert wire.sent_json(1) == {
        **common,
        "gpu_type": "H100",
        "gpu_count": 1,
        "docker_in_docker": False,
        "template_id": None,
        "dockerfile_content": "FROM scratch",
        "enable_volume_encryption": True,
        "dry_run": False,
        "build_context_sha256": "ab" * 32,
    }


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pod_name": " "}, "pod_name"),
        ({"user_public_key": []}, "user_public_key"),
        ({"template_id": None}, "template_id"),
        ({"dockerfile_content": "FROM x"}, "dockerfile_content"),
        ({"backup_log_id": NODE_ID}, "restore_path"),
        ({"restore_path": "/root/x"}, "backup_log_id"),
        ({"build_context_sha256": "ab"}, "dockerfile_content"),
        ({"template_id": None, "dockerfile_content": "x" * 65537}, "dockerfile_content"),
        ({"termination_hours": 0}, "termination_hours"),
        ({"termination_hours": 721}, "termination_hours"),
        ({"initial_port_count": 0}, "initial_port_count"),
        ({"gpu_count": 0}, "gpu_count"),
    ],
)
async def test_rent_that_cannot_be_meant_is_refused_here(changes: dict[str, Any], named: str) -> None:
    async with client_on(scripted()) as client:
        with pytest.raises(InvalidRequest, match=named):
            await client.executors.rent(NODE_ID, REQUEST.model_copy(update=changes), idempotency_key=IDEMPOTENCY_KEY)


@pytest.mark.parametrize(("changes", "named"), [({"gpu_type": ""}, "gpu_type"), ({"gpu_count": 0}, "gpu_count")])
async def test_specification_that_cannot_be_meant_is_refused_here(changes: dict[str, Any], named: str) -> None:
    async with client_on(scripted()) as client:
        with pytest.raises(InvalidRequest, match=named):
            await client.executors.select_by_spec(BY_SPEC.model_copy(update=changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"pod_name": ""},
        {"user_public_key": []},
        {"executor_uuids": [NODE_ID]},
        {"executor_uuids": [NODE_ID, NODE_ID]},
        {"executor_uuids": [NODE_ID, "../x"]},
    ],
)
async def test_cluster_that_cannot_be_meant_is_refused_here(changes: dict[str, Any]) -> None:
    async with client_on(scripted()) as client:
        with pytest.raises(InvalidRequest):
            await client.clusters.rent(CLUSTER.model_copy(update=changes), idempotency_key=IDEMPOTENCY_KEY)


def test_rent_request_survives_being_stored() -> None:
    assert RentRequest.model_validate_json(REQUEST.model_dump_json()) == REQUEST
    assert "FROM secret" not in repr(REQUEST.model_copy(update={"dockerfile_content": "FROM secret"}))


def test_misspelled_constraint_is_an_error_and_not_dropped() -> None:
    with pytest.raises(ValueError, match="interconnect"):
        RentBySpecRequest.model_validate(
            {"pod_name": "a", "user_public_key": ["k"], "gpu_type": "H100", "interconnect": "nvlink"}
        )
