"""``lium-mcp templates sync FILE``: a team's templates as a file under version control, for CI.

The file is TOML and says how the templates should be; the account's own templates are brought in line by name. Running
it again changes nothing. Values of environment variables are compared and sent, and never printed.
"""

import os
import re
import sys
import tomllib
from collections.abc import Awaitable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TextIO

import anyio
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK, Clock
from lium_mcp.api.errors import LiumError
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.templates import Template, TemplateChanges, TemplateCreate
from lium_mcp.cli.console import working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.output import written
from lium_mcp.cli.person_words import in_words
from lium_mcp.cli.readied import read, start_log
from lium_mcp.connecting import connect
from lium_mcp.results import state_in_words
from lium_mcp.services.pods.dropped_settings import SSH_PORT, dropped_settings
from lium_mcp.services.templates.images import image_of, is_image, split_image
from lium_mcp.services.templates.template_details import hide_values
from lium_mcp.services.templates.template_use import (
    TemplateUse,
    find_use,
    list_with_templates,
    reboots_among,
    use_among,
)
from lium_mcp.text import clean
from lium_mcp.values import SettingsError, decoded, file_problems

_AS_WANTED: Final = "Everything is as the file wants it."
_READY_WITHIN_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 5.0
_MOST_FILE_BYTES: Final = 2**20
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMPARED: Final = (
    "description",
    "volumes",
    "environment",
    "startup_commands",
    "entrypoint",
    "is_private",
    "category",
    "docker_credential_id",
)


def _printable(text: str) -> str:
    if clean(text) != text or text.strip() != text or "\n" in text:
        raise ValueError("begins or ends with a blank, or holds control or invisible characters")
    return text


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("is not the name of a variable")
    return name


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("is not an absolute path")
    return path


TextLine = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]
VariableName = Annotated[str, AfterValidator(_variable)]


class WantedTemplate(BaseModel):
    """One template as the file wants it. `environment_from` takes values from variables of the CI's environment."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    name: Annotated[TextLine, Field(max_length=100)]
    image: TextLine
    description: str = ""
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] = [22, 8000]
    volumes: Annotated[list[Annotated[str, AfterValidator(_absolute)]], Field(min_length=1)] = ["/workspace"]
    environment: dict[VariableName, str] = Field(default_factory=dict, repr=False)
    environment_from: dict[VariableName, VariableName] = Field(default_factory=dict)
    startup_commands: str = Field(default="", repr=False)
    entrypoint: str = Field(default="", repr=False)
    private: bool = True
    category: Literal["DOCKER", "PYTORCH", "NVIDIA", "TENSOR_FLOW", "OPEN_AI", "UBUNTU"] = "UBUNTU"
    registry_credential: str = ""

    @model_validator(mode="after")
    def _one_source_for_each_variable(self) -> "WantedTemplate":
        if twice := sorted(self.environment.keys() & self.environment_from.keys()):
            raise ValueError(f"both environment and environment_from set {', '.join(twice)}")
        return self


class WantedFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    template: list[WantedTemplate] = []


class BadFile(Exception):
    """The file cannot be used; the sentence says what is wrong with it."""


class _NotApplied(Exception):
    """A step of a sync was not done; the sentence says why."""


@dataclass(slots=True)
class SyncPlan:
    """What a sync would do."""

    create: list[TemplateCreate] = field(default_factory=list)
    update: list[tuple[Template, TemplateChanges, list[str]]] = field(default_factory=list)
    delete: list[Template] = field(default_factory=list)
    same: list[Template] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether everything is as the file wants it."""
        return not (self.create or self.update or self.delete)


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    own = {name: options.pop(name) for name in ("file", "dry_run", "prune")}
    settings = read(options)
    if settings.read_only and not own["dry_run"]:
        raise SettingsError(
            "LIUM_MCP_READ_ONLY: nothing may be changed while it is set: add --dry-run, or take it away"
        )
    start_log(settings)

    async def bring_in_line() -> int:
        async with connect(settings) as lium:
            return await sync(lium, SYSTEM_CLOCK, own["file"], dry_run=own["dry_run"], prune=own["prune"])

    return anyio.run(bring_in_line)


