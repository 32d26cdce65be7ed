"""What each of several accounts has, by the answers that its callers got, and by the sandbox's own record."""

from dataclasses import dataclass, field
from typing import Final

from lium_mcp.sandbox import Sandbox
from tests.wires import Row

KINDS: Final = ("pod", "template", "volume", "key", "backup")
_ENDS: Final = {
    "remove_pod": "pod",
    "delete_template": "template",
    "delete_volume": "volume",
    "delete_ssh_key": "key",
    "delete_backup": "backup",
}
# Of which property of a thing a tool says something.
_ABOUT: Final = {
    "update_template": "description",
    "update_volume": "description",
    "schedule_pod_removal": "removal",
    "cancel_pod_removal": "removal",
    "set_backup_schedule": "schedule",
    "delete_backup_schedule": "schedule",
}
_NOT_LISTED: Final = {"DELETING", "CREATION_FAILED"}


@dataclass
class Belongings:
    """What one account has, by the answers that its callers got.

    Attributes:
        things: Names by ids, of each kind.
        gone: Ids of what it had.
        unsure: Names and ids of what may or may not be there, or be as it was said: somebody left before an answer.
        rented_by: Which caller rented a pod.
        canaries: Words that nobody else may hear.
    """

    things: dict[str, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    gone: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    unsure: set[str] = field(default_factory=set)
    rented_by: dict[str, str] = field(default_factory=dict)
    canaries: set[str] = field(default_factory=set)
    # What was said last of a property of a thing, and in which round; words of one round may come in any order.
    said: dict[tuple[str, str], tuple[int, set[str]]] = field(default_factory=dict)

    def note(self, tool: str, arguments: Row, thing: str, told: Row, *, by: str, at: int) -> None:
        """Note what a tool has done by its answer, to a thing or to what it made, in which round."""
        if (kind := _ENDS.get(tool)) is not None:
            self.things[kind].pop(thing, None)
            self.gone[kind].add(thing)
        if (about := _ABOUT.get(tool)) is not None:
            earlier_at, words = self.said.get((thing, about), (at, set()))
            word = str(arguments.get("description") or tool)
            self.said[thing, about] = at, ({*words, word} if earlier_at == at else {word})
        made = {
            "rent_pod": ("pod", told.get("pod_id")),
            "create_backup": ("backup", told.get("backup", {}).get("backup_id")),
            "create_template": ("template", told.get("template", {}).get("template_id")),
            "create_volume": ("volume", told.get("volume_id")),
            "add_ssh_key": ("key", told.get("key", {}).get("key_id")),
        }
        kind_made, made_id = made.get(tool, ("", None))
        if made_id is not None and made_id not in self.gone[kind_made]:
            self.things[kind_made][made_id] = str(arguments.get("name", ""))
            if tool == "rent_pod" and not told.get("already_rented", False):
                self.rented_by[made_id] = by


class Truth:
    """What an account of the sandbox really has."""

    def __init__(self, sandbox: Sandbox, account_id: str) -> None:
        state = sandbox.state("pods", "templates", "volumes", "ssh_keys", "backups", "backup_configs")
        self._keys = {key.id: key.secret for key in sandbox._world.keys.values()}

        def own(part: str, owner: str = "account_id") -> list[Row]:
            return [row for row in state[part] if row[owner] == account_id]

        self._pods = own("pods")
        self._backups = own("backups")
        self._schedules = {row["pod_id"] for row in own("backup_configs")}
        self._rows: dict[str, dict[str, Row]] = {
            "pod": {
                row["id"]: row | {"name": row["pod_name"]}
                for row in self._pods
                if row["removed_at"] is None and row["status"] not in _NOT_LISTED
            },
            "template": {row["id"]: row | row["body"] for row in own("templates", "user_id") if not row["hidden"]},
            "volume": {row["id"]: row for row in own("volumes")},
            "key": {row["id"]: row for row in own("ssh_keys")},
        }

    def shown(self, kind: str) -> set[str]:
        """The ids of what a list of that kind shows."""
        return set(self._rows[kind])

    def named(self, kind: str, beginning: str) -> dict[str, str]:
        """The things of that kind whose names begin so."""
        return {id_: row["name"] for id_, row in self._rows[kind].items() if row["name"].startswith(beginning)}

    def differences(self, has: Belongings, secrets: dict[str, str]) -> list[str]:
        """In what it differs from what the account was told."""
        found = []
        for kind, rows in self._rows.items():
            found += [
                f"nobody was told of {kind} {row['name']} ({id_})"
                for id_, row in rows.items()
                if id_ not in has.things[kind] and not {id_, row["name"]} & has.unsure
            ]
            found += [
                f"{kind} {name} ({id_}) is not there"
                for id_, name in has.things[kind].items()
                if id_ not in rows and not {id_, name} & has.unsure
            ]
        made = {row["id"] for row in self._backups}
        found += [f"backup {id_} is not there" for id_ in has.things["backup"] if id_ not in made]
        found += [
            f"pod {row['pod_name']} is charged to the key {row['api_key_name']}"
            for row in self._pods
            if (by := has.rented_by.get(row["id"])) is not None and self._keys[row["api_key_id"]] != secrets[by]
        ]
        for (id_, about), (_, words) in has.said.items():
            row = {key: value for rows in self._rows.values() for key, value in rows.items()}.get(id_)
            if row is None or id_ in has.unsure:
                continue
            if not any(self._is_so(row, about, word) for word in words):
                found.append(f"{about} of {id_} is not {words}")
        return found

    def _is_so(self, row: Row, about: str, word: str) -> bool:
        if about == "removal":
            return (row["removal_scheduled_at"] is None) == word.startswith("cancel")
        if about == "schedule":
            return (row["id"] not in self._schedules) == word.startswith("delete")
        return bool(row["description"] == word)
