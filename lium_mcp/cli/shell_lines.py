"""Lines for the shell of whoever sits here: sh and its kin, or PowerShell on Windows. One place decides which."""

import shlex
import sys
from pathlib import Path


def is_powershell() -> bool:
    """Whether lines are for PowerShell."""
    return sys.platform == "win32"


def prompt() -> str:
    """What stands before a line that is shown."""
    return "PS>" if is_powershell() else "$"


def quoted(text: str | Path) -> str:
    """A text as one word."""
    return f"'{str(text).replace(chr(39), 2 * chr(39))}'" if is_powershell() else shlex.quote(str(text))


def started(program: str) -> str:
    """A program by its path, as the first word of a line."""
    return f"& {quoted(program)}" if is_powershell() else quoted(program)


def in_turn(*lines: str) -> str:
    """One line that does these, one after the other; those that are empty are left out."""
    return "; ".join(filter(None, lines))


def unset(variable: str) -> str:
    """Take a variable out of the shell's environment."""
    return f"Remove-Item Env:{variable}" if is_powershell() else f"unset {variable}"


def set_to(variable: str, value: str) -> str:
    """Set a variable for what the shell starts."""
    return f"$env:{variable} = {quoted(value)}" if is_powershell() else f"export {variable}={quoted(value)}"


def set_as(variable: str, other: str, *, more: str = "") -> str:
    """Set a variable to what another one has, with more at its end."""
    if is_powershell():
        return f'$env:{variable} = "$env:{other}{more}"'
    return f'export {variable}="${other}{more}"'


def put_aside(path: Path) -> str:
    """Give a file or folder another name."""
    return f"{'Move-Item' if is_powershell() else 'mv'} {quoted(path)} {quoted(f'{path}.old')}"


def let_read(path: Path) -> str:
    """Let its owner read a file."""
    if is_powershell():
        return f'icacls {quoted(path)} /grant "${{env:USERNAME}}:(R)"'
    return f"chmod u+r {quoted(path)}"


def let_write(folder: Path) -> str:
    """Let its owner write a folder and all in it."""
    if is_powershell():
        return f'icacls {quoted(folder)} /grant "${{env:USERNAME}}:(OI)(CI)M" /T'
    return f"chmod -R u+rwX {quoted(folder)}"


def close_to_others(path: Path) -> str:
    """Let nobody but its owner read a file."""
    if is_powershell():
        return f'icacls {quoted(path)} /inheritance:r /grant:r "${{env:USERNAME}}:F"'
    return f"chmod 600 {quoted(path)}"


def make_ssh_key(path: Path) -> str:
    """Make a pair of SSH keys, with the folder for it where there is none."""
    if is_powershell():
        # Its versions give an empty word on in different ways, so the passphrase is asked for.
        return f"New-Item -ItemType Directory -Force {quoted(path.parent)}; ssh-keygen -t ed25519 -f {quoted(path)}"
    folder = "" if path.parent.is_dir() else f"mkdir -p {quoted(path.parent)}"
    return in_turn(folder, f"ssh-keygen -t ed25519 -N '' -f {quoted(path)}")


def set_clock() -> str:
    """Let the machine take the time from the network."""
    if is_powershell():
        return "w32tm /resync"
    return "sudo sntp -sS time.apple.com" if sys.platform == "darwin" else "sudo timedatectl set-ntp true"
