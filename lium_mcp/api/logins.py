"""A login in the browser: a person agrees on a page of Lium's, and whoever knows the session's id gets a key."""

from pydantic import Field

from lium_mcp.api.addresses import endpoint, is_segment
from lium_mcp.api.fields import ApiId, ApiModel, ApiStr
from lium_mcp.api.retries import Repeat
from lium_mcp.api.wire import Resource, Wire


class LoginSession(ApiModel):
    """A login that has begun.

    Attributes:
        browser_url: The page on which a person agrees; untrusted, as all that the API answers.
        session_id: A secret: who polls with it gets the key.
    """

    browser_url: ApiId = Field(repr=False)
    session_id: ApiId = Field(repr=False)


class LoginStatus(ApiModel):
    """How far a login is: `approved` comes with the key, and any word but a clear no means to wait."""

    status: ApiStr = None
    api_key: ApiStr = Field(default=None, repr=False)


class Logins(Resource):
    """Calls that get a key; none of them is sent with one."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire.for_key(None))

    async def begin(self) -> LoginSession:
        """POST /cli-auth/init: a session and its page; what nobody agrees to does nothing."""
        answer = await self._wire.request("POST", "/cli-auth/init", needs_key=False, mutates=False)
        session = answer.model(LoginSession)
        if not is_segment(session.session_id):
            # A person is not sent to a page whose key nobody could fetch.
            raise answer.unreadable("Lium's answer names a login session that cannot be one.")
        self._wire.hide(session.session_id)
        return session

    async def poll(self, session_id: str) -> LoginStatus:
        """GET /cli-auth/poll/{session_id}, a single time: how far the session is.

        The answer that has the key may be given once only.
        """
        self._wire.hide(session_id)
        path = endpoint("/cli-auth/poll/{session_id}", session_id=session_id)
        answer = await self._wire.request("GET", path, needs_key=False, repeat=Repeat.NEVER, judges_body=True)
        return answer.model(LoginStatus)
