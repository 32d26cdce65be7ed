"""Connect real hosts to this server, by hand: `make test-hosts`. Downloads about 1.2 GB the first time.

Each host gets an empty home and our server registered as its users would, over every transport that it has; the
sandbox is behind it, so nothing needs a login or costs money. Codex also calls a tool; the others only do that for a
model, so that connecting and listing is all that they can show here.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.compat.installs import variables
from tests.http_server import serving

CACHE: Final = Path(__file__).parents[2] / ".cache" / "hosts"
PACKAGES: Final = {
    "claude": "@anthropic-ai/claude-code@2.1.330",
    "codex": "@openai/codex@0.169.0",
    "gemini": "@google/gemini-cli@0.61.0",
    "opencode": "opencode-ai@1.18.33",
}
LIMIT_SECONDS: Final = 90
STDIO: Final = [sys.executable, "-m", "lium_mcp"]
SANDBOX: Final = {"LIUM_MCP_SANDBOX": "1"}


class Host:
    """An installed host with a home of its own."""

    def __init__(self, command: str, home: Path) -> None:
        self.home = home
        self._program = str(CACHE / "node_modules" / ".bin" / command)
        self._environment = variables(home) | {"GEMINI_CLI_TRUST_WORKSPACE": "true"}

    def run(self, *arguments: str) -> str:
        """Run a command of the host and return what it printed."""
        done = subprocess.run(
            [self._program, *arguments],
            cwd=self.home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        return done.stdout

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command of the host that is spoken to."""
        return subprocess.Popen(
            [self._program, *arguments],
            cwd=self.home,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def write(self, path: str, text: str) -> None:
        """Write a file of the host's configuration."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def claude(host: Host, url: str) -> dict[str, bool]:
    """Claude Code: `mcp list` starts every server and says whether it connected."""
    host.run("mcp", "add", "lium-stdio", "-s", "user", "-e", "LIUM_MCP_SANDBOX=1", "--", *STDIO)
    host.run("mcp", "add", "--transport", "http", "lium-http", f"{url}/mcp", "-s", "user")
    host.run("mcp", "add", "--transport", "sse", "lium-sse", f"{url}/sse", "-s", "user")
    return _connected(host.run("mcp", "list"), "stdio", "http", "sse")


def gemini(host: Host, url: str) -> dict[str, bool]:
    """Gemini CLI: `mcp list` connects."""
    servers = {
        "lium-stdio": {"command": STDIO[0], "args": STDIO[1:], "env": SANDBOX, "timeout": 60_000},
        "lium-http": {"httpUrl": f"{url}/mcp"},
        "lium-sse": {"type": "sse", "url": f"{url}/sse"},
    }
    host.write(".gemini/settings.json", json.dumps({"mcpServers": servers}))
    return _connected(host.run("mcp", "list"), "stdio", "http", "sse")


def opencode(host: Host, url: str) -> dict[str, bool]:
    """The opencode CLI: `mcp list` connects."""
    servers = {
        "lium-stdio": {"type": "local", "command": STDIO, "environment": SANDBOX, "enabled": True},
        "lium-http": {"type": "remote", "url": f"{url}/mcp", "oauth": False},
    }
    host.write(".config/opencode/opencode.json", json.dumps({"mcp": servers}))
    return _connected(host.run("mcp", "list"), "stdio", "http")


def codex(host: Host, url: str) -> dict[str, bool]:
    """Codex: its app server lists the tools and calls one."""
    host.write(
        ".codex/config.toml",
        f"[mcp_servers.lium-stdio]\ncommand = {json.dumps(STDIO[0])}\nargs = {json.dumps(STDIO[1:])}\n"
        'env = { LIUM_MCP_SANDBOX = "1" }\nstartup_timeout_sec = 60\n\n'
        f'[mcp_servers.lium-http]\nurl = "{url}/mcp"\n',
    )
    with host.start("app-server") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(number: int, method: str, **params: Any) -> dict[str, Any]:
            stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
            stdin.flush()
            for line in stdout:
                answer = json.loads(line)
                if answer.get("id") == number:
                    return dict(answer["result"])
            raise RuntimeError(f"Codex ended during {method}")

        ask(1, "initialize", clientInfo={"name": "lium-mcp-tests", "version": "1"})
        stdin.write(json.dumps({"jsonrpc": "2.0", "method": "initialized"}) + "\n")
        tools = {server["name"]: server["tools"] for server in ask(2, "mcpServerStatus/list")["data"]}
        thread = ask(3, "thread/start", cwd=str(host.home), ephemeral=True)["thread"]["id"]
        passed = {}
        for number, transport in enumerate(("stdio", "http"), start=4):
            name = f"lium-{transport}"
            balance = ask(number, "mcpServer/tool/call", threadId=thread, server=name, tool="get_balance", arguments={})
            passed[transport] = "rent_pod" in tools[name] and balance["structuredContent"]["balance_usd"] > 0
        process.terminate()
    return passed


def _connected(listed: str, *transports: str) -> dict[str, bool]:
    """Read which servers a host connected to: their names and the verdict are on one line."""
    lines = listed.splitlines()
    return {
        transport: any(f"lium-{transport}" in line and re.search(r"\bconnected\b", line.lower()) for line in lines)
        for transport in transports
    }


HOSTS: Final[dict[str, Callable[[Host, str], dict[str, bool]]]] = {
    "claude": claude,
    "codex": codex,
    "gemini": gemini,
    "opencode": opencode,
}


def main() -> int:
    """Install what is missing, visit each host, print a line for each transport; the exit status is the verdict."""
    CACHE.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        sys.stderr.write("There is no npm, which installs the hosts.\n")
        return 2
    install = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(CACHE)]
    subprocess.run([*install, *PACKAGES.values()], check=True)
    failures = 0
    with tempfile.TemporaryDirectory() as directory:
        homes = Path(directory)
        with serving(homes / "server", **SANDBOX) as served:
            for command, visit in HOSTS.items():
                for transport, passed in visit(Host(command, homes / command), served.url).items():
                    failures += not passed
                    sys.stdout.write(f"{PACKAGES[command]:40}{transport:8}{'works' if passed else 'FAILS'}\n")
                    sys.stdout.flush()
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
