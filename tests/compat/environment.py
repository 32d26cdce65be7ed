"""The official client's environment, apart from ours: it is what we are compared with, not something we depend on."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """Where it is installed."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    def lium(self, *arguments: str) -> list[str]:
        """Return the command line that runs the official `lium` script."""
        return [str(self.root / "bin" / "lium"), *arguments]


def client_variables(*, home: Path, base_url: str) -> dict[str, str]:
    """Return the whole environment of an official process: one address, one key, a home, and nothing sent elsewhere."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LIUM_BASE_URL": base_url,
        "LIUM_API_KEY": "sk_sandbox",
        "LIUM_SELF_UPDATE_DISABLE": "1",
        "LIUM_TELEMETRY": "0",
        "LIUM_SENTRY_DSN": "",
        "LIUM_NONINTERACTIVE": "1",
        "NO_PROXY": "127.0.0.1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "TZ": "UTC",
    }
