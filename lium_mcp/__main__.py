"""What ``lium-mcp`` and ``python -m lium_mcp`` run: the command line, and before it the front for a host that waits."""

import gc
import os
import sys

_LEAST_PYTHON = (3, 11)


def main() -> int:
    """Run the command line; the exit status is the answer."""
    if sys.version_info < _LEAST_PYTHON:
        # Nothing else of the package can even be read by an older one.
        running = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(f"lium-mcp: Python 3.11 or later is needed, and this is {running} ({sys.executable}).\n")
        sys.stderr.write("Install it with another one: uv tool install --python 3.12 lium-mcp\n")
        return 2
    try:
        return _run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def _run(words: "list[str]") -> int:
    begun = None
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from lium_mcp.cli.output import open_closed_streams  # noqa: PLC0415 - almost nobody needs it

        open_closed_streams()
    else:
        from lium_mcp.serving import front  # noqa: PLC0415 - an interrupt among the imports ends them without a word

        begun = front.begin(words, os.environ)
    gc.disable()  # nothing that imports allocate is garbage
    from lium_mcp.cli.main import main as run  # noqa: PLC0415 - while the front answers

    gc.enable()
    return run(words, begun)


if __name__ == "__main__":
    raise SystemExit(main())
