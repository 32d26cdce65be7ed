"""The one line that a login writes into the official client's file: nothing else moves, and nobody else reads it."""

import os
import stat
from configparser import ConfigParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.official_config import OfficialConfig
from lium_mcp.saved_key import OtherKeySaved, remove_key, save_key
from lium_mcp.values import SettingsError

KEY = "sk_new_0123456789"
LIVED_IN = """\
; my notes
[ssh]
# the laptop's
key_path = ~/.ssh/id_ed25519

[api]\x20
# from the web site, in March
Api_Key: sk_old
\x20\x20
[workspace.team]
id = 1
api_key = sk_team

[template]
startup = first line
    second line
  # a comment in it
"""


@pytest.fixture
def config() -> Path:
    folder = Path.home() / ".lium"
    folder.mkdir()
    return folder / "config.ini"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def read(path: Path) -> dict[str, dict[str, str]]:
    """As the official client reads it."""
    parser = ConfigParser(interpolation=None)
    parser.read(path)
    return {name: dict(parser[name]) for name in parser.sections()}


def test_a_first_key_makes_a_file_and_a_folder_of_the_users_own() -> None:
    assert save_key(KEY, replaces=None) is None
    path = Path.home() / ".lium" / "config.ini"
    assert path.read_text() == f"[api]\napi_key = {KEY}\n"
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert OfficialConfig().key("").text == KEY
    assert names(path.parent) == ["config.ini"]


def test_all_else_in_the_file_stays_and_the_key_before_is_kept(config: Path) -> None:
    config.write_text(LIVED_IN)
    config.chmod(0o644)
    config.parent.chmod(0o755)

    backup = save_key(KEY, replaces="sk_old")

    assert config.read_text() == LIVED_IN.replace("Api_Key: sk_old", f"api_key = {KEY}")
    assert backup is not None
    assert backup.read_text() == LIVED_IN
    assert (mode(config), mode(backup), mode(config.parent)) == (0o600, 0o600, 0o700)
    assert {path.name for path in config.parent.iterdir()} == {"config.ini", backup.name}


@pytest.mark.parametrize("replaces", [None, "sk_another"])
def test_a_key_that_nobody_agreed_to_replace_stays(config: Path, replaces: str | None) -> None:
    config.write_text(LIVED_IN)
    with pytest.raises(OtherKeySaved):
        save_key(KEY, replaces=replaces)
    assert config.read_text() == LIVED_IN
    assert names(config.parent) == ["config.ini"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[api]\napi_key = {K}\n"),
        ("[api]", "[api]\napi_key = {K}\n"),
        ("[api]\nbase = 1", "[api]\napi_key = {K}\nbase = 1"),
        ("[ui]\ntheme = dark", "[ui]\ntheme = dark\n\n[api]\napi_key = {K}\n"),
        ("[ui]\r\ntheme = dark\r\n", "[ui]\r\ntheme = dark\r\n\r\n[api]\r\napi_key = {K}\r\n"),
        ("\ufeff[api]\nbase = 1\n", "[api]\napi_key = {K}\nbase = 1\n"),
        ('[api]\napi_key = "YOUR_API_KEY"\n', "[api]\napi_key = {K}\n"),
        ("[api]\napi_key =\n    \nx = 1\n", "[api]\napi_key = {K}\n    \nx = 1\n"),
        ("[api]\napi_key = {K}\n", "[api]\napi_key = {K}\n"),
        ("[api]\napi_key =\n    changeme\nx = 1\n", "[api]\napi_key = {K}\nx = 1\n"),
        ("[API]\napi_key = other\n", "[API]\napi_key = other\n\n[api]\napi_key = {K}\n"),
        ("[DEFAULT]\napi_key = d\n[ui]\na = b\n", "[DEFAULT]\napi_key = d\n[ui]\na = b\n\n[api]\napi_key = {K}\n"),
        ("[workspace.100% GPU]\napi_key = t\n", "[workspace.100% GPU]\napi_key = t\n\n[api]\napi_key = {K}\n"),
    ],
)
def test_a_key_goes_where_it_belongs(config: Path, before: str, after: str) -> None:
    config.write_bytes(before.replace("{K}", KEY).encode())
    save_key(KEY, replaces=None)
    assert config.read_bytes().decode() == after.replace("{K}", KEY)
    assert read(config)["api"]["api_key"] == KEY


