"""What a caller wants to rent: the first of the carriers of a rent, before anything is known of the market."""

from typing import Annotated, Final

from pydantic import Field

from lium_mcp.failures import Failure
from lium_mcp.inputs import OFFICIAL, FilePath, ShortText
from lium_mcp.rentals import digest
from lium_mcp.services.rents.offers import Filters
from lium_mcp.settings_table import LEAST_HOURS, MOST_HOURS

_MOST_PODS: Final = 20
_MOST_NAME_CHARACTERS: Final = 200
_ALWAYS_IN_DIGEST: Final = frozenset(
    "name executor_id gpu_type gpu_count template volume backup_id hours enable_backups max_usd_per_gpu_hour "  # noqa: SIM905 - names
    "min_vram_gb min_ram_gb min_disk_gb country docker_in_docker".split()
)
"""The parameters that every version has, whose absence is in the digests of rents that the ledger holds."""


class Wish(Filters):
    """What a caller wants to rent: the parameters of `rent_pod`."""

    name: Annotated[ShortText, Field(min_length=1, description="Unique pod name.")]
    count: Annotated[
        int | None,
        Field(ge=1, le=_MOST_PODS, description="So many pods: name-1 to name-n. Again: those missing or removed."),
    ] = None
    executor_id: Annotated[ShortText, Field(description="Node from list_gpus.")] = ""
    gpu_count: Annotated[int | None, Field(ge=1, description="Default 1, or the fewest that executor_id rents.")] = None
    template: Annotated[ShortText, Field(description="Id, or name of your own.")] = ""
    volume: Annotated[ShortText, Field(description="Mounted at /mnt.")] = ""
    backup_id: Annotated[ShortText, Field(description="Restored at start.")] = ""
    restore_path: Annotated[FilePath, Field(description="New folder in the local volume for it.")] = ""
    hours: Annotated[float | None, Field(ge=LEAST_HOURS, le=MOST_HOURS, description="Lium removes it then.")] = None
    max_total_usd: Annotated[
        float | None,
        Field(
            gt=0,
            description="For all of it, every pod together, also those of the name gone for up to 6 hours: the most "
            "whole hours that fit, 6 minutes spare. left_of_total_usd is what remains even so.",
        ),
    ] = None
    enable_backups: Annotated[bool, OFFICIAL] = True

    def check(self) -> None:
        """Refuse what no request could carry; a constraint is never dropped in silence."""
        if self.restore_path and not self.backup_id:
            raise Failure(
                "invalid_argument", "restore_path is where backup_id is restored.", "Give both, or leave it out."
            )
        if not self.executor_id and not self.given and self.max_total_usd is None:
            raise Failure(
                "invalid_argument",
                "Nothing says what to rent.",
                "Name a GPU model with gpu_type, a node with executor_id, or a filter: then it is the cheapest that "
                "meets it.",
            )
        if not self.is_batch:
            return
        if self.volume:
            raise Failure(
                "invalid_argument",
                "A volume is attached to one pod at a time, so count and volume do not go together.",
                "Leave volume out, or restore a backup into each pod with backup_id.",
            )
        if len(self.pod_names[-1]) > _MOST_NAME_CHARACTERS:
            raise Failure("invalid_argument", "The name is too long to be numbered.", "Choose a shorter one.")

    @property
    def is_batch(self) -> bool:
        """Whether it is for several pods."""
        return (self.count or 1) > 1

    @property
    def pod_names(self) -> list[str]:
        """The names of its pods."""
        return [f"{self.name}-{number}" for number in range(1, (self.count or 1) + 1)] if self.is_batch else [self.name]

    @property
    def all_names(self) -> list[str]:
        """The name, and those that its pods have with any `count`."""
        return [self.name, *(f"{self.name}-{number}" for number in range(1, _MOST_PODS + 1))]

    def of_one(self, name: str) -> "Wish":
        """The wish for the pod of this name alone."""
        return self.model_copy(update={"name": name, "count": None})

    @property
    def digest(self) -> str:
        """A digest of the whole wish, by which the ledger recognizes the same call.

        A parameter that another version of this program does not have is in it only where it is given. How many pods
        are wanted changes nothing of what each of them is, so that more of the same can be had later.
        """
        said = self.model_dump(mode="json", exclude={"count"})
        return digest({name: said[name] for name in said if name in _ALWAYS_IN_DIGEST or said[name]})

    @property
    def for_one_node(self) -> Filters:
        """What a node must have that is picked from the market: one GPU where no number was said."""
        return self.model_copy(update={"gpu_count": self.gpu_count or 1})
