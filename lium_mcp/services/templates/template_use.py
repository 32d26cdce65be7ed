"""Which pods run on a template. One of which Lium does not say what it runs on may run on any."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import LiumError
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.templates import Template
from lium_mcp.failures import IN_EXTRAS, Failure
from lium_mcp.services.targets import is_id, listed, names

_MOST_READ: Final = 10


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """What runs on a template.

    Attributes:
        pods: Those that run on it.
        maybe: Living pods of which Lium does not say what they run on.
        unknown: What is not known, as the end of a sentence; empty where all is.
    """

    pods: Sequence[Pod]
    maybe: Sequence[Pod]
    unknown: str


async def list_with_templates(lium: LiumClient) -> Rows[Pod]:
    """The pods; one of which the list does not say what it runs on, as its own record shows it.

    Raises:
        LiumError: the pods could not be listed.
    """
    pods = await lium.pods.list()
    silent = [at for at, pod in enumerate(pods) if pod.is_alive and not any(map(is_id, pod.template_ids))]
    for at in silent[:_MOST_READ]:
        with suppress(LiumError):  # then it stays unknown
            pods[at] = await lium.pods.get(pods[at].id)
    return pods


def use_among(pods: Rows[Pod], template: Template) -> TemplateUse:
    """What runs on a template, given the pods as `list_with_templates` shows them."""
    uses = [(pod, names(pod.template_ids, template.id)) for pod in pods]
    maybe = [pod for pod, runs_on_it in uses if runs_on_it is None and pod.is_alive]
    unknown = ""
    if maybe:
        unknown = f"Lium does not say which template these run on: {listed(maybe)}"
    elif pods.skipped or pods.truncated:
        unknown = "part of Lium's list of pods could not be read"
    return TemplateUse([pod for pod, runs_on_it in uses if runs_on_it], maybe, unknown)


def reboots_among(pods: Rows[Pod], template: Template) -> TemplateUse:
    """As `use_among`, without the pods that are being removed: a change of the template means nothing to those."""
    return use_among(pods.where(lambda pod: pod.is_alive and not pod.is_being_removed), template)


async def find_use(lium: LiumClient, template: Template) -> TemplateUse:
    """Find out which pods run on a template now.

    Raises:
        LiumError: the pods could not be listed.
    """
    return use_among(await list_with_templates(lium), template)


async def find_reboots(lium: LiumClient, template: Template) -> TemplateUse:
    """Find out which pods a change of a template reboots.

    Raises:
        LiumError: the pods could not be listed.
    """
    return reboots_among(await list_with_templates(lium), template)


async def refuse_used(lium: LiumClient, template: Template) -> None:
    """Refuse to delete a template that a pod runs on, or may.

    Raises:
        Failure: one does, or what Lium says of the pods does not tell.
        LiumError: the pods could not be listed.
    """
    use = await find_use(lium, template)
    if use.pods:
        raise Failure(
            "template_in_use",
            f"Template {template.name} is used by {len(use.pods)} of your pods: {listed(use.pods)}.",
            f"Remove those pods first, or give them another template with switch_pod_template {IN_EXTRAS}.",
        )
    if use.unknown:
        raise Failure(
            "template_use_unknown",
            f"Whether a pod runs on template {template.name} ({template.id}) is not known: {use.unknown}.",
            "Try again in a minute. If that lasts, a person can look on lium.io and delete it there.",
        )
