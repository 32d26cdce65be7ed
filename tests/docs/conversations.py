"""Conversations as the pages show them: real calls, answers and questions over the sandbox, with the clock turned.

What the person and the agent say is written here; whatever the server says is recorded.
"""

import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lium_mcp.api.client import LiumClient
from lium_mcp.cli.templates import sync
from lium_mcp.sandbox import API_KEY, Sandbox
from tests.docs.documents import DOCS, examples
from tests.harness import Agent, Person, TurnedClock, agent_on, make_key_pair
from tests.orders import looked

START: Final = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
_WIDTH: Final = 110
# What differs from one play to the next: the ports that the system gave, and ids of the server's own ledger.
_PORT: Final = re.compile(r"(?<=@127\.0\.0\.1 -p )\d+")
_ORDER: Final = re.compile(r'(?<="order_id": ")[^"]+')
_AN_ID: Final = "5f0c2f0e-6d0a-4f0e-9a55-2f8f6f0b7a11"


class Conversation:
    """Records what is said between a person, an agent and the server."""

    def __init__(self, agent: Agent, person: Person, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self._folder = folder
        self._agent = agent
        self._person = person
        self._parts: list[str] = []

    def you(self, text: str) -> None:
        """The person says something."""
        self._parts.append(f"**You:** {text}")

    def agent(self, text: str) -> None:
        """The agent says something to the person."""
        self._parts.append(f"**Agent:** {text}")

    def meanwhile(self, text: str) -> None:
        """Something is told that is no part of it."""
        self._parts.append(f"*{text}*")

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The agent calls a tool, which succeeds."""
        asked = len(self._person.questions)
        answer = await self._agent.call(tool, **arguments)
        self._record(tool, arguments, asked, f"```json\n{_json(answer)}\n```")
        return answer

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The agent calls a tool, which refuses."""
        asked = len(self._person.questions)
        failure = await self._agent.refused(tool, **arguments)
        self._record(tool, arguments, asked, f"```text\n{failure.text}\n```")
        return failure.code

    def terminal(self, command: str, said: str, status: int) -> None:
        """Somebody runs a command."""
        self._parts.append(f"```text\n$ {command}\n{said.rstrip()}\n$ echo $?\n{status:d}\n```")

    def _record(self, tool: str, arguments: dict[str, Any], asked: int, answer: str) -> None:
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())
        self._parts.append(f"The agent calls\n\n```text\n{tool}({given})\n```")
        for question in self._person.questions[asked:]:
            quoted = "\n".join(f"> {line}" for line in question.splitlines())
            self._parts.append(f"The server asks you:\n\n{quoted}\n\n**You:** Yes.")
        self._parts.append(f"and gets\n\n{answer}")

    def __str__(self) -> str:
        """The conversation as Markdown."""
        return in_any_play("\n\n".join(self._parts).replace(str(self._folder), "/home/you/work"))


def in_any_play(text: str) -> str:
    """What was said, as each play of it says it."""
    return _ORDER.sub(_AN_ID, _PORT.sub("40022", text))


