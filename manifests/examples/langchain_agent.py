# /// script
# requires-python = ">=3.11"
# dependencies = ["langchain>=1.4,<2", "langchain-mcp-adapters>=0.3.2,<0.4", "langchain-openai>=1.7,<2"]
# ///
"""Let a LangChain agent look at Lium's market.

Run it with `OPENAI_API_KEY` set and `uv run langchain_agent.py`; add `--sandbox` to try it without a key of Lium's.
"""

import asyncio
import os
import sys

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

LIUM = MultiServerMCPClient(
    {
        "lium": {
            "transport": "stdio",
            "command": "lium-mcp",
            # Read-only, so that nothing can be spent; without it the agent may also rent.
            "args": ["--read-only", *sys.argv[1:]],
            "env": {"LIUM_API_KEY": os.environ.get("LIUM_API_KEY", "")},
        }
    }
)


async def main() -> None:
    """Ask one question."""
    # One session for the whole conversation: `LIUM.get_tools()` would start a server for each call.
    async with LIUM.session("lium") as session:
        agent = create_agent("openai:gpt-5-mini", await load_mcp_tools(session))
        question = {"role": "user", "content": "Which GPU type is the cheapest right now, and what does it cost?"}
        result = await agent.ainvoke({"messages": [question]})
        print(result["messages"][-1].text)


if not os.environ.get("OPENAI_API_KEY"):
    sys.exit("Set OPENAI_API_KEY first: the agent thinks with a model of OpenAI's.")
asyncio.run(main())
