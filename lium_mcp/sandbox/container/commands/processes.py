"""Commands that start, stop and list processes: sh, sleep, timeout, setsid, nohup, env, kill, ps."""

import re
from typing import Final

from lium_mcp.sandbox.container import jobs
from lium_mcp.sandbox.container.commands.inputs import Usage, options, read_all, seconds
from lium_mcp.sandbox.container.kernel import Process
from lium_mcp.sandbox.container.shell import NOT_FOUND, Call, Program, Shell
from lium_mcp.sandbox.container.syntax import NAME
from lium_mcp.sandbox.container.waiting import KILLED, TERMINATED, Signalled

TIMED_OUT: Final = 124
SIGNALS: Final = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}


async def sleep(call: Call) -> int:
    """Wait on the sandbox's clock."""
    if not call.arguments:
        raise Usage("missing operand")
    await call.process.sleep(sum(float("3e8") if word == "infinity" else seconds(word) for word in call.arguments))
    return 0


async def timeout(call: Call) -> int:
    """Run a command, but not longer than that."""
    words = list(call.arguments)
    number = TERMINATED
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in {"-k", "-s"} and words:
            value = words.pop(0)
            number = _signal(value) if option == "-s" else number
        elif option not in {"--foreground", "-v"}:
            raise Usage(f"invalid option '{option}'")
    if len(words) < 2:  # noqa: PLR2004 - duration and command
        raise Usage("missing operand")
    limit = seconds(words[0])
    child = call.shell.start(words[1:])
    try:
        if await call.process.end_of(child, within_seconds=limit or None):
            return child.exit_code or 0
    except Signalled:
        stop_tree(child, TERMINATED)
        raise
    stop_tree(child, number)
    await call.process.end_of(child)
    return 128 + KILLED if number == KILLED else TIMED_OUT


def stop_tree(process: Process, number: int) -> None:
    """Signal a process and all it started."""
    process.kernel.signal([process], number)
    for child in process.children:
        stop_tree(child, number)


async def setsid(call: Call) -> int:
    """Run a command in a session of its own."""
    words = [word for word in call.arguments if word not in {"-f", "--fork"}]
    waits = words[:1] == ["-w"]
    words = words[waits:]
    if not words:
        raise Usage("no command specified")
    if call.process.group != call.process.pid and len(words) == len(call.arguments):
        call.process.group = call.process.pid
        return await call.shell.run_words(words)
    # A group leader cannot leave its group: the command runs in a child.
    child = call.shell.start(words, own_group=True)
    if waits:
        await call.process.end_of(child)
    return (child.exit_code or 0) if waits else 0


async def nohup(call: Call) -> int:
    """Run a command that outlives its connection."""
    if not call.arguments:
        raise Usage("missing operand")
    before, call.process.ignores_hangup = call.process.ignores_hangup, True
    try:
        return await call.shell.run_words(call.arguments)
    finally:
        call.process.ignores_hangup = before


async def run_plainly(call: Call) -> int:
    """Run a command as it is: nice, sudo, time, command, stdbuf -oL."""
    words = list(call.arguments)
    if call.name == "command" and words[:1] in (["-v"], ["-V"]):
        return await which(Call(call.shell, "command", words[1:]))
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "-n" and words:
            words.pop(0)
    return await call.shell.run_words(words) if words else 0


async def env(call: Call) -> int:
    """Print the environment, or run a command with more in it."""
    words, process = list(call.arguments), call.process
    before, exported = dict(process.variables), set(process.exported)
    try:
        while words and "=" in words[0] and not words[0].startswith("-"):
            name, _, value = words.pop(0).partition("=")
            if not NAME.fullmatch(name):
                raise Usage(f"invalid name '{name[:40]}'")
            process.variables[name] = value
            process.exported.add(name)
        if words and words[0].startswith("-"):
            raise Usage("the sandbox's env takes NAME=VALUE... and a command")
        if words:
            return await call.shell.run_words(words)
        shown = {**process.variables, "PWD": process.cwd}
        names = sorted(process.exported & set(shown))
        await call.out("".join(f"{name}={shown[name]}\n" for name in names))
        return 0
    finally:
        process.variables, process.exported = before, exported


