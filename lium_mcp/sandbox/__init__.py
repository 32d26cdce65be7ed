"""A simulated Lium: the API's own state machine behind an ASGI app, with no money and no network.

It stands alone: it knows the API's contract, not our client. See docs/sandbox.md.
"""

from lium_mcp.sandbox.sandbox import API_KEY, OTHER_API_KEY, OWN_API_KEY, SESSION_TOKEN, TEAM_API_KEY, Sandbox
from lium_mcp.sandbox.serving import serve, serve_sandbox
from lium_mcp.sandbox.simulated_clock import SimulatedClock

__all__ = [
    "API_KEY",
    "OTHER_API_KEY",
    "OWN_API_KEY",
    "SESSION_TOKEN",
    "TEAM_API_KEY",
    "Sandbox",
    "SimulatedClock",
    "serve",
    "serve_sandbox",
]
