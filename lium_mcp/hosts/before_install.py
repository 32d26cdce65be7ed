"""What a host's file was before our entry came into it: the copies that are kept beside it tell."""

from pathlib import Path
from typing import NamedTuple

from lium_mcp import own_files
from lium_mcp.hosts.documents import Document, Unreadable
from lium_mcp.hosts.host_facts import Host


class Origin(NamedTuple):
    """A file without our entry.

    Attributes:
        data: What it held; None where there was none.
        document: What it said.
    """

    data: bytes | None
    document: Document


def read_origin(target: Path, host: Host) -> Origin:
    """What the file was: the newest copy without our entry. Where there is none, there was no file: each is kept."""
    known = (_without_entry(copy, host) for copy in own_files.copies(target))
    return next(filter(None, known), None) or Origin(None, Document(b"", host.file_format))


def keep(target: Path, content: own_files.Content, host: Host) -> Path:
    """Keep a host's file as it is beside it, with the newest copies and the one that tells what was there before us.

    Raises:
        OSError: it cannot be kept.
    """
    copy = own_files.keep(target, content)
    telling = next((one for one in own_files.copies(target) if _without_entry(one, host)), None)
    own_files.forget_older(target, but=telling)
    return copy


def _without_entry(copy: Path, host: Host) -> Origin | None:
    try:
        data = copy.read_bytes()
        document = Document(data, host.file_format)
    except (OSError, Unreadable):
        return None
    return None if document.value(host.entry_path()) is not None else Origin(data, document)
