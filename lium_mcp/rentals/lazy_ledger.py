"""Where the ledger is, and when it is opened: not before a rent needs it, since its libraries take long to import."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final

from lium_mcp.rentals.entries import LedgerUnavailable

if TYPE_CHECKING:
    from lium_mcp.rentals.grants import Grants
    from lium_mcp.rentals.ledger import Ledger
    from lium_mcp.rentals.login_work import LoginWork
    from lium_mcp.rentals.notes import Notes
    from lium_mcp.rentals.tasks import Tasks
    from lium_mcp.rentals.work_log import WorkLog

_SQLITE_FILE: Final = "sqlite:///"


class LazyLedger:
    """Where the ledger is; it is opened, and its libraries are imported, when it is first asked for."""

    def __init__(self, url: str, redact: Callable[[str], str] = str) -> None:
        """Take the address of a database, see `Ledger`; `redact` takes secrets out of what others said of a rent."""
        self._url = url
        self._redact = redact
        self._ledger: Ledger | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the ledger holds nothing, since it was not made yet."""
        path = self._url.removeprefix(_SQLITE_FILE)
        return self._ledger is None and (path == "sqlite://" or (path != self._url and not Path(path).exists()))

    def refuse_unmakeable(self) -> None:
        """Refuse a ledger that is to be a new file, where none can be made.

        Raises:
            LedgerUnavailable: it cannot be made.
        """
        path = Path(self._url.removeprefix(_SQLITE_FILE))
        if not self._url.startswith(_SQLITE_FILE) or path.exists():
            return
        folder = next(parent for parent in path.parents if parent.exists())
        try:
            # Modes alone do not tell: there are read-only disks, and folders that no file can be in.
            TemporaryFile(dir=folder).close()
        except OSError as error:
            reason = f"{folder} cannot be written ({error.strerror})"
            raise LedgerUnavailable(f"{path} cannot be made: {reason}") from None

    async def refuse_unreachable(self) -> None:
        """Refuse a database that several servers share, where it does not answer or write; a file needs no connection.

        Raises:
            LedgerUnavailable: it does not.
        """
        if not self._url.startswith("sqlite:"):
            await self.open().database.check()

    def open(self) -> "Ledger":
        """The ledger. Nothing is read or written yet."""
        if self._ledger is None:
            from lium_mcp.rentals.ledger import Ledger  # noqa: PLC0415 - start-up should not pay for a database

            self._ledger = Ledger(self._url, self._redact)
        return self._ledger

    def tasks(self) -> "Tasks":
        """The tasks between calls, which are in the same database."""
        from lium_mcp.rentals.tasks import Tasks  # noqa: PLC0415 - as above

        return Tasks(self.open().database, self._redact)

    def login_work(self) -> "LoginWork":
        """What is left to do for callers who logged in over HTTP, which is in the same database."""
        from lium_mcp.rentals.login_work import LoginWork  # noqa: PLC0415 - as above

        return LoginWork(self.open().database)

    def work_log(self) -> "WorkLog":
        """What servers do in pods, which is in the same database."""
        from lium_mcp.rentals.work_log import WorkLog  # noqa: PLC0415 - as above

        return WorkLog(self.open().database)

    def notes(self) -> "Notes":
        """What the servers of the ledger note for one another, which is in the same database."""
        from lium_mcp.rentals.notes import Notes  # noqa: PLC0415 - as above

        return Notes(self.open().database)

    def grants(self) -> "Grants":
        """The logins of callers over HTTP, which are in the same database."""
        from lium_mcp.rentals.grants import Grants  # noqa: PLC0415 - as above

        return Grants(self.open().database)

    async def aclose(self) -> None:
        """Close its connections."""
        if self._ledger is not None:
            await self._ledger.aclose()
