"""The pages on which a person logs in: who asks, where to agree at Lium, and back to the client. HTML without scripts.

What clients say of themselves is anybody's: it is escaped, and said to be their own word. A login goes on only in the
browser in which the person consented, which has a cookie of it.
"""

import hmac
from collections.abc import Mapping
from html import escape
from typing import Final
from urllib.parse import urlsplit

from mcp.server.auth.provider import construct_redirect_uri
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError
from lium_mcp.failures import Failure
from lium_mcp.rentals import LazyLedger
from lium_mcp.rentals.grants import Login
from lium_mcp.services.logging_in import KEYS_PAGE, POLL_SECONDS
from lium_mcp.serving.oauth.device_logins import DeviceLogins
from lium_mcp.serving.oauth.login_provider import LOGIN_PATH, LoginProvider
from lium_mcp.serving.oauth.redirects import is_on_the_machine, whereto
from lium_mcp.serving.oauth.tickets import digest, new_secret

_COOKIE: Final = "lium_login"
_LIFETIME_SECONDS: Final = 600
# With no-referrer a browser would not say where a form is from. Nothing may be sent elsewhere from here by a form.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">%s<title>Log in to Lium</title>
<style>body { font: 1rem/1.5 sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem }
button { font: inherit; padding: .5rem 1rem } code { overflow-wrap: anywhere }</style></head>
<body>%s</body>
</html>
"""
_REFUSALS: Final = {
    "refused": ("access_denied", "The person did not agree."),
    "failed": ("server_error", "The login at Lium came to nothing; begin again."),
}


class LoginPages:
    """The page of each login, at an address that only its browser knows."""

    def __init__(
        self,
        public_url: str,
        ledger: LazyLedger,
        provider: LoginProvider,
        logins: DeviceLogins,
        clock: Clock,
    ) -> None:
        self._issuer = public_url
        self._ledger = ledger
        self._provider = provider
        self._logins = logins
        self._clock = clock

    async def show(self, request: Request) -> Response:
        """Show the page as the login is now, or send the person back to the client."""
        login = await self._login(request)
        if login is None:
            return _shown("<h1>There is no such login</h1><p>Or it is over. Begin again in your program.</p>", 404)
        if login.status == "asked":
            return self._ask(request, login)
        if not _is_same_browser(request, login):
            return _shown("<h1>This login was begun in another browser</h1><p>Go on there, or begin again.</p>", 403)
        if login.status == "waiting":
            await self._logins.look(login)
            login = await self._login(request) or login
        if login.status == "agreed" and (code := await self._provider.code_for(login)) is not None:
            return RedirectResponse(self._back(login, {"code": code}), 303, _HEADERS)
        if login.status in _REFUSALS:
            return self._refused(login)
        if login.status != "waiting":
            return _shown("<h1>You are logged in</h1><p>Go on in your program; this page can be closed.</p>")
        return self._wait(login)

    async def answer(self, request: Request) -> Response:
        """Take what the person says on the page: to go on to Lium, or not."""
        login = await self._login(request)
        form = await request.form()
        browser = request.cookies.get(_COOKIE, "")
        # Another site can send this form, but neither read it nor give the browser this cookie.
        if not browser or not hmac.compare_digest(
            str(form.get("form", "")).encode(), digest(f"form {browser}").encode()
        ):
            return _shown("<h1>This answer came from another page</h1><p>Begin again in your program.</p>", 403)
        if login is not None and login.status == "asked":
            if form.get("answer") != "agree":
                values = {"status": "refused", "browser": digest(browser)}
                await self._ledger.grants().change_login(login, **values)
            else:
                try:
                    await self._logins.begin(login, browser)
                except (Failure, LiumError):
                    return _shown("<h1>Lium begins no login now</h1><p>Go back, and try it again in a minute.</p>", 503)
        return RedirectResponse(self._path(request), 303, _HEADERS)

    async def _login(self, request: Request) -> Login | None:
        ticket = str(request.path_params["ticket"])
        return await self._ledger.grants().login(digest(ticket), now=self._clock.now())

    def _ask(self, request: Request, login: Login) -> Response:
        browser = request.cookies.get(_COOKIE) or new_secret()
        name = escape(login.request["client_name"] or "A program without a name")
        back = login.request["redirect_uri"]
        anybody = " Any program there can have asked, whatever it is called." if is_on_the_machine(back) else ""
        page = _shown(
            f"<h1>Let {name} use your Lium account?</h1>"
            f"<p><strong>{name}</strong> is what it calls itself; {_vouched(login)}</p>"
            f"<p>If you go on, you are sent to <strong>{escape(whereto(back))}</strong> in the end, and whoever is "
            "there can rent GPU pods with your account through "
            f"{escape(urlsplit(self._issuer).netloc)}, on your money, and remove them.{anybody}</p>"
            f"<p>The whole address: <code>{escape(back)}</code></p>"
            "<p>Go on only if you have just begun this yourself.</p>"
            f'<form method="post"><input type="hidden" name="form" value="{digest(f"form {browser}")}">'
            '<button name="answer" value="agree">Go on to Lium</button> '
            '<button name="answer" value="refuse">Cancel</button></form>'
        )
        page.set_cookie(
            _COOKIE,
            browser,
            max_age=_LIFETIME_SECONDS,
            path=self._path(request),
            secure=self._issuer.startswith("https:"),
            httponly=True,
            samesite="lax",
        )
        return page

    def _wait(self, login: Login) -> Response:
        opened = self._logins.opened(login)
        if opened is None:
            return _shown("<h1>This login cannot be read any more</h1><p>Begin again in your program.</p>", 410)
        page, site = escape(opened.page), escape(opened.site)
        return _shown(
            "<h1>Agree on Lium's page</h1>"
            f'<p><a href="{page}" target="_blank" rel="noopener noreferrer">Open Lium\'s login page</a></p>'
            f"<p>It is at {site}. Once you have agreed there, this page goes on by itself, within some seconds.</p>"
            f"<p>What the key may do and spend is set at {KEYS_PAGE}, where it can be revoked too.</p>",
            head=f'<meta http-equiv="refresh" content="{POLL_SECONDS:.0f}">',
        )

    def _refused(self, login: Login) -> Response:
        error, description = _REFUSALS[login.status]
        # A form may not send a person elsewhere, and this page may follow one: so the page itself does.
        back = self._back(login, {"error": error, "error_description": description})
        head = f'<meta http-equiv="refresh" content="1; url={_in_html(back)}">'
        return show_refusal(description, back, head=head)

    def _back(self, login: Login, said: Mapping[str, str]) -> str:
        values = {**said, "state": login.request["state"], "iss": self._issuer}
        return construct_redirect_uri(login.request["redirect_uri"], **values)

    def _path(self, request: Request) -> str:
        return f"{urlsplit(self._issuer).path}{LOGIN_PATH}/{request.path_params['ticket']}"


def show_refusal(description: str, back: str = "", *, status: int = 200, head: str = "") -> HTMLResponse:
    """Tell a person that nothing came of a login, with a link to the address at which its client hears of it."""
    link = f'<p><a href="{_in_html(back)}" rel="noreferrer">Back to {escape(whereto(back))}</a></p>' if back else ""
    return _shown(f"<h1>You were not logged in</h1><p>{escape(description)}</p>{link}", status, head=head)


def _in_html(address: str) -> str:
    return escape(address.replace("'", "%27"))


def _vouched(login: Login) -> str:
    """Who stands for the name of a client."""
    document = login.request.get("client_document")
    if document is None:
        return "nobody has checked that."
    site = escape(urlsplit(document).netloc)
    return f"whoever has <strong>{site}</strong> says so too, and this server knows no more of it."


def _is_same_browser(request: Request, login: Login) -> bool:
    shown = digest(request.cookies.get(_COOKIE, ""))
    return login.browser is not None and hmac.compare_digest(shown.encode(), login.browser.encode())


def _shown(content: str, status: int = 200, *, head: str = "") -> HTMLResponse:
    return HTMLResponse(_PAGE % (head, content), status, _HEADERS)
