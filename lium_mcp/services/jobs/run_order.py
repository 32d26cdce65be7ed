"""What a caller wants of a run: one pod for one job, from its rent to its end, and what money and time it has."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from lium_mcp.failures import Failure
from lium_mcp.inputs import UNLISTED_LIMITS, UnlistedFilePath, UnlistedShortText
from lium_mcp.remote.jobs import check_job_name
from lium_mcp.rentals import digest
from lium_mcp.services.rents.offers import Country, Tier
from lium_mcp.services.rents.wish import Wish
from lium_mcp.settings_table import LEAST_HOURS, MOST_HOURS

MOST_COMMAND_CHARACTERS: Final = 65_536
LEAST_COMMAND_SECONDS: Final = 60
_SECONDS_PER_HOUR: Final = 3600
# What remains of a pod's life for bringing its files, and for saving what it made.
_REST_HOURS: Final = 0.1
_REST_TO_SAVE_HOURS: Final = 0.5
_REST_TO_SAVE_SHARE: Final = 0.1

# Parameters that earlier versions did not have, whose absence is in no digest that the ledger holds.
_NEWER: Final = frozenset({"executor_id", "volume", "backup_id", "tier"})

Ending = Literal["keep", "remove", "backup_and_remove", "download_and_remove"]


class RunOrder(BaseModel):
    """What a caller wants of a run: the parameters of `run_job`."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[UnlistedShortText, Field(min_length=1, description="New: a-z, 0-9, . _ -"), UNLISTED_LIMITS]
    command: Annotated[str, Field(min_length=1, description="Shell; no secrets."), UNLISTED_LIMITS]
    gpu_type: Annotated[UnlistedShortText, Field(description="E.g. H100.")] = ""
    executor_id: Annotated[UnlistedShortText, Field(description="Or this node.")] = ""
    gpu_count: Annotated[int | None, Field(ge=1, description="GPUs in the pod."), UNLISTED_LIMITS] = None
    min_vram_gb: Annotated[float | None, Field(description="Of each GPU.")] = None
    country: Annotated[Country, UNLISTED_LIMITS] = ""
    tier: Tier = None
    template: Annotated[UnlistedShortText, Field(description="Id or own name.")] = ""
    volume: Annotated[UnlistedShortText, Field(description="Mounted at /mnt.")] = ""
    backup_id: Annotated[UnlistedShortText, Field(description="Restored first.")] = ""
    max_usd_per_hour: Annotated[float | None, Field(gt=0, description="For the whole pod."), UNLISTED_LIMITS] = None
    max_total_usd: Annotated[float | None, Field(gt=0, description="Ends the pod in time."), UNLISTED_LIMITS] = None
    max_hours: Annotated[float | None, Field(gt=0, description="Stops the command."), UNLISTED_LIMITS] = None
    hours: Annotated[float | None, Field(ge=LEAST_HOURS, description="Removes the pod anyhow."), UNLISTED_LIMITS] = None
    local_path: Annotated[UnlistedFilePath, Field(description="To /root/<its name>.")] = ""
    download_path: Annotated[UnlistedFilePath, Field(description="What to save here.")] = ""
    to_path: Annotated[UnlistedFilePath, Field(description="Where; default name.")] = ""
    then: Annotated[Ending, Field(description="After the command.")] = "keep"
    only_if_succeeded: Annotated[bool, Field(description="Else the pod stays.")] = False

    def check(self) -> None:
        """Refuse what cannot be carried out, or has no ceiling of money.

        Raises:
            Failure: it is refused.
        """
        check_job_name(self.name)
        if len(self.command) > MOST_COMMAND_CHARACTERS:
            problem = f"command holds more than {MOST_COMMAND_CHARACTERS} characters"
        elif "\0" in self.command:
            problem = "command holds a NUL character"
        elif self.max_total_usd is None and (self.max_usd_per_hour is None or self.life_hours is None):
            problem = "A ceiling of money is needed: max_total_usd, or max_usd_per_hour with max_hours or hours"
        elif max(self.hours or 0, self.max_hours or 0) > MOST_HOURS:
            problem = f"hours and max_hours are {MOST_HOURS} at most"
        elif self.hours is not None and self.max_hours is not None and self.max_hours >= self.hours:
            problem = "hours has to be more than max_hours, so that what follows the command has its time"
        elif self.then == "download_and_remove" and not self.download_path:
            problem = "download_and_remove needs download_path"
        elif self.then != "download_and_remove" and (self.download_path or self.to_path):
            problem = "download_path and to_path go with then=download_and_remove"
        else:
            self.wish(self.life_hours).check()
            return
        raise Failure("invalid_argument", f"{problem}.", "Correct it and call again.")

    @property
    def digest(self) -> str:
        """A digest of all of it, by which the same call is recognized."""
        said = self.model_dump(mode="json")
        return digest({name: value for name, value in said.items() if value or name not in _NEWER})

    @property
    def target(self) -> str:
        """The local path for what is downloaded."""
        return self.to_path or self.name

    @property
    def life_hours(self) -> float | None:
        """How long the pod is to live; None for as long as the money lasts."""
        if self.hours is not None or self.max_hours is None:
            return self.hours
        return min(self.max_hours + self._rest_hours(self.max_hours), MOST_HOURS)

    def command_seconds(self, now: datetime, removal_at: datetime | None) -> int:
        """How long the command may run if it starts now, so that what follows is done before the pod's removal."""
        most = MOST_HOURS if self.max_hours is None else self.max_hours
        if removal_at is not None:
            left = max((removal_at - now) / timedelta(hours=1), 0.0)
            most = min(most, left - self._rest_hours(left))
        return int(most * _SECONDS_PER_HOUR)

    def wish(self, hours: float | None) -> Wish:
        """The rent that it begins with."""
        return Wish(
            name=self.name,
            gpu_type=self.gpu_type,
            executor_id=self.executor_id,
            gpu_count=self.gpu_count,
            max_usd_per_hour=self.max_usd_per_hour,
            max_total_usd=self.max_total_usd,
            min_vram_gb=self.min_vram_gb,
            country=self.country,
            tier=self.tier,
            template=self.template,
            volume=self.volume,
            backup_id=self.backup_id,
            hours=hours,
        )

    def _rest_hours(self, hours: float) -> float:
        """What a run of so many hours needs besides the command."""
        if self.then in ("keep", "remove"):
            return _REST_HOURS
        return min(max(_REST_TO_SAVE_HOURS, _REST_TO_SAVE_SHARE * hours), max(hours / 3, _REST_HOURS))
