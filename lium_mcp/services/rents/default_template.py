"""The template that runs where a caller names none: the platform's own for a node's GPU and driver."""

from lium_mcp.api.executors.models import Executor
from lium_mcp.api.templates import Template
from lium_mcp.failures import Failure
from lium_mcp.services.accounts import Account
from lium_mcp.text import quotation

_PLATFORM_VERIFIED = "VERIFY_SUCCESS"
_MOST_IMAGE_CHARACTERS = 200


async def default_template(account: Account, node: Executor) -> Template:
    """The platform's own template for a node's GPU and driver (`GET /executors/default-docker-image`).

    Public templates are named by whoever publishes them, and one with the recommended image may run other commands at
    start: only templates that the platform itself verified are taken.

    Raises:
        Failure: none fits; the caller has to name a template.
        LiumError: the API could not be read.
    """
    driver = node.specs.gpu.driver if node.specs and node.specs.gpu else None
    images = await account.lium.executors.default_images(gpu_model=node.machine_name, driver_version=driver)
    # The platform verifies private templates too: those are somebody's own work, whatever image they start.
    verified = [
        template
        for template in await account.lium.templates.list()
        if template.status == _PLATFORM_VERIFIED and template.is_private is not True
    ]
    for image in images:
        for template in verified:
            if (template.docker_image, template.docker_image_tag) == (image.docker_image, image.docker_image_tag):
                return template
    named = next((f"{image.docker_image}:{image.docker_image_tag}" for image in images), None)
    raise Failure(
        "template_needed",
        f"Lium recommends {quotation(named, _MOST_IMAGE_CHARACTERS)} for node {node.id}, and no template of the "
        "platform has that image."
        if named
        else f"Lium recommends no image of its own for node {node.id}.",
        "Name a template with the parameter template.",
    )
