"""Commands that start, stop and list processes: sh, setsid, nohup, sleep, kill and ps."""

import re
from functools import partial
from typing import Final

from lium_mcp.sandbox.container import job_runner
from lium_mcp.sandbox.container.commands.operands import options, read, seconds, whole_number
from lium_mcp.sandbox.container.processes import SIGNALS, TERMINATED
from lium_mcp.sandbox.container.shell import NOT_FOUND, CommandCall, Program, Shell, Usage


async def sh(call: CommandCall) -> int:
    """Run a script: -c TEXT, a file, or what comes in. A job runner's part is played by Python instead."""
    words, is_text = list(call.arguments), False
    while words and words[0].startswith("-"):
        letters = words.pop(0)
        if not re.fullmatch("-[cl]+", letters):
            raise Usage(f"{letters[:40]}: invalid option (the sandbox knows -c and -l)")
        is_text = is_text or "c" in letters
    if not words and is_text:
        raise Usage("-c: option requires an argument")
    if not words:
        return await call.shell.run_within(call.name, [], Shell.run_input)
    script, *words = words
    if is_text:
        name, *words = words or [call.name]
        return await call.shell.run_within(name, words, partial(Shell.run_text, script=script))
    name = script
    try:
        data = await read(call, name)
    except OSError as error:
        return await call.fail(f"{name[:200]}: {error.strerror}", NOT_FOUND)
    if job_runner.is_runner(data):
        return await job_runner.play(call, name, whole_number(words[0] if words else "", largest=10**9))
    script = data.decode("utf-8", "surrogateescape")
    return await call.shell.run_within(name, words, partial(Shell.run_text, script=script))


async def setsid(call: CommandCall) -> int:
    """Run a command in a session of its own."""
    if not call.arguments:
        raise Usage("no command specified")
    if call.process.group != call.process.pid:
        call.process.group = call.process.pid
        return await call.shell.run_words(call.arguments)
    # A group leader cannot leave its group: the command runs in a child.
    call.shell.start(partial(Shell.run_words, words=call.arguments), " ".join(call.arguments), own_group=True)
    return 0


async def nohup(call: CommandCall) -> int:
    """Run a command as it is: no process here ends with its connection."""
    if not call.arguments:
        raise Usage("missing operand")
    return await call.shell.run_words(call.arguments)


async def sleep(call: CommandCall) -> int:
    """Wait on the sandbox's clock."""
    if not call.arguments:
        raise Usage("missing operand")
    await call.process.sleep(sum(1e9 if word == "infinity" else seconds(word) for word in call.arguments))
    return 0


async def kill(call: CommandCall) -> int:
    """Send a signal to processes, or with a minus to groups."""
    words, number, kernel = list(call.arguments), TERMINATED, call.process.kernel
    if words and words[0].startswith("-") and words[0] != "--":
        name = words.pop(0)[1:].upper().removeprefix("SIG")
        numbers = {str(each): each for each in (0, *SIGNALS.values())} | SIGNALS
        if name not in numbers:
            raise Usage(f"{name[:40]}: invalid signal specification (the sandbox knows {', '.join(SIGNALS)} and 0)")
        number = numbers[name]
    words = words[words[:1] == ["--"] :]
    if not words or not all(re.fullmatch("-?[0-9]{1,10}", word, re.ASCII) for word in words):
        raise Usage("usage: kill [-signal] [--] pid...")
    for word in words:
        target = int(word)
        found = kernel.group(-target) if word[0] == "-" else [p for p in kernel.processes.values() if p.pid == target]
        if not found:
            await call.fail(f"({target}) - No such process")
        elif number:
            kernel.signal(found, number)
    return call.status


async def ps(call: CommandCall) -> int:
    """List processes."""
    _, words = options(call.arguments, "efauxw")
    if set("".join(words)) - set("aux"):
        raise Usage("the sandbox's ps takes aux or -ef")
    rows = ["    PID    PGID ELAPSED COMMAND\n", "      1       1   00:00 /usr/sbin/sshd -D\n"]
    for process in call.process.kernel.processes.values():
        minutes, left = divmod(int((process.now - process.started_at).total_seconds()), 60)
        rows.append(f"{process.pid:>7} {process.group:>7}   {minutes:02d}:{left:02d} {process.title[:200]}\n")
    await call.out("".join(rows))
    return 0


PROGRAMS: Final[dict[str, Program]] = {
    "sh": sh, "bash": sh, "setsid": setsid, "nohup": nohup, "sleep": sleep, "kill": kill, "ps": ps,
}  # fmt: skip
