"""Lium MCP: the GPU marketplace lium.io as tools for AI agents."""

__version__ = "0.1.0"
