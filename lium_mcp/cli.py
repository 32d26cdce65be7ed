"""The command line. ``lium-mcp`` alone is what an MCP host starts: it serves over standard input and output.

Standard output belongs to the protocol there, so everything a person should read goes to standard error. Heavy imports
happen inside the commands, so that ``--version`` and a mistyped option answer at once.
"""

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from lium_mcp import __version__
from lium_mcp.guard.redaction import Redactor, redact_text
from lium_mcp.guard.server_token import ServerTokenError, make_token
from lium_mcp.logs import log_to_stderr
from lium_mcp.settings import Settings, environment_name, load, load_readable
from lium_mcp.values import SettingsError, no_such

_USAGE_ERROR = 2
_CLOSED_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is the answer."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = vars(_parser().parse_args(words))
        command = options.pop("command") or "serve"
        return int(_COMMANDS[command](options))
    except _UsageError as error:
        settings, problems = load_readable({})
        if settings.transport != "stdio" or _seen_by_a_person() or not _serves_stdio(words):
            error.parser.exit_with(error)
        return _refuse(settings, [*(_unknown_options(words) or [str(error)]), *problems])
    except SettingsError as error:
        _say(error)
        return _USAGE_ERROR
    except BrokenPipeError:
        # Whoever read standard output has gone, as `head` does: the flush at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except KeyboardInterrupt:
        return 130


