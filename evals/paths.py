"""How a place in JSON is named: `pods/train/gpus`, `offers/0/executor_id`, `pods/name=train/pod_id`, `error/uuids`."""

import re
from typing import Any, Final

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def picked(value: Any, path: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """What is at a path, or None where there is nothing.

    A step is a name, a place in a list, the row that has a value, or all ids in a text.
    """
    for step in path.split("/") if path else ():
        name, is_search, wanted = step.partition("=")
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and is_search:
            value = next((item for item in value if isinstance(item, dict) and str(item.get(name)) == wanted), None)
        elif isinstance(value, list) and step.lstrip("-").isdigit() and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, str) and step == "uuids":
            value = _UUID.findall(value)
        else:
            return None
    return value
