"""The API's operations, one file per resource; each file ends in the table of its routes."""

from lium_mcp.sandbox.routes import (
    account,
    backups,
    clusters,
    logins,
    nodes,
    pods,
    rents,
    templates,
    volumes,
    workspace_keys,
)

OPERATIONS = (
    *nodes.OPERATIONS,
    # Before the rents, since "cluster" in /executors/cluster/rent is no node's id.
    *clusters.OPERATIONS,
    *rents.OPERATIONS,
    *pods.OPERATIONS,
    *backups.OPERATIONS,
    *templates.OPERATIONS,
    *volumes.OPERATIONS,
    *account.OPERATIONS,
    *workspace_keys.OPERATIONS,
    *logins.OPERATIONS,
)

__all__ = ["OPERATIONS"]
