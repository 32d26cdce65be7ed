"""Start the server out of an unpacked bundle: `uv run main.py`, with `lium_mcp` beside this file."""

from lium_mcp.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
