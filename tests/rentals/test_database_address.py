"""Where the ledger may be: an address that names no place is refused before anything is rented."""

import sys
from pathlib import Path

import pytest

from lium_mcp.cli.main import main

BOTH_PATHS = "sqlite:///rentals.db (from the working directory), sqlite:////srv/rentals.db (from the root)"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        *(
            (url, "it names no file; three slashes")
            for url in ("sqlite://rentals.db", "sqlite:/srv/a.db", "sqlite:///")
        ),
        *((url, "it takes sqlite:///") for url in ("rentals.db", "postgres://me@host/db", "mysql://host/db")),
    ],
)
@pytest.mark.parametrize("command", [["serve"], ["rentals"], ["status"]])
def test_an_address_of_another_form_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str], url: str, said: str
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert main([*command, "--state-url", url]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"lium-mcp: --state-url: {said}")
    assert BOTH_PATHS in told.err
    assert ("postgresql://USER@HOST/DATABASE" in told.err) == said.startswith("it takes")


def test_a_relative_path_begins_in_the_working_directory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rentals.db").write_bytes(b"no database, and longer than the head of one" * 9)
    assert main(["rentals", "--state-url", "sqlite:///rentals.db"]) == 1
    assert "file is not a database" in capsys.readouterr().out
