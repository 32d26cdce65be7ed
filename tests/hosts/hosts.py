"""The hosts: how each is told of a server, how it is asked something, and what of our tools its model then sees."""

import json
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from tests.compat.installs import variables
from tests.hosts.programs import CACHE, Program
from tests.hosts.scripted_model import ScriptedModel, Step

LIMIT_SECONDS: Final = 90
PROMPT: Final = "How much money is left on Lium?"
_SCHEMAS: Final = ("input_schema", "inputSchema", "parameters", "parametersJsonSchema")


class Shown(NamedTuple):
    """What a model sees of our tools: in full, or by name alone."""

    in_full: frozenset[str]
    by_name: frozenset[str]


class Host(ABC):
    """An installed host with a home of its own.

    Attributes:
        name: What it is called.
        typed: How our command calls it.
        package: Its package and the version.
        prefix: What it puts before the names of our tools.
        key: Where its messages are recorded.
    """

    name: ClassVar[str]
    typed: ClassVar[str]
    package: ClassVar[str]
    program: ClassVar[str]
    prefix: ClassVar[str]
    key: ClassVar[str]
    environment: ClassVar[dict[str, str]] = {}

    def __init__(self, home: Path) -> None:
        self.home = home
        self._variables = variables(home)

    @classmethod
    def title(cls) -> str:
        """Its name and the version."""
        return f"{cls.name} {cls.package.rpartition('@')[2]}"

    @abstractmethod
    def connect(self, program: Program, url: str) -> dict[str, bool]:
        """Whether it connects, by transport; empty where it cannot be told without a model."""

    @abstractmethod
    def ask(self, model: ScriptedModel, program: Program, prompt: str = PROMPT) -> None:
        """Let it ask its model something, with our server as its only one."""

    @abstractmethod
    def prepare(self, model: ScriptedModel) -> None:
        """Set it up with its model, and with no server."""

    @abstractmethod
    def prompt(self, model: ScriptedModel, prompt: str = PROMPT, *options: str) -> None:
        """Let it ask its model something, as it is set up."""

    @classmethod
    def calls(cls, tool: str, arguments: dict[str, Any] | None = None) -> list[Step]:
        """What its model does to call a tool."""
        return [Step(cls.prefix + tool, arguments or {})]

    def shown(self, turn: dict[str, Any]) -> Shown:
        """What a model sees in a turn."""
        names = frozenset(_names(turn["tools"]))
        return Shown(
            frozenset(name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)), frozenset()
        )

    def add_variables(self, **more: str) -> None:
        """Let it have these in its environment, too."""
        self._variables |= more

    def run(self, *arguments: str, program: str = "", typed: str = "", **more: str) -> str:
        """Run the host, or another program in its home, and return what it printed; `typed` is what a person types."""
        done = subprocess.run(
            [program or self._program(), *arguments],
            cwd=self.home,
            env=self._variables | self.environment | more,
            input=typed,
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
            [self._program(), *arguments],
            cwd=self.home,
            env=self._variables | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def write(self, path: str, content: str | dict[str, Any]) -> None:
        """Write a file of the host's configuration; objects as JSON."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    def _program(self) -> str:
        return str(CACHE / "node_modules" / ".bin" / self.program)


class ClaudeCode(Host):
    typed = "claude-code"
    name, package, program = "Claude Code", "@anthropic-ai/claude-code@2.1.332", "claude"
    prefix, key = "mcp__lium__", "claude-code"
    allowed: ClassVar = "mcp__lium"

    def connect(self, program: Program, url: str) -> dict[str, bool]:
        self.run("mcp", "add", "lium-stdio", "-s", "user", "--", *program.command)
        self.run("mcp", "add", "--transport", "http", "lium-http", f"{url}/mcp", "-s", "user")
        self.run("mcp", "add", "--transport", "sse", "lium-sse", f"{url}/sse", "-s", "user")
        return _connected(self.run("mcp", "list"), "stdio", "sse", "http")

    def ask(self, model: ScriptedModel, program: Program, prompt: str = PROMPT) -> None:
        entry = {"type": "stdio", "command": program.command[0], "args": program.command[1:], "env": program.variables}
        self.write("mcp.json", {"mcpServers": {"lium": entry}})
        self.prompt(model, prompt, "--mcp-config", "mcp.json", "--strict-mcp-config")

    def prepare(self, model: ScriptedModel) -> None:
        """It takes its model from the environment."""

    def prompt(self, model: ScriptedModel, prompt: str = PROMPT, *options: str) -> None:
        allowed = ("--allowedTools", self.allowed)
        self.run("-p", prompt, *options, *allowed, ANTHROPIC_BASE_URL=model.url, ANTHROPIC_API_KEY="none")

    @classmethod
    def calls(cls, tool: str, arguments: dict[str, Any] | None = None) -> list[Step]:
        return [Step("ToolSearch", {"query": f"select:{cls.prefix}{tool}"}), *super().calls(tool, arguments)]

    def shown(self, turn: dict[str, Any]) -> Shown:
        in_full = super().shown(turn).in_full
        told = json.dumps([turn["messages"], turn["system"]])
        return Shown(in_full, frozenset(re.findall(rf"{self.prefix}(\w+)", told)) - in_full)


class Codex(Host):
    typed = "codex"
    name, package, program = "Codex", "@openai/codex@0.171.0", "codex"
    prefix, key = "mcp__lium.", "codex"

    def __init__(self, home: Path, *, more: str = "", entry: str = "") -> None:
        super().__init__(home)
        self._more, self._entry = more, entry

    def connect(self, program: Program, url: str) -> dict[str, bool]:
        self.write(
            ".codex/config.toml",
            f"{_toml_entry('lium-stdio', program)}\nstartup_timeout_sec = 60\n\n"
            f'[mcp_servers.lium-http]\nurl = "{url}/mcp"\n',
        )
        with self.start("app-server") as process:
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
            thread = ask(3, "thread/start", cwd=str(self.home), ephemeral=True)["thread"]["id"]
            passed = {}
            for number, transport in enumerate(("stdio", "http"), start=4):
                server = f"lium-{transport}"
                call = {"threadId": thread, "server": server, "tool": "get_balance", "arguments": {}}
                balance = ask(number, "mcpServer/tool/call", **call)
                passed[transport] = "rent_pod" in tools[server] and balance["structuredContent"]["balance_usd"] > 0
            process.terminate()
        return passed

    def ask(self, model: ScriptedModel, program: Program, prompt: str = PROMPT) -> None:
        self.write(
            ".codex/config.toml",
            f"{self._config(model)}{_toml_entry('lium', program)}\nstartup_timeout_sec = 60\n{self._entry}\n",
        )
        self.prompt(model, prompt)

    def prepare(self, model: ScriptedModel) -> None:
        self.write(".codex/config.toml", self._config(model))

    def prompt(self, model: ScriptedModel, prompt: str = PROMPT, *options: str) -> None:
        self.run("exec", "--skip-git-repo-check", *options, prompt)

    def _config(self, model: ScriptedModel) -> str:
        return (
            f'{self._more}\nmodel = "scripted"\nmodel_provider = "scripted"\n\n[model_providers.scripted]\n'
            f'name = "scripted"\nbase_url = "{model.url}/v1"\nwire_api = "responses"\n\n'
        )

    @classmethod
    def calls(cls, tool: str, arguments: dict[str, Any] | None = None) -> list[Step]:
        return [Step(tool, arguments or {}, "mcp__lium")]


class GeminiCli(Host):
    typed = "gemini-cli"
    name, package, program = "Gemini CLI", "@google/gemini-cli@0.61.0", "gemini"
    prefix, key = "mcp_lium_", "gemini-cli"
    environment: ClassVar = {"GEMINI_CLI_TRUST_WORKSPACE": "true"}
    _settings: ClassVar = {"security": {"auth": {"selectedType": "gemini-api-key"}}}

    def connect(self, program: Program, url: str) -> dict[str, bool]:
        servers = {
            "lium-stdio": {"command": program.command[0], "args": program.command[1:], "timeout": 60_000},
            "lium-http": {"httpUrl": f"{url}/mcp"},
            "lium-sse": {"type": "sse", "url": f"{url}/sse"},
        }
        self.write(".gemini/settings.json", {"mcpServers": servers})
        return _connected(self.run("mcp", "list"), "stdio", "sse", "http")

    def ask(self, model: ScriptedModel, program: Program, prompt: str = PROMPT) -> None:
        entry = {"command": program.command[0], "args": program.command[1:], "env": program.variables, "trust": True}
        self.write(".gemini/settings.json", {"mcpServers": {"lium": entry}, **self._settings})
        self.prompt(model, prompt)

    def prepare(self, model: ScriptedModel) -> None:
        self.write(".gemini/settings.json", self._settings)

    def prompt(self, model: ScriptedModel, prompt: str = PROMPT, *options: str) -> None:
        key = {"GOOGLE_GEMINI_BASE_URL": model.url, "GEMINI_API_KEY": "none"}
        self.run("-p", prompt, "--yolo", "-m", "gemini-2.5-flash", *options, **key)


class Opencode(Host):
    typed = "opencode"
    name, package, program = "opencode", "opencode-ai@1.18.33", "opencode"
    prefix, key = "lium_", "opencode"

    def connect(self, program: Program, url: str) -> dict[str, bool]:
        servers = {
            "lium-stdio": {"type": "local", "command": program.command, "enabled": True},
            "lium-http": {"type": "remote", "url": f"{url}/mcp", "oauth": False},
        }
        self.write(".config/opencode/opencode.json", {"mcp": servers})
        return _connected(self.run("mcp", "list"), "stdio", "http")

    def ask(self, model: ScriptedModel, program: Program, prompt: str = PROMPT) -> None:
        entry = {"type": "local", "command": program.command, "environment": program.variables, "enabled": True}
        self.write(".config/opencode/opencode.json", self._settings(model) | {"mcp": {"lium": entry}})
        self.prompt(model, prompt)

    def prepare(self, model: ScriptedModel) -> None:
        self.write(".config/opencode/opencode.json", self._settings(model))

    def prompt(self, model: ScriptedModel, prompt: str = PROMPT, *options: str) -> None:
        self.run("run", *options, prompt)

    def _settings(self, model: ScriptedModel) -> dict[str, Any]:
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": f"{model.url}/v1", "apiKey": "none"},
            "models": {"scripted": {"tool_call": True}},
        }
        return {"model": "scripted/scripted", "provider": {"scripted": provider}}


class CopilotCli(Host):
    typed = "copilot-cli"
    name, package, program = "Copilot CLI", "@github/copilot@1.0.102", "copilot"
    prefix, key = "lium-", "copilot-cli"

    def connect(self, program: Program, url: str) -> dict[str, bool]:
        return {}  # its `mcp list` does not connect

    def ask(self, model: ScriptedModel, program: Program, prompt: str = PROMPT) -> None:
        entry = {"type": "local", "command": program.command[0], "args": program.command[1:], "tools": ["*"]}
        self.write(".copilot/mcp-config.json", {"mcpServers": {"lium": entry | {"env": program.variables}}})
        self.prompt(model, prompt)

    def prepare(self, model: ScriptedModel) -> None:
        """It takes its model from the environment."""

    def prompt(self, model: ScriptedModel, prompt: str = PROMPT, *options: str) -> None:
        provider = {"COPILOT_PROVIDER_BASE_URL": f"{model.url}/v1", "COPILOT_PROVIDER_TYPE": "openai"}
        key = {"COPILOT_PROVIDER_API_KEY": "none", "COPILOT_MODEL": "scripted", "COPILOT_OFFLINE": "true"}
        self.run("-p", prompt, "--allow-all-tools", *options, **provider, **key)


class Cline(Host):
    typed = "cline"
    name, package, program = "Cline", "cline@3.0.65", "cline"
    prefix, key = "lium__", "cline"
    environment: ClassVar = {"CLINE_SESSION_BACKEND_MODE": "local"}  # else it leaves a process of its own behind

    def connect(self, program: Program, url: str) -> dict[str, bool]:
        return {}  # it lists servers in a terminal alone

    def ask(self, model: ScriptedModel, program: Program, prompt: str = PROMPT) -> None:
        self.prepare(model)
        entry = {"command": program.command[0], "args": program.command[1:], "env": program.variables}
        self.write(".cline/data/settings/cline_mcp_settings.json", {"mcpServers": {"lium": entry}})
        self.prompt(model, prompt)

    def prepare(self, model: ScriptedModel) -> None:
        self.run("auth", "-p", "openai", "-k", "none", "-m", "scripted", "-b", f"{model.url}/v1")

    def prompt(self, model: ScriptedModel, prompt: str = PROMPT, *options: str) -> None:
        self.run("--auto-approve", "true", *options, prompt)


HOSTS: Final[Sequence[type[Host]]] = (ClaudeCode, Codex, GeminiCli, Opencode, CopilotCli, Cline)


def _connected(listed: str, *transports: str) -> dict[str, bool]:
    """Read which servers a host connected to: their names and the verdict are on one line."""
    lines = re.sub(r"\x1b\[\d*m", "", listed).splitlines()  # colours
    return {
        transport: any(f"lium-{transport}" in line and re.search(r"\bconnected\b", line.lower()) for line in lines)
        for transport in transports
    }


def _toml_entry(name: str, program: Program) -> str:
    variables = ", ".join(f"{key} = {json.dumps(value)}" for key, value in program.variables.items())
    command, *arguments = program.command
    started = f"command = {json.dumps(command)}\nargs = {json.dumps(arguments)}\nenv = {{ {variables} }}"
    return f"[mcp_servers.{name}]\n{started}"


def _names(tools: Any) -> Iterator[str]:
    """The names of tools that come with a schema, wherever a protocol puts them; in a namespace, after its name."""
    if isinstance(tools, list):
        for tool in tools:
            yield from _names(tool)
    elif isinstance(tools, dict):
        if any(schema in tools for schema in _SCHEMAS):
            yield tools["name"]
        elif tools.get("type") == "namespace":
            yield from (f"{tools['name']}.{name}" for name in _names(tools["tools"]))
        else:
            yield from _names(list(tools.values()))
