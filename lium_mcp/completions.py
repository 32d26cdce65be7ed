"""Completions: what a person may mean while typing an argument of a prompt or of a resource's address."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from mcp.server import MCPServer
from mcp.types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

from lium_mcp.api import LiumError
from lium_mcp.tools.call import Call, Runtime
from lium_mcp.tools.results import clean

_MOST_VALUES: Final = 100

Lookup = Callable[[Call], Awaitable[Iterable[str | None]]]


def add_completions(server: MCPServer[None], runtime: Runtime) -> None:
    """Register the completion handler. Anything that cannot be read completes to nothing: typing never fails."""

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK leaves it untyped
    async def complete(
        _reference: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        _context: CompletionContext | None,
    ) -> Completion | None:
        lookup = _LOOKUPS.get(argument.name)
        if lookup is None:
            return None
        try:
            found = await lookup(Call(runtime))
        except LiumError:
            return Completion(values=[])
        typed = argument.value.casefold()
        values = sorted({clean(value) for value in found if value and value.casefold().startswith(typed)})
        return Completion(values=values[:_MOST_VALUES], total=len(values), has_more=len(values) > _MOST_VALUES)


async def _pods(call: Call) -> Iterable[str | None]:
    return [pod.pod_name or pod.id for pod in await call.lium.pods.list()]


async def _templates(call: Call) -> Iterable[str | None]:
    owner = (await call.lium.account.me()).id
    return [template.name for template in await call.lium.templates.list() if template.user_id == owner]


async def _gpu_types(call: Call) -> Iterable[str | None]:
    return [machine.gpu_type for machine in await call.lium.machines.list()]


async def _countries(call: Call) -> Iterable[str | None]:
    return [node.country_code for node in await call.lium.executors.list()]


async def _backups(call: Call) -> Iterable[str | None]:
    return [backup.id for backup in await call.lium.backups.list() if backup.is_completed]


_LOOKUPS: Final[dict[str, Lookup]] = {
    "pod": _pods,
    "template": _templates,
    "gpu_type": _gpu_types,
    "country": _countries,
    "backup_id": _backups,
}
