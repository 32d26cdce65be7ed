"""Templates: the image and settings a pod starts from.

Names of public templates are chosen by their authors, so nothing here selects one by name. Environment values are
readable by whoever can read the template; they and commands stay out of `repr`.
"""

from typing import Any

from pydantic import Field

from lium_mcp.api.addresses import endpoint
from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.fields import (
    ApiBool,
    ApiId,
    ApiLines,
    ApiModel,
    ApiStr,
    ApiStrings,
    ApiText,
    ApiTime,
    ApiTupleOrNone,
    RequestModel,
)
from lium_mcp.api.huids import huid
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import DEFAULT_VOLUME_ROOT, image_name
from lium_mcp.api.wire import Resource

READY_STATUSES = frozenset({"VERIFY_SUCCESS", "CREATED", "UPDATED"})
FAILED_STATUSES = frozenset({"VERIFY_FAILED"})
# The server sets these itself: sending them back would at best be ignored.
_READ_ONLY_FIELDS = frozenset(
    {
        "id",
        "user_id",
        "status",
        "is_temporary",  # a PUT would demand that a temporary template is private
        "docker_image_size",
        "verification_logs",
        "supports_volume_encryption",
        "created_at",
        "updated_at",
    }
)


class Template(ApiModel):
    """One template."""

    id: ApiId
    user_id: ApiStr = None
    name: ApiText = ""
    description: ApiStr = None
    docker_image: ApiText = ""
    docker_image_tag: ApiStr = None
    docker_image_digest: ApiStr = None
    category: ApiStr = None
    internal_ports: ApiTupleOrNone[int] = None
    startup_commands: ApiStr = Field(default=None, repr=False)
    container_start_immediately: ApiBool = None
    entrypoint: ApiStr = Field(default=None, repr=False)
    environment: ApiStrings = Field(default=None, repr=False)
    volumes: ApiTupleOrNone[str] = None
    shm_size: ApiStr = None
    is_private: ApiBool = None
    readme: ApiStr = Field(default=None, repr=False)
    one_time_template: ApiBool = None
    is_temporary: ApiBool = None
    docker_credential_id: ApiStr = None
    status: ApiStr = None
    verification_logs: ApiLines = Field(default="", repr=False)
    supports_volume_encryption: ApiBool = None
    created_at: ApiTime = None

    @property
    def huid(self) -> str:
        """The short name that clients derive from the id."""
        return huid(self.id)

    @property
    def image(self) -> str | None:
        """The image that it starts, as pods name it: without a digest."""
        return image_name(self.docker_image, self.docker_image_tag)

    @property
    def volume_root(self) -> str:
        """Where a pod that starts from it has its local volume mounted."""
        return self.volumes[0] if self.volumes else DEFAULT_VOLUME_ROOT

    @property
    def is_ready(self) -> bool:
        """Whether a pod can be started from it."""
        return (self.status or "").upper() in READY_STATUSES

    @property
    def has_failed(self) -> bool:
        """Whether the platform's check of it failed."""
        return (self.status or "").upper() in FAILED_STATUSES


class TemplateCreate(RequestModel):
    """Body of a new template, with the official client's defaults; `description` and `readme` default to the name."""

    name: str
    docker_image: str
    docker_image_digest: str = ""
    docker_image_tag: str = "latest"
    internal_ports: list[int] = Field(default_factory=lambda: [22, 8000])
    startup_commands: str = Field(default="", repr=False)
    category: str = "UBUNTU"
    container_start_immediately: bool = True
    description: str | None = None
    entrypoint: str = Field(default="", repr=False)
    environment: dict[str, str] = Field(default_factory=dict, repr=False)
    is_private: bool = True
    one_time_template: bool = False
    is_temporary: bool = False
    readme: str | None = None
    volumes: list[str] = Field(default_factory=lambda: ["/workspace"])
    docker_credential_id: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the JSON body; every field but an absent registry login is sent."""
        if not self.name.strip() or not self.docker_image.strip():
            raise InvalidRequest("name and docker_image must not be empty.")
        defaults = {"description": self.description or self.name, "readme": self.readme or self.name}
        body = {**self.model_dump(), **defaults}
        if self.docker_credential_id is None:
            del body["docker_credential_id"]
        return body


class TemplateChanges(RequestModel):
    """The fields of a template to change; what is absent stays as it is."""

    name: str | None = None
    docker_image: str | None = None
    docker_image_digest: str | None = None
    docker_image_tag: str | None = None
    internal_ports: list[int] | None = None
    startup_commands: str | None = Field(default=None, repr=False)
    category: str | None = None
    container_start_immediately: bool | None = None
    description: str | None = None
    entrypoint: str | None = Field(default=None, repr=False)
    environment: dict[str, str] | None = Field(default=None, repr=False)
    is_private: bool | None = None
    one_time_template: bool | None = None
    readme: str | None = None
    volumes: list[str] | None = None
    docker_credential_id: str | None = None


class Templates(Resource):
    """Calls on templates."""

    async def list(self) -> Rows[Template]:
        """GET /templates: the public templates, and with a key also one's own."""
        rows = (await self._wire.request("GET", "/templates", needs_key=False)).rows(Template)
        for template in rows:
            self._keep_out(template)
        return rows

    async def get(self, template_id: str) -> Template:
        """GET /templates/{template_id}: one template."""
        path = endpoint("/templates/{template_id}", template_id=template_id)
        return self._keep_out((await self._wire.request("GET", path)).model(Template, id=template_id))

    async def create(self, template: TemplateCreate) -> Template:
        """POST /templates: create a template."""
        answer = await self._wire.request("POST", "/templates", json=template.body())
        sent = {"docker_image": template.docker_image, "docker_image_tag": template.docker_image_tag}
        if "@" in template.docker_image:  # the server takes it apart
            sent = {}
        return self._keep_out(answer.model(Template, name=template.name, **sent))

    async def update(self, template_id: str, changes: TemplateChanges) -> Template:
        """PUT /templates/{template_id}: change some fields; a pod that runs on the template is rebooted.

        The route replaces the whole template, so the current one is read first and sent back with the changes.
        """
        changed = changes.model_dump(exclude_none=True)
        if not changed:
            raise InvalidRequest("No field to change is named.")
        path = endpoint("/templates/{template_id}", template_id=template_id)
        answer = await self._wire.request("GET", path)
        current = answer.json()
        if not isinstance(current, dict):
            raise answer.unreadable("Lium's answer is not a template.")
        self._keep_out(answer.model(Template, id=template_id))  # another one's settings must not be written over it
        body = {name: value for name, value in current.items() if name not in _READ_ONLY_FIELDS and value is not None}
        body |= changed
        if not body.get("one_time_template"):
            body.pop("one_time_template", None)
        answer = await self._wire.request("PUT", path, json=body)
        return await self.get(template_id) if answer.is_bare else self._keep_out(answer.model(Template, id=template_id))

    async def delete(self, template_id: str) -> None:
        """DELETE /templates/{template_id}: delete a template; what happens to a pod on it is not known."""
        await self._wire.request("DELETE", endpoint("/templates/{template_id}", template_id=template_id))

    def _keep_out(self, template: Template) -> Template:
        """Take the values of a template's environment out of later refusals, unless everybody can read them."""
        if template.environment and template.is_private is not False:
            self._wire.keep_out(template.environment.values())
        return template