def read_file(path: Path) -> WantedFile:
    """Read a file of templates.

    Raises:
        BadFile: it is no such file; the field is named.
    """
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise BadFile(f"{path} is larger than {_MOST_FILE_BYTES} bytes")
        wanted = WantedFile.model_validate(tomllib.loads(decoded(path.read_bytes())))
    except UnicodeError as error:
        raise BadFile(f"{path}: it is not UTF-8 text") from error
    except (OSError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadFile(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
    except ValidationError as error:
        problems = file_problems(error.errors(include_input=False), _keys_at)
        raise BadFile(f"{path}: {problems}") from None
    names = [template.name for template in wanted.template]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadFile(f"{path}: named twice: {', '.join(twice)}")
    return wanted


def _keys_at(place: tuple[int | str, ...]) -> Collection[str]:
    return (WantedFile if len(place) == 1 else WantedTemplate).model_fields


async def sync(
    lium: LiumClient, clock: Clock, path: Path, *, dry_run: bool = False, prune: bool = False, out: TextIO | None = None
) -> int:
    """Bring the account's own templates in line with a file, and say on `out` (standard output) what was done.

    Returns:
        The exit status; UNUSABLE where the file cannot be used, DIFFERS for a dry run that found differences.
    """
    report = _Report(out or sys.stdout)
    try:
        wanted = read_file(path)
        bodies = [_body(template) for template in wanted.template]
        report.hide(value for body in bodies for value in body.environment.values())
        plan = await _plan(lium, wanted, bodies, prune=prune)
        pods = await list_with_templates(lium)
    except BadFile as error:
        report.line(str(error))
        return ExitStatus.UNUSABLE
    except LiumError as error:
        report.line(in_words(error))
        return ExitStatus.FAILED
    _show(plan, pods, report)
    if dry_run:
        if any(template.has_failed for template in plan.same):
            return ExitStatus.FAILED
        if not plan.is_empty:
            return ExitStatus.DIFFERS
        # One whose image is still checked may yet fail.
        if all(template.is_ready for template in plan.same):
            report.line(_AS_WANTED)
        return ExitStatus.OK
    return await _apply(lium, clock, plan, report)


class _Report:
    """Prints lines that hold no control characters and no value of an environment variable."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._values: set[str] = set()

    def hide(self, values: Iterable[str]) -> None:
        self._values.update(values)

    def line(self, text: str) -> None:
        with written():
            self._out.write(f"{hide_values(clean(text), self._values)}\n")
            self._out.flush()


async def _plan(lium: LiumClient, wanted: WantedFile, bodies: list[TemplateCreate], *, prune: bool) -> SyncPlan:
    owner = (await lium.account.me()).id
    mine = [template for template in await lium.templates.list() if template.user_id == owner]
    mine = [template for template in mine if not template.is_temporary and not template.one_time_template]
    plan = SyncPlan()
    credentials = await _credentials(lium, {template.registry_credential for template in wanted.template} - {""})
    for template, bare in zip(wanted.template, bodies, strict=True):
        body = bare.model_copy(update={"docker_credential_id": credentials.get(template.registry_credential)})
        current = [item for item in mine if item.name == template.name]
        if len(current) > 1:
            raise BadFile(f"{len(current)} of your templates are named {template.name}: rename or delete all but one")
        if not current:
            plan.create.append(body)
            continue
        changes, names = _difference(current[0], template, body)
        if names:
            plan.update.append((current[0], changes, names))
        else:
            plan.same.append(current[0])
    if prune and not wanted.template:
        raise BadFile("The file names no template: refusing to delete all there are")
    if prune:
        named = {template.name for template in wanted.template}
        plan.delete = [template for template in mine if template.name not in named]
    return plan


async def _credentials(lium: LiumClient, users: set[str]) -> dict[str, str]:
    stored = await lium.docker_credentials.list() if users else ()
    found: dict[str, str] = {}
    for user in sorted(users):
        ids = [item.id for item in stored if item.docker_username == user]
        if len(ids) != 1:
            raise BadFile(f"{len(ids) or 'no'} registry logins are stored for {user}: there must be one")
        found[user] = ids[0]
    return found


def _body(wanted: WantedTemplate) -> TemplateCreate:
    repository, tag = split_image(wanted.image)
    environment = dict(wanted.environment)
    for name, variable in wanted.environment_from.items():
        if variable not in os.environ:
            raise BadFile(f"{wanted.name}: the environment has no variable {variable}")
        environment[name] = os.environ[variable]
    body = TemplateCreate(
        name=wanted.name,
        docker_image=repository,
        docker_image_tag=tag,
        description=wanted.description or wanted.name,
        internal_ports=sorted({SSH_PORT, *wanted.ports}),
        volumes=wanted.volumes,
        environment=environment,
        startup_commands=wanted.startup_commands,
        entrypoint=wanted.entrypoint,
        is_private=wanted.private,
        category=wanted.category,
    )
    if sentences := dropped_settings(body):
        raise BadFile(f"{wanted.name}: {' '.join(sentences)}")
    return body


def _difference(current: Template, wanted: WantedTemplate, body: TemplateCreate) -> tuple[TemplateChanges, list[str]]:
    changed: dict[str, object] = {}
    names: list[str] = []
    if not is_image(current, wanted.image):
        # An old digest would hold on to the old image.
        changed |= {"docker_image": body.docker_image, "docker_image_tag": body.docker_image_tag}
        changed["docker_image_digest"] = ""
        names.append("image")
    if sorted(set(current.internal_ports or ())) != body.internal_ports:
        changed["internal_ports"] = body.internal_ports
        names.append("ports")
    for name in _COMPARED:
        want, have = getattr(body, name), getattr(current, name)
        have = list(have) if isinstance(have, tuple) else have
        # The API writes an absent text, list or mapping in several ways.
        if want is not None and (have or type(want)()) != want:
            changed[name] = want
            names.append(name)
    return TemplateChanges.model_validate(changed), names


def _show(plan: SyncPlan, pods: Rows[Pod], report: _Report) -> None:
    for body in plan.create:
        report.line(f"+ create {body.name}")
    for template, _, names in plan.update:
        use = reboots_among(pods, template)
        note = f"; reboots {_named(use.pods)}" if use.pods else ""
        note += f"; may reboot others: {use.unknown}" if use.unknown else ""
        report.line(f"~ update {template.name}: {', '.join(names)}{note}")
    for template in plan.delete:
        reason = _why_kept(use_among(pods, template))
        note = f"; refused, {reason}" if reason else ""
        report.line(f"- delete {template.name} ({image_of(template)}){note}")
    for template in plan.same:
        report.line(f"= same   {template.name}{'' if template.is_ready else f' ({template.status})'}")


async def _apply(lium: LiumClient, clock: Clock, plan: SyncPlan, report: _Report) -> int:
    failures = 0
    for body in plan.create:
        failures += await _done(f"create {body.name}", _create(lium, clock, body), report)
    for template, changes, _ in plan.update:
        failures += await _done(f"update {template.name}", _update(lium, clock, template, changes), report)
    for template in plan.delete:
        failures += await _done(f"delete {template.name}", _delete(lium, template), report)
    for template in plan.same:
        # What an earlier run left unfinished or broken is no success now.
        if not template.is_ready:
            failures += await _done(f"verify {template.name}", _until_ready(lium, clock, template), report)
    if failures:
        return ExitStatus.FAILED
    report.line(_AS_WANTED)
    return ExitStatus.OK


async def _done(what: str, step: Awaitable[None], report: _Report) -> int:
    report.line(f"begun: {what}")
    try:
        with working(what):
            await step
    except (LiumError, _NotApplied) as error:
        why = in_words(error) if isinstance(error, LiumError) else str(error)
        report.line(f"failed: {what}: {why}")
        return 1
    report.line(f"done: {what}")
    return 0


async def _create(lium: LiumClient, clock: Clock, body: TemplateCreate) -> None:
    await _until_ready(lium, clock, await lium.templates.create(body))


async def _update(lium: LiumClient, clock: Clock, template: Template, changes: TemplateChanges) -> None:
    await _until_ready(lium, clock, await lium.templates.update(template.id, changes))


async def _delete(lium: LiumClient, template: Template) -> None:
    # Read again: a pod may have been rented since the plan was made.
    if reason := _why_kept(await find_use(lium, template)):
        raise _NotApplied(reason)
    await lium.templates.delete(template.id)


async def _until_ready(lium: LiumClient, clock: Clock, template: Template) -> None:
    deadline = clock.monotonic() + _READY_WITHIN_SECONDS
    while not template.is_ready:
        if template.has_failed:
            raise _NotApplied(
                f"Lium could not start the image: {(template.verification_logs or 'no reason given')[-300:]}"
            )
        if clock.monotonic() > deadline:
            raise _NotApplied(
                f"it is still {state_in_words(template.status)} after {_READY_WITHIN_SECONDS:.0f} seconds"
            )
        await clock.sleep(_POLL_SECONDS)
        template = await lium.templates.get(template.id)


def _why_kept(use: TemplateUse) -> str:
    if use.pods:
        return f"pods run on it: {_named(use.pods)}"
    return f"whether pods run on it is not known: {use.unknown}" if use.unknown else ""


def _named(pods: Iterable[Pod]) -> str:
    return ", ".join(pod.pod_name or pod.id for pod in pods)
