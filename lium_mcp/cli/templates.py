"""``lium-mcp templates sync FILE``: a team's templates as a file under version control, for CI.

The file is TOML and says how the templates should be; the account's own templates are brought in line by name. Running
it again changes nothing. Values of environment variables are compared and sent, and never printed.
"""

import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import anyio

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK, Clock
from lium_mcp.api.errors import LiumError
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.templates import Template, TemplateChanges, TemplateCreate
from lium_mcp.cli.console import working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.output import say_wrong, written
from lium_mcp.cli.person_words import in_words
from lium_mcp.cli.readied import read, start_log
from lium_mcp.cli.template_file import BadFile, WantedFile, WantedTemplate, read_file
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
from lium_mcp.values import SettingsError

_AS_WANTED: Final = "Everything is as the file wants it."
_READY_WITHIN_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 5.0
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


_Tell = Callable[[str], None]


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
        with working("Reading your templates, and which pods run on them", in_lines=True):
            plan = await _plan(lium, wanted, bodies, prune=prune)
            pods = await list_with_templates(lium)
    except BadFile as error:
        report.wrong(str(error))
        return ExitStatus.UNUSABLE
    except LiumError as error:
        report.wrong(in_words(error))
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
            self._out.write(f"{self._bare(text)}\n")
            self._out.flush()

    def wrong(self, text: str) -> None:
        say_wrong(self._bare(text))

    def _bare(self, text: str) -> str:
        return hide_values(clean(text), self._values)


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
        failures += await _done(f"create {body.name}", partial(_create, lium, clock, body), report)
    for template, changes, _ in plan.update:
        failures += await _done(f"update {template.name}", partial(_update, lium, clock, template, changes), report)
    for template in plan.delete:
        failures += await _done(f"delete {template.name}", partial(_delete, lium, template), report)
    for template in plan.same:
        # What an earlier run left unfinished or broken is no success now.
        if not template.is_ready:
            failures += await _done(f"verify {template.name}", partial(_until_ready, lium, clock, template), report)
    if failures:
        return ExitStatus.FAILED
    report.line(_AS_WANTED)
    return ExitStatus.OK


async def _done(what: str, step: Callable[[_Tell], Awaitable[None]], report: _Report) -> int:
    report.line(f"begun: {what}")
    try:
        with working(f"{what}: asking Lium", in_lines=True) as tell:
            await step(lambda text: tell(f"{what}: {text}"))
    except (LiumError, _NotApplied) as error:
        why = in_words(error) if isinstance(error, LiumError) else str(error)
        report.line(f"failed: {what}: {why}")
        return 1
    report.line(f"done: {what}")
    return 0


async def _create(lium: LiumClient, clock: Clock, body: TemplateCreate, tell: _Tell) -> None:
    await _until_ready(lium, clock, await lium.templates.create(body), tell)


async def _update(lium: LiumClient, clock: Clock, template: Template, changes: TemplateChanges, tell: _Tell) -> None:
    await _until_ready(lium, clock, await lium.templates.update(template.id, changes), tell)


async def _delete(lium: LiumClient, template: Template, _: _Tell) -> None:
    # Read again: a pod may have been rented since the plan was made.
    if reason := _why_kept(await find_use(lium, template)):
        raise _NotApplied(reason)
    await lium.templates.delete(template.id)


async def _until_ready(lium: LiumClient, clock: Clock, template: Template, tell: _Tell) -> None:
    begun = clock.monotonic()
    deadline = begun + _READY_WITHIN_SECONDS
    while not template.is_ready:
        if template.has_failed:
            raise _NotApplied(
                f"Lium could not start the image: {(template.verification_logs or 'no reason given')[-300:]}"
            )
        if clock.monotonic() > deadline:
            raise _NotApplied(
                f"it is still {state_in_words(template.status)} after {_READY_WITHIN_SECONDS:.0f} seconds"
            )
        minutes = int(clock.monotonic() - begun) // 60
        since = f", {minutes} min so far" if minutes else ""
        tell(f"Lium checks that the image starts; it is {state_in_words(template.status)}{since}")
        await clock.sleep(_POLL_SECONDS)
        template = await lium.templates.get(template.id)


def _why_kept(use: TemplateUse) -> str:
    if use.pods:
        return f"pods run on it: {_named(use.pods)}"
    return f"whether pods run on it is not known: {use.unknown}" if use.unknown else ""


def _named(pods: Iterable[Pod]) -> str:
    return ", ".join(pod.pod_name or pod.id for pod in pods)
