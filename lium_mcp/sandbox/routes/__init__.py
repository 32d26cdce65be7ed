"""The API's operations, one file per resource; each file ends in the table of its routes."""

from lium_mcp.sandbox.routes import account, backups, keys, market, pods, rents, templates, volumes

OPERATIONS = (
    *market.OPERATIONS,
    *rents.OPERATIONS,
    *pods.OPERATIONS,
    *backups.OPERATIONS,
    *templates.OPERATIONS,
    *volumes.OPERATIONS,
    *account.OPERATIONS,
    *keys.OPERATIONS,
)

__all__ = ["OPERATIONS"]
