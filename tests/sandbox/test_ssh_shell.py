"""The shell of simulated pods: what it understands, and that no text of a command stops or breaks it."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.container import kernel
from lium_mcp.sandbox.container.commands import PROGRAMS
from lium_mcp.sandbox.container.containers import Container, Containers
from lium_mcp.sandbox.container.kernel import PROCESSES
from lium_mcp.sandbox.container.streams import Given, Taken
from tests.sandbox.conftest import START
from tests.sandbox.wire import wire_to

OUTPUT_BYTES = 16 * 1024 * 1024


@dataclass
class Shell:
    """A pod's shell without a connection."""

    sandbox: Sandbox
    container: Container

    def run(self, script: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a script to its end, turning the clock as often as it takes."""
        out, errors = Taken(OUTPUT_BYTES), Taken(OUTPUT_BYTES)
        world = self.sandbox._world
        with world.lock:
            world.catch_up()
            process = self.container.start(script, {0: Given(stdin), 1: out, 2: errors}, {})
            self.container.kernel.run()
            for _ in range(1000):
                if process.exit_code is not None:
                    break
                self.sandbox.clock.advance(hours=1)
                world.catch_up()
        assert process.exit_code is not None, f"{script!r} does not end"
        return process.exit_code, out.data.decode("utf-8", "replace"), errors.data.decode("utf-8", "replace")

    def out(self, script: str, stdin: bytes = b"") -> str:
        code, out, errors = self.run(script, stdin)
        assert (code, errors) == (0, ""), (script, code, errors)
        return out


def fresh() -> Shell:
    sandbox = Sandbox(seed=7, speed=0, start=START, balance_usd=1e9)

    async def rent() -> str:
        async with wire_to(sandbox) as wire:
            return await wire.running(sandbox)

    pod = sandbox._world.pods[asyncio.run(rent())]
    container = Containers(sandbox._world).of(pod)
    assert container is not None
    return Shell(sandbox, container)


@pytest.fixture
def shell() -> Shell:
    return fresh()


@pytest.fixture(scope="module")
def standing() -> Shell:
    """One shell for all examples of hypothesis: the next meets what the last left."""
    return fresh()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'single  $HOME' \"double  $HOME\" back\\ slash", "single  $HOME double  /root back slash\n"),
        ("echo one; echo two # a comment", "one\ntwo\n"),
        ("true && echo yes || echo no; false && echo yes || echo no", "yes\nno\n"),
        ("printf 'b\\na\\n' | sort | head -n 1", "a\n"),
        ("echo x > f; echo y >> f; cat < f; wc -l < f", "x\ny\n2\n"),
        ("ls x 2> e; cat e; ls x 2>&1 | wc -l", "ls: cannot access 'x': No such file or directory\n1\n"),
        ("echo a >/dev/null 2>&1; echo b 2>&1 >/dev/null; (echo c >&2) 2>/dev/null; echo d", "d\n"),
        ("X=1; Y=$X-2; export Y; echo $Y ${Z:-none} ${#Y}; sh -c 'echo $X:$Y'", "1-2 none 3\n:1-2\n"),
        ("A=1 env | grep ^A=; echo [$A]", "A=1\n[]\n"),
        ("cd /var; pwd; cd - >/dev/null; echo $PWD; (cd /etc; pwd); pwd", "/var\n/root\n/etc\n/root\n"),
        ("false; echo $?; nosuch 2>/dev/null; echo $?; sh -c 'exit 7'; echo $?", "1\n127\n7\n"),
        ("if [ -d /tmp ]; then echo dir; elif true; then echo no; else echo never; fi", "dir\n"),
        ("for i in a 'b c' $(seq 2); do echo \"<$i>\"; done", "<a>\n<b c>\n<1>\n<2>\n"),
        ("i=0; while [ $i -lt 3 ]; do i=$((i + 1)); [ $i = 2 ] && continue; echo $i; done", "1\n3\n"),
        ("for i in 1 2; do for j in 1 2; do echo $i$j; break 2; done; done", "11\n"),
        ("cat <<EOF\n$HOME $((6 * 7))\nEOF\ncat <<'EOF'\n$HOME\nEOF", "/root 42\n$HOME\n"),
        ("cat > s.sh <<'E'\nset -e\necho $1 $#\nfalse\necho never\nE\nsh s.sh a b || echo $?", "a 2\n1\n"),
        ("set -o pipefail; false | true; echo $?; ! false; echo $?", "1\n0\n"),
        ("touch a.py b.py .h; echo *.py; echo '*.py' *.none", "a.py b.py\n*.py *.none\n"),
        ("printf 'k v w\\n' | while read -r a b; do echo \"$b/$a\"; done", "v w/k\n"),
        ("mkdir -p d/e; echo 1 > d/e/f; cp -r d c; mv c m; rm -r d; find m -type f; cat m/e/f", "m/e/f\n1\n"),
        ("ln -s /etc/hostname l; readlink l; [ -L l ] && cat l | wc -l", "/etc/hostname\n1\n"),
        ("head -c 5 /dev/zero | wc -c; printf abc | tail -c 1; seq 5 | tail -n +4", "5\nc4\n5\n"),
        ("printf 'GET /a\\npost /b\\n' | grep -in '^get.*a$'; echo abc | grep -o 'b.'", "1:GET /a\nbc\n"),
        ("printf abc | sha256sum - | cut -d ' ' -f 1", f"{hashlib.sha256(b'abc').hexdigest()}\n"),
        ("printf abc > f; md5sum -- f", "900150983cd24fb0d6963f7d28e17f72  f\n"),
        ("date +%s; sleep 2m; date +%s; date '+%Y-%m-%d'", "1791288062\n1791288182\n2026-10-06\n"),
        ("timeout 5 sleep 10; echo $?; timeout 5 echo in time", "124\nin time\n"),
        ("sleep 100 & p=$!; kill $p; wait $p; echo $?; kill -0 $p 2>/dev/null || echo gone", "143\ngone\n"),
        ("(sleep 5; echo late) & echo early; wait; echo end", "early\nlate\nend\n"),
        ("whoami; id -u; uname; nproc >/dev/null; echo $USER", "root\n0\nLinux\nroot\n"),
        ("python3 --version; which python3; command -v nosuch || echo none", "Python 3.11.9\n/usr/bin/python3\nnone\n"),
        ("echo $$ | grep -c $(echo $$); [ $(sh -c 'echo $$') ] && echo same", "1\nsame\n"),
        ("eval 'x=5'; . /dev/null; echo $x; unset x; echo [$x]", "5\n[]\n"),
        ("yes | head -n 2; seq 100000 | tail -n 1", "y\ny\n100000\n"),
    ],
)  # fmt: skip
def test_scripts(shell: Shell, script: str, expected: str) -> None:
    assert shell.out(script) == expected


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("nosuch", 127, "bash: nosuch: command not found"),
        ("./nosuch", 127, "No such file or directory"),
        ("/etc/hostname", 126, "Permission denied"),
        ("echo 'open", 2, "syntax error"),
        ("if true; then", 2, "syntax error: unexpected end of file"),
        ("echo a ;; echo b", 2, "syntax error"),
        ("case x in x) echo;; esac", 2, "the sandbox's shell has no `case'"),
        ("f() { echo; }", 2, "syntax error near unexpected token `('"),
        ("echo $((1 / 0))", 1, "division by 0"),
        ("echo ${x/y/z}", 2, "bad substitution"),
        ("cat < nowhere", 1, "nowhere: No such file or directory"),
        ("set -u; echo $nothing", 1, "nothing: unbound variable"),
        ("grep '\\(a\\)' /etc/hostname", 2, "no groups"),
        ("ls --color", 2, "invalid option"),
        ("python3 -c 'print(1)'", 1, "the sandbox does not run Python"),
        ("echo > infer.py; python3 infer.py", 1, "the sandbox does not run Python"),
        ("python3 train.py", 2, "No such file or directory"),
        ("rm -rf /", 1, "Device or resource busy"),
        ("mkdir d; mv d d/e", 1, "Invalid argument"),
        ("sleep 1e9", 2, "invalid time interval"),
    ],
)
def test_refusals(shell: Shell, script: str, code: int, message: str) -> None:
    found, _, errors = shell.run(script)
    assert (found, message in errors) == (code, True), (found, errors)


@pytest.mark.parametrize(
    "script",
    [
        "while true; do :; done",
        "while true; do sleep 1; done",
        "until false; do true | true; done",
        "cat > s <<'E'\nsh s & sh s\nE\nsh s",
        "sh -c 'eval \"$0\"' 'eval \"$0\"'",
        "x=x; while true; do x=$x$x; done",
        "while true; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa >> f; done",
        "cat /dev/zero > f; cat f f f f > g; yes > h",
        "head -c 1000G /dev/zero > f",
        "truncate -s 900G f; printf '%999999999d' 1",
        "seq 1 99999999999; yes | sort | uniq -c",
        "echo > f; while true; do cat f f > g; mv g f; done",
        "i=0; while true; do i=$((i + 1)); mkdir -p d$i/a/b/c; done",
        "mkdir a; while true; do mkdir -p a/a/a/a/a/a/a; cd a/a; done",
        "for i in $(seq 10000); do sleep 1000 & done; wait",
        "echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | grep 'a*a*a*a*a*a*a*a*a*a*a*a*b'",
        "touch aaaaaaaaaaaaaaaaaaaaaaaaaaa; echo *a*a*a*a*a*a*a*a*a*a*a*a*a*a*b",
        "cd /var; for i in $(seq 9000); do touch $i; done; while true; do find / >/dev/null; du -s /; ls; done",
        "x=$(head -c 900K /dev/zero | tr '\\0' a); while true; do echo $x > f; read y < f; grep 'a*b' f; done",
        "ln -s b a; ln -s a b; cat a/c; find /; du /",
        "cat | cat | cat | cat < /dev/zero | head -c 10",
        "kill -9 -$$; kill $$; exec sh -c 'exec true'",
        "echo " + "$(" * 200 + ")" * 200,
        "(" * 500,
        "echo $((" + "(" * 500 + "1" + ")" * 500 + "))",
        "'" * 99_999,
    ],
)
def test_greed_ends(shell: Shell, script: str) -> None:
    """Within seconds of a processor, within the storage's limit, and with the shell usable afterwards."""
    began = time.process_time()
    shell.run(script)
    assert time.process_time() - began < 10
    for process in list(shell.container.kernel.processes.values()):
        assert len(shell.container.kernel.processes) <= PROCESSES
        shell.container.kernel.signal([process], 9)
    shell.container.kernel.run()
    for storage in (shell.container.files.root.storage, shell.container.files.directory("/root").storage):
        assert 0 <= storage.used_bytes <= storage.limit_bytes
    assert shell.out("echo still there") == "still there\n"


def test_a_full_disk_is_an_error_and_space_comes_back(shell: Shell) -> None:
    assert shell.run("head -c 300M /dev/zero > /tmp/big")[0] == 1
    used = shell.container.files.root.storage.used_bytes
    assert used > 250 * 2**20
    shell.out("rm /tmp/big; echo fits > /tmp/small")
    assert shell.container.files.root.storage.used_bytes < 2**20


def test_gpu_figures_follow_from_pod_and_time(shell: Shell) -> None:
    fields = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,uuid"
    query = f"nvidia-smi --query-gpu={fields} --format=csv,noheader,nounits"
    idle = shell.out(query).strip().split(", ")
    assert idle[:5] == ["0", "NVIDIA A100-SXM4-80GB", "0", "4", "81920"]
    assert idle[6].startswith("GPU-")
    assert shell.out("nvidia-smi --query-compute-apps=gpu_uuid,pid --format=csv,noheader,nounits") == ""
    assert "No running processes" in shell.out("nvidia-smi")
    busy = shell.out(f"echo > train.py; python3 train.py >/dev/null & sleep 1; {query}; nvidia-smi | grep -c python3")
    assert int(busy.split(", ")[2]) >= 84
    assert busy.endswith("\n1\n")


WORDS = st.sampled_from(
    [*PROGRAMS, "-n", "-r", "-e", "--", "1", "-1", "/", "/root", "..", "f", "*", "$x", "$HOME", "${x:-y}", "$(echo a)",
     "'a b'", '"$x"', "%s", "'%d\\n'", "a=b", "[", "]", "=", "-eq", "/dev/null", "/dev/zero", "$((1+x))", "~", "\\"]
)  # fmt: skip
PLAIN_GLUE = st.sampled_from([" ", " ", " ", "; ", " && ", " || ", " | ", " & ", "\n", " > f", " < f", " 2>&1 "])
GLUE = PLAIN_GLUE | st.sampled_from(
    [" > ", " >> ", " < ", " ( ", " ) ", " { ", " ; } ", "'", '"', "#", "`", " <<EOF\n", "\nEOF\n",
     " if ", " ; then ", " ; fi ", " for x in ", " ; do ", " ; done ", " while ", " ! "]
)  # fmt: skip
SCRIPTS = (st.lists(st.tuples(WORDS, PLAIN_GLUE), max_size=20) | st.lists(st.tuples(WORDS, GLUE), max_size=20)).map(
    lambda pairs: "".join(a + b for a, b in pairs)
)


@pytest.fixture(scope="module")
def defects() -> Iterator[list[str]]:
    """What the kernel logs when a command fails in a way that nobody foresaw."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(self.format(record))

    keeper, logger = Keeper(), logging.getLogger(kernel.__name__)
    logger.addHandler(keeper)
    yield found
    logger.removeHandler(keeper)


@settings(max_examples=300, deadline=10_000)
@given(script=SCRIPTS | st.text(max_size=60))
@example(script="kill ²; kill -² 1; echo a >&²; tail -n ² f; head -² f; seq ²; sleep ²; timeout ² ls; exit ²")
@example(script="timeout 1 exit 3; while :; do timeout 1 break; nohup exit; break; done; echo x | xargs exit")
@example(script="printf '\\xff\\377%c' é | tr a-z A-Z | cut -f ² | cut -d ² -f 1; test ² -eq ٣; echo $((٣ + 1))")
def test_no_text_of_a_command_crashes_or_hangs(standing: Shell, defects: list[str], script: str) -> None:
    code, _, _ = standing.run(script, stdin=b"some\ninput\n\xff\n")
    assert 0 <= code <= 255
    assert not defects
    running = standing.container.kernel
    running.signal(list(running.processes.values()), 9)
    running.run()
    assert not running.processes


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_quoted_text_arrives_as_it_is(standing: Shell, text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    assert standing.out(f"printf %s {quoted}") == text
    assert standing.out(f'x={quoted}; printf %s "$x"') == text
