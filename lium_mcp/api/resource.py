"""The base of the resource classes: each names paths, bodies and models, and sends through one `Wire`."""

from lium_mcp.api.wire import Wire


class Resource:
    """The calls of one part of the API."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
