"""Runs inside the official client's environment: reads calls as JSON lines, makes them, writes results as JSON lines.

The official client takes a second to import, so one process of it serves many tests. It knows nothing of our package.

    {"do": "sdk", "method": "ls", "arguments": {"gpu_type": "A100"}}        -> {"result": ...} or {"error": ...}
    {"do": "cli", "arguments": ["ps", "--format", "json"]}                  -> {"exit_code", "stdout", "stderr"}
    {"do": "routes"}                                                        -> {"result": [["GET", "/pods"], ...]}

Every call may carry `environment`, variables to set before it (null removes one).
"""

import ast
import base64
import contextlib
import dataclasses
import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from types import GeneratorType
from typing import Any

HTTP_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
# The SDK's own ways to send, beside those whose first argument is the HTTP method.
READERS = {"_read", "_all_pages"}


def main() -> None:
    # Whatever the client prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sdk = importlib.import_module("lium.sdk")
    cli = importlib.import_module("lium.cli.cli")
    testing = importlib.import_module("click.testing")
    for line in sys.stdin:
        call = json.loads(line)
        for name, value in call.get("environment", {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if call["do"] == "sdk":
            answer = call_sdk(sdk, call["method"], call["arguments"])
        elif call["do"] == "cli":
            answer = call_cli(cli, testing, call["arguments"])
        else:
            answer = {"result": sorted(routes(sdk))}
        answers.write(json.dumps(answer, default=as_json) + "\n")
        answers.flush()


def call_sdk(sdk: Any, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        with sdk.Lium() as lium:
            target = lium
            for part in method.split("."):
                target = getattr(target, part)
            positional = [as_argument(lium, value) for value in arguments.pop("*", [])]
            named = {name: as_argument(lium, value) for name, value in arguments.items()}
            return {"result": as_json(target(*positional, **named))}
    except Exception as error:  # noqa: BLE001 - reported to the test, whatever it is
        return {"error": {"type": type(error).__name__, "message": str(error), "details": plain(vars(error))}}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, str | int | float | None)}


def call_cli(cli: Any, testing: Any, arguments: list[str]) -> dict[str, Any]:
    """Run a command of the official command line with these arguments, as a shell would."""
    sys.argv = ["lium", *arguments]
    result = testing.CliRunner().invoke(cli.cli, arguments, prog_name="lium")
    stderr = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        stderr += "".join(traceback.format_exception(*result.exc_info))
    return {"exit_code": result.exit_code, "stdout": result.stdout, "stderr": stderr}


def as_argument(lium: Any, value: Any) -> Any:
    """Return the object an argument stands for: JSON has no pods, clusters, times or bytes."""
    match value:
        case {"pod": pod_id}:
            return next(pod for pod in lium.ps() if pod.id == pod_id)
        case {"cluster": cluster_id}:
            return lium.cluster(cluster_id)
        case {"time": text}:
            return datetime.fromisoformat(text)
        case {"base64": text}:
            return base64.b64decode(text)
        case _:
            return value


def as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, GeneratorType):
        return [as_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    return value


def routes(sdk: Any) -> Iterator[tuple[str, str]]:
    """Yield every route that the SDK's source names, as (method, path with `{}` for what varies).

    The method is `*` where the path stands alone, away from the call that sends it.
    """
    folder = Path(sdk.__file__).parent
    for name in ("client.py", "api_keys.py", "workspaces.py"):
        tree = ast.parse((folder / name).read_text())
        sent: set[ast.AST] = set()
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            arguments = [text_of(argument) for argument in node.args[:2]]
            if len(arguments) > 1 and arguments[0] in HTTP_METHODS and is_path(arguments[1]):
                sent.add(node.args[1])
                yield str(arguments[0]), str(arguments[1])
            elif arguments and called in READERS and is_path(arguments[0]):
                sent.add(node.args[0])
                yield "GET", str(arguments[0])
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if id(node) in documentation | inside or node in sent:
                continue
            if is_path(text := text_of(node)):
                yield "*", str(text)


def text_of(node: ast.AST) -> str | None:
    """Return the text of a string in the source, with `{}` for each value put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "{}" for part in node.values)
    return None


def is_path(text: str | None) -> bool:
    return text is not None and text.startswith("/") and len(text) > 1 and text.isascii()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
