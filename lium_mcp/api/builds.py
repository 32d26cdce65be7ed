"""Build contexts: the files a Dockerfile of a rent may copy."""

from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.model import ApiId, ApiModel
from lium_mcp.api.resource import Resource

MAX_ARCHIVE_BYTES = 100 * 2**20
UPLOAD_TIMEOUT_SECONDS = 300.0


class BuildContext(ApiModel):
    """An uploaded archive; a rent names it by its digest."""

    sha256: ApiId


class Builds(Resource):
    """Calls on build contexts."""

    async def upload(self, archive: bytes) -> BuildContext:
        """POST /build-contexts: upload a gzipped tar, right before the rent that uses it.

        Needs the feature `build_context`.
        """
        if len(archive) > MAX_ARCHIVE_BYTES:
            raise InvalidRequest(f"archive is larger than {MAX_ARCHIVE_BYTES} bytes.")
        answer = await self._wire.request(
            "POST",
            "/build-contexts",
            content=archive,
            headers={"Content-Type": "application/gzip"},
            timeout_seconds=UPLOAD_TIMEOUT_SECONDS,
        )
        return answer.model(BuildContext)
