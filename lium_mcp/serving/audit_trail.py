"""Where the audit trail is kept: in the log on standard error, or in a file of its own."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from lium_mcp.auditing import TRAIL, keep_trail
from lium_mcp.values import SettingsError


def start_trail(path: Path | None, redact_text: Callable[[str], str]) -> None:
    """Keep the audit trail in a file, or without one in the log, which is set up already.

    Raises:
        SettingsError: the file cannot be written.
    """
    if path is not None:
        from lium_mcp.serving.audit_file import AuditFile  # noqa: PLC0415 - start-up should not pay for what few set

        try:
            handler = AuditFile(path, redact_text)
        except OSError as error:
            raise _unwritable(path, error.strerror or type(error).__name__) from None
        trail = logging.getLogger(TRAIL)
        trail.addHandler(handler)
        trail.propagate = False
    keep_trail()


def check_trail(path: Path | None) -> None:
    """Refuse a file for the audit trail that cannot be written; none is made.

    Raises:
        SettingsError: it cannot.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise _unwritable(path, "there is no such folder")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _unwritable(path, "it is a folder" if path.is_dir() else "permission denied")


def _unwritable(path: Path, why: str) -> SettingsError:
    return SettingsError(f"LIUM_MCP_AUDIT_FILE: {path} cannot be written: {why}")