async def sh(call: Call) -> int:
    """Run a script: -c TEXT, a file, or what comes in. A job runner is played, not read."""
    words = list(call.arguments)
    script: str | None = None
    shell_options: set[str] = set()
    while words and words[0].startswith(("-", "+")) and len(words[0]) > 1:
        option = words.pop(0)
        if option in {"-o", "+o"} and words:
            shell_options.add(words.pop(0))
            continue
        if option.strip("-+") == "" or option == "--login":
            break
        if unknown := set(option[1:]) - set("celuxi"):
            raise Usage(f"-{min(unknown)}: invalid option")
        shell_options.update(set(option[1:]) & set("eux"))
        if "c" in option:
            if not words:
                raise Usage("-c: option requires an argument")
            script = words.pop(0)
            break
    name = call.name
    if script is not None:
        name = words.pop(0) if words else name
    elif words:
        name = words.pop(0)
        try:
            data = call.process.files.read_file(name, call.process.cwd)
        except OSError as error:
            return await call.fail(f"{name[:200]}: {error.strerror}", NOT_FOUND)
        if jobs.is_runner(data):
            return await jobs.play(call, name, words)
        script = data.decode("utf-8", "surrogateescape")
    else:
        script = (await read_all(call, [])).decode("utf-8", "surrogateescape")
    return await run_script(call, script, name, words, shell_options)


async def run_script(call: Call, script: str, name: str, arguments: list[str], shell_options: set[str]) -> int:
    """Run a script in a shell of its own, which leaves this one's variables and directory alone."""
    process = call.process
    before = process.cwd, process.variables, process.exported
    process.variables = {key: value for key, value in process.variables.items() if key in process.exported}
    process.exported = set(process.exported)
    try:
        return await Shell(process, call.shell.programs, arguments, name, shell_options).run_text(script)
    finally:
        process.cwd, process.variables, process.exported = before


async def kill(call: Call) -> int:
    """Send a signal to processes, or with a minus to groups."""
    words, number = list(call.arguments), TERMINATED
    if words[:1] == ["-s"] and len(words) > 1:
        number, words = _signal(words[1]), words[2:]
    elif words and words[0].startswith("-") and words[0] != "--":
        number, words = _signal(words[0][1:]), words[1:]
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise Usage("usage: kill [-s signal | -signal] [--] pid...")
    status, kernel = 0, call.process.kernel
    for word in words:
        if not re.fullmatch("-?[0-9]{1,10}", word):
            status = await call.fail(f"{word[:40]}: arguments must be process or job IDs")
            continue
        target = int(word)
        one = kernel.processes.get(target)
        found = kernel.group(-target) if target < 0 else [one] if one is not None else []
        if not found:
            status = await call.fail(f"({target}) - No such process")
        elif number:
            kernel.signal(found, number)
    return status


def _signal(text: str) -> int:
    name = text.upper().removeprefix("SIG")
    if re.fullmatch("[0-9]{1,2}", name) and int(name) in {0, *SIGNALS.values()}:
        return int(name)
    if name not in SIGNALS:
        raise Usage(f"{text[:40]}: invalid signal specification (the sandbox knows {', '.join(SIGNALS)} and 0)")
    return SIGNALS[name]


async def pkill(call: Call) -> int:
    """Signal (pkill) or list (pgrep) processes by what their command line holds."""
    found, words = options([word for word in call.arguments if not word[1:].isdigit()], "fla")
    if len(words) != 1:
        raise Usage("no matching criteria specified")
    kernel = call.process.kernel
    matching = [p for p in kernel.processes.values() if words[0] in p.title and p is not call.process]
    if call.name == "pkill":
        kernel.signal(matching, TERMINATED)
    else:
        await call.out("".join(f"{p.pid}{f' {p.title}' if found.keys() & {'l', 'a'} else ''}\n" for p in matching))
    return 0 if matching else 1


async def ps(call: Call) -> int:
    """List processes."""
    processes = sorted(call.process.kernel.processes.values(), key=lambda process: process.pid)
    rows = [("1", "1", "/usr/sbin/sshd -D", "00:00")]
    for process in processes:
        lived = int((process.now - process.started_at).total_seconds())
        title = " ".join(process.title.split())[:200]
        rows.append((str(process.pid), str(process.group), title, f"{lived // 60:02d}:{lived % 60:02d}"))
    if any("f" in word or "u" in word for word in call.arguments):
        lines = [
            "USER         PID    PGID ELAPSED COMMAND",
            *(f"root {p:>11} {g:>7} {e:>7} {c}" for p, g, c, e in rows),
        ]
    else:
        lines = ["    PID TTY          TIME CMD", *(f"{p:>7} ?        {'00:00:00'} {c}" for p, _, c, _ in rows)]
    await call.out("".join(f"{line}\n" for line in lines))
    return 0


async def which(call: Call) -> int:
    """Print where commands are."""
    status = 0
    for name in call.arguments:
        if name in call.shell.programs:
            await call.out(f"/usr/bin/{name}\n")
        else:
            status = 1
    return status


PROGRAMS: Final[dict[str, Program]] = {
    "sleep": sleep, "timeout": timeout, "setsid": setsid, "nohup": nohup, "env": env, "sh": sh, "bash": sh,
    "kill": kill, "pkill": pkill, "pgrep": pkill, "ps": ps, "which": which, "type": which,
    **dict.fromkeys(("command", "nice", "sudo", "time", "stdbuf"), run_plainly),
}  # fmt: skip
