"""What there is to know of a host, so that the table of hosts can say it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, Literal, NamedTuple

from lium_mcp.hosts.host_machine import Place
from lium_mcp.settings_table import OVER_HTTP, SECRETS_OVER_HTTP, SETTINGS

Format = Literal["json", "toml", "yaml"]
Scope = Literal["user", "project"]
SCOPES: Final[tuple[Scope, ...]] = ("user", "project")

ENTRY_NAME: Final = "lium"
KEY_VARIABLE: Final = "LIUM_API_KEY"
KEY_HEADER: Final = "X-API-Key"
# A server that a host starts has no callers over HTTP.
_ELSEWHERE: Final = {*OVER_HTTP, *SECRETS_OVER_HTTP, "transport"}
READ_VARIABLES: Final = (
    KEY_VARIABLE,
    *sorted({setting.variable for name, setting in SETTINGS.items() if name not in _ELSEWHERE} - {KEY_VARIABLE}),
    "LIUM_WORKSPACE",  # of the official client's configuration: which saved key is meant
)
"""What a server reads that a host starts. A host that passes on named variables alone is told all: a limit that stays
behind is none."""


class Part(Enum):
    """What differs from one entry to the next, where a shape has its place for it."""

    COMMAND = auto()
    ARGUMENTS = auto()
    COMMAND_LINE = auto()
    """The command and its arguments in one list."""
    VARIABLES = auto()
    FORWARDED = auto()
    """Names of variables whose values the host passes on."""
    URL = auto()
    HEADERS = auto()
    HEADER_VARIABLES = auto()
    """Headers, each with the name of the variable whose value is sent."""


class Item(NamedTuple):
    """An item of a list: the one that has this value under this key."""

    key: str
    value: str


Step = str | Item
Steps = tuple[Step, ...]
"""Where something stands in a config file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTool:
    """The host's own command that adds a server, and the one that removes it.

    Attributes:
        add: Its words, without the program. `{json}` is the entry as JSON, with its name where `names_entry`; `{scope}`
            the scope; `{variables}` becomes an option for each variable, `{command}` the command and its arguments.
        remove: The same for removing; empty where there is no such command.
        scopes: Where it can add.
        variable: The option for one variable.
    """

    add: tuple[str, ...]
    remove: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = SCOPES
    variable: str = ""
    names_entry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One MCP host.

    Attributes:
        name: What people type.
        title: What it is called.
        programs: Programs on the PATH, each of which shows that it is here.
        folders: Folders, each of which shows the same.
        user: Where a person's own servers are: the first of these files that is there, else the first.
        project: The same for the servers of a project; empty where it has no such file.
        file_format: How the file is written.
        reads_comments: Whether the host reads comments in its JSON.
        servers: Where in the file the servers are.
        is_list: Whether they are a list of items with names.
        beside: What else the file needs, where it is not there yet.
        inputs: What the host asks a person for, where the entry takes it from there.
        stdio: The shape of an entry that starts a program.
        http: The shape of one that names an address; empty where the host knows no such entry in a file.
        stdio_key: What stands for the key in the environment of a program; empty where the host has no such
            reference, or passes the key on by other means.
        http_key: What stands for the key in a header; empty where the host would have it in clear.
        asks_key: Whether such a reference makes the host ask a person, who has no need of that where a key is saved.
        passes_all: Whether a program gets the host's whole environment, and not a few variables of it alone.
        own_tool: The host's own command.
        restart: What a person does so that the host reads the file.
        hint: What a person may want to set besides, and nobody should for them.
    """

    name: str
    title: str
    programs: tuple[str, ...] = ()
    folders: tuple[Place, ...] = ()
    user: tuple[Place, ...]
    project: tuple[str, ...] = ()
    file_format: Format = "json"
    reads_comments: bool = False
    servers: str = "mcpServers"
    is_list: bool = False
    beside: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Mapping[str, Any], ...] = ()
    stdio: Mapping[str, Any]
    http: Mapping[str, Any] = field(default_factory=dict)
    stdio_key: str = ""
    http_key: str = ""
    asks_key: bool = False
    passes_all: bool = True
    own_tool: OwnTool | None = None
    restart: str = ""
    hint: str = ""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Where it can be told of a server."""
        return SCOPES if self.project else SCOPES[:1]

    @property
    def passes_key(self) -> bool:
        """Whether a program gets a key that is in the host's own environment."""
        return self.passes_all or bool(self.stdio_key) or Part.FORWARDED in self.stdio.values()

    @property
    def refers_to_key(self) -> bool:
        """Whether the key for an address need not stand in its file."""
        return bool(self.http_key) or Part.HEADER_VARIABLES in self.http.values()

    def places(self, scope: Scope) -> tuple[Place, ...]:
        """Where its file may be."""
        return self.user if scope == "user" else self.project

    def entry_path(self) -> Steps:
        """Where our entry stands in the file."""
        return (self.servers, Item("name", ENTRY_NAME) if self.is_list else ENTRY_NAME)
