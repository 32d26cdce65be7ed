"""What the command line understands: commands, their options, and every setting as an option."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lium_mcp import __version__
from lium_mcp.cli.output import written
from lium_mcp.guard.redaction import redact_text
from lium_mcp.setting_words import what_it_takes
from lium_mcp.settings_table import LIMITS, OVER_HTTP, SETTINGS, Setting, as_option, is_option
from lium_mcp.values import is_decimal, no_such

# argparse's word for the words of a command line that are no options.
_ARGUMENT = re.compile(r"^argument (?=\S+: )(?:(?:COMMAND|sync|explain|close|revoke): )?")
_TEMPLATES = """a file of one template, of which name and image are needed:

  [[template]]
  name = "trainer"
  image = "daturaai/pytorch:2.8.0-py3.12-cuda12.8.0-devel-ubuntu22.04"
  description = "Training"
  ports = [22, 8888]
  volumes = ["/workspace"]
  startup_commands = "jupyter lab --port 8888"
  environment = { WANDB_PROJECT = "search" }
  private = true
  category = "PYTORCH"
  # values of variables of the CI:
  # environment_from = { WANDB_API_KEY = "CI_WANDB_KEY" }
  # the user name of a registry login that is stored at Lium:
  # registry_credential = 'team-bot'"""
