"""``lium-mcp templates sync FILE``: a team's templates as a file under version control, for CI.

The file is TOML and says how the templates should be; the account's own templates are brought in line by name. Running
it again changes nothing. Values of environment variables are compared and sent, and never printed.
"""

import os
import sys
import tomllib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lium_mcp.api import Clock, LiumClient, LiumError, Pod, Template, TemplateChanges, TemplateCreate
from lium_mcp.tools.templates import image_of, split_image

IN_SYNC: Final = 0
FAILED: Final = 1
BAD_FILE: Final = 2
DIFFERS: Final = 3

_READY_WITHIN_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 5.0
_MOST_FILE_BYTES: Final = 2**20


class WantedTemplate(BaseModel):
    """One template as the file wants it. `environment_from` takes values from variables of the CI's environment."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=100)
    image: str = Field(min_length=1, max_length=500)
    description: str = ""
    ports: list[int] = [22, 8000]
    volumes: list[str] = ["/workspace"]
    environment: dict[str, str] = Field(default_factory=dict, repr=False)
    environment_from: dict[str, str] = Field(default_factory=dict)
    startup_commands: str = ""
    entrypoint: str = ""
    private: bool = True
    category: str = "UBUNTU"
    registry_credential: str = ""


class WantedFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    template: list[WantedTemplate] = []


class BadFile(Exception):
    """The file cannot be read; the sentence says what is wrong with it."""


@dataclass(slots=True)
class Plan:
    """What a sync would do."""

    create: list[TemplateCreate] = field(default_factory=list)
    update: list[tuple[Template, TemplateChanges, list[str]]] = field(default_factory=list)
    delete: list[Template] = field(default_factory=list)
    same: list[Template] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether everything is as the file wants it."""
        return not (self.create or self.update or self.delete)


