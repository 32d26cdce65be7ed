"""The file of the server token: made once, by one of many, and read by nobody else."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lium_mcp.guard.server_token import MIN_TOKEN_CHARACTERS, ServerTokenError, check_token, make_token, read_token


def test_of_many_at_once_one_makes_it_and_all_read_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"

    def start(_: int) -> tuple[bool, str | None]:
        return make_token(path), read_token(path)

    with ThreadPoolExecutor(16) as pool:
        started = list(pool.map(start, range(64)))
    assert sum(made for made, _ in started) == 1
    [token] = {token for _, token in started}
    assert token is not None
    assert len(token) >= MIN_TOKEN_CHARACTERS
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [item.name for item in path.parent.iterdir()] == ["token"]


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert read_token(tmp_path / "token") is None


def test_a_file_that_is_not_ours_alone_is_refused(tmp_path: Path) -> None:
    secret = "x" * 40
    path = tmp_path / "token"
    path.write_text(secret)
    for mode in (0o640, 0o604, 0o620, 0o644):
        path.chmod(mode)
        with pytest.raises(ServerTokenError, match="others may read it") as refused:
            read_token(path)
        assert secret not in str(refused.value)
    path.chmod(0o600)
    assert read_token(path) == secret
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ServerTokenError, match="remove it"):
        read_token(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ServerTokenError):
        read_token(tmp_path / "pipe")


@pytest.mark.parametrize("content", ["", "short", "x" * 20 + "\n" + "y" * 20])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(ServerTokenError, match="at least 32"):
        read_token(path)
    assert not make_token(path), "what is there is not written over"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerTokenError, match="cannot be stored"):
        make_token(tmp_path / "file" / "token")


@pytest.mark.parametrize("token", ["x" * 31, "x" * 40 + " ", "x" * 40 + "\n", "x" * 40 + "\x7f", "é" * 40])
def test_what_cannot_be_a_token(token: str) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        check_token(token)
