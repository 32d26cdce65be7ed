"""The official conformance suite: every scenario that applies to a server without diagnostic tools, in both eras."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.compat.clients.conftest import Target
from tests.compat.installs import node, variables

LIMIT_SECONDS = 60
LEGACY, MODERN = "2025-11-25", "2026-07-28"
SCENARIOS = {
    LEGACY: (
        *("server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection"),
        *("server-sse-multiple-streams", "server-session-lifecycle"),
    ),
    MODERN: (
        *("server-stateless", "tools-list", "resources-list", "prompts-list", "sep-2164-resource-not-found", "caching"),
        *("dns-rebinding-protection", "server-sse-multiple-streams", "http-header-validation"),
        "input-required-result-unsupported-methods",
    ),
}
# These checks call tools that only a server made for this suite has.
NEED_DIAGNOSTIC_TOOLS = {
    "server-stateless:sep-2575-server-rejects-undeclared-capability",
    "server-stateless:sep-2575-missing-capability-http-400",
    "server-stateless:sep-2575-http-server-no-independent-requests-on-stream",
    "server-stateless:sep-2575-server-no-log-without-loglevel",
}
# This one reads a resource of an account: the suite sends no key, and the server's own is not for who comes by a proxy.
NEEDS_A_KEY = {"caching:sep-2549-resources-read-caching-hints"}


@pytest.mark.parametrize("target", ["http", "http behind nginx"], indirect=True)
@pytest.mark.parametrize("version", [LEGACY, MODERN])
def test_every_scenario_that_applies_passes(conformance: Path, target: Target, tmp_path: Path, version: str) -> None:
    suite = conformance / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    results = tmp_path / "results"
    # Its exit status says that scenarios failed which call the suite's own tools.
    done = subprocess.run(
        [node(conformance), str(suite), "server", "--url", target.url, "--requirements", version, "-o", str(results)],
        env=variables(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    failures: dict[str, str] = {}
    for scenario in SCENARIOS[version]:
        reports = list(results.glob(f"server-{scenario}-20*/checks.json"))
        assert len(reports) == 1, f"{scenario} did not run: {done.stdout}{done.stderr}"
        checks = json.loads(reports[0].read_text())
        assert any(check["status"] == "SUCCESS" for check in checks), scenario
        failures |= {
            f"{scenario}:{check['id']}": check.get("errorMessage", "")
            for check in checks
            if check["status"] == "FAILURE"
        }
    excused = NEED_DIAGNOSTIC_TOOLS | (NEEDS_A_KEY if target.headers else set())
    assert set(failures) == (excused if version == MODERN else set()), failures
