"""The examples, run as a reader runs them, against the sandbox; those that need a framework only when asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifests.source import HERE
from tests.compat.installs import installed, uv_variables
from tests.manifests.scripted_model import scripted_model

EXAMPLES = HERE / "examples"


def run(command: list[str], *, limit_seconds: float, **variables: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=limit_seconds, env=os.environ | variables, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plain_client_prints_the_cheapest_gpus(host_path: str) -> None:
    command = [sys.executable, str(EXAMPLES / "mcp_client.py"), "--sandbox"]
    tools, *prices = run(command, limit_seconds=60, PATH=host_path).splitlines()
    assert "rent_pod" in tools
    assert len(prices) == 5
    assert all("free, from $" in line for line in prices)


@pytest.mark.parametrize(
    ("script", "option", "said"),
    [
        ("", "--sandbox", "lium-mcp cannot be started: [Errno 2] No such file or directory: 'lium-mcp'"),
        ("exit 3", "--sandbox", "lium-mcp ended before it answered; `lium-mcp doctor` says why"),
        (f'exec "{sys.executable}" -m lium_mcp "$@"', "--max-podz=1", "--max-podz: there is no such option"),
    ],
)
def test_the_plain_client_says_in_a_sentence_why_it_has_no_answer(
    tmp_path: Path, script: str, option: str, said: str
) -> None:
    if script:
        (tmp_path / "lium-mcp").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "lium-mcp").chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "mcp_client.py"), option],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": str(tmp_path), "PYTHONPATH": str(HERE.parent)},
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.external
@pytest.mark.parametrize("example", ["openai_agents", "langchain_agent"])
def test_an_agent_sees_the_tools_and_reads_what_one_answers(example: str, host_path: str) -> None:
    installed(example)
    with scripted_model("get_gpu_prices") as model:
        said = run(
            ["uv", "run", "--offline", "--no-project", str(EXAMPLES / f"{example}.py"), "--sandbox"],
            limit_seconds=60,
            PATH=host_path,
            **uv_variables(),
            OPENAI_BASE_URL=model.base_url,
            OPENAI_API_KEY="none",
            OPENAI_AGENTS_DISABLE_TRACING="1",
            NO_PROXY="127.0.0.1",
        )
    first, second = model.requests
    offered = {tool.get("function", tool)["name"] for tool in first["tools"]}
    assert {"list_gpus", "get_balance"} <= offered
    assert not offered & {"rent_pod", "remove_pod"}, "the example is read-only"
    assert "median_usd" in json.dumps(second)
    assert "median_usd" in said


@pytest.mark.external
@pytest.mark.parametrize("example", ["openai_agents", "langchain_agent"])
def test_an_agent_without_a_model_says_so_in_a_sentence(example: str, host_path: str) -> None:
    installed(example)
    done = subprocess.run(
        ["uv", "run", "--offline", "--no-project", str(EXAMPLES / f"{example}.py"), "--sandbox"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | uv_variables() | {"PATH": host_path, "OPENAI_API_KEY": ""},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "Set OPENAI_API_KEY first: the agent thinks with a model of OpenAI's."


def test_every_example_is_run_or_listed_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"mcp_client.py", "openai_agents.py", "langchain_agent.py"}
    readme = (HERE / "README.md").read_text()
    assert all(f"(examples/{path.name})" in readme for path in Path(EXAMPLES).glob("*.py"))
