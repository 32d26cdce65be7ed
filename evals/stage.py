"""Serves the sandbox of a task: `python -m evals.stage FILE HOME SPEED` prints its address."""

import asyncio
import sys
from pathlib import Path

from evals.tasks import load_task
from evals.world import World
from lium_mcp.sandbox import serve_sandbox


async def _serve(file: Path, home: Path, speed: float) -> None:
    world = World(load_task(file), home)
    await world.begin()
    world.sandbox.clock.set_speed(speed)
    await serve_sandbox(world.sandbox, on_ready=_say)


def _say(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
