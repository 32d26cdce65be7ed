"""Our end of the official client's process: send a call, get what it returned or printed."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.compat.environment import Environment, client_variables

API_KEY = "sk_sandbox"
DRIVER = Path(__file__).with_name("official_driver.py")
NOWHERE = "http://127.0.0.1:1/api"


class OfficialError(Exception):
    """What the official SDK raised."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['type']}: {error['message']}")
        self.type: str = error["type"]
        self.message: str = error["message"]
        self.details: dict[str, Any] = error["details"]


@dataclass(frozen=True)
class Printed:
    """What a command of the official command line left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The machine-readable failure on the last line of standard error."""
        failure = json.loads(self.stderr.splitlines()[-1])
        return {**failure["error"], "data": failure.get("data")}


class Official:
    """One long-lived process of the official client, and one server that it talks to at a time."""

    def __init__(self, environment: Environment, home: Path) -> None:
        self.environment = environment
        self.home = home
        self._base_url = NOWHERE
        self._api_key: str | None = API_KEY
        self._session_token: str | None = None
        self._process = subprocess.Popen(
            [str(environment.python), str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=client_variables(home=home, base_url=self._base_url),
            cwd=home,
        )

    def point_at(self, base_url: str, *, api_key: str | None = API_KEY, session_token: str | None = None) -> None:
        """Let every following call go to this address, with this key and this login session."""
        self._base_url = base_url
        self._api_key = api_key
        self._session_token = session_token

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a further process that is to do the same."""
        return client_variables(home=self.home, base_url=self._base_url)

    def sdk(self, method: str, *positional: Any, **arguments: Any) -> Any:
        """Call a method of the official `Lium`; `{"pod": id}` stands for the SDK's own object of a pod."""
        if positional:
            arguments["*"] = list(positional)
        answer = self._call({"do": "sdk", "method": method, "arguments": arguments})
        if "error" in answer:
            raise OfficialError(answer["error"])
        return answer["result"]

    def run(self, *arguments: str) -> Printed:
        """Run a command of the official command line inside the process."""
        return Printed(**self._call({"do": "cli", "arguments": list(arguments)}))

    def succeed(self, *arguments: str) -> Printed:
        """Run a command that should succeed."""
        printed = self.run(*arguments)
        assert printed.exit_code == 0, f"lium {' '.join(arguments)}: {printed.stdout}{printed.stderr}"
        return printed

    def routes(self) -> list[tuple[str, str]]:
        """Return the routes that the SDK's source names, with `*` for a method that is not beside the path."""
        return [(method, path) for method, path in self._call({"do": "routes"})["result"]]

    def close(self) -> None:
        stdin, stdout = self._pipes
        stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._pipes
        environment = {
            "LIUM_BASE_URL": self._base_url,
            "LIUM_API_KEY": self._api_key,
            "LIUM_SESSION_TOKEN": self._session_token,
        }
        stdin.write(json.dumps(call | {"environment": environment}) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the official client's process has ended; its last words are above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout
