"""`lium-mcp` whose clock is wrong by so many seconds: `python -m tests.shifted SECONDS serve ...`."""

import sys
import time

from lium_mcp.cli.main import main

if __name__ == "__main__":
    seconds, right = float(sys.argv[1]), time.time
    time.time = lambda: right() + seconds
    sys.exit(main(sys.argv[2:]))
