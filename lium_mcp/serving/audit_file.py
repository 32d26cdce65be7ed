"""The file of the audit trail: one JSON object a line. What cannot be written there goes to the log, with an error."""

import logging
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from pathlib import Path

from lium_mcp.serving.logs import Lines

log = logging.getLogger(__name__)


class AuditFile(WatchedFileHandler):
    """A file that is appended to, and may be moved away meanwhile, as log rotation does."""

    def __init__(self, path: Path, redact_text: Callable[[str], str]) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(Lines(redact_text, as_json=True))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; no call fails over it."""
        try:
            super().emit(record)
        except OSError:  # where its folder is gone, or not to be written any more
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is the library's
        """Say that a record could not be written, and write it where all else is logged: none is lost in silence."""
        log.error("LIUM_MCP_AUDIT_FILE cannot be written: a record of the audit trail follows here instead")
        logging.getLogger().handle(record)
