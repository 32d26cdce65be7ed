"""Hold a value against one of the schemas beside this file."""

import json
from pathlib import Path
from typing import Any

from jsonschema.validators import validator_for

SCHEMAS = Path(__file__).parent / "schemas"


def problems(value: Any, schema_name: str) -> list[str]:
    """Return what is wrong with a value, nothing if it is valid."""
    schema = json.loads((SCHEMAS / f"{schema_name}.schema.json").read_text())
    kind = validator_for(schema)
    kind.check_schema(schema)
    return [f"{error.json_path}: {error.message}" for error in kind(schema).iter_errors(value)]