def _json(value: Any, indent: str = "") -> str:
    """JSON of which only what is long goes over several lines."""
    short = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(short) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return short
    deeper = f"{indent}  "
    if isinstance(value, list):
        items = [f"{deeper}{_json(item, deeper)}" for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    items = [f"{deeper}{json.dumps(name)}: {_json(item, deeper)}" for name, item in value.items()]
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


@asynccontextmanager
async def conversation(folder: Path, **settings: Any) -> AsyncIterator[Conversation]:
    """Begin one with an empty account whose pods answer SSH, on a Monday at nine."""
    key = Path.home() / ".ssh" / "id_ed25519"
    make_key_pair(key)
    sandbox = Sandbox(seed=7, speed=0, start=START, ssh=True, pod_polls_per_minute=10**6)
    person = Person("yes")
    given: dict[str, Any] = {"ssh_key_path": key, "state_url": _ledger(folder)} | settings
    try:
        async with agent_on(sandbox, person=person, **given) as agent:
            yield Conversation(agent, person, sandbox, folder)
    finally:
        await sandbox.aclose()


def _ledger(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


async def watch(folder: Path) -> str:
    """Watch the market, and rent when a GPU drops below a price."""
    async with conversation(folder, max_price_per_hour_usd=2.5, max_hours=12) as talk:
        talk.you("What does an H100 with 80 GB of HBM3 cost right now?")
        prices = await talk.call("get_gpu_prices", gpu_type="H100 80GB HBM3")
        [row] = prices["gpu_types"]
        talk.agent(f"Half of the {row['nodes']} nodes ask at most ${row['median_usd']:.2f} per GPU and hour.")
        talk.you(
            "Rent one GPU for three hours as soon as that costs at most 1.90 an hour. If it does not by one o'clock, "
            'leave it. I am away meanwhile; call the pod "deal".'
        )
        deal = {"name": "deal", "gpu_type": "H100 80GB HBM3", "gpu_count": 1, "max_usd_per_gpu_hour": 1.9, "hours": 3}
        placed = await talk.call("rent_pod", **deal, keep_trying_hours=4)
        assert placed["outcome"] == "pending"
        talk.agent("No single one is that cheap yet, so a standing order waits for it until 13:00 UTC.")
        while not talk.sandbox.state()["rents"]:
            await looked(talk.sandbox, _ledger(folder))
        minutes = (talk.sandbox.clock.now() - START).seconds // 60
        talk.sandbox.clock.advance(minutes=5)
        talk.meanwhile(f"The market moves. After {minutes} minutes a node fits, and the order rents it.")
        talk.you("I am back. What became of it?")
        listed = await talk.call("list_pods")
        [pod] = listed["pods"]
        talk.agent(
            f'"deal" was rented at ${pod["price_per_hour_usd"]:.2f} an hour. '
            f"Lium removes it at {pod['removal_at'][11:16]} UTC, whatever happens to me."
        )
        return str(talk)


async def job(folder: Path) -> str:
    """A job on a fresh pod, from its files to its last backup."""
    project = folder / "project"
    project.mkdir()
    (project / "train.py").write_text("print('training')\n")
    (project / "data.txt").write_text("1 2 3\n")
    training = "cd project && python3 train.py --steps 6 --output /root/out"
    async with conversation(folder, local_dirs=(folder,), max_price_per_hour_usd=0.5, budget_usd=20.0) as talk:
        talk.you(
            "Train my project on an H100: train.py, 6 steps. Bring me what it wrote, keep a backup, and leave nothing "
            "running."
        )
        code = await talk.refused("rent_pod", name="trainer", gpu_type="H100", hours=2)
        assert code == "policy_refused"
        talk.agent("You have set that a pod may cost 50 cents an hour at most, and I cannot change that. An RTX 4090?")
        talk.you("All right.")
        await talk.call("rent_pod", name="trainer", gpu_type="RTX 4090", hours=2, wait_seconds=120)
        await talk.call("upload_files", pod="trainer", local_path=str(project), pod_path="project")
        await talk.call("start_job", pod="trainer", name="train", max_hours=1, command=training)
        ended = await talk.call("get_job", pod="trainer", name="train", wait_seconds=600)
        assert ended["job"]["exit_code"] == 0
        await talk.call("download_files", pod="trainer", pod_path="/root/out", local_path=str(folder / "out"))
        removed = await talk.call("remove_pod", pod="trainer", final_backup=True, wait_seconds=600)
        talk.agent(
            f"It ended well. The model is in out/, a backup is kept until {removed['backup']['kept_until'][:10]}, and "
            f"the pod is gone. It cost ${removed['charged_usd']:.2f}."
        )
        return str(talk)


async def backups(folder: Path) -> str:
    """A backup is looked at, and written into several pods."""
    async with conversation(folder, max_pods=4, max_burn_per_hour_usd=2.0) as talk:
        talk.you('Rent an RTX 3090 for six hours, call it "source", and make a small data set there.')
        await talk.call("rent_pod", name="source", gpu_type="RTX 3090", hours=6, wait_seconds=120)
        made = "mkdir /root/set && echo one > /root/set/a && echo two > /root/set/b && ls /root/set"
        await talk.call("run_command", pod="source", command=made)
        talk.you("Back that up, and look whether all of it is in there.")
        await talk.call("create_backup", pod="source", wait_seconds=600)
        [backup] = (await talk.call("list_backups", pod="source"))["backups"]
        talk.agent(f"The backup has {backup['files']} files, and is kept until {backup['kept_until'][:10]}.")
        talk.you("Now three workers like it for two hours, each with that data.")
        await talk.call("rent_pod", name="worker", count=3, gpu_type="RTX 3090", hours=2, wait_seconds=120)
        workers = [f"worker-{number}" for number in (1, 2, 3)]
        await talk.call(
            "restore_backup", backup_id=backup["backup_id"], pods=workers, path="/root/data", wait_seconds=600
        )
        looked_at = await talk.call("run_command", pods=workers, command="cat /root/data/set/a /root/data/set/b")
        assert str(looked_at).count("one\\ntwo") == 3
        talk.agent("The data is in all three.")
        return str(talk)


async def templates(folder: Path) -> str:
    """Templates are kept as a file says, and an update tells which pods it reboots."""
    file = folder / "templates.toml"
    file.write_text(examples(_page("templates"))["templates.toml"])
    async with conversation(folder) as talk:
        talk.meanwhile("CI looks what the file would change, changes it, and finds nothing to do the next time:")
        for options in ("--dry-run", "", ""):
            await _sync(talk, file, options)
        talk.you('Rent an A100 for two hours on the template "trainer".')
        await talk.call("rent_pod", name="run-1", gpu_type="A100", hours=2, template="trainer", wait_seconds=300)
        talk.meanwhile(
            "Somebody writes another image into the file. Before it is merged, CI says what that does to whom:"
        )
        file.write_text(file.read_text().replace("pytorch:2.8.0-py3.12-cuda12.8.0", "pytorch:2.6.0-py3.11-cuda12.4.1"))
        await _sync(talk, file, "--dry-run")
        return str(talk)


async def _sync(talk: Conversation, file: Path, options: str) -> None:
    out = io.StringIO()
    clock = TurnedClock(talk.sandbox)
    transport = talk.sandbox.transport()
    async with LiumClient(api_key=API_KEY, base_url="http://127.0.0.1/api", transport=transport, clock=clock) as lium:
        status = await sync(lium, clock, file, dry_run=bool(options), out=out)
    command = f"lium-mcp templates sync templates.toml {options}".rstrip()
    talk.terminal(command, out.getvalue(), status)


def _page(name: str) -> Path:
    return DOCS / "workflows" / f"{name}.md"


CONVERSATIONS: Final[dict[Path, Callable[[Path], Awaitable[str]]]] = {
    _page(play.__name__): play for play in (watch, job, backups, templates)
}
