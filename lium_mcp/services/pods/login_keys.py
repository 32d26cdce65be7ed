"""The SSH public keys that a pod is rented with: this machine's own, else those of the account."""

import base64
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from lium_mcp.api.changes import noting_changes
from lium_mcp.api.errors import LiumError
from lium_mcp.api.ssh_keys import bare_keys
from lium_mcp.failures import IN_EXTRAS, Failure
from lium_mcp.services.accounts import Account

_MOST_DESCRIBED: Final = 5
_FORESEE_SECONDS: Final = 5.0
_REGISTER_SECONDS: Final = 3.0
_NOTHING_RENTED: Final = "Nothing was rented."


@dataclass(frozen=True, slots=True)
class PodKeys:
    """What a pod is rented with.

    Attributes:
        public: Kind and base64 of each key; at least one.
        warning: Why this machine could not log in to the pod; None where it could, and where it is not the caller's.
    """

    public: list[str]
    warning: str | None = None


async def find_public_keys(account: Account) -> PodKeys:
    """The keys to put into the pod.

    Raises:
        Failure: nobody could log in: there is no key at all, or none with a private half at this machine, and the
            account has none that its owner could hold elsewhere.
        LiumError: the account's keys could not be read.
    """
    source = account.ssh_keys
    if source is None:  # this machine is not the caller's
        keys = await _registered(account)
        if keys:
            return PodKeys(keys)
        raise Failure(
            "ssh_key_missing",
            "There is no SSH key to put into the pod, so nobody could log in.",
            f"Register a public key of yours on lium.io, or with add_ssh_key {IN_EXTRAS}.",
            effect=_NOTHING_RENTED,
        )
    own = await source.own_keys()
    if own.problem is None:
        return PodKeys(own.public)
    keys = own.public
    if own.is_hopeless or not keys:
        registered = await _registered(account)
        if not registered:
            whose = "at this machine could log in to the pod" if keys else "could log in: there is no key for the pod"
            raise Failure(
                own.problem.code,
                f"Nobody {whose}. {own.problem.happened}",
                f"{own.problem.advice} Or register a public key, whose private half is elsewhere, on lium.io or with "
                f"add_ssh_key {IN_EXTRAS}.",
                effect=_NOTHING_RENTED,
            )
        keys = list(dict.fromkeys([*keys, *registered]))
    return PodKeys(
        keys,
        "This server could not log in to the pod, so neither commands nor files would work from here. "
        f"{own.problem.happened} {own.problem.advice}",
    )


async def describe_keys(account: Account, public: Sequence[str]) -> list[str]:
    """Which keys log in: of each the file of the private half where this machine has it, else the fingerprint."""
    source = account.ssh_keys
    path = source.find_path() if source is not None else None
    is_there = path is not None and await anyio.Path(path).is_file()
    here = bare_keys(await source.public_text()) if source is not None and is_there else []
    return [_short(path) if path and key in here else _fingerprint(key) for key in public[:_MOST_DESCRIBED]]


def _fingerprint(public: str) -> str:
    """What `ssh-keygen -l` calls a key, of its kind and base64."""
    with suppress(ValueError):
        blob = base64.b64decode(public.split()[1], validate=True)
        return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"
    return public.split(maxsplit=1)[0]


def _short(path: Path) -> str:
    """A path without the name of whose home it is in."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


async def foresee_login(account: Account) -> str | None:
    """What would stand in the way of logging in to a pod that is rented now; None where nothing is known to."""
    try:
        with suppress(LiumError), anyio.move_on_after(_FORESEE_SECONDS):
            return (await find_public_keys(account)).warning
    except Failure as refusal:
        return f"rent_pod would refuse: {refusal.happened} {refusal.advice}"
    return None


async def register_public_keys(account: Account) -> None:
    """Register this machine's public keys with the account, for pods that are rented elsewhere; best effort.

    It is no change that the call was asked for, so none that its failure has to speak of.
    """
    source = account.ssh_keys
    with suppress(LiumError), anyio.move_on_after(_REGISTER_SECONDS), noting_changes():
        own = await source.own_keys() if source is not None else None
        if own is None or own.problem is not None:
            return
        known = await _registered(account)
        for key in own.public:
            if key not in known:
                # The name does not tell the machine's, which is nobody's business.
                name = f"lium-mcp-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
                await account.lium.ssh_keys.create(name=name, public_key=key)


async def _registered(account: Account) -> list[str]:
    rows = await account.lium.ssh_keys.list()
    return list(dict.fromkeys(key for row in rows for key in bare_keys(row.public_key)))
