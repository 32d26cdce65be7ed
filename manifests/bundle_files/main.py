"""Start the server out of an unpacked bundle: `uv run main.py`, with `lium_mcp` beside this file."""

import os

from lium_mcp.__main__ import main


def _leave_out_what_is_not_filled_in() -> None:
    """Take away what the host has for a field that a person left empty: nothing, or the field's own name.

    The server refuses a limit that is empty, since elsewhere somebody meant to set one.
    """
    for name, value in list(os.environ.items()):
        if name.startswith("LIUM_") and (not value.strip() or value.startswith("${user_config.")):
            del os.environ[name]


if __name__ == "__main__":
    _leave_out_what_is_not_filled_in()
    raise SystemExit(main())
