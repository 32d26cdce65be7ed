"""A short storm, as a test; see `storm.py` for those that last."""

import pytest

from tests.faults.storm import Findings, Storm


@pytest.mark.timeout(300)
async def test_after_a_storm_nothing_is_double_forgotten_or_beyond_a_limit(state_url: str) -> None:
    storm = Storm(state_url, seed=7)
    findings = await storm.run(25, most_seconds=120)
    figures = storm.figures()
    assert findings == Findings(), figures
    assert figures["accepted rents"] >= 25, figures
    assert figures["faults in all"] > 20, figures
