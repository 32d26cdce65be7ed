"""What the command line understands: commands, their options, and every setting as an option."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lium_mcp import __version__
from lium_mcp.guard.redaction import redact_text
from lium_mcp.settings_table import SETTINGS, is_option
from lium_mcp.values import no_such


class UsageError(Exception):
    """What the command line says cannot be understood."""

    def __init__(self, parser: "_Parser", message: str) -> None:
        super().__init__(message)
        self.parser = parser


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        # A mistyped option must not be taken for another one that begins so.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Refuse without repeating a key that was taken for an argument: hosts keep standard error."""
        raise UsageError(self, redact_text(message))

    def exit_with(self, error: UsageError) -> NoReturn:
        """Say how this is used, and what was wrong."""
        super().error(str(error))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="lium-mcp",
        description="MCP server for GPU pods on Lium. Without a command it serves over standard input and output, "
        "which is what MCP hosts start. The API key is read from LIUM_API_KEY, else from the official client's config "
        "file (~/.lium/config.ini).",
    )
    parser.add_argument("--version", action="version", version=f"lium-mcp {__version__}")
    _add_settings(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="serve over standard input and output (the default), or over HTTP with --transport http"
    )
    _add_settings(serve)
    tools = commands.add_parser(
        "tools", help="list the tools that the settings offer, with their toolsets and their cost in tokens"
    )
    _add_settings(tools)
    demo = commands.add_parser("demo", help="watch an agent rent, use and remove a GPU pod in the sandbox")
    demo.add_argument(
        "--workflow", choices=["rent", "job"], default="rent", help="rent a pod, or run a job on one (default rent)"
    )
    sandbox = commands.add_parser("sandbox", help="serve a simulated Lium API over HTTP on this machine")
    sandbox.add_argument(
        "--port", type=_port, default=8765, help="port on 127.0.0.1; 0 takes a free one (default 8765)"
    )
    sandbox.add_argument("--speed", type=_speed, default=1.0, help="times faster than real time (default 1)")
    sandbox.add_argument("--seed", type=int, default=7, help="seed of the market (default 7)")
    sandbox.add_argument("--rough", action="store_true", help="answer as real servers do on a bad day")
    templates = commands.add_parser("templates", help="keep the account's templates as a file says")
    sync = templates.add_subparsers(dest="action", metavar="ACTION", required=True).add_parser(
        "sync",
        help="create and update templates; running it again changes nothing",
        description="Bring the account's own templates in line with a TOML file (see the README). Exit status: 0 all "
        "is as the file says, 1 something failed, 2 the file cannot be used, 3 a dry run found differences.",
    )
    sync.add_argument("file", metavar="FILE", type=Path, help="the templates as they should be")
    sync.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sync.add_argument("--prune", action="store_true", help="delete templates that the file does not name")
    _add_settings(sync)
    rentals = commands.add_parser(
        "rentals", help="look into the ledger of rents, and close one of which nobody can tell what became of it"
    )
    rentals.add_argument("--all", action="store_true", help="show closed rents too")
    _add_settings(rentals)
    close = rentals.add_subparsers(dest="action", metavar="ACTION").add_parser(
        "close", help="close an open rent, so that its name is free; removes nothing"
    )
    close.add_argument("rental", metavar="ID", help="id, its beginning, or pod name, as `lium-mcp rentals` shows it")
    close.add_argument("--yes", action="store_true", help="you have looked at lium.io: close it")
    _add_settings(close)
    policy = commands.add_parser("policy", help="the limits in force")
    explain = policy.add_subparsers(dest="action", metavar="ACTION", required=True).add_parser(
        "explain", help="print each limit, what is used of it, and what is left"
    )
    _add_settings(explain)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings", "each is also an environment variable")
    for name, setting in SETTINGS.items():
        if not is_option(name):
            continue
        option = f"--{name.replace('_', '-')}"
        text = f"{setting.about} [{setting.variable}]"
        # Left out means left to the environment, so that the default is written in one place.
        if setting.kind == "flag":
            action = argparse.BooleanOptionalAction
            group.add_argument(option, action=action, default=argparse.SUPPRESS, help=text)
        else:
            choices = setting.choices if setting.kind == "choice" else ()
            metavar = "|".join(choices) or name.rsplit("_", 1)[-1].upper()
            group.add_argument(option, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:  # noqa: PLR2004 - what a port is
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed <= 100_000:  # noqa: PLR2004 - as the setting of the server
        raise argparse.ArgumentTypeError("a speed is a number from 0 to 100000")
    return speed


def unknown_options(words: Sequence[str]) -> list[str]:
    """Say of each unknown option which one is nearest."""
    fields = [field.replace("_", "-") for field in SETTINGS if is_option(field)]
    flags = [field for field in fields if SETTINGS[field.replace("-", "_")].kind == "flag"]
    known = [*(f"--{field}" for field in fields), *(f"--no-{field}" for field in flags)]
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [redact_text(no_such(option, known, like=option)) for option in options if option not in known]