def read_file(path: Path) -> WantedFile:
    """Read a file of templates.

    Raises:
        BadFile: it is no such file; the field is named.
    """
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise BadFile(f"{path} is larger than {_MOST_FILE_BYTES} bytes")
        wanted = WantedFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(f"{path}: {error}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
        raise BadFile(f"{path}: {'; '.join(problems)}") from None
    names = [template.name for template in wanted.template]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadFile(f"{path}: named twice: {', '.join(twice)}")
    return wanted


async def sync(
    lium: LiumClient, clock: Clock, path: Path, *, dry_run: bool = False, prune: bool = False, out: TextIO | None = None
) -> int:
    """Bring the account's own templates in line with a file.

    Returns:
        The exit status: IN_SYNC, FAILED, BAD_FILE, or DIFFERS for a dry run that found differences.
    """
    out = out or sys.stdout
    try:
        wanted = read_file(path)
        plan, pods = await _plan(lium, wanted, prune=prune)
    except BadFile as error:
        out.write(f"{error}\n")
        return BAD_FILE
    except LiumError as error:
        out.write(f"{error} {error.advice}\n")
        return FAILED
    _show(plan, pods, out)
    if dry_run or plan.is_empty:
        return IN_SYNC if plan.is_empty else DIFFERS
    return await _apply(lium, clock, plan, pods, out)


async def _plan(lium: LiumClient, wanted: WantedFile, *, prune: bool) -> tuple[Plan, list[Pod]]:
    owner = (await lium.account.me()).id
    mine = [template for template in await lium.templates.list() if template.user_id == owner]
    mine = [template for template in mine if not template.is_temporary and not template.one_time_template]
    plan = Plan()
    credentials = (
        {item.docker_username: item.id for item in await lium.docker_credentials.list()}
        if any(template.registry_credential for template in wanted.template)
        else {}
    )
    for template in wanted.template:
        body = _body(template, credentials)
        current = [item for item in mine if item.name == template.name]
        if len(current) > 1:
            raise BadFile(f"{len(current)} of your templates are named {template.name}: rename or delete all but one")
        if not current:
            plan.create.append(body)
            continue
        changes, names = _difference(current[0], body)
        if names:
            plan.update.append((current[0], changes, names))
        else:
            plan.same.append(current[0])
    if prune:
        named = {template.name for template in wanted.template}
        plan.delete = [template for template in mine if template.name not in named]
    return plan, list(await lium.pods.list())


def _body(wanted: WantedTemplate, credentials: dict[str, str]) -> TemplateCreate:
    repository, tag = split_image(wanted.image)
    environment = dict(wanted.environment)
    for name, variable in wanted.environment_from.items():
        if variable not in os.environ:
            raise BadFile(f"{wanted.name}: the environment has no variable {variable}")
        environment[name] = os.environ[variable]
    if wanted.registry_credential and wanted.registry_credential not in credentials:
        raise BadFile(f"{wanted.name}: no registry login is stored for {wanted.registry_credential}")
    return TemplateCreate(
        name=wanted.name,
        docker_image=repository,
        docker_image_tag=tag,
        description=wanted.description or wanted.name,
        internal_ports=wanted.ports,
        volumes=wanted.volumes,
        environment=environment,
        startup_commands=wanted.startup_commands,
        entrypoint=wanted.entrypoint,
        is_private=wanted.private,
        category=wanted.category,
        docker_credential_id=credentials.get(wanted.registry_credential),
    )


_COMPARED: Final = (
    "docker_image",
    "docker_image_tag",
    "description",
    "internal_ports",
    "volumes",
    "environment",
    "startup_commands",
    "entrypoint",
    "is_private",
    "category",
    "docker_credential_id",
)


def _difference(current: Template, wanted: TemplateCreate) -> tuple[TemplateChanges, list[str]]:
    changed = {}
    for name in _COMPARED:
        want, have = getattr(wanted, name), getattr(current, name)
        have = list(have) if isinstance(have, tuple) else have
        # The API writes an absent text, list or mapping in several ways.
        if want is not None and (have or type(want)()) != want:
            changed[name] = want
    return TemplateChanges(**changed), list(changed)


def _show(plan: Plan, pods: list[Pod], out: TextIO) -> None:
    out.writelines(f"+ create {body.name}\n" for body in plan.create)
    for template, _, names in plan.update:
        rebooting = [pod.pod_name for pod in pods if _runs(pod, template)]
        note = f"; reboots {', '.join(rebooting)}" if rebooting else ""
        out.write(f"~ update {template.name}: {', '.join(names)}{note}\n")
    for template in plan.delete:
        out.write(f"- delete {template.name} ({image_of(template)})\n")
    for template in plan.same:
        out.write(f"= same   {template.name}\n")
    if plan.is_empty:
        out.write("Everything is as the file wants it.\n")


async def _apply(lium: LiumClient, clock: Clock, plan: Plan, pods: list[Pod], out: TextIO) -> int:
    failures = 0
    for body in plan.create:
        failures += await _done(f"create {body.name}", _create(lium, clock, body), out)
    for template, changes, _ in plan.update:
        failures += await _done(f"update {template.name}", _update(lium, clock, template, changes), out)
    for template in plan.delete:
        failures += await _done(f"delete {template.name}", _delete(lium, template, pods), out)
    return FAILED if failures else IN_SYNC


class _NotApplied(Exception):
    pass


async def _done(what: str, step: Awaitable[None], out: TextIO) -> int:
    try:
        await step
    except (LiumError, _NotApplied) as error:
        out.write(f"failed: {what}: {error}\n")
        return 1
    out.write(f"done: {what}\n")
    return 0


async def _create(lium: LiumClient, clock: Clock, body: TemplateCreate) -> None:
    await _until_ready(lium, clock, await lium.templates.create(body))


async def _update(lium: LiumClient, clock: Clock, template: Template, changes: TemplateChanges) -> None:
    await _until_ready(lium, clock, await lium.templates.update(template.id, changes))


async def _delete(lium: LiumClient, template: Template, pods: list[Pod]) -> None:
    if users := [pod.pod_name for pod in pods if _runs(pod, template)]:
        raise _NotApplied(f"pods run on it: {', '.join(users)}")
    await lium.templates.delete(template.id)


async def _until_ready(lium: LiumClient, clock: Clock, template: Template) -> None:
    deadline = clock.monotonic() + _READY_WITHIN_SECONDS
    while not template.is_ready:
        if template.has_failed:
            raise _NotApplied(
                f"Lium could not start the image: {(template.verification_logs or 'no reason given')[-300:]}"
            )
        if clock.monotonic() > deadline:
            raise _NotApplied(f"it is still {template.status} after {_READY_WITHIN_SECONDS:.0f} seconds")
        await clock.sleep(_POLL_SECONDS)
        template = await lium.templates.get(template.id)


def _runs(pod: Pod, template: Template) -> bool:
    return bool(pod.template and pod.template.id == template.id)
