"""Every way in which a request of ours differs from the official SDK's, with its reason. Nothing else may differ."""

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from tests.compat.operations import Case
from tests.compat.recorder import Recorded

EVERY_REQUEST = "every request"
EVERY_JSON_BODY = "every JSON body"
ABSENT = "absent"

# What the connection needs, as opposed to what the request says.
_FRAMING = {"Host", "Content-Length", "Connection"}


@dataclass(frozen=True)
class Difference:
    """One intended difference; `<version>` and `<value>` in a value stand for any."""

    where: str
    aspect: str
    official: str
    ours: str
    reason: str

    def concerns(self, case: Case, request: Recorded) -> bool:
        """Tell whether this difference must show in a request; `where` may also say what a case is about."""
        if self.where == EVERY_JSON_BODY:
            return _json(request) not in (None, {})
        return self.where in {EVERY_REQUEST, case.operation, case.what}


_SET_BY_THE_SERVER = "the server sets it, so a change does not send it back"

INTENDED = [
    Difference(EVERY_REQUEST, "header X-Source", "sdk", "mcp", "the audit log names the client a request came from"),
    Difference(
        EVERY_REQUEST,
        "header User-Agent",
        "python-requests/<version>",
        "lium-mcp/<version>",
        "a client names itself, not its HTTP library",
    ),
    Difference(
        EVERY_REQUEST, "header X-Lium-Client-Version", "<version>", "<version>", "each client states its own version"
    ),
    Difference(EVERY_JSON_BODY, "body text", "<value>", "<value>", "spaces, and `80` for `80.0`, mean nothing in JSON"),
    *(
        Difference("updateTemplate", f"body {name}", "<value>", ABSENT, _SET_BY_THE_SERVER)
        for name in ("id", "user_id", "status", "created_at", "supports_volume_encryption")
    ),
    *(
        Difference(
            "createCheckoutSession",
            f"body {name}",
            f'"http://<value>{path}"',
            f'"https://lium.io{path}"',
            "a server that is tested against has no such page, and the firewall refuses an address by number",
        )
        for name, path in (("success_url", "/billing?success=true"), ("cancel_url", "/billing"))
    ),
]


def differences(official: Recorded, ours: Recorded) -> dict[str, tuple[str, str]]:
    """Return what differs, by aspect, as (official, ours)."""
    theirs, mine = _aspects(official), _aspects(ours)
    return {
        aspect: (theirs.get(aspect, ABSENT), mine.get(aspect, ABSENT))
        for aspect in sorted(theirs.keys() | mine.keys())
        if theirs.get(aspect) != mine.get(aspect)
    }


def unintended(case: Case, official: Recorded, ours: Recorded) -> list[str]:
    """Return a sentence for each difference that is not in the table, and for each in the table that is not there."""
    found = differences(official, ours)
    expected = {row.aspect: row for row in INTENDED if row.concerns(case, official)}
    sentences = []
    for aspect in sorted(found.keys() | expected.keys()):
        values, row = found.get(aspect), expected.get(aspect)
        if values is None:
            sentences.append(f"{aspect} is listed as different and is the same")
        elif row is None or not (_fits(row.official, values[0]) and _fits(row.ours, values[1])):
            sentences.append(f"{aspect}: the official client sends {values[0]}, ours {values[1]}")
    return sentences


def _aspects(request: Recorded) -> dict[str, str]:
    aspects = {"method": request.method, "path": request.path}
    for name, value in sorted(request.query):
        aspects[f"query {name}"] = ", ".join(filter(None, (aspects.get(f"query {name}"), value)))
    for name, value in request.headers.items():
        if name not in _FRAMING:
            aspects[f"header {name}"] = _uuid4_or(value)
    body = _json(request)
    if isinstance(body, dict):
        aspects |= {f"body {name}": json.dumps(value, sort_keys=True) for name, value in body.items()}
    aspects["body text"] = request.body.decode()
    return aspects


def _json(request: Recorded) -> Any:
    if request.headers.get("Content-Type") != "application/json":
        return None
    return json.loads(request.body, parse_int=float)


def _uuid4_or(value: str) -> str:
    # Idempotency keys are drawn at random: that both are such draws is all there is to compare.
    try:
        return "a random UUID" if uuid.UUID(value).version == 4 and value == str(uuid.UUID(value)) else value
    except ValueError:
        return value


def _fits(pattern: str, value: str) -> bool:
    escaped = re.escape(pattern).replace("<version>", r"\d+(\.\w+)+").replace("<value>", "(?s:.+)")
    return value != ABSENT and re.fullmatch(escaped, value) is not None if pattern != ABSENT else value == ABSENT
