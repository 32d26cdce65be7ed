"""Registry logins that templates with private images use."""

from pydantic import SecretStr

from lium_mcp.api.fields import ApiId, ApiModel, ApiNested, ApiText
from lium_mcp.api.paging import Rows
from lium_mcp.api.wire import Resource


class DockerCredential(ApiModel):
    """One registry login; the password is write-only on servers that behave."""

    id: ApiId
    docker_username: ApiText = ""
    docker_password: ApiNested[SecretStr] = None


class DockerCredentials(Resource):
    """Calls on registry logins."""

    async def list(self) -> Rows[DockerCredential]:
        """GET /docker-credentials/: all registry logins."""
        return (await self._wire.request("GET", "/docker-credentials/")).rows(DockerCredential)

    async def create(self, *, docker_username: str, docker_password: str) -> DockerCredential:
        """POST /docker-credentials/: store a registry login."""
        body = {"docker_username": docker_username, "docker_password": docker_password}
        answer = await self._wire.request("POST", "/docker-credentials/", json=body)
        return answer.model(DockerCredential, docker_username=docker_username)
