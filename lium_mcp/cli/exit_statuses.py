"""The exit statuses of all commands, once. The table of docs/command-line.md is made from it."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a command says to the script that ran it."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> "ExitStatus":
        """Take a number and what it means, in words for the documents."""
        status = int.__new__(cls, number)
        status._value_ = number
        status.meaning = meaning
        return status

    OK = 0, "it is done, or all is well"
    FAILED = 1, "something failed, could not be read, or needs attention"
    UNUSABLE = 2, "nothing was done: the command line, a setting or a file cannot be used, or the server cannot work"
    DIFFERS = 3, "a dry run found something to do"
    INTERRUPTED = 130, "it was interrupted with Ctrl-C"
    CLOSED_PIPE = 141, "whoever read its output has gone"
