"""A short storm, as a test; see `storm.py` for those that last."""

import gc
from collections.abc import Iterator

import psycopg
import pytest

from tests.faults.storm import Findings, Storm


@pytest.fixture
def _no_connection_stays() -> Iterator[None]:
    """A server that was killed in the middle of a transaction closes nothing; in one process somebody has to."""
    yield
    for item in gc.get_objects():
        if isinstance(item, psycopg.Connection):
            item.close()


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("_no_connection_stays")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the same connections
async def test_after_a_storm_nothing_is_double_forgotten_or_beyond_a_limit(state_url: str) -> None:
    storm = Storm(state_url, seed=7)
    findings = await storm.run(25, most_seconds=240)
    figures = storm.figures()
    assert findings == Findings(), figures
    assert figures["accepted rents"] >= 25, figures
    assert figures["faults in all"] > 20, figures
