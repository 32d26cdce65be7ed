"""What a backup run and a restore run have in common: how far a run came, and whether it lacks files."""

import re
from datetime import datetime, timedelta
from typing import ClassVar

from lium_mcp.api.clock import is_since
from lium_mcp.api.fields import ApiFloat, ApiId, ApiInt, ApiModel, ApiReason, ApiStr, ApiText, ApiTime

_SYNONYMS = {"SUCCESS": "COMPLETED", "ERROR": "FAILED"}
_MAX_SAID_CHARS = 4000
# Runs and answers may be dated by different clocks.
_CLOCKS_DIFFER = timedelta(seconds=20)
_LACKS_FILES = re.compile(
    r"partial|incomplete|not (?:all|every|complete)\b|degraded|unread|inaccessible|permission denied|no such file"
    r"|with[ _](?:\w+ )?errors|\bread errors?\b|errors? (?:while )?reading"
    r"|(?:n[o']t|unable to|failed to) (?:be )?(?:read|open|cop[iy]|save|stor|writ|restor|back)"
    r"|\bfiles? (?:\w+ ){0,2}(?:skipped|missing|left out|omitted|excluded|failed|lost)"
    r"|(?:skipped|missing|left out|omitted|excluded|failed|lost) (?:\w+ )?files?\b",
    re.IGNORECASE,
)
# A clause that denies that files are missing: "0 files could not be read", "files skipped: none", "not partial".
_DENIED = re.compile(
    r"(?<![\w.])(?:0|no(?! (?:such|permission|access)\b)|none|zero|nothing|without|not (?=partial|incomplete))\b"
    r"[^.,:;\n]*"
    r"|[^.,:;\n]{1,80}[:=] ?(?:0|no|none|false)[ ]*(?=[.,;\n]|$)",
    re.IGNORECASE,
)


class StorageRun(ApiModel):
    """A backup or a restore; `stage` means nothing once the run is over."""

    FINAL_STATUSES: ClassVar[frozenset[str]]

    id: ApiId
    status: ApiText = ""
    stage: ApiStr = None
    progress: ApiFloat = None
    started_at: ApiTime = None
    completed_at: ApiTime = None
    created_at: ApiTime = None
    error_message: ApiReason = None
    status_message: ApiReason = None
    result_quality: ApiStr = None
    quality: ApiStr = None
    total_files: ApiInt = None
    processed_files: ApiInt = None
    total_bytes: ApiInt = None

    @property
    def state(self) -> str:
        """The status, upper case, with other spellings read as today's."""
        status = self.status.strip().upper()
        is_completed = "PARTIAL" in status or status.startswith("COMPLETED")
        return "COMPLETED" if is_completed else _SYNONYMS.get(status, status)

    @property
    def began_at(self) -> datetime | None:
        """When it began, or when it was ordered, if Lium says only that."""
        return self.started_at or self.created_at

    def began_since(self, moment: datetime, *, clocks_differ: timedelta = _CLOCKS_DIFFER) -> bool | None:
        """Whether it began at a moment or later, as far as clocks agree; `None` where Lium does not say when."""
        return is_since(self.began_at, moment, clocks_differ=clocks_differ)

    @property
    def is_final(self) -> bool:
        """Whether the run is over."""
        return self.state in self.FINAL_STATUSES

    @property
    def is_running(self) -> bool | None:
        """Whether it is under way; `None` where Lium does not say how it stands."""
        return not self.is_final if self.state else None

    @property
    def is_completed(self) -> bool:
        """Whether it came to its end, if perhaps without all files."""
        return self.state == "COMPLETED"

    @property
    def is_partial(self) -> bool:
        """Whether it is completed but lacks files, by anything that Lium says of it.

        Counts of bytes tell nothing: some servers compare those before and after the compression.
        """
        if not self.is_completed:
            return False
        said = (self.status, self.result_quality, self.quality, self.status_message, self.error_message)
        texts = [_DENIED.sub("", text[:_MAX_SAID_CHARS]) for text in said if text]
        processed, total = self.processed_files, self.total_files
        lacks_some = processed is not None and total is not None and processed < total
        return lacks_some or any(map(_LACKS_FILES.search, texts))

    @property
    def problem(self) -> str | None:
        """What went wrong, such as why it was skipped or what it lacks, in the API's words."""
        came_out_well = not self.is_final or (self.is_completed and not self.is_partial)
        return self.error_message or (None if came_out_well else self.status_message)

    @property
    def remark(self) -> str | None:
        """What else the API says of it."""
        return self.status_message if self.status_message != self.problem else None
