"""Work on a pod over SSH: commands, background jobs, files, GPU readings. Knows neither MCP nor the settings.

`asyncssh` takes a tenth of a second to import, so only `connections.py`, `sftp.py` and `key_source.py` know it, and
they are first imported when a pod is first connected to.
"""

from lium_mcp.remote.access import PodAccess
from lium_mcp.remote.errors import RemoteError

__all__ = ["PodAccess", "RemoteError"]
