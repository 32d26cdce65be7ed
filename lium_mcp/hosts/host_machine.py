"""A machine as hosts see it: its platform, the environment, the folders that follow from these, and the project."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lium_mcp.values import SettingsError, home_problem

Platform = Literal["linux", "macos", "windows"]
Place = str | Mapping[Platform, str]
"""A path below one of the roots, such as `{home}/.cursor/mcp.json`; by platform where these differ."""

_OWN_ROOTS: Final[Mapping[str, tuple[str, str]]] = {
    "claude": ("CLAUDE_CONFIG_DIR", "{home}"),
    "codex": ("CODEX_HOME", "{home}/.codex"),
    "copilot": ("COPILOT_HOME", "{home}/.copilot"),
}
"""Folders that a host lets people name: the variable, and what holds without it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Whose folders are meant.

    Attributes:
        platform: Which rules for folders hold.
        variables: The environment.
        project: The folder of the project.
    """

    platform: Platform
    variables: Mapping[str, str]
    project: Path

    @classmethod
    def this(cls) -> "Machine":
        """The machine that this runs on, with the working directory as the project.

        Raises:
            SettingsError: there is no home on it.
        """
        if problem := home_problem():
            raise SettingsError(problem)
        platforms: dict[str, Platform] = {"win32": "windows", "darwin": "macos"}
        return cls(platforms.get(sys.platform, "linux"), os.environ, Path.cwd())

    def path(self, place: Place) -> Path | None:
        """Where a place is; None where this platform has none."""
        text = place if isinstance(place, str) else place.get(self.platform)
        return None if text is None else self._below(text)

    def find_program(self, name: str) -> Path | None:
        """The program of that name on the PATH."""
        endings = (".exe", ".cmd", ".bat") if self.platform == "windows" else ("",)
        for folder in filter(None, self.variables.get("PATH", "").split(os.pathsep)):
            for ending in endings:
                found = Path(folder) / f"{name}{ending}"
                if found.is_file():
                    return found
        return None

    def _below(self, text: str) -> Path:
        if not text.startswith("{"):
            return self.project / text
        root, _, rest = text[1:].partition("}")
        return self._root(root) / rest.lstrip("/")

    def _root(self, name: str) -> Path:
        if name in _OWN_ROOTS:
            variable, otherwise = _OWN_ROOTS[name]
            return Path(self.variables.get(variable) or self._below(otherwise))
        home = Path(self.variables.get("USERPROFILE" if self.platform == "windows" else "HOME") or Path.home())
        match name:
            case "xdg":
                return Path(self.variables.get("XDG_CONFIG_HOME") or home / ".config")
            case "applications" if self.platform == "windows":
                return Path(self.variables.get("APPDATA") or home / "AppData" / "Roaming")
            case "applications" if self.platform == "macos":
                return home / "Library" / "Application Support"
            case "applications":
                return self._root("xdg")
            case _:
                return home
