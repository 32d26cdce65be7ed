"""Starts of the real program, spoken to at random moments: each request has one answer, whoever gave it.

`python -m tests.serving.starts 1000` plays so many, and says what did not hold; a second number says where to begin.
"""

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from typing import Any, Final

from lium_mcp.serving.prepared import CURRENT, HANDSHAKE_VERSIONS
from tests.processes import environment
from tests.serving.recording import LISTS, request

_LIMIT_SECONDS: Final = 60
_ENDS: Final = ("close", "close", "close", "at once", "signal")
_CALLS: Final = ({"name": "list_pods"}, {"name": "get_gpu_prices"}, {"name": "no_such_tool"}, {"name": "get_pod"})


def first_messages(draw: random.Random, era: str) -> list[dict[str, Any]]:
    """What a client might say first: ten messages, the handshake or the discovery before all."""
    opening = "server/discover" if era == CURRENT else "initialize"
    messages = [request(opening, 0, era)]
    if era != CURRENT:
        messages.append({"jsonrpc": "2.0", "method": "notifications/initialized"})
    while len(messages) < 10:
        number = len(messages)
        kind = draw.random()
        if kind < 0.55:
            request_id: int | str = number if draw.random() < 0.5 else f"id-{number}"
            messages.append(request(draw.choice([*LISTS, *LISTS, "ping"]), request_id, era))
        elif kind < 0.85:
            message = request("tools/call", number, era)
            message.setdefault("params", {}).update(draw.choice(_CALLS))
            messages.append(message)
        elif kind < 0.95:
            earlier = draw.choice(messages)
            cancelled = {"requestId": earlier.get("id", 77), "reason": "changed my mind"}
            messages.append({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})
        else:
            messages.append(request("no/such/method", number, era))
    return messages


async def play(draw: random.Random, *, longest_pause_seconds: float) -> None:
    """One start.

    Raises:
        AssertionError: a request was answered twice or never, or with something else than at another time.
    """
    era = draw.choice([CURRENT, *HANDSHAKE_VERSIONS])
    messages = first_messages(draw, era)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lium_mcp", "--sandbox",
        env=environment(), stdin=-1, stdout=-1, stderr=-1, limit=2**24, process_group=0,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    read = asyncio.create_task(process.stdout.read())
    errors = asyncio.create_task(process.stderr.read())
    end = draw.choice(_ENDS)
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            for message in messages:
                line = json.dumps(message).encode() + b"\n"
                cut = draw.randrange(len(line)) if draw.random() < 0.3 else len(line)
                process.stdin.write(line[:cut])
                if draw.random() < 0.5:
                    await process.stdin.drain()
                    await asyncio.sleep(draw.random() * longest_pause_seconds)
                process.stdin.write(line[cut:])
            if end != "at once":
                await asyncio.sleep(draw.random() * longest_pause_seconds * 4)
            if end == "signal":
                process.send_signal(signal.SIGTERM)
            process.stdin.close()
            status = await process.wait()
            written, said = await read, (await errors).decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert "Traceback" not in said, said
    assert "ERROR" not in said, said
    assert written.endswith(b"\n") or not written or end == "signal", written[-200:]
    _judge(messages, written.split(b"\n")[:-1], is_whole=end != "signal")
    # A signal may come before the first line of ours has run.
    assert status in ({0, 128 + signal.SIGTERM, -signal.SIGTERM} if end == "signal" else {0}), status


def _judge(messages: list[dict[str, Any]], lines: list[bytes], *, is_whole: bool) -> None:
    answers = [json.loads(line) for line in lines]
    ids = Counter(str(answer["id"]) for answer in answers if "id" in answer)
    asked = {str(message["id"]): message for message in messages if "id" in message}
    cancelled = {str(message["params"]["requestId"]) for message in messages if "cancelled" in message["method"]}
    assert set(ids) <= set(asked), f"answered what nobody asked: {set(ids) - set(asked)}"
    assert all(count == 1 for count in ids.values()), f"answered twice: {ids}"
    if is_whole:
        missing = set(asked) - set(ids) - cancelled
        assert not missing, f"never answered: {[asked[name]['method'] for name in missing]}"
    seen: dict[str, Any] = {}
    for answer in answers:
        method = asked[str(answer["id"])]["method"]
        if method in LISTS:
            assert seen.setdefault(method, answer["result"]) == answer["result"], f"{method} was answered in two ways"


async def main(count: int, first: int = 0) -> int:
    wrong = 0
    for seed in range(first, first + count):
        try:
            await play(random.Random(seed), longest_pause_seconds=(0.02, 0.2, 0.6)[seed % 3])
        except (AssertionError, TimeoutError) as error:
            wrong += 1
            print(f"start {seed}: {error!r}")  # noqa: T201 - what the command says
    print(f"{count - wrong} of {count} starts as they should be")  # noqa: T201 - as above
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(*map(int, sys.argv[1:]))))
