"""Every setting, once: its variable, the kind of value that it takes, its default, and what it is for.

`settings.py` and `guard/limits.py` make their typed models from this table, and `serving/front_settings.py` reads from
it what decides the lists of tools. The latter happens before anything else is imported, so this file imports nothing
either.
"""

TOOLSETS = ("marketplace", "pods", "templates", "volumes", "backups", "account", "remote", "clusters", "extras")
DEFAULT_TOOLSETS = frozenset(TOOLSETS[:-2])
DEFAULT_BASE_URL = "https://lium.io/api"
TRUE = frozenset(("1", "true", "yes", "on", "y", "t"))
FALSE = frozenset(("0", "false", "no", "off", "n", "f"))
"""What a flag is set to, in any case of the letters."""
REGISTRY_PREFIX = "LIUM_MCP_REGISTRY_"
LEAST_HOURS = 0.1
"""The shortest life to rent for: a pod has to boot, and is of no use to anybody in less."""
MOST_HOURS = 720
"""The farthest removal that Lium takes (`POST /pods/{pod_id}/schedule-removal`)."""


class Setting:
    """One setting.

    Attributes:
        kind: What its value is.
        about: What it is for, in a sentence or two.
        default: What holds where it is not set.
        variable: The variable of the environment; empty where it is `LIUM_MCP_` and the name of the setting.
        low: The least that a number may be.
        high: The most that a number may be.
        choices: The values that there are.
    """

    __slots__ = ("about", "choices", "default", "high", "kind", "low", "variable")

    def __init__(
        self,
        kind: str,
        about: str,
        *,
        default: object = None,
        variable: str = "",
        low: float | None = None,
        high: float | None = None,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self.about = about
        self.default = default
        self.variable = variable
        self.low = low
        self.high = high
        self.choices = choices


LIMITS = {
    "max_price_per_hour_usd": Setting("number", "Most that one pod may cost, in USD per hour.", low=0),
    "max_pods": Setting("count", "Most pods that may live at once.", low=0),
    "max_hours": Setting(
        "number",
        "Longest life of a pod, in hours. Lium takes whole ones at a rent; one that names none gets the most that fit.",
        low=1,
        high=MOST_HOURS,
    ),
    "max_burn_per_hour_usd": Setting("number", "Most that all living pods together may cost, in USD per hour.", low=0),
    "budget_usd": Setting(
        "number",
        "Most that may be spent since budget_since, in USD: charges, and what every pod costs until its removal.",
        low=0,
    ),
    "budget_since": Setting("day", "First UTC day of the budget; by default that of the present month."),
    "allow_gpu_types": Setting(
        "gpu types",
        "GPU types that may be rented (H100,A100), separated by commas; left out, any.",
        default=frozenset[str](),
    ),
    "allow_countries": Setting(
        "countries",
        "Countries to rent in (US,DE), separated by commas; left out, any.",
        default=frozenset[str](),
    ),
    "allow_templates": Setting(
        "ids",
        "Ids of templates that pods may run, separated by commas; left out, any.",
        default=frozenset[str](),
    ),
}

SETTINGS = LIMITS | {
    "api_key": Setting(
        "key",
        "The Lium API key (starts with sk_). Without it only the market and public templates can be read.",
        variable="LIUM_API_KEY",
    ),
    "base_url": Setting("address", "Address of the Lium API.", default=DEFAULT_BASE_URL, variable="LIUM_BASE_URL"),
    "ssh_key_path": Setting(
        "path",
        "Private SSH key for pods; its public half (the same path plus .pub) is put into rented ones.",
        variable="LIUM_SSH_KEY_PATH",
    ),
    "ssh_key_passphrase": Setting(
        "password", "Passphrase of the private SSH key, if it has one.", variable="LIUM_SSH_KEY_PASSPHRASE"
    ),
    "ssh_agent": Setting("path", "Socket of the SSH agent whose keys may be used too.", variable="SSH_AUTH_SOCK"),
    "local_dirs": Setting(
        "folders",
        "Folders whose files may be copied to and from pods, separated by commas; by default the working directory, "
        "unless that is the home directory or the root.",
        default=(),
    ),
    "toolsets": Setting(
        "choices",
        "Groups of tools to offer, separated by commas; clusters and extras are not offered by default.",
        default=DEFAULT_TOOLSETS,
        choices=TOOLSETS,
    ),
    "allow_tools": Setting(
        "tools", "If set, only these tools are offered, separated by commas.", default=frozenset[str]()
    ),
    "deny_tools": Setting("tools", "Tools that are never offered, separated by commas.", default=frozenset[str]()),
    "read_only": Setting("flag", "Offer only tools that change nothing and spend nothing.", default=False),
    "policy": Setting("file", "TOML file with a team's limits; what it or a setting refuses is refused."),
    "policy_mode": Setting(
        "choice",
        "What limits do; shadow refuses nothing and logs what would have been refused.",
        default="enforce",
        choices=("enforce", "shadow"),
    ),
    "confirm": Setting(
        "choice",
        "Ask the person before money is spent or data destroyed: auto where the client can ask, always "
        "(refuse where it cannot), or never.",
        default="auto",
        choices=("auto", "always", "never"),
    ),
    "state_url": Setting(
        "database",
        "Where the ledger of rents is: sqlite:///PATH (sqlite:////srv/rentals.db from the root), by default a file in "
        "the user's state directory, or postgresql://USER@HOST/DATABASE for several servers on one account.",
    ),
    "transport": Setting(
        "choice",
        "How clients reach the server; http and sse serve both of these at once.",
        default="stdio",
        choices=("stdio", "http", "sse"),
    ),
    "host": Setting("host", "Address to listen at over HTTP.", default="127.0.0.1"),
    "port": Setting("count", "Port to listen at over HTTP.", default=8000, low=0, high=65_535),
    "allowed_host": Setting(
        "hosts",
        "Host names under which clients, and from which pages browsers, may call over HTTP, separated by commas; "
        "needed beyond loopback.",
        default=frozenset[str](),
    ),
    "path_prefix": Setting(
        "url path",
        "Path below which a proxy in front serves this server, such as /lium; where clients of SSE send their messages "
        "follows from it.",
        default="",
    ),
    "server_token": Setting(
        "token",
        "What callers over HTTP send in `X-Lium-MCP-Token` to use this server's own key, 32 characters at least; by "
        "default one is made and kept in the user's state directory.",
    ),
    "state_keys": Setting(
        "secrets",
        "Secrets of 32 characters at least, separated by commas, that all replicas behind one address share: the first "
        "seals the questions that a person is asked, and each opens them, so that any replica takes the answer. By "
        "default only the process that asked does.",
    ),
    "replica": Setting(
        "name",
        "Name of this replica in the session ids of older clients, by which a proxy finds it: letters, digits, - and "
        "_; by default the name of the machine.",
    ),
    "stateless": Setting(
        "flag",
        "Keep no sessions, so that any replica serves any request of older clients too; as those cannot be asked then, "
        "confirm=auto refuses what a client that cannot ask would spend or destroy.",
        default=False,
    ),
    "trusted_proxy": Setting(
        "addresses",
        "Addresses of proxies in front whose `X-Forwarded-For` tells callers apart, separated by commas; without it "
        "all who come through one share the bounds of one address.",
        default=frozenset[str](),
    ),
    "calls_at_once": Setting(
        "count",
        "How many calls of one key may run at once over HTTP; all of one address may run four times as many.",
        default=50,
        low=1,
        high=10_000,
    ),
    "calls_per_minute": Setting(
        "count",
        "How many calls of one key may begin in a minute over HTTP; of one address four times as many.",
        default=600,
        low=1,
        high=10_000_000,
    ),
    "metrics_port": Setting(
        "count",
        "Port at which Prometheus reads metrics of a server over HTTP, at the same address; by default none are kept.",
        low=0,
        high=65_535,
    ),
    "shutdown_delay_seconds": Setting(
        "number",
        "How long a server over HTTP that is told to stop still takes new calls, in seconds, while `/readyz` "
        "says that it is to stop: as long as the proxy in front needs to see that and send them elsewhere.",
        default=0.0,
        low=0,
        high=600,
    ),
    "drain_seconds": Setting(
        "number",
        "How long running calls may take to end once a server over HTTP is told to stop, in seconds; meanwhile it "
        "takes no new ones.",
        default=3.0,
        low=3,
        high=3600,
    ),
    "oauth": Setting(
        "login",
        "Where callers over HTTP may log in: `lium` for Lium's own login page, or the address (issuer) of an "
        "authorization server of your own, whose tokens are taken then.",
    ),
    "public_url": Setting(
        "public address",
        "Address under which callers that log in reach this server, with the path prefix if it has one: "
        "https://gpu.example.com/lium; their tokens are for this address and /mcp.",
    ),
    "oauth_keys": Setting(
        "secrets",
        "What encrypts the kept Lium keys of those who logged in: 32 random bytes in base64; of several, separated by "
        "commas, the first encrypts and all decrypt.",
    ),
    "oauth_hook": Setting(
        "function",
        "The async function, as `package.module:function`, that finds the Lium key for a token of your own "
        "authorization server: it gets the claims, and returns the key or None.",
    ),
    "oauth_scopes": Setting(
        "scopes",
        "Scopes that a token of your own authorization server must have, separated by commas.",
        default=frozenset[str](),
    ),
    "oauth_registered_only": Setting(
        "flag",
        "Where callers log in at Lium, take only clients that register, and read nothing at the addresses by which "
        "others are called: for a server that may not reach them.",
        default=False,
    ),
    "timeout_seconds": Setting(
        "number",
        "Time limit of one request to the Lium API, in seconds; a call that only reads ends within 30 in any case.",
        default=15.0,
        low=1,
        high=45,
    ),
    "log_level": Setting(
        "choice",
        "How much goes to standard error.",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
    ),
    "log_format": Setting(
        "choice", "How a line on standard error is written.", default="text", choices=("text", "json")
    ),
    "audit_file": Setting(
        "file",
        "File that the audit trail is appended to, one JSON object a line; by default it is in the log on standard "
        "error.",
    ),
    "sandbox": Setting("flag", "Use a simulated Lium inside this process: no money, no network.", default=False),
    "sandbox_speed": Setting(
        "number", "How many times faster than real time the sandbox runs.", default=1.0, low=0, high=100_000
    ),
    "sandbox_seed": Setting("count", "Seed of the sandbox's market.", default=7, low=0),
}

for _name, _setting in SETTINGS.items():
    _setting.variable = _setting.variable or f"LIUM_MCP_{_name.upper()}"

OVER_HTTP = (
    *("host", "port", "allowed_host", "path_prefix", "replica", "stateless", "trusted_proxy", "calls_at_once"),
    *("calls_per_minute", "metrics_port", "shutdown_delay_seconds", "drain_seconds"),
    *("oauth", "public_url", "oauth_hook", "oauth_scopes", "oauth_registered_only"),
)
"""What means something only where clients come over HTTP."""

SECRETS_OVER_HTTP = ("server_token", "state_keys", "oauth_keys")
"""What does so too, and is no option."""

# What bounds an agent: a variable that is nearly the name of one of these was meant for this server.
GUARDS = (*LIMITS, "read_only", "deny_tools", "policy", "confirm")
_ALMOST_OURS = ("LIUM_MCP_", "LIUM_MCP", "LIUMMCP_", "LIUMMCP", "LIUM_", "MCP_LIUM_")
# Other spellings, without underscores, of what belongs to Lium: without a key, or at another address, much goes wrong.
_ALMOST_LIUMS = {
    "LIUMAPIKEY": "LIUM_API_KEY",
    "LIUMAPITOKEN": "LIUM_API_KEY",
    "LIUMMCPAPIKEY": "LIUM_API_KEY",
    "LIUMBASEURL": "LIUM_BASE_URL",
    "LIUMAPIURL": "LIUM_BASE_URL",
    "LIUMMCPBASEURL": "LIUM_BASE_URL",
}


def is_option(name: str) -> bool:
    """Whether a setting is an option of the command line too: not what belongs to Lium, nor secrets.

    Process lists show options.
    """
    return SETTINGS[name].variable.startswith("LIUM_MCP_") and name not in SECRETS_OVER_HTTP


def as_option(name: str) -> str:
    """A setting as it is typed on the command line."""
    return f"--{name.replace('_', '-')}"


def meant_setting(variable: str) -> str | None:
    """The variable of this server that another one was meant to be, as far as its name tells; None where it was not.

    With another prefix it sets nothing. Such a name is ours only if it means a guard: others may be of other programs.

    Args:
        variable: A name that is not one of the table's, in capitals.
    """
    if (of_lium := _ALMOST_LIUMS.get(variable.replace("_", ""))) is not None:
        return of_lium
    prefix = next((prefix for prefix in _ALMOST_OURS if variable.startswith(prefix)), None)
    meant = "LIUM_MCP_" + variable.removeprefix(prefix) if prefix else variable
    is_guard = meant.removeprefix("LIUM_MCP_").lower() in GUARDS
    return (
        meant if (variable.startswith("LIUM_MCP_") or is_guard) and not variable.startswith(REGISTRY_PREFIX) else None
    )


class Offer:
    """What the settings decide about the lists and the instructions.

    Attributes:
        toolsets: The setting of that name, as all that follow.
        allow_tools: None of them allow all.
        deny_tools: They are never offered.
        read_only: Whether only tools are offered that change nothing; it wins over every other choice.
        limits: The limits that refuse something, as `instructions` takes them.
    """

    __slots__ = ("allow_tools", "deny_tools", "limits", "read_only", "toolsets")

    def __init__(
        self,
        *,
        toolsets: frozenset[str] = DEFAULT_TOOLSETS,
        allow_tools: frozenset[str] = frozenset(),
        deny_tools: frozenset[str] = frozenset(),
        read_only: bool = False,
        limits: dict[str, object] | None = None,
    ) -> None:
        self.limits = limits or {}
        self.toolsets = toolsets
        self.allow_tools = allow_tools
        self.deny_tools = deny_tools
        self.read_only = read_only

    def has(self, tool: str, toolset: str, *, reads_only: bool) -> bool:
        """Whether a tool is offered that belongs to this toolset, and changes nothing or does."""
        return (
            toolset in self.toolsets
            and (not self.allow_tools or tool in self.allow_tools)
            and tool not in self.deny_tools
            and (reads_only or not self.read_only)
        )
