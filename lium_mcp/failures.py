"""What a failure says, whoever meets it: what happened, whether anything was changed or is billed, what to do next."""

from typing import Final

NOTHING_CHANGED: Final = "Nothing was changed."


class ToolFailure(Exception):
    """A failure that a tool saw coming.

    Args:
        code: Stable, for programs.
        happened: One sentence: what happened.
        effect: One sentence: what was changed or is billed now.
        advice: One sentence: what to do next.
        request_id: The API's id of the request that failed.
    """

    def __init__(
        self, code: str, happened: str, advice: str, *, effect: str = NOTHING_CHANGED, request_id: str | None = None
    ) -> None:
        super().__init__(happened)
        self.code = code
        self.happened = happened
        self.effect = effect
        self.advice = advice
        self.request_id = request_id
