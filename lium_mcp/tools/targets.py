"""From what a caller names to the one thing it means. Two matches are an error, never a guess."""

from lium_mcp.api import NotFound, Pod, PodDetail, Template
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure

_MOST_NAMED_IN_AN_ERROR = 10


async def find_pod(call: Call, named: str) -> Pod:
    """The pod with this id, or the only one with this name or huid.

    Raises:
        ToolFailure: there is none, or there are several.
        LiumError: the pods could not be listed.
    """
    named = named.strip()
    pods = await call.lium.pods.list()
    for pod in pods:
        if pod.id == named:
            return pod
    matches = [pod for pod in pods if named in (pod.pod_name, pod.huid)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ToolFailure(
            "ambiguous_name", f"{len(matches)} pods are named {named}: {_listed(matches)}.", "Name the pod by its id."
        )
    raise ToolFailure(
        "pod_not_found",
        f"No pod is named {named[:100]}." if pods else f"No pod is named {named[:100]}; the account has no pods.",
        f"The account has: {_listed(pods)}." if pods else "list_pods shows pods; rent_pod rents one.",
    )


async def find_pod_detail(call: Call, named: str) -> PodDetail:
    """As `find_pod`, and read in detail. A pod that is being removed is found by its id only."""
    try:
        pod_id = (await find_pod(call, named)).id
    except ToolFailure as failure:
        # The list leaves out pods that are being removed, which still answer by id.
        if failure.code != "pod_not_found" or len(named.strip()) != len("00000000-0000-0000-0000-000000000000"):
            raise
        try:
            return await call.lium.pods.get(named.strip())
        except NotFound:
            raise failure from None
    return await call.lium.pods.get(pod_id)


async def find_template(call: Call, named: str) -> Template:
    """The template with this id, or the only one of the account's own with this name or huid.

    Other people choose the names of their templates, so those are taken by id only.

    Raises:
        ToolFailure: there is none, or there are several.
        LiumError: the templates could not be read.
    """
    named = named.strip()
    templates = await call.lium.templates.list()
    for template in templates:
        if template.id == named:
            return template
    owner = (await call.lium.account.me()).id
    matches = [item for item in templates if item.user_id == owner and named in (item.name, item.huid)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(item.id for item in matches[:_MOST_NAMED_IN_AN_ERROR])
        raise ToolFailure(
            "ambiguous_name",
            f"{len(matches)} of your templates are named {named}: {ids}.",
            "Name the template by its id.",
        )
    raise ToolFailure(
        "template_not_found",
        f"No template of yours is named {named[:100]}, and none has that id.",
        "Name a template of another owner by its id, or leave the parameter out for the node's recommended image.",
    )


def _listed(pods: list[Pod]) -> str:
    shown = ", ".join(f"{pod.pod_name or '(unnamed)'} ({pod.id})" for pod in pods[:_MOST_NAMED_IN_AN_ERROR])
    left = len(pods) - _MOST_NAMED_IN_AN_ERROR
    return f"{shown} and {left} more" if left > 0 else shown
