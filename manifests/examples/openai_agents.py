# /// script
# requires-python = ">=3.11"
# dependencies = ["openai-agents>=0.24,<0.25"]
# ///
"""Let an agent of the OpenAI Agents SDK look at Lium's market.

Run it with `OPENAI_API_KEY` set and `uv run openai_agents.py`; add `--sandbox` to try it without a key of Lium's.
"""

import asyncio
import os
import sys

from agents import Agent, Runner
from agents.mcp import MCPServerStdio


async def main() -> None:
    """Ask one question."""
    async with MCPServerStdio(
        name="lium",
        params={
            "command": "lium-mcp",
            # Read-only, so that nothing can be spent; without it the agent may also rent.
            "args": ["--read-only", *sys.argv[1:]],
            "env": {"LIUM_API_KEY": os.environ.get("LIUM_API_KEY", "")},
        },
        # The default is 5 seconds, and a tool may wait up to 600.
        client_session_timeout_seconds=660,
    ) as lium:
        agent = Agent(name="GPU scout", instructions="Use Lium's tools. Give prices in USD.", mcp_servers=[lium])
        result = await Runner.run(agent, "Which GPU type is the cheapest right now, and what does it cost?")
        print(result.final_output)


if not os.environ.get("OPENAI_API_KEY"):
    sys.exit("Set OPENAI_API_KEY first: the agent thinks with a model of OpenAI's.")
asyncio.run(main())
