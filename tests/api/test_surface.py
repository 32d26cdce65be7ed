"""What the package offers, and what importing and constructing it costs."""

import subprocess
import sys

from lium_mcp import api
from lium_mcp.api import LiumClient


def test_everything_offered_exists_and_nothing_else_is_offered() -> None:
    assert len(set(api.__all__)) == len(api.__all__)
    assert all(hasattr(api, name) for name in api.__all__)
    public = {name for name, value in vars(api).items() if name[0] != "_" and not hasattr(value, "__path__")}
    modules = {name for name in public if f"lium_mcp.api.{name}" in sys.modules and name not in api.__all__}
    assert public - modules == set(api.__all__)


def test_construction_makes_no_connection_pool() -> None:
    client = LiumClient(api_key=None)
    assert "AsyncClient" not in repr(vars(client._wire))


def test_no_model_is_built_before_it_is_used() -> None:
    code = (
        "from lium_mcp.api import Pod, Executor, Template;"
        "assert not any(model.__pydantic_complete__ for model in (Pod, Executor, Template))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
