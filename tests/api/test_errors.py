"""Refusals in every body shape become errors that a caller can act on, and never leak or crash."""

import inspect
import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.api import errors
from lium_mcp.api.errors import (
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    Conflict,
    FirewallBlocked,
    InsufficientBalance,
    LiumError,
    MissingScope,
    NoExecutorMatches,
    NotDone,
    NotFound,
    PaymentFailed,
    PermissionDenied,
    RentOutcomeUnknown,
    ServerFailed,
    ValidationFailed,
)
from tests.api.fakes import KEY, NODE_ID, client_on, ok, refusal, scripted

BALANCE = (
    "Insufficient balance. This node costs $2.20/hour, so renting it requires at least $1,234.55 "
    "(15 minutes of runtime). Your balance is $0.10."
)


async def error_for(reply: httpx2.Response, **options: Any) -> LiumError:
    """Return the error of a change that was answered with `reply`."""
    async with client_on(scripted(reply, reply, reply), **options) as client:
        with pytest.raises(LiumError) as caught:
            await client.volumes.delete(NODE_ID)
    return caught.value


def envelope(status: int, **error: Any) -> httpx2.Response:
    return refusal(status, {"success": False, "error": error, "message": error.get("message"), "status_code": status})


@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "error": {"message": "Volume is busy"}, "message": "Volume is busy", "status_code": 409},
        {"success": False, "error": {"message": "Volume is busy"}},
        {"error": "Volume is busy"},
        {"message": "Volume is busy", "status_code": 409},
        {"message": {"message": "Volume is busy"}},
        {"detail": "Volume is busy"},
        {"detail": {"message": "Volume is busy"}},
        {"detail": [{"loc": [], "msg": "Volume is busy"}]},
        {"detail": ["Volume is busy", None]},
        {"validation_errors": ["Volume is busy", 7.5, []]},
        "Volume is busy",
    ],
)
async def test_sentence_is_found_in_every_body_shape(body: Any) -> None:
    error = await error_for(refusal(409, body))
    assert type(error) is Conflict
    assert "Volume is busy" in str(error)


async def test_sentence_of_a_plain_text_body_is_kept() -> None:
    error = await error_for(httpx2.Response(503, text="no healthy upstream"))
    assert type(error) is ServerFailed
    assert "no healthy upstream" in str(error)
    assert "503" in str(error)
    assert error.effect == "unknown"


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    ("said", "kind", "effect"),
    [
        ({}, NotDone, "none"),
        ({"message": "Volume is busy"}, NotDone, "none"),
        ({"error": {"message": "Volume is busy"}, "status_code": 200}, NotDone, "none"),
        ({"message": "Volume is busy", "status_code": 409}, Conflict, "none"),
        ({"message": "Volume is busy", "status_code": "404"}, NotFound, "none"),
        ({"error": {"code": "insufficient_balance"}}, InsufficientBalance, "none"),
        ({"error": {"code": "missing_scope"}}, MissingScope, "none"),
        ({"error": {"code": "API_KEY_BUDGET_EXCEEDED"}}, BudgetExceeded, "none"),
        ({"message": "oops", "status_code": 500}, ServerFailed, "unknown"),
    ],
)
async def test_a_refusal_in_the_body_of_a_success_is_what_the_body_describes(
    status: int, said: dict[str, Any], kind: type[LiumError], effect: str
) -> None:
    error = await error_for(refusal(status, {"success": False, **said}))
    assert type(error) is kind
    assert error.effect == effect
    assert ("Volume is busy" in str(error)) is ("Volume is busy" in str(said))


@pytest.mark.parametrize("success", [False, "false", " False"])
async def test_a_false_is_a_refusal_as_text_too(success: Any) -> None:
    async with client_on(scripted(ok({"success": success, "message": "Volume is busy"}))) as client:
        with pytest.raises(NotDone, match="Volume is busy"):
            await client.volumes.delete(NODE_ID)


@pytest.mark.parametrize("success", ["no", 0, None, [], True])
async def test_only_a_false_in_the_body_of_a_change_is_a_refusal(success: Any) -> None:
    body = {"id": NODE_ID, "success": success, "nested": {"success": False}}
    async with client_on(scripted(ok(body), ok({"id": NODE_ID, "success": False}))) as client:
        await client.volumes.delete(NODE_ID)
        assert (await client.volumes.get(NODE_ID)).id == NODE_ID


