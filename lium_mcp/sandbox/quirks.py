"""Spoils answers as on a bad day: lists that lack rows, rows that lack figures, values in another spelling.

Only the answer is spoiled; what the sandbox itself knows stays as it is. The seed and the ids of rows decide which rows
are struck, so a row that lacks a figure lacks it until the fault is over.
"""

import codecs
import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Final, cast

from pydantic import JsonValue
from pydantic_core import to_json

from lium_mcp.sandbox.faults import Fault
from lium_mcp.sandbox.node_rows import Row
from lium_mcp.sandbox.seeded import fraction

_NUMBERS_AS_TEXT: Final = frozenset({"gpu_count", "available_gpu_count", "price", "price_per_gpu", "price_per_hour"})
_NAMES_OF_GPUS: Final = frozenset({"gpu_name", "machine_name", "gpu_model"})
_INSTANT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?")
_IPV4_LOGIN: Final = re.compile(r"@\d+\.\d+\.(\d+)\.(\d+)")
_ABSURD: Final = (-1.0, int("9" * 300), float("nan"))
# What servers send between two lines, so that nobody takes the connection for dead.
_FRAMING: Final = b': keep-alive\n\nevent: log\nid: 7\nretry: 3000\ndata: {"type": "ping"}\n\n'
# What stands where a row should be.
_JUNK: Final[tuple[JsonValue, ...]] = (None, "internal error", [], {}, {"id": None}, {"id": 7, "status": {}})


def spoil(answer: JsonValue, faults: Iterable[Fault], seed: int) -> JsonValue:
    """Return a copy of a successful answer as these faults leave it; faults of no JSON change nothing."""
    copy = cast("JsonValue", json.loads(json.dumps(answer)))
    for fault in faults:
        if isinstance(copy, list):
            copy = _spoil_list(copy, fault, seed)
        for row in _rows(copy):
            _spoil_row(row, fault, seed)
    return copy


def _spoil_list(rows: list[JsonValue], fault: Fault, seed: int) -> list[JsonValue]:
    match fault.kind:
        case "empty_list":
            return []
        case "short_list":
            return [row for row in rows if not _strikes(fault, row, seed)]
        case "unreadable_rows":
            return [_junk(row) if _strikes(fault, row, seed) else row for row in rows]
    return rows


def _spoil_row(row: Row, fault: Fault, seed: int) -> None:
    match fault.kind:
        case "missing_fields" if _strikes(fault, row, seed):
            _take_out(row, fault)
        case "spelled_otherwise" if _strikes(fault, row, seed):
            _respell(row)
        case "absurd_figures" if _strikes(fault, row, seed):
            _make_absurd(row)
        case "ipv6_hosts" if isinstance(login := row.get("ssh_connect_cmd"), str):
            row["ssh_connect_cmd"] = _IPV4_LOGIN.sub(r"@2001:db8::\1:\2", login)
        case "endless_pages" if "items" in row:
            row["has_next"] = True
            if "next_cursor" in row:
                row["next_cursor"] = "bW9yZQ=="


def written(answer: JsonValue, faults: Iterable[Fault]) -> bytes:
    """Return an answer's bytes; unlike JSON, they may hold NaN."""
    mark = codecs.BOM_UTF8 if any(fault.kind == "byte_order_mark" for fault in faults) else b""
    return mark + to_json(answer, inf_nan_mode="constants")


async def kept_alive(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Send keep-alives and other frames before each line of a stream."""
    async for line in lines:
        yield _FRAMING + line


def _rows(answer: JsonValue) -> list[Row]:
    rows = answer if isinstance(answer, list) else [answer]
    return [row for row in rows if isinstance(row, dict)]


def _identity(row: JsonValue) -> str:
    name = row.get("id", row.get("name", "")) if isinstance(row, dict) else row
    return str(name)


def _strikes(fault: Fault, row: JsonValue, seed: int) -> bool:
    if fault.ids is not None:
        return _identity(row) in fault.ids
    return fraction(seed, fault.kind, _identity(row)) < fault.share


def _junk(row: JsonValue) -> JsonValue:
    return _JUNK[int(fraction("junk", _identity(row)) * len(_JUNK))]


def _take_out(row: Row, fault: Fault) -> None:
    """Replace figures by null, or leave them out; a dot in a name leads into a part of the row."""
    for name in fault.fields:
        *parts, last = name.split(".")
        part: JsonValue = row
        for step in parts:
            part = part.get(step) if isinstance(part, dict) else None
        if not isinstance(part, dict) or last not in part:
            continue
        leaves_null = fault.leaves == "null" or (
            fault.leaves == "either" and fraction("null", name, _identity(row)) < 0.5  # noqa: PLR2004 - a coin
        )
        if leaves_null:
            part[last] = None
        else:
            del part[last]


def _make_absurd(part: Row) -> None:
    for name, value in part.items():
        for item in _rows(value):
            _make_absurd(item)
        if isinstance(value, int | float) and not isinstance(value, bool):
            part[name] = cast("JsonValue", _ABSURD[int(fraction("absurd", name) * len(_ABSURD))])


def _respell(part: Row) -> None:
    for name, value in part.items():
        if isinstance(value, dict):
            _respell(value)
        elif isinstance(value, list):
            for item in _rows(value):
                _respell(item)
        elif name in _NUMBERS_AS_TEXT and isinstance(value, int | float):
            part[name] = str(value)
        elif name == "status" and isinstance(value, str):
            part[name] = value.lower()
        elif name in _NAMES_OF_GPUS and isinstance(value, str):
            part[name] = value.replace("-", " ").replace("NVIDIA ", "NVIDIA  ")
        elif isinstance(value, str) and (written := _INSTANT.fullmatch(value)):
            part[name] = written[1]
