"""Workspaces, read only: a key acts in exactly one."""

from lium_mcp.api.addresses import endpoint
from lium_mcp.api.model import ApiBool, ApiId, ApiModel, ApiStr, ApiText, ApiTime
from lium_mcp.api.paging import Rows
from lium_mcp.api.resource import Resource
from lium_mcp.api.wire import Auth


class Workspace(ApiModel):
    """One workspace; names are not unique."""

    id: ApiId
    name: ApiText = ""
    role: ApiStr = None
    billing_owner_user_id: ApiStr = None
    pending_billing_owner_user_id: ApiStr = None
    created_at: ApiTime = None
    is_personal: ApiBool = None


class WorkspaceMember(ApiModel):
    """One member of a workspace."""

    user_id: ApiId
    name: ApiText = ""
    email: ApiStr = None
    role: ApiStr = None
    is_billing_owner: ApiBool = None
    joined_at: ApiTime = None


class Workspaces(Resource):
    """Reads of workspaces."""

    async def list(self) -> Rows[Workspace]:
        """GET /workspaces: the workspaces of a session, or the one a key acts in."""
        return (await self._wire.request("GET", "/workspaces", auth=Auth.KEY_OR_SESSION)).rows(Workspace)

    async def get(self, workspace_id: str) -> Workspace:
        """GET /workspaces/{workspace_id}: one workspace."""
        path = endpoint("/workspaces/{workspace_id}", workspace_id=workspace_id)
        return (await self._wire.request("GET", path, auth=Auth.KEY_OR_SESSION)).model(Workspace)

    async def members(self, workspace_id: str) -> Rows[WorkspaceMember]:
        """GET /workspaces/{workspace_id}/members: who belongs to a workspace."""
        path = endpoint("/workspaces/{workspace_id}/members", workspace_id=workspace_id)
        return (await self._wire.request("GET", path, auth=Auth.KEY_OR_SESSION)).rows(WorkspaceMember)
