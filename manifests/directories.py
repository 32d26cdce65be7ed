"""What directories of MCP servers are told: the MCP Registry, Docker's catalog, Glama and Smithery.

What only a release knows (the hash of its bundle, its commit) is an argument, and what depends on it is left out
without: a file that is checked in says nothing that is not so yet.
"""

from typing import Any, Final

from lium_mcp.hosts.host_facts import KEY_HEADER
from manifests.source import NAME, PROJECT, VERSION, Asked, Source, asked

_REGISTRY_SCHEMA: Final = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
_GLAMA_SCHEMA: Final = "https://glama.ai/mcp/schemas/server.json"
_CATALOG_NAME: Final = "lium"
_STATE_FOLDER: Final = "/state"
_SSH_KEY: Final = "/ssh/id"
BUNDLE_NAME: Final = f"{NAME}-{VERSION}.mcpb"


def registry_entry(source: Source, bundle_sha256: str = "") -> dict[str, Any]:
    """Make server.json, what the MCP Registry is told; the bundle is part of it only with its hash."""
    questions = asked(source)
    variables = [_registry_input(item) for item in questions]
    stdio = {"type": "stdio"}
    packages: list[dict[str, Any]] = [
        {
            "registryType": "pypi",
            "identifier": NAME,
            "version": VERSION,
            "runtimeHint": "uvx",
            "transport": stdio,
            "environmentVariables": variables,
        },
        {
            "registryType": "oci",
            "identifier": source.image,
            "runtimeHint": "docker",
            "transport": stdio,
            # A path of the user's machine means nothing in a container.
            "environmentVariables": [
                variable for variable, item in zip(variables, questions, strict=True) if item.kind != "file"
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
        {
            "name": item.setting.variable,
            "example": item.example,
            "value": f"{{{{{_CATALOG_NAME}.{item.field}}}}}",
        }
        for item in limits
    ]
    fixed = {"LIUM_SSH_KEY_PATH": _SSH_KEY, "LIUM_MCP_STATE_URL": f"sqlite:///{_STATE_FOLDER}/rentals.db"}
    ssh_key = f"{{{{{_CATALOG_NAME}.ssh_key}}}}"
    parameters = {
        "ssh_key": {
            "type": "string",
            "description": "Path of the private SSH key for pods, with its public half beside it.",
        }
    } | {item.field: {"type": "string", "description": item.description} for item in limits}
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
            "volumes": [
                # The ledger of rents outlives the container.
                f"{NAME}-state:{_STATE_FOLDER}",
                f"{ssh_key}:{_SSH_KEY}:ro",
                f"{ssh_key}.pub:{_SSH_KEY}.pub:ro",
            ]
        },
        "config": {
            "description": "A Lium API key, an SSH key for pods, and limits on what an agent may spend.",
            "secrets": [{"name": f"{_CATALOG_NAME}.api_key", "env": key.setting.variable, "example": "<LIUM_API_KEY>"}],
            "env": [*({"name": name, "value": value} for name, value in fixed.items()), *of_limits],
            "parameters": {"type": "object", "properties": parameters, "required": ["ssh_key"]},
        },
    }


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
