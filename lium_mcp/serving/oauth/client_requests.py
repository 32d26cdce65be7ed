"""What is wrong with the requests of clients where the SDK, which answers them, takes more than it should or less.

Each problem is an error code of OAuth and a sentence, or None where nothing is wrong.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from lium_mcp.serving.oauth.redirects import is_in_its_form

Problem = tuple[str, str]

GRANT_TYPES: Final = ("authorization_code", "refresh_token")
# RFC 7636, 4.1 and 4.2.
_PKCE: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_NOT_TAKEN: Final = {"request": "request_not_supported", "request_uri": "request_uri_not_supported"}
_BASIC: Final = "client_secret_basic"


def problem_of_login(asked: Mapping[str, Any]) -> Problem | None:
    """What is wrong with the parameters of an authorization request, whose client and address are known."""
    for name, error in _NOT_TAKEN.items():  # RFC 9101, 6.2
        if asked.get(name):
            return error, f"{name} is not taken: a request says what it asks for in its parameters."
    if asked.get("response_mode", "query") not in ("", "query"):
        return "invalid_request", "The answer comes in the query alone: response_mode=query, or none."
    if "none" in str(asked.get("prompt", "")).split():
        return "login_required", "Each login begins with a person who agrees, so prompt=none cannot be."
    # Without a method it is `plain` (RFC 7636, 4.3), which whoever sees this request could use.
    if asked.get("response_type") == "code" and asked.get("code_challenge_method") != "S256":
        return "invalid_request", "code_challenge_method=S256 is needed."
    if asked.get("response_type") == "code" and not _PKCE.fullmatch(str(asked.get("code_challenge", ""))):
        return "invalid_request", "code_challenge is needed: 43 to 128 letters, digits and -._~ (RFC 7636)."
    return None


def problem_of_exchange(form: Mapping[str, Any]) -> Problem | None:
    """What is wrong with the parameters of a request for tokens."""
    grant_type = form.get("grant_type")
    if not grant_type:
        return "invalid_request", "grant_type is needed."
    if grant_type not in GRANT_TYPES:
        return "unsupported_grant_type", f"grant_type is one of {' and '.join(GRANT_TYPES)} here."
    needed = ("code", "code_verifier") if grant_type == "authorization_code" else ("refresh_token",)
    if missing := [name for name in needed if not form.get(name)]:
        return "invalid_request", f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} needed."
    if "code_verifier" in needed and not _PKCE.fullmatch(str(form["code_verifier"])):
        return "invalid_grant", "code_verifier has 43 to 128 letters, digits and -._~ (RFC 7636)."
    redirect = form.get("redirect_uri")
    if redirect and not is_in_its_form(redirect):
        return "invalid_grant", "redirect_uri is not that of the login."
    return None


def registered_as(body: bytes) -> dict[str, Any] | Problem:
    """What a client registers, with what it leaves out as the standards have it (RFC 7591, 2), or what is wrong."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return "invalid_client_metadata", "A client registers with a JSON object."
    redirects = said.get("redirect_uris")
    texts = [text for text in redirects if isinstance(text, str)] if isinstance(redirects, list) else []
    if odd := [text for text in texts if not is_in_its_form(text)]:
        needed = "Addresses to be sent back to are compared as they are written, so each is needed in its normal form"
        return "invalid_redirect_uri", f"{needed}: {odd[0][:200]} is not in it."
    is_site = bool(texts) and all(text.startswith("https:") for text in texts)
    usual = {"token_endpoint_auth_method": _BASIC, "application_type": "web" if is_site else "native"}
    return usual | {
        name: value for name, value in said.items() if value is not None and (name, value) != ("client_name", "")
    }
