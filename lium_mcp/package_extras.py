"""What is installed only where it is asked for: the extras of the package."""


def lacks(extra: str) -> str:
    """How whoever has installed this without an extra gets it, from wherever it came."""
    return (
        f"which this installation lacks: install it again with its extra `{extra}`, beside others that you use; in a "
        f"clone by `uv tool install --force '.[{extra}]'`"
    )
