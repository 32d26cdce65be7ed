"""What the command line understands: commands, their options, and every setting as an option."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lium_mcp import __version__
from lium_mcp.cli.output import written
from lium_mcp.guard.redaction import redact_text
from lium_mcp.settings_table import LIMITS, SETTINGS, as_option, is_option
from lium_mcp.values import is_decimal, no_such

# argparse's word for the words of a command line that are no options.
_ARGUMENT = re.compile(r"^argument (?=\S+: )(?:(?:COMMAND|sync|explain|close): )?")
_LISTING = ("toolsets", "allow_tools", "deny_tools", "read_only")
_TO_LIUM = ("timeout_seconds", "sandbox", "sandbox_speed", "sandbox_seed", "log_level", "log_format")
_CONNECTED = ("read_only", *_TO_LIUM)
_LEDGER = ("state_url",)
_POLICY = (*LIMITS, "policy", "policy_mode", "confirm", *_LISTING, *_LEDGER, *_TO_LIUM)


class UsageError(Exception):
    """What the command line says cannot be understood.

    Attributes:
        program: The command that could not be understood, as it was typed.
        problems: Each says what is wrong, and repeats no key that was taken for an argument.
    """

    def __init__(self, program: str, *problems: str) -> None:
        self.program = program
        # Hosts keep standard error.
        self.problems = [redact_text(problem) for problem in problems]
        super().__init__("; ".join(self.problems))


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        # A mistyped option must not be taken for another one that begins so.
        super().__init__(allow_abbrev=False, **options)
        self._words: Sequence[str] = ()
        # Which parser had the last word: its options are what a mistyped one may have meant.
        self.set_defaults(parser=self)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override] # noqa: ANN401 - argparse's own
        """Read a command line, and say of each word that is too much which one was perhaps meant."""
        self._words = sys.argv[1:] if args is None else args
        options, unknown = self.parse_known_args(self._words, namespace)
        parser: _Parser = options.parser
        del options.parser
        if unknown:
            raise UsageError(parser.prog, *parser.explain(unknown))
        return options

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ANN401 - argparse's own
        # argparse would pass over what cannot be written.
        with written():
            print(message, file=file, end="", flush=True)

    def error(self, message: str) -> NoReturn:
        """Refuse a value or a missing word; or the mistyped option before it, whose value it is."""
        mistyped = self.explain([word for word in self._words if self._is_unknown(word)])
        raise UsageError(self.prog, *(mistyped or [_ARGUMENT.sub("", message)]))

    def explain(self, unknown: Sequence[str]) -> list[str]:
        """Say what is wrong with words that are nothing here."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if unknown and not options:
            return [f"{' '.join(unknown)}: nothing of the kind is expected here; see {self.prog} --help"]
        return [no_such(option, known, like=option, kind="option") for option in options]

    def _is_unknown(self, word: str) -> bool:
        return word.startswith("--") and word.partition("=")[0] not in self._option_string_actions

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - argparse's own
        if action.choices is not None and value not in action.choices:
            kind = "command" if isinstance(action, argparse._SubParsersAction) else "choice"  # noqa: SLF001 - it has no public name
            raise argparse.ArgumentError(action, no_such(str(value), list(action.choices), like=str(value), kind=kind))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="lium-mcp",
        usage="%(prog)s [OPTION ...] [COMMAND ...]",
        description="MCP server for GPU pods on Lium. Without a command it serves over standard input and output, "
        "which is what MCP hosts start. The API key is read from LIUM_API_KEY, else from the official client's config "
        "file (~/.lium/config.ini), where `lium-mcp login` saves one.",
    )
    parser.add_argument("--version", action="version", version=f"lium-mcp {__version__}")
    _add_settings(parser, SETTINGS)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", prog="lium-mcp")
    serve = commands.add_parser(
        "serve", help="serve over standard input and output (the default), or over HTTP with --transport http"
    )
    _add_settings(serve, SETTINGS)
    tools = commands.add_parser(
        "tools", help="list the tools that the settings offer, with their toolsets and their cost in tokens"
    )
    tools.add_argument("--json", action="store_true", help="print the list as JSON")
    _add_settings(tools, _LISTING)
    login = commands.add_parser(
        "login",
        help="get an API key in the browser, and save it where the official client looks for it too",
        description="Get an API key by agreeing on a page of Lium's, and save it in ~/.lium/config.ini, which the "
        "official client reads too. All else in that file stays as it is.",
    )
    login.add_argument("--no-browser", action="store_true", help="only print the page, to open it elsewhere")
    login.add_argument("--force", action="store_true", help="replace a key that is saved, without a question")
    login.add_argument(
        "--wait-minutes",
        type=_wait_minutes,
        default=10.0,
        metavar="MINUTES",
        help="how long to wait for the person to agree (default 10)",
    )
    _add_settings(login, ("timeout_seconds", "log_level", "log_format"))
    commands.add_parser(
        "logout",
        help="remove the saved API key from this machine",
        description="Remove the API key that a login saved in ~/.lium/config.ini, and nothing else. The key itself "
        "goes on to exist at Lium until it is revoked there.",
    )
    _add_install(commands)
    demo = commands.add_parser("demo", help="watch an agent rent, use and remove a GPU pod in the sandbox")
    demo.add_argument(
        "--workflow", choices=["rent", "job"], default="rent", help="rent a pod, or run a job on one (default rent)"
    )
    sandbox = commands.add_parser("sandbox", help="serve a simulated Lium API over HTTP on this machine")
    sandbox.add_argument(
        "--port", type=_port, default=8765, help="port on 127.0.0.1; 0 takes a free one (default 8765)"
    )
    sandbox.add_argument("--speed", type=_speed, default=1.0, help="times faster than real time (default 1)")
    sandbox.add_argument("--seed", type=_seed, default=7, help="seed of the market (default 7)")
    sandbox.add_argument("--rough", action="store_true", help="answer as real servers do on a bad day")
    templates = commands.add_parser("templates", help="keep the account's templates as a file says")
    sync = templates.add_subparsers(dest="action", metavar="sync", required=True).add_parser(
        "sync",
        help="create and update templates; running it again changes nothing",
        description="Bring the account's own templates in line with a TOML file (see the README).",
    )
    sync.add_argument("file", metavar="FILE", type=Path, help="the templates as they should be")
    sync.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sync.add_argument("--prune", action="store_true", help="delete templates that the file does not name")
    _add_settings(sync, _CONNECTED)
    rentals = commands.add_parser(
        "rentals", help="look into the ledger of rents, and close one of which nobody can tell what became of it"
    )
    rentals.add_argument("--all", action="store_true", help="show closed rents too")
    _add_settings(rentals, _LEDGER)
    close = rentals.add_subparsers(dest="action", metavar="close").add_parser(
        "close", help="close an open rent, so that its name is free; removes nothing"
    )
    close.add_argument("rental", metavar="ID", help="id, its beginning, or pod name, as `lium-mcp rentals` shows it")
    close.add_argument("--yes", action="store_true", help="you have looked at lium.io: close it")
    _add_settings(close, _LEDGER)
    doctor = commands.add_parser("doctor", help="say what of the set-up is well, what is not, and what mends it")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.add_argument(
        "--try-project",
        action="store_true",
        help="also start what this folder's own files tell hosts to start: only where you trust who wrote them",
    )
    _add_settings(doctor, SETTINGS)
    status = commands.add_parser("status", help="one glance at the account: pods, money, limits, rents and work")
    status.add_argument(
        "--watch", nargs="?", type=_pause, const=10.0, metavar="SECONDS", help="look again every 10 seconds, or so many"
    )
    status.add_argument("--json", action="store_true", help="print it as JSON")
    _add_settings(status, (*LIMITS, "policy", "policy_mode", *_LEDGER, *_TO_LIUM))
    policy = commands.add_parser("policy", help="the limits in force")
    explain = policy.add_subparsers(dest="action", metavar="explain", required=True).add_parser(
        "explain", help="print each limit, what is used of it, and what is left"
    )
    _add_settings(explain, _POLICY)
    return parser


