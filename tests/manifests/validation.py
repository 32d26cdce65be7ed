"""Hold a value against one of the schemas beside this file."""

import json
from pathlib import Path
from typing import Any, Final

from jsonschema.validators import validator_for

SCHEMAS = Path(__file__).parent / "schemas"
_OF_HOSTS: Final = {
    "codex": "codex-config",
    "gemini-cli": "gemini-settings",
    "goose": "goose-config",
    "continue": "continue-block",
    "lm-studio": "lmstudio",
    "jetbrains": "junie",
    "vscode-insiders": "vscode",
    "vscodium": "vscode",
}
"""The schema of a host's file, where it is called otherwise than the host."""


def problems(value: Any, schema_name: str) -> list[str]:
    """Return what is wrong with a value, nothing if it is valid."""
    schema = json.loads((SCHEMAS / f"{schema_name}.schema.json").read_text())
    kind = validator_for(schema)
    kind.check_schema(schema)
    return [f"{error.json_path}: {error.message}" for error in kind(schema).iter_errors(value)]


def host_problems(value: Any, host: str) -> list[str]:
    """The same for the file of a host."""
    return problems(value, _OF_HOSTS.get(host, host))
