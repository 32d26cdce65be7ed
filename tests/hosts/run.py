"""Run real hosts with this server, by hand: `make test-hosts`. Downloads about 2 GB the first time.

Each host gets an empty home, our server over the sandbox, and a scripted model, so nothing needs a login or costs
money. What is seen goes to standard output and into `docs/clients.md`; what each host sends first goes to
`tests/serving/first_messages/`.
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from lium_mcp.settings_table import DEFAULT_TOOLSETS
from lium_mcp.toolkit.listing import read_listing
from manifests.generate import with_generated
from tests.hosts import files, plugins
from tests.hosts.hosts import HOSTS, ClaudeCode, Codex, Host, Shown
from tests.hosts.installs import CALLED, DOCUMENT, tell_all, write_down
from tests.hosts.programs import ROOT, Program, install_hosts, install_ours
from tests.hosts.scripted_model import scripted_model
from tests.hosts.tasks import play_tasks
from tests.http_server import serving

FIRST_MESSAGES: Final = ROOT / "tests" / "serving" / "first_messages"
TRANSPORTS: Final = ("stdio", "sse", "http")
PLAYERS: Final = (ClaudeCode, Codex)
STARTS: Final = 10
RUNS: Final = 20
_LISTED: Final = [item for item in read_listing() if item.toolset in DEFAULT_TOOLSETS]
OFFERED: Final = {item.name for item in _LISTED}
ALWAYS_LOADED: Final = {item.name for item in _LISTED if (item.tool.meta or {}).get("anthropic/alwaysLoad")}


class FirstTurns(NamedTuple):
    """What was in the first turns of some runs."""

    host: str
    started: str
    runs: int
    complete: int
    last: Shown


def main() -> int:
    """Install what is missing and visit each host; the exit status is the verdict."""
    install_hosts([host.package for host in HOSTS])
    script, *others = install_ours()
    with tempfile.TemporaryDirectory() as directory:
        homes = Path(directory)
        connected = _connect_all(script, homes)
        called = {host.name: _call(host(homes / f"{host.program}-call"), script, homes / "sent") for host in HOSTS}
        played = {host.name: _play(host, homes) for host in PLAYERS}
        told = tell_all(homes)
        tried = files.try_all(script, homes / "files")
        plugged = plugins.plug_all(script, homes / "plugins")
        turns = list(_watch_first_turns(script, others, homes))
    first = (FIRST_MESSAGES / f"{Codex.key}.jsonl").read_bytes().splitlines()[0]
    starts = [f"{way.name} {way.usually_answers_after(first, starts=STARTS):.2f} s" for way in (script, *others)]
    _say(f"From a start to the answer to the handshake, median of {STARTS}: {', '.join(starts)}")
    day = datetime.now(UTC).date().isoformat()
    part = "\n".join(_part(day, connected, called, played, turns, starts))
    DOCUMENT.write_text(with_generated(DOCUMENT.read_text(), "hosts", part))
    write_down(told)
    files.write_down(tried)
    plugins.write_down(plugged)
    is_good = (
        all(one.works for one in told.values())
        and all(all(by_variant.values()) for by_variant in tried.values())
        and all(one.is_good for one in plugged.values())
        and all(all(by_transport.values()) for by_transport in connected.values())
        and all(called.values())
    )
    is_good = is_good and all(all(by_task.values()) for by_task in played.values())
    return 0 if is_good and all(seen.complete == seen.runs for seen in turns if seen.started != "uvx") else 1


def _connect_all(script: Program, homes: Path) -> dict[str, dict[str, bool]]:
    connected = {}
    with serving(homes / "server", LIUM_MCP_SANDBOX="1") as served:
        for host in HOSTS:
            connected[host.name] = host(homes / host.program).connect(script, served.url)
            for transport, works in connected[host.name].items():
                _say(f"{host.title()} {transport}: {_verdict(works)}")
    return connected


def _call(host: Host, script: Program, sent: Path) -> bool:
    """Let the model call a tool, and record what the host sends before; return whether the model got the answer."""
    sent.unlink(missing_ok=True)
    recorded = ["sh", "-c", 'tee "$0" | "$@"', str(sent), *script.command]
    with scripted_model(*host.calls(CALLED)) as model:
        host.ask(model, script._replace(command=recorded))
    works = len(model.turns) > 1 and re.search(r"balance_usd\W+100\b", json.dumps(model.turns[-1])) is not None
    lines = sent.read_text().splitlines(keepends=True)
    first = next((place for place, line in enumerate(lines) if '"tools/call"' in line), len(lines))
    (FIRST_MESSAGES / f"{host.key}.jsonl").write_text("".join(lines[:first]))
    _say(f"{host.title()} {' and '.join(step.tool for step in host.calls(CALLED))}: {_verdict(works)}")
    return works


def _play(host: type[Host], homes: Path) -> dict[str, bool]:
    """Let the model do tasks of `evals/`; return whether each was done."""
    done = {}
    for task, problems in play_tasks(host, homes):
        _say(f"{host.title()} does {task}: {'; '.join(problems) or 'done'}")
        done[task] = not problems
    return done


def _watch_first_turns(script: Program, others: list[Program], homes: Path) -> Iterable[FirstTurns]:
    grace = "mcp_optional_startup_grace_ms = 5000"
    for host in HOSTS:
        runs = RUNS if host is Codex else 5  # the others wait for their servers
        yield _watch(host.title(), host(homes / f"{host.program}-first"), script, runs)
    for other in others:
        yield _watch(Codex.title(), Codex(homes / "codex-other"), other, RUNS)
    yield _watch(f"{Codex.title()}, `{grace}`", Codex(homes / "codex-grace", more=grace), others[0], RUNS)


def _watch(title: str, host: Host, program: Program, runs: int) -> FirstTurns:
    complete = 0
    shown = Shown(frozenset(), frozenset())
    for _ in range(runs):
        with scripted_model() as model:
            host.ask(model, program)
        shown = host.shown(model.turns[0]) if model.turns else shown
        complete += shown == _expected(host)
    _say(f"{title} started by {program.name}: our tools in the first turn {complete} of {runs}")
    return FirstTurns(title, program.name, runs, complete, shown)


def _expected(host: Host) -> Shown:
    in_full = ALWAYS_LOADED if isinstance(host, ClaudeCode) else OFFERED
    return Shown(frozenset(in_full), frozenset(OFFERED - in_full))


def _part(
    day: str,
    connected: dict[str, dict[str, bool]],
    called: dict[str, bool],
    played: dict[str, dict[str, bool]],
    turns: list[FirstTurns],
    starts: list[str],
) -> Iterable[str]:
    yield f"Seen on {day}."
    yield ""
    yield f"| host | stdio | SSE | Streamable HTTP | the model calls `{CALLED}` |"
    yield "|---|---|---|---|---|"
    for host in HOSTS:
        # The call went over stdio.
        works = [_verdict(({"stdio": called[host.name]} | connected[host.name]).get(way)) for way in TRANSPORTS]
        steps = ", then ".join(f"`{step.tool}`" for step in host.calls(CALLED))
        yield f"| {host.title()} | {' | '.join(works)} | {_verdict(called[host.name])} ({steps}) |"
    yield ""
    yield "`-`: the host has no such transport, or shows without a model nothing of it."
    yield ""
    yield f"| task of `evals/` | {' | '.join(host.title() for host in PLAYERS)} |"
    yield f"|---|{'---|' * len(PLAYERS)}"
    for task in played[PLAYERS[0].name]:
        yield f"| {task} | {' | '.join('done' if played[host.name][task] else 'FAILS' for host in PLAYERS)} |"
    yield ""
    yield "| host | how it starts ours | runs with our tools in the first turn | in full | by name alone |"
    yield "|---|---|---|---|---|"
    for seen in turns:
        sizes = f"{len(seen.last.in_full)} | {len(seen.last.by_name)}"
        yield f"| {seen.host} | {seen.started} | {seen.complete} of {seen.runs} | {sizes} |"
    yield ""
    yield f"From a start to the answer to the handshake, median of {STARTS}: {', '.join(starts)}."


def _verdict(works: bool | None) -> str:
    return "-" if works is None else "works" if works else "FAILS"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