def _add_install(commands: Any) -> None:  # noqa: ANN401 - argparse's own
    install = commands.add_parser(
        "install",
        help="tell an MCP host of this server",
        description="Put this server into the file in which an MCP host has its servers: the change is shown and asked "
        "about, the file as it was is kept beside it, and all else in it stays. Hosts: see --list.",
    )
    _add_host(install)
    install.add_argument("--list", action="store_true", help="show all hosts: found here, entry there, and the file")
    install.add_argument("--http", metavar="URL", help="name the address of a server instead of starting one")
    _add_settings(install, (*LIMITS, "read_only", "sandbox"))
    uninstall = commands.add_parser(
        "uninstall",
        help="take this server out of an MCP host again",
        description="Take our entry out of the file of an MCP host, and nothing else; as with install, it is shown "
        "and asked about.",
    )
    _add_host(uninstall)


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", nargs="?", help="the host, such as claude-code, cursor or codex")
    parser.add_argument(
        "--scope",
        choices=("user", "project"),
        default="user",
        help="for you everywhere (the default), or for the project in the working directory",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show the change")
    parser.add_argument("--yes", action="store_true", help="make it without a question")


def _add_settings(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    group = parser.add_argument_group("settings", "each is also an environment variable")
    for name in filter(is_option, names):
        setting = SETTINGS[name]
        option = as_option(name)
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
    if not text.isdecimal() or int(text) > 65_535:  # noqa: PLR2004 - what a port is
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _speed(text: str) -> float:
    if not is_decimal(text) or not 0 <= float(text) <= 100_000:  # noqa: PLR2004 - as the setting of the server
        raise argparse.ArgumentTypeError("a speed is a number from 0 to 100000")
    return float(text)


def _pause(text: str) -> float:
    if not is_decimal(text) or not 1 <= float(text) <= 3600:  # noqa: PLR2004 - a second to an hour
        raise argparse.ArgumentTypeError("a pause is a number of seconds from 1 to 3600")
    return float(text)


def _wait_minutes(text: str) -> float:
    if not is_decimal(text) or not 0 < float(text) <= 60:  # noqa: PLR2004 - nobody waits longer
        raise argparse.ArgumentTypeError("a wait is a number of minutes above 0, and at most 60")
    return float(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("a seed is a whole number")
    return int(text)
