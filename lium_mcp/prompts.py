"""Prompts: the four workflows that people come for, as a person starts them from a menu of the host.

A prompt names the tools in their order and what to watch, and is offered where all of them are. The promises (once,
within limits, nothing by surprise) are kept by the tools, not by these words.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Final, NamedTuple

from mcp.server import MCPServer, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver.prompts import Prompt
from pydantic import AfterValidator, Field

from lium_mcp.toolkit.arguments import HOST_ADDED


def _check_number(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError("a number above 0 is needed, such as 2 or 1.5")
    return text.strip()


# In the protocol, every argument of a prompt is a text.
Number = Annotated[str, AfterValidator(_check_number)]


class _Prompt(NamedTuple):
    write: Callable[..., str]
    title: str
    description: str
    tools: frozenset[str]


def add_prompts(server: MCPServer[None], tools: Collection[str]) -> None:
    """Register every prompt whose tools are all among `tools` on a server."""
    for prompt in PROMPTS:
        if prompt.tools <= set(tools):
            server.add_prompt(_made(prompt))


@cache
def _made(prompt: _Prompt) -> Prompt:
    return Prompt.from_function(prompt.write, title=prompt.title, description=prompt.description)


async def read_arguments(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: turn what hosts send as a prompt's arguments into the texts that the SDK expects there."""
    given = (ctx.params or {}).get("arguments")
    if ctx.method == "prompts/get" and isinstance(given, dict):
        meant = {
            name: str(value) if isinstance(value, int | float) else value
            for name, value in given.items()
            if name not in HOST_ADDED and value is not None and str(value).strip()
        }
        ctx = replace(ctx, params={**(ctx.params or {}), "arguments": meant})
    return await call_next(ctx)


def deploy_below_price(
    gpu_type: Annotated[str, Field(description="GPU model, e.g. H100")],
    max_usd_per_gpu_hour: Annotated[Number, Field(description="Ceiling in USD per GPU-hour")],
    name: Annotated[str, Field(description="Name of the pod")],
    hours: Annotated[Number, Field(description="Hours until Lium removes it")],
) -> str:
    """Watch and deploy."""
    return f"""\
Rent one pod named {name} with a {gpu_type} as soon as one costs at most ${max_usd_per_gpu_hour} per GPU-hour.
1. quote_rental with gpu_type={gpu_type} and hours={hours}: tell me what the cheapest costs now, and if the ceiling is \
far below it, say so before anything waits.
2. rent_pod with name={name}, gpu_type={gpu_type}, max_usd_per_gpu_hour={max_usd_per_gpu_hour}, hours={hours} and \
keep_trying_hours=24. It rents at once if something fits, else it leaves a standing order that rents once something \
does, at no more than the ceiling.
3. get_pod with pod={name}, now or in any later session: it shows the pod with price, removal time and SSH command, or \
why the order still waits. remove_pod with that name ends either."""


def run_job(
    gpu_type: Annotated[str, Field(description="GPU model, e.g. A100")],
    task: Annotated[str, Field(description="What the pod is for")],
    hours: Annotated[Number, Field(description="At most so many hours")],
) -> str:
    """Use one pod for one job."""
    return f"""\
Run this on a fresh pod with a {gpu_type} and leave nothing that bills: {task}
1. list_gpus with gpu_type={gpu_type}: tell me what {hours} hours of the cheapest that does cost.
2. run_job with a new unique name, gpu_type={gpu_type}, hours={hours}, that sum as max_total_usd, max_hours below \
{hours}, the command, and local_path for what it needs. With then=download_and_remove and download_path the results \
come here, with then=backup_and_remove they stay in a backup. All of it goes on by itself, also if we are cut off.
3. get_job with that name as pod and name, as often as you like and from any session, until it is over: it says how it \
stands, and shows the newest output. If the command failed, tell me why.
4. list_pods: the pod must be gone, or tell me why it is not. Tell me what it cost (get_spending) and where the \
results are."""


def fan_out_backup(
    backup_id: Annotated[str, Field(description="Backup, from list_backups")],
    pods: Annotated[str, Field(description="Running pods, separated by commas")],
) -> str:
    """Restore one backup into many pods."""
    return f"""\
Restore backup {backup_id} into these pods: {pods}.
1. get_backup with backup_id={backup_id}: it must be completed. Tell me its age, path and size.
2. restore_backup with backup_id={backup_id} and pods as a list; do not touch the target directories meanwhile. The \
answer has a result per pod.
3. For those that are pending, list_restores with them until they are over. Tell me which pods have the data, where, \
and which failed and why.
To put it into new pods instead, rent_pod takes backup_id and count."""


def sync_templates(
    wanted: Annotated[str, Field(description="The templates as they should be, as a list or a file's content")],
) -> str:
    """Bring templates in line."""
    return f"""\
Bring my own templates in line with this:
{wanted}
1. list_templates with mine=true, and get_template for each that is named there.
2. update_template with dry_run=true for each that differs: it says which pods it would reboot and what they lose. \
Show me a plan: what to create, what to change and how, what is the same. Delete nothing that I did not ask to delete.
3. After I agree: create_template and update_template, one at a time, waiting until each is ready.
For CI there is a command instead: lium-mcp templates sync FILE --dry-run."""


PROMPTS: Final = (
    _Prompt(
        deploy_below_price,
        "Deploy below a price",
        "Watch the market and rent when a GPU is cheap enough.",
        frozenset({"quote_rental", "rent_pod", "get_pod", "remove_pod"}),
    ),
    _Prompt(
        run_job,
        "Run a job on a fresh pod",
        "Rent, bring files, run, bring results back or back them up, remove: one pod for one job.",
        frozenset({"list_gpus", "run_job", "get_job", "list_pods", "get_spending"}),
    ),
    _Prompt(
        fan_out_backup,
        "Fan a backup out",
        "Inspect a backup and restore it into several pods.",
        frozenset({"get_backup", "restore_backup", "list_restores", "rent_pod"}),
    ),
    _Prompt(
        sync_templates,
        "Sync templates",
        "Bring the account's templates in line with a list.",
        frozenset({"list_templates", "get_template", "create_template", "update_template"}),
    ),
)
