"""What is installed only where it is asked for: where it lacks, the words hold wherever the package came from."""

from pathlib import Path

import pytest

from tests.processes import ROOT, run


@pytest.mark.parametrize(
    ("extra", "module", "words", "needs"),
    [
        (
            "postgres",
            "psycopg",
            ["rentals", "--state-url", "postgresql://me@127.0.0.1/rentals"],
            "PostgreSQL needs a dr",
        ),
        (
            "metrics",
            "prometheus_client",
            ["--transport", "http", "--sandbox", "--metrics-port", "0"],
            "metrics need a li",
        ),
    ],
)
async def test_what_needs_an_extra_is_refused_with_what_installs_it(
    tmp_path: Path, extra: str, module: str, words: list[str], needs: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules['{module}'] = None\n")
    status, out, err = await run(*words, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (status, out) == (2, "")
    assert needs in err
    assert f"lacks: install it again with its extra `{extra}`" in err
    assert f"`uv tool install --force '.[{extra}]'`" in err
