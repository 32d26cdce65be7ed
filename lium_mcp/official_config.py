"""What the official client has on this machine: `~/.lium/config.ini`, with its keys, and the SSH keys that it takes."""

from configparser import ConfigParser, MissingSectionHeaderError, ParsingError
from configparser import Error as ConfigError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lium_mcp.values import (
    UNFILLED,
    SettingsError,
    cleaned,
    cleaned_key,
    decoded,
    home_problem,
    is_placeholder,
    key_file,
    key_problem,
)

_WORKSPACE: Final = "workspace."
_SSH_KEY_NAMES: Final = ("id_ed25519", "id_rsa", "id_ecdsa")


@dataclass(frozen=True, slots=True)
class FoundKey:
    """The server's own API key, and where it is from.

    Attributes:
        text: The key; None where there is none.
        place: The variable or file that it is from.
        missing_because: Why there is none, where a person meant to set one.
    """

    text: str | None = field(default=None, repr=False)
    place: str = ""
    missing_because: str | None = None


def config_path() -> Path:
    """Where the official client keeps its file, for us and for itself.

    Raises:
        SettingsError: there is no home to keep it in.
    """
    if problem := home_problem():
        raise SettingsError(problem)
    return Path.home() / ".lium" / "config.ini"


def read_config(content: bytes) -> ConfigParser:
    """What such a file says, read as the official client reads it, but from any editor's encoding.

    Raises:
        SettingsError: it cannot be read. No line of it is repeated: it may hold a key.
    """
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(decoded(content))
    except (ConfigError, UnicodeError) as error:
        raise SettingsError(
            f"{config_path()}: this is no INI file that can be read{_place(error)}; mend it or remove it"
        ) from None
    return config


class OfficialConfig:
    """What the file says. A file that cannot be read is not taken for an empty one.

    Raises:
        SettingsError: there is a file, and it cannot be read.
    """

    def __init__(self) -> None:
        self._path = config_path()
        try:
            if self._path.exists() and not self._path.is_file():
                raise SettingsError(f"{self._path}: it is no file; remove it")
            content = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            content = b""
        except OSError as error:
            raise SettingsError(f"{self._path}: it cannot be read: {error.strerror}") from None
        self._config = read_config(content)

    def general_key(self) -> str | None:
        """What is saved as a key under [api], where a login saves one; None where there is nothing."""
        return cleaned_key(self._config.get("api", "api_key", fallback="")) or None

    def active_workspace(self) -> str:
        """The workspace that is chosen there; empty where none is."""
        return cleaned(self._config.get("workspaces", "active", fallback="")).lower()

    def workspaces_with_keys(self) -> list[str]:
        """The workspaces that have a key of their own there."""
        names = [name for name in self._config.sections() if name.startswith(_WORKSPACE)]
        return [name.removeprefix(_WORKSPACE) for name in names if self._config.get(name, "api_key", fallback="")]

    def key(self, workspace: str) -> FoundKey:
        """The saved key of this workspace, else of the chosen one, else the general one.

        A key acts in one workspace. When one is asked for, only its own key will do: any other would spend another
        team's money.

        Raises:
            SettingsError: what is saved cannot be a key.
        """
        active = workspace.lower() or self.active_workspace()
        sections = [f"{_WORKSPACE}{active}"] if active else []
        if not workspace:
            sections.append("api")
        for section in sections:
            text = self._config.get(section, "api_key", fallback="")
            name = f"api_key under [{section}] in {self._path}"
            if is_placeholder(text):
                raise SettingsError(f"{name}: {UNFILLED}")
            if key := cleaned_key(text):
                if problem := key_problem(key):
                    raise SettingsError(f"{name}: {problem}")
                return FoundKey(key, name)
        return FoundKey()

    def ssh_key_path(self) -> Path | None:
        """The private SSH key that is saved there.

        Raises:
            SettingsError: what is saved cannot be a path.
        """
        text = cleaned(self._config.get("ssh", "key_path", fallback=""))
        try:
            return key_file(text) if text else None
        except ValueError as error:
            raise SettingsError(f"key_path under [ssh] in {self._path}: {error}") from None


def _place(error: Exception) -> str:
    if isinstance(error, ParsingError) and not isinstance(error, MissingSectionHeaderError) and error.errors:
        line: int | None = error.errors[0][0]
    else:
        line = getattr(error, "lineno", None)
    return f" (line {line})" if line else ""


def usual_ssh_key_path() -> Path | None:
    """The private SSH key to use where none is configured: a pair of both halves comes first."""
    usual = [Path.home() / ".ssh" / name for name in _SSH_KEY_NAMES]
    pairs = [path for path in usual if _public_half(path).is_file()]
    return next(iter([*pairs, *(path for path in usual if path.is_file())]), None)


def _public_half(private: Path) -> Path:
    # Appended, not swapped in: `lium.ed25519` belongs to `lium.ed25519.pub`.
    return private.with_name(f"{private.name}.pub")
