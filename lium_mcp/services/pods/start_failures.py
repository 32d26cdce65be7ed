"""Why a pod did not start, and what to do about it: Lium only names the step that failed, or a code."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from lium_mcp.failures import IN_EXTRAS


class Meaning(NamedTuple):
    """What a failure was, in a sentence, and what to do about it; a removal leaves nothing to remove."""

    what: str
    advice: str
    is_removal: bool = False


_WORD: Final = re.compile(r"[A-Za-z_]+")

_CHOOSE_ANOTHER_NODE: Final = "Nothing of yours is at fault: choose another node."
_MAIN_PROCESS: Final = (
    "Its image needs a command that goes on running: look at get_pod_logs, and at entrypoint and startup_commands with "
    "get_template."
)
_BUILD: Final = "Read get_pod_logs, which keeps the output of the build, and correct the Dockerfile."
_KEYS: Final = (
    f"Have a whole public key registered, on lium.io or with add_ssh_key {IN_EXTRAS}, and choose another node."
)
_ROOM: Final = "Choose a node with more free disk: min_disk_gb in list_gpus and rent_pod."

# Codes that count only where a step, or another code, does not say it better.
_VAGUE: Final = "UnknownError ExceptionError FailedMsgFromMiner"
_REMOVAL: Final = "cancelled_by_delete DeletionInProgress"
# What went wrong, what to do, and the steps and codes that say so.
_MEANINGS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "The node had too few free ports",
        "Choose another node, or a template with fewer ports.",
        "port_mapping NoPortMappings",
    ),
    ("The node could not prove what it is", _CHOOSE_ANOTHER_NODE, "attestation AttestationError"),
    (
        "Lium could not reach the node or was refused by it",
        _CHOOSE_ANOTHER_NODE,
        "ssh_connect ExecutorUnreachable InvalidExecutorId",
    ),
    (
        "The image's registry refused the login",
        "Correct the template's registry_credential with update_template.",
        "docker_login",
    ),
    (
        "The image could not be pulled",
        "Check with get_template that the image and its tag exist and need no login; if they do, choose another node.",
        "docker_pull",
    ),
    ("The Dockerfile could not be built", _BUILD, "docker_build"),
    ("The node has no room for the volume", _ROOM, "volume_sizing volume_creation"),
    (
        "The backup could not be restored at the start",
        "Rent without backup_id, then call restore_backup.",
        "bootstrap_restore",
    ),
    (
        "The volume could not be attached",
        "Look with list_volumes whether it is free; choose another node, or rent without it.",
        "external_volume_creation ExternalVolumeFailed",
    ),
    ("The node's GPUs could not be given to the pod", _CHOOSE_ANOTHER_NODE, "gpu_flags"),
    (
        "The container ended as soon as it had started",
        _MAIN_PROCESS,
        "docker_run container_health_check killed_during_bootstrap ContainerNotRunning ContainerVanished",
    ),
    (
        "The container ran out of memory as it started",
        "Choose a node with more memory (min_ram_gb), or let its command take less.",
        "oom_during_bootstrap",
    ),
    (
        "The encrypted volume could not be set up",
        "Choose another node, or a template without support for encryption.",
        "encrypted_volume_setup",
    ),
    ("No SSH login could be set up in the pod", _KEYS, "add_public_keys ssh_bootstrap NoSshKeys"),
    (
        "Jupyter could not be set up",
        "Choose another node, or a template that leaves port 8888 to Jupyter.",
        "jupyter_setup NoJupyterPortMapping",
    ),
    ("Its removal was ordered while it was starting", "Rent again if you want it.", _REMOVAL),
    (
        "Another rent takes the node just now",
        "Rent it again in a minute, or choose another node.",
        "RentingInProgress",
    ),
    ("The node failed at a step of its own", _CHOOSE_ANOTHER_NODE, "container_cleanup set_environment finalize"),
    (
        "Lium does not say what went wrong",
        "Choose another node; if it fails there too, another template.",
        _VAGUE,
    ),
)
_BY_WORD: Final = {
    word: Meaning(f"{what} ({word}).", advice, is_removal=words == _REMOVAL)
    for what, advice, words in _MEANINGS
    for word in words.split()
}
# Steps that are words of everyday English too: they count only where nothing else is said.
_EVERYDAY: Final = {"attestation", "finalize"}


def explain(texts: Iterable[str]) -> Meaning | None:
    """What the step or code named in these texts means, of several the clearest one; None where they name none."""
    split = [_WORD.findall(text) for text in texts]
    named = [word for words in split for word in words if _means(word) and (word not in _EVERYDAY or len(words) == 1)]
    return _means(min(named, key=lambda word: word in _VAGUE.split())) if named else None


def _means(word: str) -> Meaning | None:
    if word.startswith("build_"):
        return Meaning(f"The Dockerfile could not be built ({word}).", _BUILD)
    return _BY_WORD.get(word)
