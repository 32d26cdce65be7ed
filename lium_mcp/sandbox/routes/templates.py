"""The routes of templates and registry logins, and how a private template is verified."""

from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox import lifecycle
from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import CredentialBody, TemplateBody
from lium_mcp.sandbox.records import StoredCredential, StoredTemplate
from lium_mcp.sandbox.refusals import missing, refuse
from lium_mcp.sandbox.simulated_clock import iso_naive
from lium_mcp.sandbox.world import World

VERIFY_SECONDS: Final = (40.0, 90.0)
IMAGE_FIELDS: Final = ("docker_image", "docker_image_tag", "docker_image_digest", "docker_credential_id")


def list_templates(call: ApiCall) -> Reply:
    """List the public templates and the caller's own."""
    mine = None if call.account is None else call.account.id
    visible = [
        template
        for template in call.world.templates.values()
        if not template.hidden and (template.user_id == mine or not template.body.get("is_private"))
    ]
    return Reply([template_row(template) for template in visible])


def create_template(call: ApiCall) -> Reply:
    """Create a template; a private one is verified, a one-time one is trusted."""
    body = call.parse(TemplateBody)
    world = call.world
    template = StoredTemplate(world.new_id("template"), call.me.id, world.now, "CREATED", _stored(body))
    world.templates[template.id] = template
    if body.is_private and not body.one_time_template:
        _verify(world, template)
    return Reply(template_row(template))


def get_template(call: ApiCall) -> Reply:
    """Read one template."""
    template = call.template(call.uuid("template_id"))
    if template is None:
        raise missing("Template")
    return Reply(template_row(template))


def update_template(call: ApiCall) -> Reply:
    """Replace a template; pods that run on it are rebooted."""
    template, body = _own(call), call.parse(TemplateBody)
    before, template.body = template.body, _stored(body)
    template.status, template.updated_at = "UPDATED", call.world.now
    if body.is_private and any(before.get(name) != template.body.get(name) for name in IMAGE_FIELDS):
        _verify(call.world, template)
    for pod in call.world.open_pods(call.me.id):
        if pod.template_id == template.id and pod.status in {"RUNNING", "REBOOT_FAILED"}:
            call.world.log_event(pod, "pod-edit.success", actor=call.actor)
            pod.image = template.image
            lifecycle.reboot(call.world, pod, actor=call.actor)
    return Reply(template_row(template))


def delete_template(call: ApiCall) -> Reply:
    """Delete a template that no pod runs on."""
    template = _own(call)
    if any(pod.template_id == template.id for pod in call.world.open_pods(call.me.id)):
        raise refuse(400, "template_in_use", "A pod runs on this template.")
    del call.world.templates[template.id]
    return Reply({"success": True})


def list_credentials(call: ApiCall) -> Reply:
    """List the registry logins, without their passwords."""
    mine = [entry for entry in call.world.credentials.values() if entry.account_id == call.me.id]
    return Reply([_credential_row(entry) for entry in mine])


def create_credential(call: ApiCall) -> Reply:
    """Add a registry login."""
    body = call.parse(CredentialBody)
    entry = StoredCredential(call.world.new_id("credential"), call.me.id, body.docker_username, body.docker_password)
    call.world.credentials[entry.id] = entry
    return Reply(_credential_row(entry))


def update_credential(call: ApiCall) -> Reply:
    """Change a registry login."""
    entry, body = _credential(call), call.parse(CredentialBody)
    entry.username, entry.password = body.docker_username, body.docker_password
    return Reply(_credential_row(entry))


def delete_credential(call: ApiCall) -> Reply:
    """Delete a registry login."""
    del call.world.credentials[_credential(call).id]
    return Reply({"success": True})


def template_row(template: StoredTemplate) -> dict[str, JsonValue]:
    """Build the row of a template."""
    return {
        "id": template.id,
        "user_id": template.user_id,
        **template.body,
        "status": template.status,
        "docker_image_size": template.size_bytes,
        "verification_logs": template.verification_logs,
        "supports_volume_encryption": template.supports_encryption,
        "supports_docker": template.supports_docker,
        "created_at": iso_naive(template.created_at),
        "updated_at": None if template.updated_at is None else iso_naive(template.updated_at),
    }


def _stored(body: TemplateBody) -> dict[str, JsonValue]:
    stored: dict[str, JsonValue] = body.model_dump()
    if not body.docker_image_tag and ":" in body.docker_image.rpartition("/")[2]:
        # With an empty tag the server splits a full reference.
        name, _, digest = body.docker_image.partition("@")
        image, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            image, tag = name, ""
        stored |= {"docker_image": image, "docker_image_tag": tag, "docker_image_digest": digest}
    return stored


def _verify(world: World, template: StoredTemplate) -> None:
    template.status = "VERIFY_PENDING"
    version = template.updated_at

    def finish() -> None:
        if template.updated_at != version:
            return
        fault = world.faults.strike("template_verify_fails", template_id=template.id)
        template.status = "VERIFY_FAILED" if fault else "VERIFY_SUCCESS"
        template.verification_logs = (fault.message or "the image could not be pulled") if fault else "image pulled"

    world.after(world.pick(*VERIFY_SECONDS, "verify", template.id), finish)


def _own(call: ApiCall) -> StoredTemplate:
    template = call.template(call.uuid("template_id"))
    if template is None:
        raise missing("Template")
    if template.user_id != call.me.id:
        raise refuse(403, "forbidden", "This template belongs to somebody else.")
    return template


def _credential(call: ApiCall) -> StoredCredential:
    entry = call.world.credentials.get(call.uuid("credential_id"))
    if entry is None or entry.account_id != call.me.id:
        raise missing("Docker credential")
    return entry


def _credential_row(entry: StoredCredential) -> dict[str, JsonValue]:
    return {"id": entry.id, "docker_username": entry.username}


OPERATIONS = (
    Operation("listTemplates", "GET", "/templates", Access.PUBLIC, list_templates),
    Operation("createTemplate", "POST", "/templates", Access.MANAGE, create_template, audit="template.create"),
    Operation("getTemplate", "GET", "/templates/{template_id}", Access.READ, get_template),
    Operation(
        "updateTemplate", "PUT", "/templates/{template_id}", Access.MANAGE, update_template, audit="template.update"
    ),
    Operation(
        "deleteTemplate", "DELETE", "/templates/{template_id}", Access.MANAGE, delete_template, audit="template.delete"
    ),
    Operation("listDockerCredentials", "GET", "/docker-credentials/", Access.READ, list_credentials),
    Operation(
        "createDockerCredential",
        "POST",
        "/docker-credentials/",
        Access.MANAGE,
        create_credential,
        audit="docker_credential.create",
    ),
    Operation(
        "updateDockerCredential",
        "PUT",
        "/docker-credentials/{credential_id}",
        Access.MANAGE,
        update_credential,
        audit="docker_credential.update",
    ),
    Operation(
        "deleteDockerCredential",
        "DELETE",
        "/docker-credentials/{credential_id}",
        Access.MANAGE,
        delete_credential,
        audit="docker_credential.delete",
    ),
)
