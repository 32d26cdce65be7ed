"""What directories of MCP servers are told: the MCP Registry, Docker's catalog, Glama and Smithery.

What only a release knows (the hash of its bundle, its commit) is an argument, and what depends on it is left out
without: a file that is checked in says nothing that is not so yet.
"""

from typing import Any, Final

from lium_mcp.hosts.host_facts import KEY_HEADER
from lium_mcp.settings_table import SETTINGS
from manifests.source import NAME, PROJECT, VERSION, Asked, Source, asked

_REGISTRY_SCHEMA: Final = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
_GLAMA_SCHEMA: Final = "https://glama.ai/mcp/schemas/server.json"
_CATALOG_NAME: Final = "lium"
_HOME: Final = "/home/lium"
"""Where the server in the image keeps what it keeps."""
_KEPT: Final = f"{NAME}-home:{_HOME}"
_SSH_KEY: Final = "/ssh/id"
_SSH_KEY_VARIABLE: Final = SETTINGS["ssh_key_path"].variable
_SSH_KEY_TOLD: Final = (
    "Path of the private SSH key for pods, with its public half beside it. "
    "On Linux user 10001 has to be able to read both."
)
_HALVES: Final = ("", ".pub")
BUNDLE_NAME: Final = f"{NAME}-{VERSION}.mcpb"


def registry_entry(source: Source, bundle_sha256: str = "") -> dict[str, Any]:
    """Make server.json, what the MCP Registry is told; the bundle is part of it only with its hash."""
    questions = asked(source)
    stdio = {"type": "stdio"}
    packages: list[dict[str, Any]] = [
        {
            "registryType": "pypi",
            "identifier": NAME,
            "version": VERSION,
            "runtimeHint": "uvx",
            "transport": stdio,
            "environmentVariables": [_registry_input(item) for item in questions],
        },
        {
            "registryType": "oci",
            "identifier": source.image,
            "runtimeHint": "docker",
            "transport": stdio,
            "runtimeArguments": _container_options(),
            "environmentVariables": [
                {"name": _SSH_KEY_VARIABLE, "value": _SSH_KEY},
                *(_registry_input(item) for item in questions if item.kind != "file"),
            ],
        },
    ]
    if bundle_sha256:
        # The bundle asks by itself.
        url = f"{source.repository}/releases/download/v{VERSION}/{BUNDLE_NAME}"
        packages.append({"registryType": "mcpb", "identifier": url, "fileSha256": bundle_sha256, "transport": stdio})
    remote = {"type": "streamable-http", "url": source.remote, "headers": [_registry_header(source)]}
    return {
        "$schema": _REGISTRY_SCHEMA,
        "name": source.registry_name,
        "title": source.title,
        "description": source.summary,
        "version": VERSION,
        "repository": {"url": source.repository, "source": "github"},
        "icons": [{"src": source.icon, "mimeType": "image/png", "sizes": ["512x512"]}],
        "packages": packages,
        **({"remotes": [remote]} if source.remote else {}),
    }


def _registry_input(item: Asked) -> dict[str, Any]:
    told: dict[str, Any] = {"name": item.setting.variable, "description": item.description}
    match item.kind:
        case "secret":
            return told | {"isSecret": True}
        case "boolean":
            return told | {"format": "boolean", "default": str(item.setting.default).lower()}
        case "number":
            return told | {"format": "number", "placeholder": item.example}
        case "file":
            return told | {"format": "filepath"}


def _container_options() -> list[dict[str, Any]]:
    """What a container needs of the machine around it: a volume in which the ledger outlives it, and an SSH key."""
    asks = {"ssh_key": {"description": _SSH_KEY_TOLD, "format": "filepath", "isRequired": True}}
    mounts = [
        {
            "type": "named",
            "name": "--mount",
            "value": f"type=bind,source={{ssh_key}}{half},target={_SSH_KEY}{half},readonly",
            "variables": asks,
        }
        for half in _HALVES
    ]
    return [{"type": "named", "name": "--volume", "value": _KEPT}, *mounts]


def _registry_header(source: Source) -> dict[str, Any]:
    return {"name": KEY_HEADER, "description": _key(source).setting.about, "isSecret": True}


def _key(source: Source) -> Asked:
    return next(item for item in asked(source) if item.kind == "secret")


def catalog_entry(source: Source, commit: str = "") -> dict[str, Any]:
    """Make the server.yaml of Docker's catalog; without a commit it lacks the one that Docker is to build."""
    key = _key(source)
    limits = [item for item in asked(source) if item.kind == "number"]
    # Docker leaves out variables whose parameter is empty, which would be limits that nobody can read.
    of_limits = [
        {"name": item.setting.variable, "example": item.example, "value": _parameter(item.field)} for item in limits
    ]
    told = {"ssh_key": _SSH_KEY_TOLD} | {item.field: item.description for item in limits}
    parameters = {name: {"type": "string", "description": description} for name, description in told.items()}
    return {
        "name": _CATALOG_NAME,
        "image": f"mcp/{_CATALOG_NAME}",
        "type": "server",
        # What follows a job, and the watch over idle pods, live as long as the server.
        "longLived": True,
        "meta": {"category": "devops", "tags": ["gpu", "cloud", "devops"]},
        "about": {"title": source.title, "description": PROJECT["description"], "icon": source.icon},
        "source": {"project": source.repository} | ({"commit": commit} if commit else {}),
        "run": {
            # The ledger of rents outlives the container.
            "volumes": [_KEPT, *(f"{_parameter('ssh_key')}{half}:{_SSH_KEY}{half}:ro" for half in _HALVES)]
        },
        "config": {
            "description": "A Lium API key, an SSH key for pods, and limits on what an agent may spend.",
            "secrets": [{"name": f"{_CATALOG_NAME}.api_key", "env": key.setting.variable, "example": "<LIUM_API_KEY>"}],
            "env": [{"name": _SSH_KEY_VARIABLE, "value": _SSH_KEY}, *of_limits],
            "parameters": {"type": "object", "properties": parameters, "required": ["ssh_key"]},
        },
    }


def _parameter(name: str) -> str:
    """What Docker replaces by a parameter's value."""
    return f"{{{{{_CATALOG_NAME}.{name}}}}}"


def glama_entry(source: Source) -> dict[str, Any]:
    """Make glama.json, which says who may change what Glama lists."""
    return {"$schema": _GLAMA_SCHEMA, "maintainers": [source.owner]}


def smithery_entry() -> dict[str, Any]:
    """Make smithery.yaml. Smithery takes a hosted server by its address, and no bundle that uv installs."""
    return {"name": NAME, "target": "remote"}


def smithery_questions(source: Source) -> dict[str, Any]:
    """Make the JSON Schema of what Smithery asks callers of a hosted server, and in which header it is sent."""
    key = _key(source)
    asks = {"type": "string", "title": key.title, "description": key.setting.about, "x-from": {"header": KEY_HEADER}}
    return {"type": "object", "properties": {key.field: asks}}