async def test_envelope_gives_code_hint_and_request_id() -> None:
    error = await error_for(envelope(400, code="ttl_invalid", message="no", hint="Use 1 to 720.", request_id="req-1"))
    assert type(error) is BadRequest
    assert (error.code, error.hint, error.request_id, error.status) == ("ttl_invalid", "Use 1 to 720.", "req-1", 400)


async def test_request_id_of_the_header_serves_where_the_body_has_none() -> None:
    assert (await error_for(refusal(404, {}, **{"X-Request-Id": "req-2"}))).request_id == "req-2"
    body = {"error": {"request_id": "req-1"}}
    assert (await error_for(refusal(404, body, **{"X-Request-Id": "req-2"}))).request_id == "req-1"


@pytest.mark.parametrize("value", ["", 7, {}, None, []])
async def test_only_non_empty_strings_count_as_code_hint_or_request_id(value: Any) -> None:
    error = await error_for(refusal(404, {"error": {"code": value, "hint": value, "request_id": value}}))
    assert (error.code, error.hint, error.request_id) == (None, None, None)


@pytest.mark.parametrize("code", [None, "API_KEY_BUDGET_EXCEEDED"])
@pytest.mark.parametrize("place", ["message", "detail", "data"])
async def test_budget_refusal_says_which_budget(code: str | None, place: str) -> None:
    facts = {"message": "used up", "window": "daily", "budget_usd": "20.0", "spent_usd": 20.4}
    body: dict[str, Any] = {"error": {"code": code}}
    if place == "data":
        body["error"]["data"] = facts
    else:
        body[place] = facts
    error = await error_for(refusal(402, body))
    assert isinstance(error, BudgetExceeded)
    assert "(daily, budget $20.00, spent $20.40): used up" in str(error)


async def test_other_402_is_about_a_payment() -> None:
    assert type(await error_for(envelope(402, code="CARD_DECLINED", message="declined"))) is PaymentFailed


async def test_missing_scope_is_named() -> None:
    error = await error_for(refusal(403, {"detail": "API key 'ci' does not have the 'manage' scope"}))
    assert isinstance(error, MissingScope)
    assert "'manage'" in str(error)
    by_code = await error_for(envelope(403, code="scope_required", message="no"))
    assert isinstance(by_code, MissingScope)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "insufficient_balance", "message": "Too low."}, "message": BALANCE},
        {"detail": BALANCE},
    ],
)
async def test_balance_refusal_says_how_much_is_needed(body: Any) -> None:
    error = await error_for(refusal(403, body))
    assert isinstance(error, InsufficientBalance)
    assert BALANCE in str(error)


async def test_code_decides_over_the_sentence() -> None:
    error = await error_for(envelope(403, code="account_not_verified", message="insufficient balance of trust"))
    assert type(error) is PermissionDenied


@pytest.mark.parametrize("headers", [{"Content-Type": "text/html"}, {"Content-Type": "text/plain"}])
async def test_firewall_page_is_recognised_and_never_quoted(headers: dict[str, str]) -> None:
    page = " <!DOCTYPE html><html><script>alert(1)</script>Attention Required</html>"
    error = await error_for(httpx2.Response(403, content=page.encode(), headers=headers))
    assert type(error) is FirewallBlocked
    assert error.effect == "none"
    assert "<" not in str(error)
    assert "Attention" not in str(error)


@pytest.mark.parametrize("nested", [True, False])
async def test_no_match_names_the_constraint(nested: bool) -> None:
    facts = {
        "code": "no_executor_matches_spec",
        "constraint": "min_cpus",
        "candidates_before": 12,
        "message": "min_cpus=64: none of 12 nodes qualifies; best on offer is 48",
    }
    error = await error_for(refusal(409, {"message": facts} if nested else facts))
    assert isinstance(error, NoExecutorMatches)
    assert "best on offer is 48" in str(error)


async def test_running_operation_is_named() -> None:
    error = await error_for(refusal(409, {"detail": {"message": "running", "active_operation_id": NODE_ID}}))
    assert isinstance(error, Conflict)
    assert error.active_operation_id == NODE_ID


