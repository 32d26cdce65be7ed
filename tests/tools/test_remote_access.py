"""Who may log in to pods with this machine's key, which key that is, and what is read of the GPUs."""

import sys
from pathlib import Path
from typing import Any

import anyio
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.remote.gpus import parse_gpus
from lium_mcp.remote.key_source import KeySource
from lium_mcp.sandbox import API_KEY, Sandbox
from lium_mcp.settings import Settings
from tests.harness import PUBLIC_KEY, Agent, agent_on, make_key_pair
from tests.http_server import calling, serving
from tests.processes import environment
from tests.sshd import Sshd, at_sshd, find, rent, wait_until
from tests.test_job_workflow import simulated_lium

NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu=index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,uuid)
  echo "0, NVIDIA A100 80GB PCIe, 97, 40960, 81920, 66, GPU-a"
  echo "1, NVIDIA A100 80GB PCIe, [N/A], 0, 81920, 31, GPU-b" ;;
--query-compute-apps=gpu_uuid,pid,process_name,used_memory)
  echo "GPU-a, 4242, python, with, commas, 40900" ;;
esac
"""


async def test_get_pod_shows_what_the_gpus_do(on_sshd: Agent, sshd: Sshd) -> None:
    (sshd.folder / "bin" / "nvidia-smi").write_text(NVIDIA_SMI)
    (sshd.folder / "bin" / "nvidia-smi").chmod(0o755)
    await rent(on_sshd)
    busy, idle = (await on_sshd.call("get_pod", pod="train"))["pod"]["gpus"]
    assert busy == {
        "index": 0,
        "name": "NVIDIA A100 80GB PCIe",
        "utilization_percent": 97,
        "memory_used_gb": 40.0,
        "memory_total_gb": 80.0,
        "temperature_celsius": 66,
        "processes": [{"pid": 4242, "name": "python, with, commas", "memory_gb": 39.941}],
    }
    assert "utilization_percent" not in idle
    assert "processes" not in idle


async def test_a_pod_without_gpus_or_without_ssh_is_shown_all_the_same(
    on_sshd: Agent, sandbox: Sandbox, sshd: Sshd
) -> None:
    await rent(on_sshd)
    assert "gpus" not in (await on_sshd.call("get_pod", pod="train"))["pod"]
    async with agent_on(sandbox) as unable:  # its key file holds no key, and the pod listens nowhere
        assert "gpus" not in (await unable.call("get_pod", pod="train"))["pod"]


LINES = st.lists(st.text(st.characters(exclude_characters="\r"), max_size=60) | st.just("0, A, 1, 2, 3, 4, u")).map(
    "\n".join
)


@given(gpus=LINES, processes=LINES | st.just("u, 1, x, 5"))
def test_whatever_nvidia_smi_says_is_read_without_failing(gpus: str, processes: str) -> None:
    for gpu in parse_gpus(gpus, processes):
        assert gpu.index >= 0


async def test_callers_from_elsewhere_do_not_log_in_with_this_machines_key(sshd: Sshd, tmp_path: Path) -> None:
    make_key_pair(tmp_path / "key")
    with simulated_lium() as address:
        settings: dict[str, Any] = {"LIUM_BASE_URL": address, "LIUM_SSH_KEY_PATH": str(tmp_path / "key")}
        with serving(tmp_path / "server", **settings) as server:
            async with calling(server.url, "modern", {"X-API-Key": API_KEY}) as caller:
                await caller.call("add_ssh_key", name="mine", public_key=PUBLIC_KEY)
                await caller.call("rent_pod", name="train", gpu_type="A100", wait_seconds=60)
                for tool, arguments in {
                    "run_command": {"command": "id"},
                    "start_job": {"command": "id", "name": "j"},
                    "get_job": {},
                    "stop_job": {"name": "j"},
                    "upload_files": {"local_path": "x"},
                    "download_files": {"pod_path": "x"},
                }.items():
                    code, text = await caller.refused(tool, pod="train", **arguments)
                    assert code == "no_ssh_for_callers", (tool, text)
                [key] = (await caller.call("list_ssh_keys"))["keys"]
                assert key["name"] == "mine", "the server's own key is not registered with a caller's account"


async def test_a_rent_registers_the_key_once_and_sends_it(sandbox: Sandbox, tmp_path: Path) -> None:
    make_key_pair(tmp_path / "key")
    sent = (tmp_path / "key.pub").read_text().split()[:2]
    async with agent_on(sandbox, ssh_key_path=tmp_path / "key") as agent:
        for name in ("one", "two"):
            await rent(agent, name=name)
        [key] = (await agent.call("list_ssh_keys"))["keys"]
        assert key["name"].startswith("lium-mcp-")
    state = sandbox.state()
    assert [row["public_key"].split()[:2] for row in state["ssh_keys"]] == [sent]
    assert all(pod["ssh_keys"][0].split()[:2] == sent for pod in state["pods"])


async def test_a_private_key_without_its_public_half_is_enough(sandbox: Sandbox, sshd: Sshd, tmp_path: Path) -> None:
    sent = sshd.key_path.with_name("user_key.pub").read_text().split()[:2]
    sshd.key_path.with_name("user_key.pub").unlink()
    async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=sshd.key_path) as agent:
        await rent(agent)
        assert (await agent.call("run_command", pod="train", command="echo in"))["stdout"] == "in\n"
    assert [pod["ssh_keys"][0].split() for pod in sandbox.state()["pods"]] == [sent]


async def test_an_agent_holds_the_key(sandbox: Sandbox, sshd: Sshd, tmp_path: Path) -> None:
    agent_program, adder = find("ssh-agent"), find("ssh-add")
    assert agent_program is not None, "no ssh-agent on this machine"
    assert adder is not None, "no ssh-add on this machine"
    socket = tmp_path / "agent"
    async with await anyio.open_process([agent_program, "-D", "-a", str(socket)]) as process:
        try:
            await anyio.to_thread.run_sync(wait_until, socket.exists)
            await anyio.run_process([adder, str(sshd.key_path)], env={"SSH_AUTH_SOCK": str(socket)})
            settings: dict[str, Any] = {"ssh_agent": socket, "ssh_key_path": tmp_path / "not-there"}
            async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), **settings) as agent:
                await rent(agent)
                assert (await agent.call("run_command", pod="train", command="echo in"))["stdout"] == "in\n"
        finally:
            process.terminate()


async def test_the_passphrase_is_in_no_representation() -> None:
    settings = Settings(ssh_key_passphrase="open sesame")
    assert "open sesame" not in f"{settings!r}{KeySource(passphrase='open sesame')!r}"


async def test_ssh_costs_nothing_until_a_pod_is_connected_to() -> None:
    program = (
        "import sys, anyio\n"
        "from lium_mcp.server import build_server\n"
        "from lium_mcp.settings import Settings\n"
        "import lium_mcp.tools.catalog\n"
        "tools = anyio.run(build_server(Settings()).list_tools)\n"
        "assert 'run_command' in {tool.name for tool in tools}\n"
        "assert 'asyncssh' not in sys.modules\n"
    )
    await anyio.run_process([sys.executable, "-c", program], env=environment())
