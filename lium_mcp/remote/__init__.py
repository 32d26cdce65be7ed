"""Work on a pod over SSH: commands, background jobs, files, GPU readings. Knows neither MCP nor the settings.

None of its failures ever holds a command, a key, or a text that came from the pod.

`asyncssh` takes a tenth of a second to import, so only `connections.py`, `sftp.py` and `key_source.py` know it, and
they are first imported when a pod is first connected to.
"""

from lium_mcp.remote.access import PodAccess

__all__ = ["PodAccess"]
