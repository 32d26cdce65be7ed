"""Opens a page in the browser of who sits before this machine."""

import os
import sys
import threading
import webbrowser
from typing import Final

import anyio

_SECONDS: Final = 3.0


def has_browser() -> bool:
    """Whether a browser would show a page to who sits here."""
    if os.environ.get("BROWSER"):
        return True
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return False
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in {"darwin", "win32"} or bool(has_screen)


class Opening:
    """A page that is being opened: a browser in a terminal ends when it is closed, and nobody must wait for it."""

    def __init__(self, page: str) -> None:
        self._page = page
        self._taken: list[bool] = []
        self._thread = threading.Thread(target=self._open, daemon=True)
        self._thread.start()

    async def is_taken(self) -> bool:
        """False where no browser has taken it in time."""
        await anyio.to_thread.run_sync(self._thread.join, _SECONDS)
        return not self._taken or self._taken[0]

    def _open(self) -> None:
        try:
            self._taken.append(webbrowser.open(self._page))
        except (webbrowser.Error, OSError):
            self._taken.append(False)