@pytest.mark.parametrize(
    "body",
    [
        {"validation_errors": [{"field": "name", "message": "too long"}], "message": "Validation failed"},
        {"detail": [{"loc": ["body", "name"], "msg": "too long", "type": "x", "input": "p4ssw0rd"}]},
    ],
)
async def test_refused_fields_are_named_without_what_was_sent(body: Any) -> None:
    error = await error_for(refusal(422, body))
    assert isinstance(error, ValidationFailed)
    assert "name: too long" in str(error)
    assert "p4ssw0rd" not in str(vars(error))


@pytest.mark.parametrize("status", [410, 413, 415, 451])
async def test_rarer_refusals_are_refusals(status: int) -> None:
    error = await error_for(refusal(status))
    assert type(error) is BadRequest
    assert error.effect == "none"


async def test_facts_nested_beyond_reason_are_cut() -> None:
    nested: Any = "deep"
    for _ in range(50):
        nested = [nested]
    error = await error_for(refusal(409, {"message": {"message": "no", "facts": nested}}))
    assert "deep" not in str(error.data)
    assert error.data["message"] == "no"


async def test_server_text_is_one_bounded_line_without_control_characters_or_markup() -> None:
    text = "a\x1b[31mb\u202ec\n\nd<script>e</script>\x00f " + "x" * 5000
    error = await error_for(refusal(400, {"message": text, "error": {"hint": text, "code": text}}))
    for shown in (str(error), error.hint or "", error.code or ""):
        assert len(shown) < 400
        assert not set("\x1b\u202e\n\x00<>") & set(shown)
        assert "abc d e f" in shown.replace("[31m", "")


@pytest.mark.parametrize("shown", [KEY, "\x00".join(KEY), f"x{KEY}y", KEY + "\u200b"])
async def test_key_that_the_server_echoes_is_redacted_everywhere(shown: str) -> None:
    body = {
        "error": {"code": shown, "hint": shown, "message": shown, "request_id": shown, "data": {shown: [shown]}},
        "validation_errors": [{"field": shown, "message": shown}],
    }
    error = await error_for(refusal(401, body, **{"X-Request-Id": KEY}))
    assert type(error) is AuthenticationFailed
    assert KEY not in f"{error} {error!r} {vars(error)}"


async def test_echoed_key_is_redacted_from_plain_text_and_headers() -> None:
    error = await error_for(httpx2.Response(401, text=f"bad key {KEY}", headers={"X-Request-Id": KEY}))
    assert KEY not in f"{error} {vars(error)}"
    assert "[redacted]" in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "detail", "code", "data", "validation_errors", "loc", "msg", "field", "window"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(status=st.sampled_from([302, 400, 401, 402, 403, 404, 409, 418, 422, 429, 500, 503]), body=JSON)
async def test_any_json_body_becomes_an_error_with_a_sentence(status: int, body: Any) -> None:
    reply = httpx2.Response(status, content=json.dumps(body).encode(), headers={"Retry-After": "99"})
    error = await error_for(reply)
    assert error.status == status
    assert error.advice
    assert 0 < len(str(error)) < 500
    assert str(error).isprintable()
    for name, member in inspect.getmembers(type(error), lambda value: isinstance(value, property)):
        assert member.fget is not None, name
        member.fget(error)


@given(status=st.sampled_from([400, 403, 500]), body=st.binary(max_size=300))
async def test_any_bytes_become_an_error_with_a_sentence(status: int, body: bytes) -> None:
    error = await error_for(httpx2.Response(status, content=body))
    assert str(error).isprintable()
    assert "<" not in str(error)


def test_every_error_has_advice_of_its_own() -> None:
    leaves = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, LiumError) and value not in (LiumError, RentOutcomeUnknown)
    ]
    sentences = [leaf("x").advice for leaf in leaves]
    assert len(set(sentences)) == len(leaves) > 20
    assert all(sentence.endswith(".") for sentence in sentences)


def test_unknown_rent_advises_against_renting_again() -> None:
    error = RentOutcomeUnknown(idempotency_key="k", pod_name="train", cause=NotFound("gone", request_id="req-1"))
    assert error.advice.startswith("Do not rent again")
    assert error.request_id == "req-1"
    assert "train" in str(error)
