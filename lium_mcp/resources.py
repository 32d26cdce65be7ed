"""Resources: the same readings that tools give, and skills, for hosts that attach these to a conversation by address.

A resource is there where its tool is: what an operator does not offer as a tool cannot be read around it, and a skill
is there where all tools that it names are. Nothing is read from Lium when resources are listed. Tools stand alone: many
hosts never read a resource.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.mcpserver.resources import TextResource
from pydantic import ValidationError

from lium_mcp.page import ADDRESS as PAGE_ADDRESS
from lium_mcp.page import CARRIED_BY, MIME_TYPE, read_page
from lium_mcp.results import Result, dated
from lium_mcp.services.failure_words import FAILURES, as_failure
from lium_mcp.services.policy_view import Offered, policy_view
from lium_mcp.services.polling import READ_LIMIT_SECONDS, time_limit
from lium_mcp.skills import read_skills
from lium_mcp.text import clean
from lium_mcp.toolkit.argument_problems import from_validation
from lium_mcp.toolkit.call import Call, Runtime
from lium_mcp.toolkit.listing import read_listing
from lium_mcp.toolkit.official_commands import without_commands
from lium_mcp.toolkit.rendering import as_json

_JSON: Final = "application/json"
_INDEX_HEAD: Final = "# Skills\n\nThose whose tools this server offers. Read the one that fits before you begin.\n"
_MOST_ROWS: Final = 100
_MOST_ERROR_CHARACTERS: Final = 1500

# Tool, name, title, description.
_FIXED: Final = (
    ("list_pods", "pods", "Pods", "The account's pods, what each costs per hour, and what they burn together."),
    ("get_gpu_prices", "market", "Market prices", "Free GPUs and price quartiles of every GPU type."),
    ("list_templates", "templates", "Templates", "The account's own templates."),
    ("list_volumes", "volumes", "Volumes", "The account's volumes and the pods that have them mounted."),
    ("list_backups", "backups", "Backups", "The newest backups of the account."),
    ("get_balance", "account", "Account", "Balance, burn rate and runway."),
)
# What is asked of a tool other than its defaults.
_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "list_pods": {"limit": _MOST_ROWS},
    "list_templates": {"mine": True, "limit": _MOST_ROWS},
    "list_volumes": {"limit": _MOST_ROWS},
    "list_backups": {"limit": _MOST_ROWS},
}

Reading = Callable[[Call], Awaitable[Result]]


def add_resources(server: MCPServer[None], runtime: Runtime, offered: Offered, tools: Collection[str]) -> None:
    """Register the policy, the page, and every resource and skill whose tools are among `tools`."""
    for tool, name, title, description in _FIXED:
        if tool in tools:
            _add_fixed(server, runtime, name, title, description, _reading(tool, **_ARGUMENTS.get(tool, {})))

    @server.resource(
        "lium://policy",
        name="policy",
        title="Policy in force",
        description="What this server offers and refuses, and what is used and left of each limit.",
        mime_type=_JSON,
    )
    async def policy_in_force() -> str:
        return await _read(
            Call(runtime),
            lambda call: policy_view(
                call.account, call.policy, runtime.confirm, offered, asks_person=runtime.person.is_asked()
            ),
        )

    if "list_pods" in tools:
        about = "What was rented through this server lately, what came of it, and at what price."
        _add_fixed(server, runtime, "rents", "Rents", about, _rent_record)
    _add_skills(server, tools)
    _add_page(server, tools)
    _add_details(server, runtime, tools)


def _add_details(server: MCPServer[None], runtime: Runtime, tools: Collection[str]) -> None:
    if "get_pod" in tools:

        @server.resource(
            "lium://pods/{pod}",
            name="pod",
            title="Pod",
            description="One pod in detail, named by its id or its name.",
            mime_type=_JSON,
        )
        async def pod_detail(pod: str) -> str:
            return await _read(Call(runtime), _reading("get_pod", pod=pod, wait_seconds=0))

    if "list_gpus" in tools:

        @server.resource(
            "lium://market/{gpu_type}/{country}",
            name="offers",
            title="Offers",
            description="Free nodes with one GPU type in one country, cheapest first.",
            mime_type=_JSON,
        )
        async def offers(gpu_type: str, country: str) -> str:
            return await _read(Call(runtime), _reading("list_gpus", gpu_type=gpu_type, country=country))

    if "get_template" in tools:

        @server.resource(
            "lium://templates/{template}",
            name="template",
            title="Template",
            description="One template in detail, named by its id or, if it is your own, by its name.",
            mime_type=_JSON,
        )
        async def template_detail(template: str) -> str:
            return await _read(Call(runtime), _reading("get_template", template=template, wait_seconds=0))

    if "get_backup" in tools:

        @server.resource(
            "lium://backups/{backup_id}",
            name="backup",
            title="Backup",
            description="One backup: status, size, what went wrong.",
            mime_type=_JSON,
        )
        async def backup_detail(backup_id: str) -> str:
            return await _read(Call(runtime), _reading("get_backup", backup_id=backup_id, wait_seconds=0))


async def _rent_record(call: Call) -> Result:
    from lium_mcp.services.rents.rent_record import read_rent_record  # noqa: PLC0415 - as in _reading

    return await read_rent_record(call.account)


def _add_page(server: MCPServer[None], tools: Collection[str]) -> None:
    if CARRIED_BY.isdisjoint(tools):
        return
    # It is all in one file, so nothing is allowed to it: not to load, and not to send anything anywhere.
    nothing: dict[str, list[str]] = {"connectDomains": [], "resourceDomains": []}
    server.resource(
        PAGE_ADDRESS,
        name="page",
        title="Lium",
        description="Pods, money and market, for people to look at.",
        mime_type=MIME_TYPE,
        meta={"ui": {"csp": nothing, "prefersBorder": True}},
    )(read_page)


def _add_skills(server: MCPServer[None], tools: Collection[str]) -> None:
    missing = {item.name for item in read_listing()}.difference(tools)
    skills = [skill for skill in read_skills() if missing.isdisjoint(skill.words_in_code())]
    for skill in skills:
        _add_text(server, skill.address, skill.name, skill.title, skill.description, skill.text)
    about = "What each skill of this server is for, and its address."
    rows = "".join(f"- [{skill.title}]({skill.address}): {skill.description}\n" for skill in skills)
    _add_text(server, "skill://index.md", "skills", "Skills", about, f"{_INDEX_HEAD}\n{rows}")


def _add_text(server: MCPServer[None], address: str, name: str, title: str, description: str, text: str) -> None:
    server.add_resource(
        TextResource(uri=address, name=name, title=title, description=description, mime_type="text/markdown", text=text)
    )


def _add_fixed(
    server: MCPServer[None], runtime: Runtime, name: str, title: str, description: str, read: Reading
) -> None:
    async def resource() -> str:
        return await _read(Call(runtime), read)

    server.resource(f"lium://{name}", name=name, title=title, description=description, mime_type=_JSON)(resource)


async def _read(call: Call, reading: Reading) -> str:
    redact = call.runtime.redact
    try:
        redact = call.redact
        with time_limit(READ_LIMIT_SECONDS):
            return as_json(dated(await reading(call), call.lium.now()), redact)
    except FAILURES as error:
        failure = as_failure(error)
        text = " ".join(part for part in (failure.happened, failure.advice) if part)
        is_wrong_address = failure.code == "invalid_argument" or failure.code.endswith("not_found")
        kind = ResourceNotFoundError if is_wrong_address else ResourceError
        raise kind(without_commands(redact(clean(text)))[:_MOST_ERROR_CHARACTERS]) from error


def _reading(tool: str, **arguments: Any) -> Reading:  # noqa: ANN401 - what the tool takes
    async def read(call: Call) -> Result:
        from lium_mcp.toolkit.registry import publish  # noqa: PLC0415 - start-up should not pay for what nobody reads
        from lium_mcp.tools.catalog import find_spec  # noqa: PLC0415 - as above

        spec = find_spec(tool)
        try:
            # An address may name anything, as a model may.
            meant = publish(spec).fn_metadata.validate_arguments(arguments)
        except ValidationError as error:
            raise from_validation("This address", error) from None
        return await spec.function(call, **spec.gathered(meant))

    return read
