"""Resources: the same readings that tools give, for hosts that attach data to a conversation by its address.

A resource is there where its tool is: what an operator does not offer as a tool cannot be read around it. Nothing is
read when resources are listed. Tools stand alone: many hosts never read a resource.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from lium_mcp.api import LiumError
from lium_mcp.tools import account, backups, marketplace, pods, templates, volumes
from lium_mcp.tools.call import READ_LIMIT_SECONDS, Call, Runtime, time_limit
from lium_mcp.tools.failures import ToolFailure, from_api
from lium_mcp.tools.results import Result, as_json, clean

_JSON: Final = "application/json"
_MOST_ROWS: Final = 100
_MOST_ERROR_CHARACTERS: Final = 1500

PolicyReader = Callable[[], Result]
Reading = Callable[[Call], Awaitable[Result]]


def add_resources(server: MCPServer[None], runtime: Runtime, policy: PolicyReader, tools: Collection[str]) -> None:
    """Register the policy, and every resource whose tool is among `tools`, on a server."""
    for tool, name, title, description, read in _FIXED:
        if tool in tools:
            _add_fixed(server, runtime, name, title, description, read)

    @server.resource(
        "lium://policy",
        name="policy",
        title="Policy in force",
        description="What this server offers and refuses, from its settings.",
        mime_type=_JSON,
    )
    async def policy_in_force() -> str:
        return as_json(policy())

    if "get_pod" in tools:

        @server.resource(
            "lium://pods/{pod}",
            name="pod",
            title="Pod",
            description="One pod in detail, named by its id or its name.",
            mime_type=_JSON,
        )
        async def pod_detail(pod: str) -> str:
            return await _read(Call(runtime), lambda call: pods.get_pod(call, pod, wait_seconds=0))

    if "get_template" in tools:

        @server.resource(
            "lium://templates/{template}",
            name="template",
            title="Template",
            description="One template in detail, named by its id or, if it is your own, by its name.",
            mime_type=_JSON,
        )
        async def template_detail(template: str) -> str:
            return await _read(Call(runtime), lambda call: templates.get_template(call, template, wait_seconds=0))

    if "get_backup" in tools:

        @server.resource(
            "lium://backups/{backup_id}",
            name="backup",
            title="Backup",
            description="One backup: status, size, what went wrong.",
            mime_type=_JSON,
        )
        async def backup_detail(backup_id: str) -> str:
            return await _read(Call(runtime), lambda call: backups.get_backup(call, backup_id, wait_seconds=0))


def _add_fixed(
    server: MCPServer[None], runtime: Runtime, name: str, title: str, description: str, read: Reading
) -> None:
    async def resource() -> str:
        return await _read(Call(runtime), read)

    server.resource(f"lium://{name}", name=name, title=title, description=description, mime_type=_JSON)(resource)


async def _read(call: Call, reading: Reading) -> str:
    redact: Callable[[str], str] = str
    try:
        redact = call.lium.redact
        with time_limit(READ_LIMIT_SECONDS):
            return as_json(await reading(call), redact)
    except (ToolFailure, LiumError) as error:
        failure = error if isinstance(error, ToolFailure) else from_api(error)
        text = " ".join(part for part in (failure.happened, failure.advice) if part)
        kind = ResourceNotFoundError if failure.code.endswith("not_found") else ResourceError
        raise kind(redact(clean(text))[:_MOST_ERROR_CHARACTERS]) from error


async def _pods(call: Call) -> Result:
    return await pods.list_pods(call, limit=_MOST_ROWS)


async def _templates(call: Call) -> Result:
    return await templates.list_templates(call, mine=True, limit=_MOST_ROWS)


async def _volumes(call: Call) -> Result:
    return await volumes.list_volumes(call, limit=_MOST_ROWS)


async def _backups(call: Call) -> Result:
    return await backups.list_backups(call, limit=_MOST_ROWS)


_FIXED: Final[tuple[tuple[str, str, str, str, Reading], ...]] = (
    ("list_pods", "pods", "Pods", "The account's pods, what each costs per hour, and what they burn together.", _pods),
    (
        "get_gpu_prices",
        "market",
        "Market prices",
        "Free GPUs and price quartiles of every GPU type.",
        marketplace.get_gpu_prices,
    ),
    ("list_templates", "templates", "Templates", "The account's own templates.", _templates),
    ("list_volumes", "volumes", "Volumes", "The account's volumes and the pods that have them mounted.", _volumes),
    ("list_backups", "backups", "Backups", "The newest backups of the account.", _backups),
    ("get_balance", "account", "Account", "Balance, burn rate and runway.", account.get_balance),
)
