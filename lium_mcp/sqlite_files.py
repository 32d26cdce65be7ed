"""SQLite files of this program: for their owner alone, with a write-ahead log, so that who reads waits for nobody."""

import errno
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_BUSY_PAUSE_SECONDS: Final = 0.02


def make_private(path: Path) -> None:
    """Make the file, for its owner alone; SQLite gives the files that it writes beside it the same mode.

    Raises:
        OSError: it cannot be made, or not be read and written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # One that is there is not opened: to close it again would end all locks that this process holds on it, and other
    # processes would take its connections for closed.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None
    with suppress(PermissionError):  # somebody else's file that we may write
        path.chmod(0o600)


def write_ahead(connection: sqlite3.Connection, *, busy_seconds: float) -> None:
    """Switch to the write-ahead log. While others switch a new file too, SQLite refuses at once: then try again.

    Raises:
        sqlite3.OperationalError: it was not possible in time.
    """
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_SECONDS)
        else:
            return
