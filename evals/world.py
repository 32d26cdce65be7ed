"""Makes the world of a task: a sandbox in which that has happened which its file says, through Lium's API alone.

A step of `world` is one of: `pod`, `remove`, `template`, `volume`, `backup`, `schedule`, `ssh_key`, `key` (by name,
with what else the functions below take), `run` (a command in a pod), `fault` (as the control routes take it),
`turn_minutes`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncssh
import httpx2

from evals.facts import Facts, fact, facts_of
from evals.tasks import Task, TaskError
from lium_mcp.sandbox import API_KEY, OTHER_API_KEY, Sandbox

# Every play begins at the same time, so that answers are of the same length.
START: Final = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
_SANDBOX: Final = ("seed", "balance_usd", "profile", "lookalikes")


class World:
    """The sandbox of one task, with the keys of its user."""

    def __init__(self, task: Task, home: Path) -> None:
        first = task.world[0] if task.world and task.world[0].keys() <= set(_SANDBOX) else {}
        self._steps = task.world[1:] if first else task.world
        self.sandbox = Sandbox(speed=0, start=START, ssh=True, **{"seed": 7, **first})
        self.ssh_key = home / "id_ed25519"
        self._public_key = ""
        self._client = httpx2.AsyncClient(transport=self.sandbox.transport(), base_url="http://sandbox/api")

    async def begin(self) -> Facts:
        """Let everything happen that has happened before; return what is so then."""
        key = asyncssh.generate_private_key("ssh-ed25519", comment="user")
        self._public_key = key.export_public_key().decode().strip()
        key.write_private_key(self.ssh_key)
        key.write_public_key(f"{self.ssh_key}.pub")
        for step in self._steps:
            await self._take(dict(step))
        return self.facts()

    def facts(self) -> Facts:
        """What is so now."""
        return facts_of(self.sandbox.state())

    async def aclose(self) -> None:
        """End it."""
        await self._client.aclose()
        await self.sandbox.aclose()

    async def _take(self, step: dict[str, Any]) -> None:
        match step:
            case {"turn_minutes": minutes}:
                self.sandbox.clock.advance(minutes=minutes)
                self.sandbox.state("now")  # what is due happens
            case {"fault": fault}:
                self.sandbox.add_fault(**_meant(fault, self.facts()))
            case {"pod": name}:
                await self._rent(name, **{key: value for key, value in step.items() if key != "pod"})
            case {"remove": pod}:
                await self._send("DELETE", f"/pods/{self._id(f'pods/{pod}/id')}")
                self.sandbox.clock.advance(seconds=30)
            case {"template": name, "image": image}:
                docker_image, _, tag = image.partition(":")
                body = {
                    "name": name,
                    "docker_image": docker_image,
                    "docker_image_tag": tag or "latest",
                    "category": "DOCKER",
                }
                await self._send("POST", "/templates", body | step.get("more", {}))
                self.sandbox.clock.advance(minutes=2)
            case {"volume": name}:
                await self._send("POST", "/volumes", {"name": name, "description": step.get("description", "")})
            case {"schedule": pod}:
                await self._schedule(pod, **{key: value for key, value in step.items() if key != "schedule"})
            case {"backup": pod}:
                await self._back_up(pod, step.get("path", ""))
            case {"ssh_key": name}:
                key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
                await self._send("POST", "/ssh-keys", {"name": name, "public_key": key})
            case {"key": secret, "scopes": scopes}:
                self.sandbox.add_key(secret, scopes=tuple(scopes))
            case {"run": command, "in": pod}:
                await self._run(pod, command)
            case _:
                raise TaskError(f"there is no such step: {step}")

    async def _rent(
        self,
        name: str,
        *,
        gpu: str,
        gpus: int = 1,
        template: str = "Ubuntu 22.04",
        volume: str = "",
        hours: int | None = None,
        country: str = "",
        tier: str = "",
        of_another: bool = False,
    ) -> None:
        state = self.sandbox.state("nodes", "templates")
        nodes = [
            node
            for node in state["nodes"]
            if node["machine_name"] == gpu
            and node["available_gpu_count"] >= gpus
            and (node["min_gpu_count_for_rental"] or node["gpu_count"]) <= gpus
            and country in ("", node["country_code"])
            and tier in ("", node["tier"])
        ]
        node = min(nodes, key=lambda node: (node["price_per_gpu"], node["id"]))
        own = self.facts()["templates"].get(template)
        public = (item["id"] for item in state["templates"] if item["body"]["name"] == template)
        body = {
            "pod_name": name,
            "user_public_key": [self._public_key],
            "template_id": own["id"] if own else next(public),
            "gpu_count": gpus,
            "termination_hours": hours,
            "volume_id": self._id(f"volumes/{volume}/id") if volume else None,
        }
        key = OTHER_API_KEY if of_another else API_KEY
        made = await self._send("POST", f"/executors/{node['id']}/rent", body, key)
        for _ in range(20):
            self.sandbox.clock.advance(seconds=15)
            pod = await self._send("GET", f"/pods/{made['pod_id']}", None, key)
            if pod["status"] != "PENDING":
                return
        raise TaskError(f"pod {name} does not come up")

    async def _schedule(self, pod: str, *, every_hours: int = 6, keep_days: int = 7, path: str = "") -> None:
        body = {"backup_frequency_hours": every_hours, "retention_days": keep_days, "backup_path": path}
        await self._send("POST", "/backup-configs", {"pod_id": self._id(f"pods/{pod}/id"), **body})

    async def _back_up(self, pod: str, path: str) -> None:
        if pod not in self.facts()["schedules"]:
            await self._schedule(pod, every_hours=168, path=path)
        await self._send("POST", f"/pods/{self._id(f'pods/{pod}/id')}/backup", {"name": "manual"})
        self.sandbox.clock.advance(minutes=10)

    async def _run(self, pod: str, command: str) -> None:
        row = await self._send("GET", f"/pods/{self._id(f'pods/{pod}/id')}")
        port = row["ports_mapping"]["22"]
        options = {"username": "root", "client_keys": [str(self.ssh_key)], "known_hosts": None, "config": None}
        async with asyncssh.connect("127.0.0.1", port, agent_path=None, **options) as connection:
            done = await connection.run(command)
        if done.exit_status:
            raise TaskError(f"{command}: {done.stderr or done.stdout!r}")

    def _id(self, path: str) -> str:
        found = fact(self.facts(), path)
        if found is None:
            raise TaskError(f"there is no {path}")
        return str(found)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None, key: str = API_KEY) -> Any:  # noqa: ANN401 - JSON
        answer = await self._client.request(method, path, json=body, headers={"X-API-Key": key})
        if answer.status_code >= 300:  # noqa: PLR2004 - what is not a success
            raise TaskError(f"{method} {path}: {answer.text}")
        return answer.json()


def _meant(fault: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """A fault with ids in place of `$pods/train/id`."""
    return {
        name: fact(facts, value[1:]) if isinstance(value, str) and value.startswith("$") else value
        for name, value in fault.items()
    }
