"""The Lium REST API for one account, as far as tools need it: `client.py` has it all. Knows nothing of MCP."""
