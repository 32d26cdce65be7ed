"""What several tools do: find a target, quote, plan a rent, back up, restore, remove, follow up. Knows no MCP.

A service takes what it acts on, above all the account, and no call.
"""
