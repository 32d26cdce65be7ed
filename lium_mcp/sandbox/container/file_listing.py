"""Writes the lines of a long listing, for ls and SFTP."""

from datetime import UTC, datetime

from lium_mcp.sandbox.container.files import BLOCK_BYTES, Directory, File, FileNode


def size_of(node: FileNode) -> int:
    """Return the size that a listing shows."""
    return len(node.data) if isinstance(node, File) else BLOCK_BYTES


def long_name(name: str, node: FileNode, *, human: bool = False) -> str:
    """Write one line of a long listing."""
    bits = "".join(letter if node.mode >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx"))
    shown = human_size(size_of(node)) if human else str(size_of(node))
    when = datetime.fromtimestamp(node.modified_at, UTC).strftime("%b %e %H:%M")
    return f"{'d' if isinstance(node, Directory) else '-'}{bits} 1 root root {shown:>9} {when} {name}"


def human_size(size: float) -> str:
    """Write a size with a unit, as ``-h`` does."""
    for unit in ("", "K", "M", "G"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:.1f}{unit}" if unit and size < 10 else f"{size:.0f}{unit}"  # noqa: PLR2004
        size /= 1024
    return f"{size:.1f}T"
