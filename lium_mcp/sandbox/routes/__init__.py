"""The API's operations, one file per resource; each file ends in the table of its routes."""

from lium_mcp.sandbox.routes import account, backups, clusters, keys, market, pods, rents, templates, volumes

OPERATIONS = (
    *market.OPERATIONS,
    # Before the rents: /executors/cluster/rent is no node's.
    *clusters.OPERATIONS,
    *rents.OPERATIONS,
    *pods.OPERATIONS,
    *backups.OPERATIONS,
    *templates.OPERATIONS,
    *volumes.OPERATIONS,
    *account.OPERATIONS,
    *keys.OPERATIONS,
)

__all__ = ["OPERATIONS"]
