"""SSH into the sandbox's pods: a listener per running pod on this machine, over the pod's simulated container.

Nothing of asyncssh is imported before a pod runs.
"""

from lium_mcp.sandbox.ssh.listeners import SshPods

__all__ = ["SshPods"]
