"""A pretended ``python3``: it prints a version and plays a training run, and runs no Python."""

import json
import posixpath
from typing import Final

from lium_mcp.sandbox.container.commands.operands import seconds, whole_number
from lium_mcp.sandbox.container.shell import CommandCall, Program, Usage
from lium_mcp.sandbox.seeded import fraction

VERSION: Final = "Python 3.11.9"
MOST_STEPS: Final = 20_000
CHECKPOINT_BYTES: Final = 64 * 1024
SECONDS_PER_STEP: Final = 30.0
STEPS: Final = 20


async def python3(call: CommandCall) -> int:
    """Tell the version, or play ``train*.py``: a loss line a step, on the sandbox's clock."""
    words = [word for word in call.arguments if word != "-u"]
    if words[:1] in (["--version"], ["-V"]):
        await call.out(f"{VERSION}\n")
        return 0
    if not words or words[0].startswith("-"):
        return await call.fail("the sandbox does not run Python, it only plays train*.py")
    path = words[0]
    try:
        call.process.files.open_file(path, call.process.cwd)
    except OSError as error:
        return await call.fail(f"can't open file '{path[:200]}': [Errno {error.errno}] {error.strerror}", 2)
    name = posixpath.basename(path)
    if not (name.startswith("train") and name.endswith(".py")):
        return await call.fail(f"the sandbox does not run Python, it only plays train*.py: {name[:200]}")
    return await _train(call, words[1:])


async def _train(call: CommandCall, words: list[str]) -> int:
    steps, pause, output = STEPS, SECONDS_PER_STEP, ""
    left = [piece for word in words for piece in (word.split("=", 1) if word.startswith("--") else [word])]
    while left:
        option = left.pop(0)
        value = left.pop(0) if left and not left[0].startswith("--") else ""
        if option == "--steps":
            steps = whole_number(value, largest=MOST_STEPS)
        elif option == "--step-seconds":
            pause = seconds(value)
        elif option == "--output":
            output = value
        elif not option.startswith("--"):
            raise Usage(f"unrecognized arguments: {option[:100]}")
    loss = 2.5
    for step in range(1, steps + 1):
        call.process.budget.spend()
        await call.process.sleep(pause)
        loss = 2.4 / (1 + step / 4) + 0.1 * fraction("loss", call.process.kernel.host.pod_id, step)
        await call.out(f"step {step}/{steps} loss {loss:.4f}\n")
    if output:
        files, cwd = call.process.files, call.process.cwd
        files.make_directory(output, cwd, parents=True)
        metrics = json.dumps({"steps": steps, "loss": round(loss, 4)})
        files.write_file(posixpath.join(output, "metrics.json"), f"{metrics}\n".encode(), cwd)
        weights = bytes((step * 37 + at) & 255 for step in range(256) for at in range(CHECKPOINT_BYTES // 256))
        files.write_file(posixpath.join(output, "model.safetensors"), weights, cwd)
        await call.out(f"saved to {output}\n")
    return 0


PROGRAMS: Final[dict[str, Program]] = {"python3": python3, "python": python3}
