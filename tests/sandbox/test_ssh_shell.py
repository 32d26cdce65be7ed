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
from lium_mcp.sandbox.container import processes
from lium_mcp.sandbox.container.commands import PROGRAMS
from lium_mcp.sandbox.container.containers import Container, Containers
from lium_mcp.sandbox.container.parse import KNOWN
from lium_mcp.sandbox.container.processes import PROCESSES
from lium_mcp.sandbox.container.streams import Pipe
from tests.sandbox.conftest import START
from tests.sandbox.wire import wire_to


@dataclass
class Shell:
    """A pod's shell without a connection."""

    sandbox: Sandbox
    container: Container

    def run(self, script: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a script to its end, turning the clock as often as it takes."""
        given, out, errors = Pipe(), Pipe(), Pipe()
        given.put(stdin)
        given.finish()
        printed, said = b"", b""
        world = self.sandbox._world
        with world.lock:
            world.catch_up()
            streams = {0: given, 1: out.writer, 2: errors.writer}
            process = self.container.start(script, streams, {})
            for _ in range(5000):
                self.container.kernel.run()
                printed, said = printed + out.take(), said + errors.take()
                if process.exit_code is not None:
                    break
                if not any(process.can_go_on for process in self.container.kernel.processes.values()):
                    self.sandbox.clock.advance(hours=1)
                    world.catch_up()
        assert process.exit_code is not None, f"{script!r} does not end"
        return process.exit_code, printed.decode("utf-8", "replace"), said.decode("utf-8", "replace")

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
        ("echo a\\\nb; true &&\n echo on", "ab\non\n"),
        ("true && echo yes || echo no; false && echo yes || echo no", "yes\nno\n"),
        ("(echo b; echo a) | cat | head -n 1", "b\n"),
        ("echo x > f; echo y >> f; cat < f; wc -l < f", "x\ny\n2\n"),
        ("ls x 2> e; cat e; ls x 2>&1 | wc -l", "ls: x: No such file or directory\n1\n"),
        ("echo a >/dev/null 2>&1; echo b 2>&1 >/dev/null; (echo c >&2) 2>/dev/null; ls x &> f; echo d", "d\n"),
        ("X=1; Y=$X-2; export Z=3; echo $Y ${X}0 \"$NONE\"; sh -c 'echo $Z'", "1-2 10 \n3\n"),
        ("A=1 sh -c 'echo $A'; echo [$A]", "1\n[]\n"),
        ("cd /var; pwd; cd; echo $PWD; (cd /etc; pwd); pwd", "/var\n/root\n/etc\n/root\n"),
        ("false; echo $?; nosuch 2>/dev/null; echo $?; sh -c 'exit 7'; echo $?; x=$(false); echo $?", "1\n127\n7\n1\n"),
        ("false; x=$?; echo $x; x=1; echo $?", "1\n0\n"),
        ("if [ -d /tmp ]; then echo dir; elif true; then echo no; else echo never; fi", "dir\n"),
        ("if false\nthen echo no\nelif [ ! -e x ]\nthen echo elif\nelse echo never\nfi", "elif\n"),
        ("for i in a 'b c' $(echo 1 2); do echo \"<$i>\"; done", "<a>\n<b c>\n<1>\n<2>\n"),
        ("for i in 1 2; do echo $i; done > f; cat f", "1\n2\n"),
        ("x=' a  b '; for i in $x; do echo $i; done; for i in \"$x\"; do echo \"$i\"; done", "a\nb\n a  b \n"),
        ("echo \"$(echo \"in $(echo 'side')\")\" $(echo '  two   words  ')x", "in side two words x\n"),
        ("echo 'echo $0 $1 $#' > s.sh; sh s.sh a 'b c'; echo 'echo in; exit 3' | sh; echo $?", "s.sh a 2\nin\n3\n"),
        ("touch a.py b.py .h; echo *.py; echo '*.py' *.none ~/*.py", "a.py b.py\n*.py *.none /root/a.py /root/b.py\n"),
        ("mkdir -p d/e; echo 1 > d/e/f; cp -r d c; mv c m; rm -r d; find m -type f; cat m/e/f", "m/e/f\n1\n"),
        ("echo a > /tmp/f; mkdir d; mv /tmp/f d; cp d/f .; cat d/f f; ls /tmp", "a\na\n"),
        ("(echo '#!/bin/sh'; echo 'echo ran $1') > r; ./r 2>/dev/null; echo $?; chmod +x r; ./r 1", "126\nran 1\n"),
        ("(echo a; echo b; echo c) > f; head -n 1 f; head -2 f; tail -1 f; wc f", "a\na\nb\nc\n3 3 6 f\n"),
        ("(echo GET /a; echo post /b) | grep -in '^get.*a$'; (echo a1; echo b) | grep -vc '[0-9]'", "1:GET /a\n1\n"),
        ("(echo 'a+(b)'; echo aab) > f; grep -F 'a+(' f; grep 'a\\+b' f; grep -E 'a+b|x' f; grep '(b)' f",
         "a+(b)\naab\naab\na+(b)\n"),
        ("mkdir d; grep -r x d || echo none; find d/ -maxdepth 0; find / -maxdepth 1 -name 't*'; find d/../d -name d",
         "none\nd/\n/tmp\nd/../d\n"),
        ("mkdir d; echo x > d/f; echo x > d/g; grep -r x d; grep -l x d/f; grep -q x d/g && echo yes",
         "d/f:x\nd/g:x\nd/f\nyes\n"),
        ("echo -n abc | sha256sum -", f"{hashlib.sha256(b'abc').hexdigest()}  -\n"),
        ("echo -n abc > f; sha256sum -- f", f"{hashlib.sha256(b'abc').hexdigest()}  f\n"),
        ("date +%s; sleep 2m; date +%s; date '+%Y-%m-%d'", "1791288062\n1791288182\n2026-10-06\n"),
        ("sleep 100 & p=$!; kill $p; sleep 1; kill -0 $p 2>/dev/null || echo gone", "gone\n"),
        ("(sleep 5; echo late) & echo early; sleep 9; echo end", "early\nlate\nend\n"),
        ("setsid sleep 50 & sleep 1; kill -0 -$! && kill -TERM -$!; sleep 1; kill -0 -$! 2>/dev/null || echo gone",
         "gone\n"),
        ("echo > f; nohup sh -c 'sleep 3; echo over' > f 2>&1 & sleep 9; cat f", "over\n"),
        ("python3 --version; python --version", "Python 3.11.9\nPython 3.11.9\n"),
        ("/usr/bin/echo a; /bin/sh -c 'echo $0 $1' x y", "a\nx y\n"),
        ("echo $$ | grep -c $(echo $$); [ $(sh -c 'echo $$') ] && echo same", "1\nsame\n"),
        ("touch a .b; sleep 5; touch c; ls -A; ls -tr", ".b\na\nc\na\nc\n"),
        ("[ 2 -lt 10 ] && [ a != b ] && test -z '' && [ -s /etc/hostname ] && echo all", "all\n"),
        ("mkdir -p d/e; touch d/a.py d/e/b.py; find d -type f -name '*.py'; find d -maxdepth 1 -type d",
         "d/a.py\nd/e/b.py\nd\nd/e\n"),
        ("mkdir d; touch d/a d/b.py; find d -type f -exec echo {} {}c \\; && find d -name '*.py' -print",
         "d/a d/ac\nd/b.py d/b.pyc\nd/b.py\n"),
        ("mkdir d c; touch d/a d/b c/z; find d c -type f -exec echo 1 {} +; find d -name none -exec echo {} +",
         "1 d/a d/b c/z\n"),
        ("find . -exec false {} \\; ; echo $?; find . -exec false {} +; echo $?", "0\n1\n"),
        ("find /tmp -exec sh -c 'cd /etc; exit 3' {} \\; ; pwd", "/root\n"),
        ("(echo a; echo b) > f; (echo a; echo c) > g; diff -u f g; echo $?; diff f f && diff -uq f f && echo same",
         "--- f\n+++ g\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n1\nsame\n"),
        ("(echo a; echo b) > f; echo -n c > g; diff f g; diff f /dev/null; echo b | diff - f || true",
         "1,2c1\n< a\n< b\n---\n> c\n\\ No newline at end of file\n1,2d0\n< a\n< b\n0a1\n> a\n"),
        ("echo a > f; echo b > g; diff -uq f g || echo no", "Files f and g differ\nno\n"),
    ],
)  # fmt: skip
def test_scripts(shell: Shell, script: str, expected: str) -> None:
    assert shell.out(script) == expected


def test_listings_tell_sizes(shell: Shell) -> None:
    assert shell.out("mkdir d; echo -n 12345 > d/f; du -s d; du -sh d; df -h / | wc -l") == "8\td\n8.0K\td\n2\n"
    kind, _, owner, _, size, *_, name = shell.out("ls -l d").split()
    assert (kind, owner, size, name) == ("-rw-r--r--", "root", "5", "f")
    assert shell.out("touch .h; ls -1; ls -a; ls d x 2>/dev/null | cat") == "d\n.\n..\n.h\nd\nd:\nf\n"


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("while true; do sleep 1; done", "while"),
        ("until true; do sleep 1; done", "until"),
        ("case x in x) echo;; esac", "case"),
        ("f() { echo; }", "f() {"),
        ("function f { echo; }", "function"),
        ("[[ -f x ]] && echo yes", "[["),
        ("{ echo a; }", "{"),
        ("! false", "!"),
        ("trap 'echo end' EXIT", "trap"),
        ("set -e; false", "set"),
        ("sleep 1 & wait", "wait"),
        ("read x < f", "read"),
        ("for i in 1 2; do break; done", "break"),
        ("if true; then eval 'echo a'; fi", "eval"),
        (". ./env.sh", "."),
        ("echo $((1 + 1))", "$(("),
        ("((i++))", "(("),
        ("echo `date`", "`"),
        ('echo "${x:-y}"', "${...} with anything but a name in it"),
        ("echo $'a'", "$'"),
        ("cat <<< text", "<<<"),
        ("cat > f <<'EOF'\ntext\nEOF", "<<"),
        ('sh "$@"', "$@"),
        ("diff <(echo a) f", "<("),
        ("ls |& cat", "|&"),
        ("echo a ;; echo b", ";;"),
        ("mkdir -p run/{a,b}", "{a,b}"),
        ("for i in {1..5}; do echo $i; done", "{1..5}"),
    ],
)
def test_what_the_shell_lacks_is_said_in_one_sentence_before_anything_runs(
    shell: Shell, script: str, missing: str
) -> None:
    sentence = f"bash: The sandbox's shell has no `{missing}`. {KNOWN}\n"
    assert shell.run(f"echo begun > begun\n{script}") == (2, "", sentence)
    assert shell.run("cat begun")[0] == 1


NUMBERS = " ".join(map(str, range(9000)))


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("nosuch", 127, f"bash: nosuch: command not found; the sandbox has only {', '.join(sorted(PROGRAMS))}\n"),
        ("apt-get install x", 127, "bash: apt-get: command not found"),
        ("printf %s a", 127, "bash: printf: command not found"),
        ("./nosuch", 127, "No such file or directory"),
        ("/etc/hostname", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
        ("echo 'open", 2, "syntax error"),
        ('echo "open', 2, "syntax error"),
        ("echo $(date", 2, "syntax error: unexpected end of file"),
        ("if true; then", 2, "syntax error: unexpected end of file"),
        ("echo a )", 2, "syntax error near unexpected token `)'"),
        ("cat < nowhere", 1, "nowhere: No such file or directory"),
        ("echo a >&5", 1, "5: Bad file descriptor"),
        ("sh -e f", 2, "the sandbox knows -c TEXT and -l"),
        ("grep -E '(a|b)+' /etc/hostname", 2, "the sandbox's grep knows no groups"),
        ("grep '\\(a\\)\\1' /etc/hostname", 2, "the sandbox's grep knows no groups"),
        ("grep '[[:digit:]]' /etc/hostname", 2, "no [[:classes:]]"),
        ("head -n", 2, "option -n requires argument"),
        ("grep -P a /etc/hostname", 2, "option -P not recognized; the sandbox knows -ivncqlEFr"),
        ("grep '*a[b' /etc/hostname", 2, "invalid pattern"),
        ("grep a nowhere", 2, "nowhere: No such file or directory"),
        ("ls --color", 2, "option --color not recognized"),
        ("find . -mtime 1", 2, "the sandbox's find knows -name PATTERN, -type f, -type d and -maxdepth N"),
        ("find . -exec echo {}", 2, "the sandbox's find knows"),
        ("find . -exec echo {} \\; -exec echo {} \\;", 2, "and then -print, -exec CMD {} \\; or -exec CMD {} +"),
        ("find . -exec echo {} {} +", 2, "the sandbox's find knows"),
        ("find . -print -name a", 2, "the sandbox's find knows"),
        ("find nowhere -exec echo {} +", 1, "find: nowhere: No such file or directory"),
        ("find /etc -exec nosuch {} +", 1, "nosuch: command not found"),
        ("diff /etc/hostname nowhere", 2, "diff: nowhere: No such file or directory"),
        ("diff /etc /etc/hostname", 2, "diff: /etc: Is a directory"),
        ("diff /etc/hostname", 2, "the sandbox's diff takes two files"),
        (f"for i in {NUMBERS}; do echo $i; done > f; diff f /etc/hostname", 2, "compares 1000 lines of a file at most"),
        ("diff -r /etc /tmp", 2, "option -r not recognized; the sandbox knows -uq"),
        ("tail -f /etc/hostname", 2, "option -f not recognized"),
        ("echo -e 'a\\nb'", 2, "the sandbox's echo knows -n alone"),
        ("du /", 2, "the sandbox's du prints totals alone"),
        ("chmod u+x f", 2, "the sandbox's chmod takes 755 or +x"),
        ("date -d yesterday", 2, "the sandbox's date takes -u and a +FORMAT"),
        ("[ 1 -a 2 ]", 2, "not a test the sandbox knows"),
        ("kill -STOP 1", 2, "invalid signal specification"),
        ("ln -s a b", 127, "bash: ln: command not found"),
        ("python3 -c 'print(1)'", 1, "the sandbox does not run Python"),
        ("echo > infer.py; python3 infer.py", 1, "the sandbox does not run Python"),
        ("python3 train.py", 2, "No such file or directory"),
        ("rm -rf /", 1, "Device or resource busy"),
        ("mkdir d; mv d d/e", 1, "Invalid argument"),
        ("mkdir d; cp d e", 1, "Is a directory"),
        ("mkdir d; cp -r d d/e", 1, "Invalid argument"),
        ("cp a b c", 2, "target 'c' is not a directory"),
        ("sleep 1e9", 2, "invalid time interval"),
        ("nohup " * 20 + "true", 126, "nohup: nested too deeply"),
        ("export 1=2", 2, "not a valid identifier"),
        ("nvidia-smi --query-gpu=nosuch --format=csv", 2, 'Field "nosuch" is not a valid field'),
        ("nvidia-smi -q", 2, "the sandbox knows nvidia-smi, -L"),
    ],
)
def test_refusals(shell: Shell, script: str, code: int, message: str) -> None:
    found, _, errors = shell.run(script)
    assert (found, message in errors) == (code, True), (found, errors)


@pytest.mark.parametrize(
    ("line", "pattern"),
    [("a" * 40, "a*a*a*a*a*a*a*a*a*a*a*a*b"), ("a" * 5000, "a*b"), ("a" * 30, "a?" * 30 + "a" * 30)],
)
def test_a_pattern_that_could_take_long_is_refused(shell: Shell, line: str, pattern: str) -> None:
    code, _, errors = shell.run(f"echo {line} | grep -E '{pattern}'")
    assert (code, errors) == (2, "grep: -: too long for the sandbox's grep and a pattern that repeats\n")


LOOP = f"{'1 ' * 10_000}"
DIFFERENT = "; ".join(f"for i in {NUMBERS[:290]}; do echo same; echo {file}$i; done > {file}" for file in "fg")
DOUBLED = "; x=$x$x" * 40
SPREAD = '; x="$x $x"' * 25
BIG = f"echo {'y' * 1000} > f; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do cat f f > g; mv g f; done"


@pytest.mark.parametrize(
    "script",
    [
        f"for i in {LOOP}; do for j in {LOOP}; do true; done; done",
        f"for i in {LOOP}; do for j in {LOOP}; do sleep 1; done; done",
        f"for i in {LOOP}; do true | true; done",
        "echo 'sh s & sh s' > s; sh s",
        "echo ./s > s; chmod +x s; ./s",
        f"x=x{DOUBLED}",
        f"x=xxxxxxxx{SPREAD}; for i in $x; do echo $x; done; ls $x",
        f"for i in {LOOP}; do for j in {LOOP}; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaa >> f; done; done",
        f"{BIG}; cat f f f f > g; for i in {LOOP}; do cat g g; done | cat | tail -n 1",
        f"{BIG}; diff f g; diff f /etc/hostname",
        f"{BIG}; tail f; grep y f; wc f; sh f; sh < f; x=$(cat f); cat f | grep y; sha256sum f; head -n 9 f",
        f"{BIG}; for i in {LOOP}; do cat f f > g; mv g f; done",
        f"x=$(for i in {LOOP}; do for j in {LOOP}; do echo {'y' * 999}; done; done)",
        f"for i in {LOOP}; do mkdir -p d$i/a/b/c; done",
        f"for i in {LOOP}; do mkdir -p a/a/a/a/a/a/a; cd a/a; done",
        f"for i in {LOOP}; do sleep 1000 & done; sleep 2000",
        f"{BIG}; for i in {LOOP}; do grep '[0-9]*.*[0-9]*x' f; done",
        f"echo {'y' * 200} > f; for i in {LOOP}; do grep '[0-9]*.*x' f; done",
        "touch aaaaaaaaaaaaaaaaaaaaaaaaaaa; echo *a*a*a*a*a*a*a*a*a*a*a*a*a*a*b; find . -name '*a*a*a*a*a*a*a*b'",
        f"cd /var; for i in {NUMBERS}; do touch $i; done; for i in {LOOP}; do find / >/dev/null; du -s /; ls; done",
        f"mkdir d; for i in {NUMBERS}; do touch d/$i; done; find d -exec echo {' {}' * 500} \\;",
        f"mkdir d; for i in {NUMBERS}; do touch d/$i; done; find d -exec cat {{}} +",
        f"touch {'y' * 250}; find . -exec echo {'{}' * 99_999} \\;",
        "echo 'find / -exec sh s {} +' > s; sh s",
        f"{DIFFERENT}; for i in {LOOP}; do diff f g; done",
        f"x='{LOOP}'; for i in {LOOP}; do echo $x > f; done",
        f"for i in {LOOP}; do {'$none ' * 10_000}; x={'$none' * 10_000}; done",
        f"cd /var; for i in {NUMBERS}; do touch $i; done; echo {'*a ' * 9000}",
        f"mkdir 1 2 3 4 5 6 7 8 9; echo {'*/../' * 700}*; for i in {LOOP}; do echo {'1/../' * 700}*; done",
        "cat | cat | cat | cat < /dev/null | head -n 10",
        "kill -9 -$$; kill $$; nohup sh -c 'exit 3'",
        "nohup " * 5_000,
        "echo " + "$(" * 200 + ")" * 200,
        "( " * 500,
        'echo "' + '$(echo "' * 200,
        "'" * 99_999,
        "''" * 99_999,
        "if " * 500,
    ],
)  # fmt: skip
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


def test_a_pipe_for_which_there_are_no_processes_left_leaves_none_that_wait_for_each_other(shell: Shell) -> None:
    full = f"{BIG}; for i in {'1 ' * (PROCESSES - 3)}; do sleep 1000 & done"
    assert shell.run(f"{full}; cat f | cat | cat") == (254, "", "bash: Resource temporarily unavailable\n")
    assert {line.split()[3] for line in shell.out("ps").splitlines()[1:]} == {"/usr/sbin/sshd", "sleep", "ps"}


def test_a_full_disk_is_an_error_and_space_comes_back(shell: Shell) -> None:
    assert shell.run(f"cd /tmp; {BIG}; cat {'f ' * 40} > big")[0] == 1
    used = shell.container.files.root.storage.used_bytes
    assert used > 250 * 2**20
    shell.out("rm /tmp/big /tmp/f; echo fits > /tmp/small")
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
    [*PROGRAMS, "-n", "-r", "-e", "--", "1", "-1", "/", "/root", "..", "f", "*", "$x", "$HOME", "${x}", "$(echo a)",
     "'a b'", '"$x"', "a=b", "[", "]", "=", "-eq", "/dev/null", "-name", "{}", "$((1+x))", "~", "\\",
     "-exec", "\\;", "+"]
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

    keeper, logger = Keeper(), logging.getLogger(processes.__name__)
    logger.addHandler(keeper)
    yield found
    logger.removeHandler(keeper)


@settings(max_examples=300)
@given(script=SCRIPTS | st.text(max_size=60))
@example(script="kill ²; kill -² 1; echo a >&²; tail -n ² f; head -² f; sleep ²; exit ²")
@example(script="nohup exit; find . -exec exit {} ; ; find . -exec exit {} \\; ; find . -exec '' \\; ; diff -u f")
@example(script="nohup exit; setsid exit 3; sh -c exit; find . -maxdepth ²; find -name; sh -c")
@example(script="cat | grep '[[a--b&&~~|]' | grep -E '(((a|{9}' ; test ² -eq ٣; chmod ٣٣٣ f; date +%²; date +%")
def test_no_text_of_a_command_crashes_or_hangs(standing: Shell, defects: list[str], script: str) -> None:
    code, _, _ = standing.run(script, stdin=b"some\ninput\n\xff\n")
    assert 0 <= code <= 255
    assert not defects
    running = standing.container.kernel
    running.signal(list(running.processes.values()), 9)
    running.run()
    assert not running.processes


@settings(max_examples=150)
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_quoted_text_arrives_as_it_is(standing: Shell, text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    assert standing.out(f"echo a{quoted}") == f"a{text}\n"
    assert standing.out(f'x={quoted}; echo "a$x"') == f"a{text}\n"
