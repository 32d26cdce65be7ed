"""What a caller wants to rent: the first of the carriers of a rent, before anything is known of the market."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from lium_mcp.failures import Failure
from lium_mcp.inputs import OFFICIAL, ShortText
from lium_mcp.rentals import digest, whole_hours
from lium_mcp.services.offers import Floors
from lium_mcp.settings_table import LEAST_HOURS, MOST_HOURS


class Wish(Floors):
    """What a caller wants to rent: the parameters of `rent_pod`."""

    name: Annotated[ShortText, Field(min_length=1, description="Unique pod name.")]
    executor_id: Annotated[ShortText, Field(description="Node from list_gpus.")] = ""
    gpu_type: Annotated[ShortText, Field(description="Or cheapest of this model.")] = ""
    gpu_count: Annotated[int | None, Field(ge=1, description="Default: fewest.")] = None
    template: Annotated[ShortText, Field(description="Id, or name of your own.")] = ""
    volume: Annotated[ShortText, Field(description="Mounted at /mnt.")] = ""
    backup_id: Annotated[ShortText, Field(description="Restored at start.")] = ""
    hours: Annotated[float | None, Field(ge=LEAST_HOURS, le=MOST_HOURS, description="Lium removes it then.")] = None
    enable_backups: Annotated[bool, OFFICIAL] = True

    @field_validator("country")
    @classmethod
    def _upper(cls, country: str) -> str:
        return country.upper()

    def check(self) -> None:
        """Refuse what no request could carry; a constraint is never dropped in silence."""
        floors = ("gpu_type", "min_vram_gb", "min_ram_gb", "min_disk_gb", "country", "docker_in_docker")
        given = [name for name in floors if getattr(self, name)]
        if self.executor_id and given:
            problem = f"executor_id names the node already, so {', '.join(given)} cannot apply"
        elif not self.executor_id and not self.gpu_type:
            problem = "Name a node with executor_id, or a GPU model with gpu_type"
        elif self.country and not re.fullmatch("[A-Z]{2}", self.country):
            problem = "country is a two-letter ISO code here"
        else:
            return
        raise Failure("invalid_argument", f"{problem}.", "Correct it and call again.")

    @property
    def digest(self) -> str:
        """A digest of the whole wish, by which the ledger recognizes the same call."""
        return digest(self.model_dump(mode="json"))

    @property
    def for_one_node(self) -> Floors:
        """What a node must have that is picked from the market: one GPU where no number was said."""
        return self.model_copy(update={"gpu_count": self.gpu_count or 1})

    @property
    def termination_hours(self) -> int | None:
        """The hours as Lium takes them, whole and from the boot on; the exact time is set once the pod runs."""
        return whole_hours(self.hours) if self.hours else None
