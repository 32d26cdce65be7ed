"""Refuses what nobody was asked about, since there was nothing to do when that was looked at."""

from lium_mcp.failures import Failure
from lium_mcp.guard.consent import NOTHING_TO_ASK, Question


def refuse_unasked(agreed: Question | None, happened: str) -> None:
    """Refuse to do now what a person could have been asked about, and was not.

    Args:
        agreed: What was asked; None where nobody could be.
        happened: What has come up since that was looked at.

    Raises:
        Failure: they were not asked.
    """
    if agreed is NOTHING_TO_ASK:
        raise Failure("changed_meanwhile", happened, "Call again, so that the person is asked.")
