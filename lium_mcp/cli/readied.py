"""What the commands share: they read their settings, set up the log, and say what is wrong."""

import sys
from typing import Any, Final

from lium_mcp.guard.redaction import Redactor
from lium_mcp.serving.logs import log_to_stderr
from lium_mcp.settings import Settings
from lium_mcp.text import clean
from lium_mcp.values import SettingsError

USAGE_ERROR: Final = 2


def start_log(settings: Settings) -> None:
    """Log to standard error as the settings say, without their secrets."""
    redact = Redactor(settings.find_secrets())
    log_to_stderr(settings.log_level, redact, as_json=settings.log_format == "json")


def read(options: dict[str, Any]) -> Settings:
    """Read the settings of a command that needs all of them.

    Raises:
        SettingsError: they cannot be used.
    """
    from lium_mcp.server import read_settings  # noqa: PLC0415

    settings, problems = read_settings(options)
    if problems:
        raise SettingsError(*problems)
    return settings


def say(line: str) -> None:
    """Print a line of the command's answer; names in it may be anybody's."""
    print(clean(line))  # noqa: T201 - the command's answer


def say_wrong(error: SettingsError) -> None:
    """Say on standard error why a command cannot be done."""
    print(f"lium-mcp: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the command line's answer