@pytest.mark.parametrize(
    "content",
    [
        b"no section\n",
        b"[api]\napi_key = a\napi_key = b\n",
        b"[api]\n[api]\n",
        b"\xff\xfe\x00",
        # A line that is a part of another value there.
        b"[ui]\nnote = x\n  [api]\n  api_key = sk_in_a_note\n",
        b"[api]\nnote = x\n  api_key = sk_in_a_note\n",
        b"[DEFAULT]\napi_key = sk_default\n[api]\ntheme = dark\n",
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_alone(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        save_key(KEY, replaces=None)
    assert str(config) in str(caught.value)
    assert "sk_" not in str(caught.value)
    assert config.read_bytes() == content
    assert names(config.parent) == ["config.ini"]


@given(
    st.lists(
        st.sampled_from(
            [
                "[api]",
                "[ui]",
                "[DEFAULT]",
                "api_key = sk_old",
                "  api_key = x",
                "theme = a",
                "  more",
                "# c",
                "",
                "[ api ]",
                ";x",
                "api_key",
            ]
        ),
        max_size=12,
    )
)
def test_whatever_the_file_has_only_the_key_changes_or_nothing_does(lines: list[str]) -> None:
    path = Path.home() / ".lium" / "config.ini"
    path.parent.mkdir(exist_ok=True)
    before = "\n".join(lines)
    path.write_text(before)
    try:
        save_key(KEY, replaces="sk_old")
    except SettingsError:
        assert path.read_text() == before
        return
    values, now = ConfigParser(interpolation=None), ConfigParser(interpolation=None)
    values.read_string(before)
    now.read(path)
    assert now["api"].pop("api_key") == KEY
    if values.has_section("api"):
        values["api"].pop("api_key", None)
    else:
        values.add_section("api")
    assert {name: dict(now[name]) for name in now} == {name: dict(values[name]) for name in values}
    kept = [line for line in before.splitlines() if line.startswith(("#", ";"))]
    assert [line for line in path.read_text().splitlines() if line.startswith(("#", ";"))] == kept


@pytest.mark.parametrize(
    "key", ["", "sk", "sk_a\nkey_path = /etc", "sk_%(x)s", "sk_a b", "sk_\u00e9", "a" * 513, "[x]"]
)
def test_what_is_no_key_is_not_written(key: str) -> None:
    with pytest.raises(SettingsError):
        save_key(key, replaces=None)
    assert not (Path.home() / ".lium").exists()


def test_a_linked_file_stays_a_link_and_what_it_links_to_is_written(config: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "dotfiles"
    elsewhere.mkdir()
    (elsewhere / "lium.ini").write_text("[ui]\ntheme = dark\n")
    config.symlink_to(elsewhere / "lium.ini")
    save_key(KEY, replaces=None)
    assert config.is_symlink()
    assert read(elsewhere / "lium.ini") == {"ui": {"theme": "dark"}, "api": {"api_key": KEY}}
    assert mode(elsewhere / "lium.ini") == 0o600


def test_a_linked_folder_keeps_its_mode(tmp_path: Path) -> None:
    elsewhere = tmp_path / "dotfiles"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    (Path.home() / ".lium").symlink_to(elsewhere)
    save_key(KEY, replaces=None)
    assert (mode(elsewhere), mode(elsewhere / "config.ini")) == (0o755, 0o600)


@pytest.mark.parametrize("where", ["folder", "file", "target"])
def test_what_everybody_can_change_is_not_written(config: Path, tmp_path: Path, where: str) -> None:
    elsewhere = tmp_path / "shared"
    elsewhere.mkdir()
    (elsewhere / "config.ini").write_text("")
    if where == "target":
        config.symlink_to(elsewhere / "config.ini")
        elsewhere.chmod(0o777)
    else:
        config.write_text("")
        (config if where == "file" else config.parent).chmod(0o777)
    with pytest.raises(SettingsError, match="every user of this machine can change it"):
        save_key(KEY, replaces=None)
    assert config.read_text() == ""


def test_what_belongs_to_another_user_is_not_written(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("")
    monkeypatch.setattr(os, "getuid", lambda: config.stat().st_uid + 1)
    with pytest.raises(SettingsError, match="belongs to another user"):
        save_key(KEY, replaces=None)
    assert config.read_text() == ""


@pytest.mark.parametrize("target", ["config.ini", "/dev/null", "."])
def test_a_link_that_leads_to_no_file_is_not_followed(config: Path, target: str) -> None:
    config.symlink_to(target)
    with pytest.raises(SettingsError):
        save_key(KEY, replaces=None)
    assert str(config.readlink()) == target


def test_a_file_that_cannot_be_written_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[ui]\n")
    monkeypatch.setenv("HOME", "/proc/1")
    with pytest.raises(SettingsError, match="cannot be written"):
        save_key(KEY, replaces=None)


def test_what_another_program_writes_meanwhile_is_not_lost(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[ui]\ntheme = dark\n")
    synced = os.fsync
    times = 0

    def write_too(descriptor: int) -> None:
        nonlocal times
        synced(descriptor)
        times += 1
        if times <= 2:
            config.write_text(f"[ui]\ntheme = light\nturn = {times}\n")

    monkeypatch.setattr(os, "fsync", write_too)
    save_key(KEY, replaces=None)
    assert read(config) == {"ui": {"theme": "light", "turn": "2"}, "api": {"api_key": KEY}}
    assert names(config.parent) == ["config.ini"]


def test_a_file_that_never_stays_the_same_is_given_up(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[api]\napi_key = sk_old\n")
    synced = os.fsync

    def write_too(descriptor: int) -> None:
        synced(descriptor)
        config.write_text(f"[api]\napi_key = sk_old\n# {'x' * len(config.read_text())}\n")

    monkeypatch.setattr(os, "fsync", write_too)
    with pytest.raises(SettingsError, match="keeps changing it"):
        save_key(KEY, replaces="sk_old")
    assert read(config) == {"api": {"api_key": "sk_old"}}
    assert names(config.parent) == ["config.ini"]


def test_a_key_is_removed_and_nothing_else(config: Path) -> None:
    config.write_text(LIVED_IN)
    assert remove_key()
    assert config.read_text() == LIVED_IN.replace("Api_Key: sk_old\n", "")
    assert mode(config) == 0o600
    assert OfficialConfig().workspaces_with_keys() == ["team"]
    assert not remove_key()
    assert names(config.parent) == ["config.ini"]


def test_where_there_is_no_file_none_is_made_to_remove_a_key() -> None:
    assert not remove_key()
    assert not (Path.home() / ".lium").exists()