def _say(error: SettingsError) -> None:
    print(f"lium-mcp: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the command line's answer


def _seen_by_a_person() -> bool:
    """Whether a person sees what is printed; hosts show nobody."""
    return sys.stdin.isatty()


def _serves_stdio(words: Sequence[str]) -> bool:
    """Whether this is what hosts start, as far as a command line tells that cannot be understood."""
    first = words[0] if words else "serve"
    return (first == "serve" or first[:1] == "-") and not any(word.startswith("--transport") for word in words)


class _UsageError(Exception):
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
        raise _UsageError(self, redact_text(message))

    def exit_with(self, error: _UsageError) -> NoReturn:
        """Say how this is used, and what was wrong."""
        super().error(str(error))


def _parser() -> argparse.ArgumentParser:
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


def _is_option(field: str) -> bool:
    """Whether a setting is an option: what belongs to Lium, keys above all, and what lets others use them, is none.

    Process lists show it.
    """
    return environment_name(field).startswith("LIUM_MCP_") and field != "server_token"


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings", "each is also an environment variable")
    for name, field in Settings.model_fields.items():
        if not _is_option(name):
            continue
        variable = environment_name(name)
        option = f"--{name.replace('_', '-')}"
        text = f"{field.description} [{variable}]"
        # Left out means left to the environment, so that the default is written in one place.
        if field.annotation is bool:
            action = argparse.BooleanOptionalAction
            group.add_argument(option, action=action, default=argparse.SUPPRESS, help=text)
        else:
            choices = [value for value in get_args(field.annotation) if isinstance(value, str)]
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


def _log(settings: Settings) -> None:
    redact = Redactor(settings.find_secrets())
    log_to_stderr(settings.log_level, redact, as_json=settings.log_format == "json")


def _read(options: dict[str, Any]) -> Settings:
    from lium_mcp.server import read_settings  # noqa: PLC0415

    settings, problems = read_settings(options)
    if problems:
        raise SettingsError(*problems)
    return settings


def _serve(options: dict[str, Any]) -> int:
    os.umask(0o077)  # what a server writes is for its own user
    # Start-up is nearly all imports: nothing they allocate is garbage, and nothing of it ever will be.
    gc.disable()
    import anyio  # noqa: PLC0415

    from lium_mcp.calls import serve_stdio  # noqa: PLC0415
    from lium_mcp.server import build_server, read_settings  # noqa: PLC0415

    settings, problems = read_settings(options)
    if problems:
        if settings.transport != "stdio" or _seen_by_a_person():
            raise SettingsError(*problems)
        return _refuse(settings, problems)
    _make_server_token(settings)
    _log(settings)
    server = build_server(settings)
    if settings.transport != "stdio":
        from lium_mcp.http import serve_http  # noqa: PLC0415

        gc.enable()
        anyio.run(serve_http, server, settings)
        return 0
    gc.freeze()
    gc.enable()
    anyio.run(serve_stdio, server)
    return 0


def _refuse(settings: Settings, problems: Sequence[str]) -> int:
    """Serve a host that started this with wrong settings: it lists the tools, and hears at each call what is wrong."""
    import anyio  # noqa: PLC0415

    from lium_mcp.calls import serve_stdio  # noqa: PLC0415
    from lium_mcp.server import build_refusing_server  # noqa: PLC0415

    _say(SettingsError(*problems))
    log_to_stderr(settings.log_level, redact_text, as_json=settings.log_format == "json")
    anyio.run(serve_stdio, build_refusing_server(settings, problems))
    return _USAGE_ERROR


def _unknown_options(words: Sequence[str]) -> list[str]:
    fields = [field.replace("_", "-") for field in Settings.model_fields if _is_option(field)]
    known = [f"--{name}" for field in fields for name in (field, f"no-{field}")]
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [redact_text(no_such(option, known, like=option)) for option in options if option not in known]


def _make_server_token(settings: Settings) -> None:
    """Make the token that callers over HTTP need, if they need one, and say where it is; a new one is shown once."""
    path = settings.server_token_path
    if path is None:
        return
    try:
        made = make_token(path)
    except ServerTokenError as error:
        raise SettingsError(f"LIUM_MCP_SERVER_TOKEN: {error}") from None
    shown = f"\nIt was made just now, and is not shown again: {settings.find_server_token()}" if made else ""
    print(  # noqa: T201
        "Only callers that send the server token in the header X-Lium-MCP-Token use this server's own Lium key.\n"
        f"The token is in {path}{shown}",
        file=sys.stderr,
        flush=True,
    )


def _tools(options: dict[str, Any]) -> int:
    import anyio  # noqa: PLC0415

    from lium_mcp.server import build_server, select_tools  # noqa: PLC0415
    from lium_mcp.tools.cost import tokens  # noqa: PLC0415

    settings = _read(options)
    _log(settings)
    listed = anyio.run(build_server(settings).list_tools)
    toolsets = {item.name: item.toolset for item in select_tools(settings)}
    for tool in listed:
        print(f"{tokens(tool):5}  {tool.name:24}{toolsets[tool.name]:13}{tool.title}")  # noqa: T201
    print(f"{sum(map(tokens, listed)):5}  tokens in {len(listed)} tools (bytes / 4 of name, description, parameters)")  # noqa: T201
    sys.stdout.flush()
    return 0


def _demo(options: dict[str, Any]) -> int:
    import anyio  # noqa: PLC0415

    from lium_mcp.demo import run  # noqa: PLC0415

    return anyio.run(run, options["workflow"])


def _sandbox(options: dict[str, Any]) -> int:
    import anyio  # noqa: PLC0415

    from lium_mcp.sandbox import serve  # noqa: PLC0415

    def announce(base_url: str) -> None:
        print(  # noqa: T201
            f"A simulated Lium listens at {base_url}\n"
            f"Use it with: LIUM_BASE_URL={base_url} LIUM_API_KEY=sk_sandbox\n"
            f"Its clock, faults and state: {base_url.removesuffix('/api')}/_sandbox/ (docs/sandbox.md). Ctrl-C ends.",
            file=sys.stderr,
            flush=True,
        )

    async def run() -> None:
        await serve(
            port=options["port"],
            speed=options["speed"],
            seed=options["seed"],
            profile="rough" if options["rough"] else "plain",
            on_ready=announce,
        )

    try:
        anyio.run(run)
    except OSError as error:
        print(f"lium-mcp: cannot listen at port {options['port']}: {os.strerror(error.errno or 0)}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _templates(options: dict[str, Any]) -> int:
    import anyio  # noqa: PLC0415

    from lium_mcp.api import SYSTEM_CLOCK  # noqa: PLC0415
    from lium_mcp.server import connect  # noqa: PLC0415
    from lium_mcp.template_sync import sync  # noqa: PLC0415

    own = {name: options.pop(name) for name in ("file", "dry_run", "prune")}
    settings = _read(options)
    _log(settings)

    async def run() -> int:
        async with connect(settings) as lium:
            return await sync(lium, SYSTEM_CLOCK, own["file"], dry_run=own["dry_run"], prune=own["prune"])

    return anyio.run(run)


def _rentals(options: dict[str, Any]) -> int:
    import anyio  # noqa: PLC0415

    from lium_mcp.operator_commands import close_rental, list_rentals  # noqa: PLC0415
    from lium_mcp.server import open_journal  # noqa: PLC0415

    own = {name: options.pop(name, None) for name in ("all", "action", "rental", "yes")}
    journal = open_journal(load(options))

    async def run() -> int:
        try:
            if own["action"] == "close":
                return await close_rental(journal, own["rental"], confirmed=own["yes"])
            return await list_rentals(journal, all_of_them=own["all"])
        finally:
            await journal.aclose()

    return anyio.run(run)


def _policy(options: dict[str, Any]) -> int:
    import anyio  # noqa: PLC0415

    from lium_mcp.operator_commands import explain_policy  # noqa: PLC0415
    from lium_mcp.server import make_runtime, offered_by, select_tools  # noqa: PLC0415

    options.pop("action")
    settings = _read(options)
    _log(settings)

    async def run() -> int:
        runtime, accounts = make_runtime(settings, ())
        try:
            return await explain_policy(runtime, offered_by(settings, len(select_tools(settings))))
        finally:
            await accounts.aclose()

    return anyio.run(run)


_COMMANDS = {
    "serve": _serve,
    "tools": _tools,
    "demo": _demo,
    "sandbox": _sandbox,
    "templates": _templates,
    "rentals": _rentals,
    "policy": _policy,
}
