"""Files to and from a pod, against a real OpenSSH server, as an agent copies them."""

import os
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from lium_mcp.settings import Settings
from tests.harness import Agent, agent_on
from tests.sshd import Sshd, at_sshd, rent


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


async def test_a_folder_goes_up_and_comes_down_and_what_is_the_same_stays(
    on_sshd: Agent, sshd: Sshd, work: Path
) -> None:
    await rent(on_sshd)
    contents = {f"src/{folder}/file {number}'s": os.urandom(number * 7000) for folder in "ab" for number in range(40)}
    for name, content in contents.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content)
    (work / "src" / "run.sh").write_text("echo ran\n")
    (work / "src" / "run.sh").chmod(0o755)
    (work / "src" / "link").symlink_to("/etc/passwd")
    up = await on_sshd.call("upload_files", pod="train", local_path="src", pod_path="code")
    assert (up["outcome"], up["copied_files"], up["same_files"], up["path"]) == ("done", 81, 0, "code")
    assert "1 symbolic link" in up["warnings"][0]
    assert (await on_sshd.call("run_command", pod="train", command="code/run.sh"))["stdout"] == "ran\n"
    (work / "src" / "a" / "file 3's").write_bytes(b"changed")
    again = await on_sshd.call("upload_files", pod="train", local_path="src", pod_path="code")
    assert (again["copied_files"], again["same_files"]) == (1, 80)
    down = await on_sshd.call("download_files", pod="train", pod_path="~/code", local_path="back")
    assert (down["outcome"], down["copied_files"]) == ("done", 81)
    for name in contents:
        assert (work / name.replace("src", "back")).read_bytes() == (work / name).read_bytes()
    assert os.access(work / "back" / "run.sh", os.X_OK)
    same = await on_sshd.call("download_files", pod="train", pod_path="code", local_path="back")
    assert (same["copied_files"], same["same_files"]) == (0, 81)
    assert (same["moved_bytes"], same["total_bytes"]) == (0, down["moved_bytes"])
    left = await on_sshd.call("run_command", pod="train", command=f"find . {work} -name '*.lium-part'")
    assert left["stdout"] == ""


async def test_a_local_file_that_differs_is_replaced_only_if_that_is_said(
    on_sshd: Agent, sshd: Sshd, work: Path
) -> None:
    await rent(on_sshd)
    (sshd.home / "results").write_text("new")
    (work / "results").write_text("precious")
    kept = await on_sshd.call("download_files", pod="train", pod_path="results", local_path="results")
    assert (kept["outcome"], kept["copied_files"]) == ("failed", 0)
    assert "overwrite=true" in kept["problems"][0]
    assert (work / "results").read_text() == "precious"
    arguments = {"pod_path": "results", "local_path": "results", "overwrite": True}
    assert (await on_sshd.call("download_files", pod="train", **arguments))["outcome"] == "done"
    assert (work / "results").read_text() == "new"


async def test_a_text_goes_up_and_comes_back_in_the_answer(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    text = "print('caf\u00e9')\n"
    await on_sshd.call("upload_files", pod="train", content=text, pod_path="a/b/train.py")
    assert (sshd.home / "a" / "b" / "train.py").read_text() == text
    shown = await on_sshd.call("download_files", pod="train", pod_path="a/b/train.py")
    assert (shown["outcome"], shown["content"]) == ("done", text)
    assert "instructions" in shown["note"]
    (sshd.home / "long").write_text("x" * 100_000)
    part = await on_sshd.call("download_files", pod="train", pod_path="long")
    assert (part["outcome"], len(part["content"]), part["total_bytes"]) == ("pending", 32_768, 100_000)
    (sshd.home / "binary").write_bytes(b"\x7fELF\0\0")
    assert (await on_sshd.refused("download_files", pod="train", pod_path="binary")).code == "not_text"


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("upload_files", {"local_path": "../secret"}, "path_not_allowed"),
        ("upload_files", {"local_path": "/etc/passwd"}, "path_not_allowed"),
        ("upload_files", {"local_path": "link"}, "path_not_allowed"),
        ("upload_files", {"local_path": "nothing"}, "file_not_found"),
        ("upload_files", {}, "invalid_argument"),
        ("upload_files", {"content": "x"}, "invalid_argument"),
        ("upload_files", {"content": "x", "pod_path": "x", "local_path": "y"}, "invalid_argument"),
        ("upload_files", {"content": "x", "pod_path": "/proc/version"}, "file_not_found"),
        ("upload_files", {"content": "x", "pod_path": "a\nb"}, "invalid_argument"),
        ("download_files", {"pod_path": "there", "local_path": "../secret"}, "path_not_allowed"),
        ("download_files", {"pod_path": "there", "local_path": "link/x"}, "path_not_allowed"),
        ("download_files", {"pod_path": "nothing", "local_path": "x"}, "file_not_found"),
        ("download_files", {"pod_path": "nothing"}, "file_not_found"),
        ("download_files", {"pod_path": "."}, "not_a_file"),
    ],
)
async def test_what_cannot_be_copied_is_refused_and_changes_nothing(
    on_sshd: Agent, sshd: Sshd, work: Path, tool: str, arguments: dict[str, str], code: str
) -> None:
    await rent(on_sshd)
    (work / "link").symlink_to(work.parent)
    (sshd.home / "there").write_text("there")
    assert (await on_sshd.refused(tool, pod="train", **arguments)).code == code
    assert (os.listdir(sshd.home), os.listdir(work)) == (["there"], ["link"])  # noqa: PTH208 - names are all that counts
    assert not (work.parent / "x").exists()


async def test_only_the_folders_of_the_settings_are_open(sandbox: Sandbox, sshd: Sshd, tmp_path: Path) -> None:
    for name in ("in", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "file").write_text("data")
    settings: dict[str, Any] = {"transport": at_sshd(sandbox, sshd), "ssh_key_path": sshd.key_path}
    async with agent_on(sandbox, local_dirs=f"{tmp_path / 'in'},{tmp_path / 'data'}", **settings) as agent:
        await rent(agent)
        await agent.call("upload_files", pod="train", local_path=str(tmp_path / "data" / "file"))
        await agent.call("download_files", pod="train", pod_path="file", local_path="copy")
    assert (tmp_path / "in" / "copy").read_text() == "data"


def test_a_working_directory_that_nobody_chose_opens_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir("/")
    assert Settings().find_local_dirs() == ()
    monkeypatch.chdir(Path.home())
    assert Settings().find_local_dirs() == ()
    monkeypatch.chdir(tmp_path)
    assert Settings().find_local_dirs() == (tmp_path,)