_PAUSE_SECONDS = Setting("number", "", low=1, high=3600)
_WAIT_MINUTES = Setting("number", "", low=0.01, high=60)
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
        # Settings would make a usage of many lines, which says less than the list below it.
        options.setdefault("usage", "%(prog)s [OPTION ...]")
        # A mistyped option must not be taken for another one that begins so.
        super().__init__(allow_abbrev=False, **options)
        self._words: Sequence[str] = ()
        # Which parser had the last word: its options are what a mistyped one may have meant.
        self.set_defaults(parser=self)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override] # noqa: ANN401 - argparse's own
        """Read a command line, and say of each word that is too much which one was perhaps meant."""
        self._words = list(sys.argv[1:] if args is None else args)
        if self._words[:1] == ["help"]:
            self._words = [*self._words[1:], "--help"]
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
            known = list(map(str, action.choices))
            problem = f"{value}: it takes {' or '.join(known)}"
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no public name
                problem = no_such(str(value), known, like=str(value), kind="command")
                problem += "" if problem.endswith(" is one") else f"; there is {', '.join(known)}"
            raise argparse.ArgumentError(action, problem)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="lium-mcp",
        usage="%(prog)s [OPTION ...] [COMMAND ...]",
        description="MCP server for GPU pods on Lium. Without a command it serves over standard input and output, "
        "which is what MCP hosts start. The API key is read from LIUM_API_KEY, else from the official client's config "
        "file (~/.lium/config.ini), where `lium-mcp login` saves one.",
    )
    parser.add_argument("-v", "-V", "--version", action="version", version=f"lium-mcp {__version__}")
    commands = parser.add_subparsers(
        title="commands", description="`lium-mcp help COMMAND` tells more of each", dest="command", metavar="COMMAND",
        prog="lium-mcp",
    )  # fmt: skip
    _add_settings(parser, SETTINGS)
    serve = commands.add_parser(
        "serve",
        help="serve over standard input and output (the default), or over HTTP with --transport http",
        description="Serve MCP over standard input and output, as hosts start it, or over HTTP for several callers "
        "(--transport http). With wrong settings it stops, or, where a host started it, refuses every call with the "
        "reason.",
    )
    _add_settings(serve, SETTINGS)
    tools = commands.add_parser(
        "tools",
        help="list the tools that the settings offer, with their toolsets and their cost in tokens",
        description="List the tools that these settings offer to an agent: what each does, whether it reads, changes "
        "or destroys, in which toolset it is, and how many tokens its description takes of the agent's context.",
    )
    tools.add_argument("--json", action="store_true", help="print the list as JSON")
    _add_settings(tools, _LISTING)
    login = commands.add_parser(
        "login",
        help="get an API key in the browser, and save it where the official client looks for it too",
        description="Get an API key by agreeing on a page of Lium's, and save it in ~/.lium/config.ini, which the "
        "official client reads too. All else in that file stays as it is.",
    )
    login.add_argument(
        "--no-browser", action="store_true", help="only print the address of the page, to open it on any machine"
    )
    login.add_argument("--force", action="store_true", help="replace a key that is saved, without a question")
    login.add_argument(
        "--wait-minutes",
        type=_number(_WAIT_MINUTES),
        default=10.0,
        metavar="MINUTES",
        help="how long to wait until you have agreed (default 10)",
    )
    _add_settings(login, ("timeout_seconds", "log_level", "log_format"))
    commands.add_parser(
        "logout",
        help="remove the saved API key from this machine",
        usage="%(prog)s",
        description="Remove the API key in ~/.lium/config.ini from this machine, where `lium-mcp login` or the "
        "official client has saved it: both are logged out then. The key itself goes on to work for whoever has a "
        "copy, until it is revoked at lium.io (API keys).",
    )
    _add_install(commands)
    demo = commands.add_parser(
        "demo",
        help="watch an agent rent, use and remove a GPU pod in the sandbox",
        description="Watch what an agent does, in a simulated Lium: no account, no key, no money.",
    )
    demo.add_argument(
        "--workflow",
        choices=["rent", "job"],
        default="rent",
        help="rent a pod, look at it and remove it; or let a job run on one and take its results (default rent)",
    )
    _add_dashboard(commands)
    sandbox = commands.add_parser(
        "sandbox",
        help="serve a simulated Lium API over HTTP on this machine",
        description="Serve a simulated Lium on this machine, so that programs can be tried without an account: it "
        "prints the address and the key to give them. For the MCP server alone, --sandbox is enough.",
    )
    sandbox.add_argument(
        "--port",
        type=_number(SETTINGS["port"]),
        default=8765,
        help="port on 127.0.0.1; 0 takes a free one (default 8765)",
    )
    sandbox.add_argument(
        "--speed",
        type=_number(SETTINGS["sandbox_speed"]),
        default=1.0,
        help="how many times faster than real time it runs (default 1)",
    )
    sandbox.add_argument(
        "--seed",
        type=_number(SETTINGS["sandbox_seed"]),
        default=7,
        help="another number makes another market of GPUs (default 7)",
    )
    sandbox.add_argument(
        "--rough",
        action="store_true",
        help="leave figures out, be late and fail in part, as real servers do on a bad day",
    )
    templates = commands.add_parser(
        "templates",
        help="keep the account's templates as a file says",
        usage="%(prog)s sync FILE [OPTION ...]",
        description="Keep your own templates, the images that pods start with, as a file says.",
    )
    sync = templates.add_subparsers(dest="action", metavar="sync", prog=templates.prog, required=True).add_parser(
        "sync",
        help="create and update templates; running it again changes nothing",
        usage="%(prog)s FILE [OPTION ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Create and update your own templates at Lium until they are as a TOML file says.\n"
        "Running it again changes nothing.",
        epilog=_TEMPLATES,
    )
    sync.add_argument("file", metavar="FILE", type=Path, help="the templates as they should be")
    sync.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sync.add_argument(
        "--prune", action="store_true", help="also delete those of your own templates that the file does not name"
    )
    _add_settings(sync, _CONNECTED)
    rentals = commands.add_parser(
        "rentals",
        help="show what was rented from here, and close a rent of which nobody can tell what became of it",
        usage="%(prog)s [OPTION ...] [close ID]",
        description="Show the ledger: the record that the server keeps of each rent before it is sent, so that none "
        "is sent twice. Rents that are open are shown, and what is done between calls.",
    )
    rentals.add_argument("--all", action="store_true", help="show closed rents too")
    _add_settings(rentals, _LEDGER)
    close = rentals.add_subparsers(dest="action", metavar="close", prog=rentals.prog).add_parser(
        "close",
        help="close an open rent, so that its name is free; removes nothing",
        usage="%(prog)s ID [OPTION ...]",
        description="Close an open rent of which Lium can no longer tell what became of it, so that others may be "
        "rented again. No pod is removed: look at lium.io first whether there is one.",
    )
    close.add_argument("rental", metavar="ID", help="id, its beginning, or pod name, as `lium-mcp rentals` shows it")
    close.add_argument("--yes", action="store_true", help="you have looked at lium.io: close it")
    _add_settings(close, _LEDGER)
    _add_grants(commands)
    doctor = commands.add_parser(
        "doctor",
        help="say what of the set-up is well, what is not, and what mends it",
        description="Look at all that a set-up needs: the key, the way to Lium, the clock, the SSH key, the ledger, "
        "the limits, and each MCP host on this machine. What is wrong is told with what mends it; nothing is changed. "
        "The exit status is 0 if all is well, 1 if something is worth a look, 2 if something keeps it from working.",
    )
    doctor.add_argument("--json", action="store_true", help="print the same as JSON, for programs")
    doctor.add_argument(
        "--try-project",
        action="store_true",
        help="also start what this folder's own files tell hosts to start: only where you trust who wrote them",
    )
    _add_settings(doctor, SETTINGS)
    status = commands.add_parser(
        "status",
        help="show the account at a glance: pods, money, limits, rents and work",
        description="Show what the account has and does now: its pods and what they cost, the balance and how long it "
        "lasts, the limits and what is left of them, open rents, standing orders and jobs. Nothing is changed.",
    )
    status.add_argument(
        "--watch",
        nargs="?",
        type=_number(_PAUSE_SECONDS),
        const=10.0,
        metavar="SECONDS",
        help="look again every 10 seconds, or every SECONDS",
    )
    status.add_argument("--json", action="store_true", help="print the same as JSON, for programs")
    _add_settings(status, (*LIMITS, "policy", "policy_mode", *_LEDGER, *_TO_LIUM))
    policy = commands.add_parser(
        "policy",
        help="show the limits in force: policy explain",
        usage="%(prog)s explain [OPTION ...]",
        description="Show what an agent may do with your money.",
    )
    explain = policy.add_subparsers(dest="action", metavar="explain", prog=policy.prog, required=True).add_parser(
        "explain",
        help="print each limit, what is used of it, and what is left",
        description="Print whose account it is, which tools are offered, when you are asked, and each limit with what "
        "is used of it and what is left.",
    )
    _add_settings(explain, _POLICY)
    return parser


