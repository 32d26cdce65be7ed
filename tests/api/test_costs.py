"""What importing and constructing the client costs."""

import subprocess
import sys

from lium_mcp.api.client import LiumClient


def test_construction_makes_no_connection_pool() -> None:
    client = LiumClient(api_key=None)
    assert "AsyncClient" not in repr(vars(client._wire))


def test_no_model_is_built_before_it_is_used() -> None:
    code = (
        "from lium_mcp.api.executors.models import Executor;"
        "from lium_mcp.api.pods.models import Pod;"
        "from lium_mcp.api.templates import Template;"
        "assert not any(model.__pydantic_complete__ for model in (Pod, Executor, Template))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
