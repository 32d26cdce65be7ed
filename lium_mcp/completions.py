"""Completions: what a person may mean while typing an argument of a prompt or of a resource's address."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

import anyio
from mcp import MCPError
from mcp.server import MCPServer
from mcp.types import (
    INVALID_PARAMS,
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from lium_mcp.api.errors import LiumError
from lium_mcp.text import clean
from lium_mcp.toolkit.call import Call, Runtime

_LONGEST_VALUE: Final = 200
_MOST_VALUES: Final = 100
# Nobody waits longer for a suggestion.
_LIMIT_SECONDS: Final = 5.0

Lookup = Callable[[Call], Awaitable[Iterable[str]]]


def add_completions(server: MCPServer[None], runtime: Runtime, tools: Collection[str]) -> None:
    """Register the completion handler, for what the offered `tools` may list.

    Anything that cannot be read completes to nothing: typing never fails. Only what is of no prompt is refused.
    """

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK leaves it untyped
    async def complete(
        reference: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        _context: CompletionContext | None,
    ) -> Completion | None:
        if isinstance(reference, PromptReference):
            prompts = await server.list_prompts()
            if reference.name not in {prompt.name for prompt in prompts}:
                raise MCPError(INVALID_PARAMS, "There is no prompt of that name")
        tool, lookup = _LOOKUPS.get(argument.name, ("", None))
        if lookup is None or tool not in tools:
            return None
        found: Iterable[str] = ()
        try:
            with anyio.move_on_after(_LIMIT_SECONDS):
                found = await lookup(Call(runtime))
        except LiumError:
            return Completion(values=[])
        typed = argument.value.casefold()
        values = sorted(
            {clean(value) for value in found if value.casefold().startswith(typed) and len(value) <= _LONGEST_VALUE}
        )
        return Completion(values=values[:_MOST_VALUES], total=len(values), has_more=len(values) > _MOST_VALUES)


async def _pods(call: Call) -> Iterable[str]:
    return _names((pod.pod_name or "", pod.id) for pod in await call.lium.pods.lately())


async def _templates(call: Call) -> Iterable[str]:
    owner = (await call.lium.account.me()).id
    return _names((item.name, item.id) for item in await call.lium.templates.list() if item.user_id == owner)


async def _gpu_types(call: Call) -> Iterable[str]:
    return [machine.gpu_type for machine in await call.lium.machines.list() if machine.gpu_type]


async def _countries(call: Call) -> Iterable[str]:
    return [node.country_code for node in (await call.lium.executors.market()).value if node.country_code]


async def _backups(call: Call) -> Iterable[str]:
    return [backup.id for backup in await call.lium.backups.list() if backup.is_completed]


def _names(named: Iterable[tuple[str, str]]) -> Iterable[str]:
    """Each thing's name where no other has it, else its id."""
    pairs = list(named)
    uses = Counter(name for name, _ in pairs)
    return [name if name and uses[name] == 1 else key for name, key in pairs]


_LOOKUPS: Final[dict[str, tuple[str, Lookup]]] = {
    "pod": ("list_pods", _pods),
    "template": ("list_templates", _templates),
    "gpu_type": ("get_gpu_prices", _gpu_types),
    "country": ("list_gpus", _countries),
    "backup_id": ("list_backups", _backups),
}
