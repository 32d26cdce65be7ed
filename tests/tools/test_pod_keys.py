"""Which SSH keys a pod is rented with, and that who could not log in to it hears so before it costs money."""

from pathlib import Path
from typing import Any

import asyncssh
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, Agent, Person, agent_on, write_ssh_key
from tests.wires import ask, living, offers, rents, truth

RENT: dict[str, Any] = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
REGISTERED = f"{PUBLIC_KEY[:-4]}AAAA"
CANNOT = "could not log in to the pod"


def key_file(ending: str = "") -> Path:
    return Path.home() / ".ssh" / f"id_ed25519{ending}"


def without_any() -> None:
    key_file().unlink()
    key_file(".pub").unlink()


def without_private_half() -> None:
    # Of the usual names one without its private half is found too.
    key_file().unlink()


def locked() -> None:
    key = asyncssh.import_private_key(key_file().read_text())
    key.write_private_key(key_file(), "pkcs8-pem", passphrase="open sesame")


def garbled() -> None:
    key_file().write_text("not a real private key\n")


def of_another_key() -> None:
    key_file(".pub").write_text(f"{REGISTERED} of another machine\n")


def marked() -> None:
    key_file(".pub").write_text(f'\ufeff# mine\nrestrict,command="a b" {PUBLIC_KEY} josé\n', encoding="utf-8")


def cut_off() -> None:
    key_file(".pub").write_text(f"{PUBLIC_KEY[:-8]}\n")


def folder() -> None:
    key_file(".pub").unlink()
    key_file(".pub").mkdir()


async def register(sandbox: Sandbox) -> None:
    await ask(sandbox, "POST", "/ssh-keys", {"name": "laptop", "public_key": f"{REGISTERED} zoë@desk"})


async def quote(agent: Agent, sandbox: Sandbox) -> list[str]:
    node = (await offers(sandbox, "4090"))[0]
    return list((await agent.call("quote_rental", executor_id=node["id"])).get("warnings", []))


@pytest.mark.parametrize(
    ("happens", "sent"),
    [
        (None, [PUBLIC_KEY]),
        (marked, [PUBLIC_KEY]),
        (cut_off, [PUBLIC_KEY]),
        (folder, [PUBLIC_KEY]),
        (of_another_key, [REGISTERED, PUBLIC_KEY]),
    ],
)
async def test_what_logs_in_goes_in_and_nothing_is_said(sandbox: Sandbox, happens: Any, sent: list[str]) -> None:
    if happens:
        happens()
    async with agent_on(sandbox) as agent:
        assert await quote(agent, sandbox) == []
        assert "warnings" not in await agent.call("rent_pod", **RENT)
    assert living(sandbox)[0]["ssh_keys"] == sent


@pytest.mark.parametrize("name", ["LIUM_SSH_KEY_PATH", "without a pair", "the public half alone"])
async def test_where_nobody_at_this_machine_could_log_in_nothing_is_spent(sandbox: Sandbox, name: str) -> None:
    if name == "without a pair":
        without_any()
    else:
        without_private_half()
    settings: dict[str, Any] = {"ssh_key_path": Path.home() / "work_key"} if name == "LIUM_SSH_KEY_PATH" else {}
    async with agent_on(sandbox, **settings) as agent:
        for dry_run in (True, False):
            failure = await agent.refused("rent_pod", **RENT, dry_run=dry_run)
            assert failure.code == "ssh_key_missing"
            assert "Nothing was rented" in failure.text
            assert "ssh-keygen" in failure.text
            assert "add_ssh_key" in failure.text
            assert name != "LIUM_SSH_KEY_PATH" or "work_key" in failure.text
        [said] = await quote(agent, sandbox)
        assert said.startswith("rent_pod would refuse: Nobody ")
        assert truth(sandbox, "requests") == [row for row in truth(sandbox, "requests") if "body" not in row]
        write_ssh_key(Path.home())
        if not settings:  # a key that is made meanwhile is found
            await agent.call("rent_pod", **RENT)
    assert len(rents(sandbox)) == (0 if settings else 1)


@pytest.mark.parametrize(
    ("happens", "sent", "said"),
    [
        (without_any, [REGISTERED], "no private SSH key"),
        (without_private_half, [PUBLIC_KEY, REGISTERED], "id_ed25519"),
        (locked, [PUBLIC_KEY], "LIUM_SSH_KEY_PASSPHRASE"),
        (garbled, [PUBLIC_KEY], "cannot be read"),
    ],
)
async def test_where_only_somebody_else_could_log_in_it_is_said_before(
    sandbox: Sandbox, happens: Any, sent: list[str], said: str
) -> None:
    await register(sandbox)
    happens()
    person = Person("yes")
    async with agent_on(sandbox, person=person, confirm="always") as agent:
        foreseen = await quote(agent, sandbox)
        dry = await agent.call("rent_pod", **RENT, dry_run=True)
        rented = await agent.call("rent_pod", **RENT)
    (warning,) = dry["warnings"]
    assert CANNOT in warning
    assert said in warning
    assert foreseen == [warning]
    assert warning in rented["warnings"]
    assert all(warning in question for question in person.questions)
    assert person.questions
    assert living(sandbox)[0]["ssh_keys"] == sent
    assert len(truth(sandbox, "ssh_keys")) == 1, "a key that cannot log in is not registered for later pods"


async def test_a_passphrase_opens_a_locked_key(sandbox: Sandbox) -> None:
    locked()
    async with agent_on(sandbox, ssh_key_passphrase="open sesame") as agent:
        assert "warnings" not in await agent.call("rent_pod", **RENT)


async def test_no_comment_of_a_key_leaves_this_machine_and_none_shuts_a_pod(tmp_path: Path) -> None:
    sandbox = Sandbox(seed=7, speed=0, ssh=True)
    async with agent_on(sandbox) as agent:
        await agent.call("rent_pod", **RENT | {"wait_seconds": 120})
        assert (await agent.call("run_command", pod="train", command="echo in"))["stdout"] == "in\n"
        await agent.call("add_ssh_key", name="desk", public_key=f"{REGISTERED} zoë@desk")
    state = sandbox.state()
    assert [row["public_key"] for row in state["ssh_keys"]] == [PUBLIC_KEY, REGISTERED]
    assert state["pods"][0]["ssh_keys"] == [PUBLIC_KEY]
    await sandbox.aclose()
