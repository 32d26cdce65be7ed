"""The page on which a person agrees that a program gets a key, or refuses it: plain HTML, without scripts."""

from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from lium_mcp.sandbox.routes.logins import PAGE_PREFIX, answer, is_over
from lium_mcp.sandbox.world import World

# The browser sends where a form is from only if the page lets it.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Log in to the sandbox</title>
<style>body { font: 1rem sans-serif; max-width: 32rem; margin: 4rem auto; padding: 0 1rem }</style></head>
<body><h1>Log in to the sandbox</h1>
%s
</body></html>
"""
_QUESTION: Final = """<p>A program asks for an API key of the simulated account. Agree only if you have just started
its login yourself.</p>
<form method="post"><button name="answer" value="agree">Agree</button>
<button name="answer" value="refuse">Refuse</button></form>"""
_ANSWERED: Final = {
    "approved": "<p>You agreed. The program gets its key within seconds; this page can be closed.</p>",
    "denied": "<p>You refused. The program gets no key; this page can be closed.</p>",
}
_OVER: Final = "<p>There is no such login, or it is over. Start it again.</p>"


class LoginPage:
    """The ASGI app under ``/cli-auth``."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the page, or take the answer that was given on it."""
        request = Request(scope, receive)
        form = parse_qs((await request.body()).decode("latin-1"))
        await self._respond(request, form.get("answer", [""])[0])(scope, receive, send)

    def _respond(self, request: Request, given: str) -> HTMLResponse:
        world = self._world
        page = request.url.path.removeprefix(f"{PAGE_PREFIX}/")
        with world.lock:
            world.catch_up()
            login = next((login for login in world.logins.values() if login.page == page), None)
            if login is None or (login.status == "pending" and is_over(world, login)):
                return _shown(_OVER, 404)
            if request.method == "POST" and login.status == "pending":
                # A page of somebody else's must not answer for the person.
                if request.headers.get("origin") not in {None, f"{request.url.scheme}://{request.headers['host']}"}:
                    return _shown("<p>This answer came from another page.</p>", 403)
                if given not in {"agree", "refuse"}:
                    return _shown(_QUESTION, 422)
                answer(world, login, agrees=given == "agree")
            return _shown(_ANSWERED.get(login.status, _QUESTION))


def _shown(content: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE % content, status, _HEADERS)
