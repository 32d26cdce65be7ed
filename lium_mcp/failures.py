"""What a failure says, whoever meets it: what happened, whether anything was changed or is billed, what to do next."""

from typing import Final

NOTHING_CHANGED: Final = "Nothing was changed."
IN_EXTRAS: Final = "(toolset extras; if it is not offered, only whoever runs this server can turn it on)"
"""What follows the name of a tool that is not offered by default."""


class Failure(Exception):
    """Something that could not be done, for a reason that was seen coming.

    Args:
        code: Stable, for programs.
        happened: One sentence: what happened.
        advice: One sentence: what to do next.
        effect: One sentence: what was changed or is billed now.
        request_id: The API's id of the request that failed.
    """

    def __init__(
        self, code: str, happened: str, advice: str, *, effect: str = NOTHING_CHANGED, request_id: str | None = None
    ) -> None:
        super().__init__(happened)
        self.code = code
        self.happened = happened
        self.advice = advice
        self.effect = effect
        self.request_id = request_id
