"""Resources: the same readings that tools give, for hosts that attach data to a conversation by its address.

Nothing is read when resources are listed. Tools stand alone: many hosts never read a resource.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from lium_mcp.api import LiumError
from lium_mcp.tools import account, backups, marketplace, pods, templates, volumes
from lium_mcp.tools.call import Call, Runtime
from lium_mcp.tools.failures import ToolFailure, from_api
from lium_mcp.tools.results import Result, as_json

_JSON: Final = "application/json"
_MOST_ROWS: Final = 100

PolicyReader = Callable[[], Result]


def add_resources(server: MCPServer[None], runtime: Runtime, policy: PolicyReader) -> None:
    """Register every resource on a server."""

    def fixed(name: str, title: str, description: str, read: Callable[[Call], Awaitable[Result]]) -> None:
        async def resource() -> str:
            return await _read(read(Call(runtime)))

        server.resource(f"lium://{name}", name=name, title=title, description=description, mime_type=_JSON)(resource)

    fixed("pods", "Pods", "The account's pods, what each costs per hour, and what they burn together.", _pods)
    fixed("market", "Market prices", "Free GPUs and price quartiles of every GPU type.", _market)
    fixed("templates", "Templates", "The account's own templates.", _templates)
    fixed("volumes", "Volumes", "The account's volumes and the pods that have them mounted.", _volumes)
    fixed("backups", "Backups", "The newest backups of the account.", _backups)
    fixed("account", "Account", "Balance, burn rate and runway.", account.get_balance)

    @server.resource(
        "lium://policy",
        name="policy",
        title="Policy in force",
        description="What this server offers and refuses, from its settings.",
        mime_type=_JSON,
    )
    async def policy_in_force() -> str:
        return as_json(policy())

    @server.resource(
        "lium://pods/{pod}",
        name="pod",
        title="Pod",
        description="One pod in detail, named by its id or its name.",
        mime_type=_JSON,
    )
    async def pod_detail(pod: str) -> str:
        return await _read(pods.get_pod(Call(runtime), pod, wait_seconds=0))

    @server.resource(
        "lium://templates/{template}",
        name="template",
        title="Template",
        description="One template in detail, named by its id or, if it is your own, by its name.",
        mime_type=_JSON,
    )
    async def template_detail(template: str) -> str:
        return await _read(templates.get_template(Call(runtime), template, wait_seconds=0))

    @server.resource(
        "lium://backups/{backup_id}",
        name="backup",
        title="Backup",
        description="One backup: status, size, what went wrong.",
        mime_type=_JSON,
    )
    async def backup_detail(backup_id: str) -> str:
        return await _read(backups.get_backup(Call(runtime), backup_id, wait_seconds=0))


async def _read(reading: Awaitable[Result]) -> str:
    try:
        return as_json(await reading)
    except (ToolFailure, LiumError) as error:
        failure = error if isinstance(error, ToolFailure) else from_api(error)
        text = " ".join(part for part in (failure.happened, failure.advice) if part)
        kind = ResourceNotFoundError if failure.code.endswith("not_found") else ResourceError
        raise kind(text) from error


async def _pods(call: Call) -> Result:
    return await pods.list_pods(call, limit=_MOST_ROWS)


async def _market(call: Call) -> Result:
    return await marketplace.get_gpu_prices(call)


async def _templates(call: Call) -> Result:
    return await templates.list_templates(call, mine=True, limit=_MOST_ROWS)


async def _volumes(call: Call) -> Result:
    return await volumes.list_volumes(call, limit=_MOST_ROWS)


async def _backups(call: Call) -> Result:
    return await backups.list_backups(call, limit=_MOST_ROWS)
