"""What is lost, and what is done twice, when one of two replicas is killed under load.

`python -m bench.deaths` runs two replicas of the server behind nginx, with the rule of docs/http.md, on one PostgreSQL,
and a simulated Lium in a process of its own. Callers rent, remove and read through the proxy; jobs are followed by a
backup and the removal of their pods, and orders wait for a node. Meanwhile one replica is killed, and then the other.
"""

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx2

from lium_mcp.sandbox import OTHER_API_KEY
from tests.compat.simulated import SimulatedElsewhere, simulating_elsewhere
from tests.deployment import OWN, Deployment, deployed
from tests.harness import PUBLIC_KEY
from tests.http_server import calling
from tests.load import Load
from tests.postgres import NoPostgres, running_postgres
from tests.proxies import NGINX
from tests.sshd import find

HASTE: Final = 40
RENTING: Final = 3
READING: Final = 6
JOBS: Final = 2
ORDERS: Final = 2
KILLS: Final = 4
# Of few nodes, and cheap.
GPU_TYPE: Final = "RTX A5000"
PATIENCE_SECONDS: Final = 60


class Elsewhere:
    """Somebody else, who has all nodes of a kind until they let them go."""

    def __init__(self, lium: SimulatedElsewhere) -> None:
        headers = {"X-API-KEY": OTHER_API_KEY, "User-Agent": "bench"}
        self._http = httpx2.Client(base_url=lium.base_url, headers=headers, trust_env=False)
        template_id = self._ask("GET", "/templates")[0]["id"]
        self._pod_ids = [
            self._ask(
                "POST",
                f"/executors/{node['id']}/rent",
                pod_name="others",
                gpu_count=node["available_gpu_count"],
                template_id=template_id,
                user_public_key=[PUBLIC_KEY],
            )["pod_id"]
            for node in self._ask("GET", "/executors?view=summary")
            if GPU_TYPE in node["machine_name"]
        ]

    def let_go(self) -> None:
        """Remove the pods."""
        for pod_id in self._pod_ids:
            self._ask("DELETE", f"/pods/{pod_id}")
        self._http.close()

    def _ask(self, method: str, path: str, **body: object) -> Any:  # noqa: ANN401 - JSON
        return self._http.request(method, path, json=body or None).raise_for_status().json()


async def own(deployment: Deployment, tool: str, **arguments: object) -> dict[str, Any]:
    """Call a tool as somebody of the servers' own machine."""
    async with calling(deployment.replicas[0].url, "modern", OWN) as caller:
        return await caller.call(tool, **arguments)


async def until_over(deployment: Deployment, lium: SimulatedElsewhere, pods: list[str]) -> None:
    """Wait until the orders have rented and the pods of the jobs are gone."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        orders = (await own(deployment, "list_pods"))["orders"]
        are_gone = all(lium.pod(pod_id)["removed_at"] for pod_id in pods)
        if are_gone and all(order["status"] == "rented" for order in orders):
            return
        await asyncio.sleep(0.5)


async def measure(deployment: Deployment, lium: SimulatedElsewhere) -> None:
    load = Load(deployment.url)
    await load.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
    others = Elsewhere(lium)
    pods = []
    for number in range(JOBS):
        rented = await own(deployment, "rent_pod", name=f"job-{number}", gpu_type="RTX4090", hours=20, wait_seconds=300)
        pods.append(rented["pod_id"])
    for number in range(ORDERS):
        wish = {
            "name": f"order-{number}",
            "gpu_type": GPU_TYPE,
            "hours": 2,
            "keep_trying_hours": 24,
            "max_usd_per_hour": 1,
        }
        await own(deployment, "rent_pod", **wish)
    killed_at = []
    async with load.going_on(renting=RENTING, reading=READING):
        for number in range(JOBS):
            job = {"pod": f"job-{number}", "name": "fit", "command": "echo 1 > /root/results"}
            await own(deployment, "start_job", **job, then="backup_and_remove")
        others.let_go()
        for number in range(KILLS):
            await asyncio.sleep(1)
            killed_at.append(time.monotonic())
            deployment.kill(number % 2)
            await asyncio.sleep(1)
            await asyncio.to_thread(deployment.start, number % 2)
    await until_over(deployment, lium, pods)
    tell(load, killed_at, lium, pods)


def tell(load: Load, killed_at: list[float], lium: SimulatedElsewhere, pods: list[str]) -> None:
    in_flight = [call for call in load.lost if any(call.began_at <= at <= call.ended_at for at in killed_at)]
    print(
        f"calls lost while one of two replicas is killed, {KILLS} times, of {load.answered + len(load.lost)}: "
        f"in flight on it {len(in_flight)}, others {len(load.lost) - len(in_flight)} (goal: 0)"
    )
    for told, count in Counter(call.told for call in load.lost).items():
        print(f"  {count} of their callers were told: {told}")
    state = lium.state()
    rents = Counter(rent["pod_name"] for rent in state["rents"] if rent["pod_name"] != "others")
    backups = Counter(backup["pod_id"] for backup in state["backups"] if backup["pod_id"] in pods)
    done = {pod_id: lium.pod(pod_id)["removed_at"] is not None and backups[pod_id] for pod_id in pods}
    orders = {name: count for name, count in rents.items() if name.startswith("order-")}
    twice = sum(count - 1 for count in rents.values()) + sum(count - 1 for count in backups.values())
    print(
        f"rents, follow-ups, orders done twice: {twice} (goal: 0) of {rents.total() - sum(orders.values())} rents, "
        f"{sum(map(bool, done.values()))} of {JOBS} follow-ups, {len(orders)} of {ORDERS} orders"
    )


def main() -> None:
    if find(NGINX.program) is None:
        print("not measured: what is lost when a replica dies, which needs nginx: apt-get install nginx-light")
        return
    try:
        with (
            tempfile.TemporaryDirectory(prefix="lium-mcp-deaths-") as home,
            running_postgres() as postgres,
            postgres.database() as state_url,
            simulating_elsewhere(Path(home) / "lium", speed=HASTE) as lium,
            deployed(Path(home), lium_url=lium.base_url, state_url=state_url, haste=HASTE) as deployment,
        ):
            asyncio.run(measure(deployment, lium))
    except NoPostgres as reason:
        print(f"not measured: what is lost when a replica dies: {reason}")


if __name__ == "__main__":
    main()
