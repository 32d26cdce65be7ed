"""What the commands share: they read their settings, and set up the log."""

import logging
from typing import Any

from lium_mcp.guard.redaction import Redactor
from lium_mcp.serving.logs import log_to_stderr
from lium_mcp.settings import Settings
from lium_mcp.values import SettingsError, key_oddness

log = logging.getLogger(__name__)


def start_log(settings: Settings) -> None:
    """Log to standard error as the settings say, without their secrets."""
    redact = Redactor(settings.find_secrets())
    log_to_stderr(settings.log_level, redact, as_json=settings.log_format == "json")
    key = settings.find_key()
    if key.text and (odd := key_oddness(key.text)):
        log.warning("Is the key in %s one of Lium's? %s", key.place, odd)


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
