"""The Idempotency-Key of the rent routes: what is remembered, for how long, and how a repeat is answered.

A key belongs to an account and to one payload. It is looked up after authentication, validation, budget and balance, so
a fresh 401, 402, 403 or 422 on a repeat says nothing about the first request.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox.api_calls import ApiCall, Reply
from lium_mcp.sandbox.records import RentRecord
from lium_mcp.sandbox.refusals import ConnectionDropped, Refusal, refuse

KEPT: Final = timedelta(hours=24)
LOCK: Final = timedelta(seconds=300)
REPLAYED: Final = {"Idempotent-Replayed": "true"}


async def once(call: ApiCall, work: Callable[[], Reply], *, stores_refusals: bool = True) -> Reply:
    """Do the work, or answer with what became of it if it was asked for before under the same key."""
    key = call.headers.get("idempotency-key") if call.world.offers("rent_idempotency") else None
    record = None
    if key is not None:
        with call.world.lock:
            record = _claim(call, key)
        if record.completed_at is not None:
            return _replay(record)
    for fault in call.slow:
        if fault.stage == "working":
            await call.world.pause(fault.seconds)
    with call.world.lock:
        call.world.catch_up()
        return _do(call, work, record, stores_refusals=stores_refusals)


def _do(call: ApiCall, work: Callable[[], Reply], record: RentRecord | None, *, stores_refusals: bool) -> Reply:
    if crash := call.world.faults.strike("rent_crash"):
        # The server dies in mid-rent: the key stays claimed, and nobody will ever write down the outcome.
        if crash.rented:
            work()
        raise ConnectionDropped
    try:
        reply = work()
    except Refusal as refusal:
        if record is not None and stores_refusals:
            _settle(call, record, refusal.status, refusal.body)
        raise
    if record is not None:
        _settle(call, record, reply.status, reply.body)
    return reply


def _claim(call: ApiCall, key: str) -> RentRecord:
    world = call.world
    fingerprint = hashlib.sha256(f"{call.path}\n{_canonical(call.body)}".encode()).hexdigest()
    record = world.rent_records.get((call.me.id, key))
    if record is None or world.now - (record.completed_at or record.started_at) >= KEPT:
        record = world.rent_records[call.me.id, key] = RentRecord(fingerprint, world.now)
        return record
    if record.fingerprint != fingerprint:
        raise refuse(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used with a different request.",
            hint="Use a fresh key for a new rental; repeat an old one unchanged.",
        )
    if record.completed_at is None:
        if world.now - record.started_at < LOCK:
            raise refuse(409, "idempotency_in_progress", "A request with this Idempotency-Key is still running.")
        raise refuse(409, "idempotency_outcome_unknown", "The outcome of the first request with this key is unknown.")
    return record


def _replay(record: RentRecord) -> Reply:
    if record.status is None:
        msg = "a completed record has a status"
        raise AssertionError(msg)
    return Reply(record.body, record.status, REPLAYED)


def _settle(call: ApiCall, record: RentRecord, status: int, body: JsonValue) -> None:
    record.completed_at, record.status, record.body = call.world.now, status, body


def _canonical(body: bytes) -> str:
    return json.dumps(json.loads(body or b"{}"), sort_keys=True)
