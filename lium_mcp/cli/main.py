"""The command line. ``lium-mcp`` alone is what an MCP host starts: it serves over standard input and output.

Standard output belongs to the protocol there, so everything a person should read goes to standard error. A command is
imported when it is run, so that ``--version`` and a mistyped option answer at once.
"""

from collections.abc import Sequence
from importlib import import_module

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.output import OutputLost, flush, say_usage, say_wrong, write_no_more
from lium_mcp.cli.parser import UsageError, make_parser
from lium_mcp.cli.serve import refuse, seen_by_a_person
from lium_mcp.cli.serve import run as serve
from lium_mcp.serving.front import Front
from lium_mcp.settings_reading import load_readable
from lium_mcp.values import SettingsError


def main(words: Sequence[str], front: Front | None = None) -> int:
    """Run a command; the exit status is the answer.

    Args:
        words: The command line, without the program.
        front: What answers a host meanwhile, where one starts a server.
    """
    try:
        status = _run(words, front)
        flush()
    except SettingsError as error:
        say_wrong(error)
        return ExitStatus.UNUSABLE
    except OutputLost as error:
        write_no_more()
        say_wrong(error)
        return ExitStatus.FAILED
    except BrokenPipeError:
        # Whoever read standard output has gone, as `head` does.
        write_no_more()
        return ExitStatus.CLOSED_PIPE
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    return status


def _run(words: Sequence[str], front: Front | None) -> int:
    try:
        options = vars(make_parser().parse_args(words))
        command = options.pop("command") or "serve"
        if command == "serve":
            return serve(options, front)
        return int(import_module(f"lium_mcp.cli.{command}").run(options))
    except UsageError as error:
        settings, problems = load_readable({})
        if settings.transport != "stdio" or seen_by_a_person() or not _serves_stdio(words):
            say_usage(error.program, error.problems)
            return ExitStatus.UNUSABLE
        return refuse(settings, [*error.problems, *problems])


def _serves_stdio(words: Sequence[str]) -> bool:
    """Whether a command line that cannot be understood is what hosts start, as far as it tells."""
    first = words[0] if words else "serve"
    return (first == "serve" or first[:1] == "-") and not any(word.startswith("--transport") for word in words)
