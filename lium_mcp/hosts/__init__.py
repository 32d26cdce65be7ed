"""The MCP hosts: where each keeps its servers, and how our entry there is made, read, changed and taken away."""
