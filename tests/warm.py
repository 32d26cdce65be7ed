"""Makes it cheap to start our program: most of a start is imports, and here they are made once for all tests.

The `Popen` of `python -m lium_mcp` here is a fork of a template process that has imported everything, and is otherwise
what it was: a child of the tests (the template forks twice, and who is orphaned then goes to the tests), with an id,
signals and an exit status of its own, and with nothing but the arguments, the environment, the folder and the three
descriptors that it was given. What asks for more than that is started by `exec` as ever, as is everything where
coverage is measured (imports count) and where there is no Linux. Unlike real processes, all of these share one seed of
hashes.
"""

import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

IS_POSSIBLE: Final = sys.platform == "linux" and "COVERAGE_PROCESS_CONFIG" not in os.environ
_ROOT: Final = str(Path(__file__).parent.parent)
_COMMANDS: Final = tuple([sys.executable, "-m", program] for program in ("lium_mcp", "tests.within"))
# What a server imports when it is first needed.
_LATE: Final = ("asyncssh", "sqlalchemy.dialects.sqlite.aiosqlite", "uvicorn.protocols.http.h11_impl", "tests.within")
_PIPE_ENDS: Final = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_MESSAGE_BYTES: Final = 2**20
_SET_CHILD_SUBREAPER: Final = 36
# Popen's own words for: nothing out of the ordinary.
_PLAIN: Final[dict[str, Any]] = {
    "preexec_fn": None, "close_fds": True, "pass_fds": (), "shell": False, "process_group": -1, "umask": -1,
    "gid": None, "gids": None, "uid": None, "executable": None,
}  # fmt: skip


class _Template:
    """The process that is forked, from the side of the tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wire: socket.socket | None = None
        self._set_option = ctypes.CDLL(None, use_errno=True).prctl

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        with self._lock:
            if self._wire is None:
                self._wire = self._start()
            self._set_option(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._wire, [json.dumps(request).encode()], descriptors)
                process_id = int(self._wire.recv(_MESSAGE_BYTES))
                assert self._wire.recv(_MESSAGE_BYTES) == b"orphaned"
            finally:
                self._set_option(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        return process_id

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._process.wait(10)

    def _start(self) -> socket.socket:
        wire, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (wire, far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(far.fileno())],
                cwd=_ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": _ROOT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
            )
        return wire


class Popen(subprocess.Popen[Any]):
    template: Final = _Template()

    def _execute_child(self, *parts: Any) -> None:
        inherited: Any = super()
        given = inspect.signature(inherited._execute_child).bind(*parts).arguments
        environment = dict(os.environ if given["env"] is None else given["env"])
        command = list(given["args"]) if isinstance(given["args"], Sequence) else []
        if not _is_ours(command, environment) or any(given[name] != value for name, value in _PLAIN.items()):
            inherited._execute_child(*parts)
            return
        ends = [given[name] for name in _PIPE_ENDS]
        of_child = ends[0], ends[3], ends[5]
        self.pid = self.template.fork(
            {
                "arguments": command,
                "environment": environment,
                "folder": os.fspath(given["cwd"] or Path.cwd()),
                "is_session": bool(given["start_new_session"]),
            },
            [own if end == -1 else end for own, end in enumerate(of_child)],
        )
        self._child_created = True
        inherited._close_pipe_fds(*ends)


def _is_ours(command: list[str], environment: dict[str, str]) -> bool:
    """Whether this is our program, as an interpreter runs it that nobody told anything."""
    told = [name for name in environment if name.startswith(("PYTHON", "LC_", "LANG"))]
    return command[:3] in _COMMANDS and all(name == "PYTHONPATH" and environment[name] == _ROOT for name in told)


def _be_template(wire: socket.socket) -> dict[str, Any]:
    """Fork at each request, and return it in the child; end once nobody asks any more."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(wire, _MESSAGE_BYTES, 3)
        if not message:
            os._exit(0)
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            wire.send(b"orphaned")
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        parent = os.getpid()
        child = os.fork()
        if child:
            wire.send(str(child).encode())
            os._exit(0)
        while os.getppid() == parent:  # a process knows no other parent than the one that it starts with
            time.sleep(0.0005)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        wire.detach()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        return dict(json.loads(message))


def _become(request: dict[str, Any]) -> None:
    """Be what was asked for, as an interpreter is that was started with this command."""
    if request["is_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.orig_argv[:] = request["arguments"]
    sys.argv[:] = request["arguments"][2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    import lium_mcp

    for name in [module.name for module in pkgutil.walk_packages(lium_mcp.__path__, "lium_mcp.")] + list(_LATE):
        if name != "lium_mcp.__main__":
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    _become(_be_template(socket.socket(fileno=int(sys.argv[1]))))