def _add_dashboard(commands: Any) -> None:  # noqa: ANN401 - argparse's own
    dashboard = commands.add_parser(
        "dashboard",
        help="look at pods, money and market on a page in your browser",
        description="Show pods, money and market on a page in a browser on this machine. It prints an address that "
        "opens the page once, and serves it until Ctrl-C. What the page is told to do is asked about as ever, and "
        "stays within the limits.",
    )
    dashboard.add_argument("--no-browser", action="store_true", help="only print the address of the page")
    dashboard.add_argument(
        "--port", type=_number(SETTINGS["port"]), default=0, help="port on 127.0.0.1; 0 takes a free one (the default)"
    )
    _add_settings(dashboard, [name for name in SETTINGS if name not in (*OVER_HTTP, "transport")])


def _add_grants(commands: Any) -> None:  # noqa: ANN401 - argparse's own
    grants = commands.add_parser(
        "grants",
        help="list who has logged in at a server over HTTP, and end such a login",
        usage="%(prog)s [OPTION ...] [revoke ID]",
        description="List who has logged in at a server over HTTP that has --oauth lium, as the ledger has it: with "
        "which client, since when, and when it ends if the client does not renew it.",
    )
    _add_settings(grants, _LEDGER)
    revoke = grants.add_subparsers(dest="action", metavar="revoke", prog=grants.prog).add_parser(
        "revoke",
        help="end a login: its tokens count no more, and its Lium key is deleted here",
        usage="%(prog)s ID [OPTION ...]",
        description="End a login on all servers of the ledger, at once. The Lium key itself is revoked at lium.io.",
    )
    revoke.add_argument("grant", metavar="ID", help="its id, or the beginning of it, as `lium-mcp grants` shows it")
    _add_settings(revoke, _LEDGER)


def _add_install(commands: Any) -> None:  # noqa: ANN401 - argparse's own
    install = commands.add_parser(
        "install",
        help="tell an MCP host (the program in which your agent runs) of this server",
        usage="%(prog)s HOST [OPTION ...]\n       %(prog)s --list",
        description="Put this server into the file in which an MCP host, such as Claude Code or Cursor, has its "
        "servers. The change is shown and asked about, the file as it was is kept beside it, and all else in it stays.",
    )
    _add_host(install)
    install.add_argument(
        "--list",
        action="store_true",
        help="list all hosts: whether each is found here, has an entry of this server, and where its file is",
    )
    install.add_argument(
        "--http",
        metavar="URL",
        help="let the host use a server that runs already at this address (https://gpu.example.com/mcp), instead of "
        "starting one of its own",
    )
    _add_settings(install, (*LIMITS, "read_only", "sandbox"), about="written into the entry, for the server there")
    uninstall = commands.add_parser(
        "uninstall",
        help="take this server out of an MCP host again",
        usage="%(prog)s HOST [OPTION ...]",
        description="Take the entry of this server, and what came with it, out of the file of an MCP host. As with "
        "install, the change is shown and asked about, and the file as it was is kept beside it.",
    )
    _add_host(uninstall)


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "host",
        metavar="HOST",
        nargs="?",
        help="its name, such as claude-code, cursor or codex: `lium-mcp install --list` has all",
    )
    parser.add_argument(
        "--scope",
        choices=("user", "project"),
        default="user",
        help="user: for you, in all projects (the default); project: in a file of the folder that you are in, for all "
        "who have it",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show the change, and write nothing")
    parser.add_argument("--yes", action="store_true", help="make it without a question")


def _add_settings(parser: argparse.ArgumentParser, names: Iterable[str], *, about: str = "") -> None:
    group = parser.add_argument_group("settings", about or "each is also an environment variable, named in brackets")
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


def _number(setting: Setting) -> Callable[[str], float]:
    """What reads the number of an option that takes what a setting takes."""

    def read(text: str) -> float:
        number = float(text) if is_decimal(text) else math.nan
        is_whole = setting.kind == "number" or number.is_integer()
        if not (is_whole and (setting.low or 0) <= number <= (setting.high or math.inf)):
            raise argparse.ArgumentTypeError(f"{text}: it takes {what_it_takes(setting, text)}")
        return number if setting.kind == "number" else int(number)

    return read
