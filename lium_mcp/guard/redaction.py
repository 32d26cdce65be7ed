"""What never comes out: keys, tokens, passwords, values of environments. In one place, for every way out.

Two rules. By field: the value of a field with such a name is replaced, whatever it holds. By text: what looks like a
Lium key or a private key, credentials inside addresses, and the secrets that this process was given are cut out of any
string, in whatever form other programs escaped them. Results, errors and log lines pass through here.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from lium_mcp.secret_forms import REDACTED, Secrets, Span, redacted

_SECRET_FIELDS: Final = re.compile(
    r"(?:^|_)(?:api_?key|secret|token|password|passwd|passphrase|credentials?|authorization|private_?key|environment|env"
    r"|cookie|access_?key)(?:$|_value$|_values$)",
    re.IGNORECASE,
)
_WORD_ENDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s.-]")
# What stands in every secret of a shape, in small letters and without those that have looks elsewhere (i, k, s in other
# alphabets), and the shape: the group is the secret. Nearly no text holds such a mark, and that is seen at once.
_SHAPES: Final = (
    ("sk_", re.compile(r"\b(sk_[A-Za-z0-9_-]{4,})")),
    (
        "private key",
        re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))", re.DOTALL),
    ),
    # The last @ before the path ends the password, which may hold others.
    ("://", re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s/@:]{0,200}:[^\s/?#]{1,200})@")),
    ("bearer", re.compile(r"\bBearer\s+([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)),
    # As a line of HTTP, in JSON, in a repr.
    ("x-ap", re.compile(r"\bX-API-KEY\b(?:[\"']?\s*[:=,]\s*b?[\"']?|\s+)([^\s\"',;}\[]{8,})", re.IGNORECASE)),
    ("author", re.compile(r"\bAuthorization[\"']?\s*[:=,]\s*b?[\"']?Basic\s+([A-Za-z0-9+/=]{4,})", re.IGNORECASE)),
    # A login in Docker's configuration.
    ("auth", re.compile(r"[\"']auth[\"']\s*:\s*[\"']([A-Za-z0-9+/]{8,}={0,2})[\"']")),
    # A session token: JSON in base64, twice, and a signature. Each word is looked at once, however many begin in it.
    ("eyj", re.compile(r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,})")),
)


class Redactor:
    """Cuts secrets out of texts: those that it was given, and whatever looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = Secrets(secrets)

    def __call__(self, text: str) -> str:
        """The text without them."""
        return redacted(text, self._find)

    def _find(self, text: str) -> Iterator[Span]:
        yield from self._secrets.find(text)
        small = text.casefold()
        for mark, shape in _SHAPES:
            if mark in small:
                for match in shape.finditer(text):
                    yield match.span(1)


redact_text: Final = Redactor()
"""For what holds no secret but those of others, which can be known by their look alone."""


def redact(value: Any, redact_string: Callable[[str], str] = redact_text) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value without its secrets, by field and by text."""
    if isinstance(value, str):
        return redact_string(value)
    if isinstance(value, list):
        return [redact(item, redact_string) for item in value]
    if isinstance(value, dict):
        return {
            redact_string(key): _blank(item) if names_secret(key) else redact(item, redact_string)
            for key, item in value.items()
        }
    return value


@lru_cache(2**10)
def names_secret(field: str) -> bool:
    """Whether the value of a field of this name is a secret, whatever it holds."""
    return _SECRET_FIELDS.search(_WORD_ENDS.sub("_", field)) is not None


def _blank(value: Any) -> Any:  # noqa: ANN401 - as above
    """The same shape without any text in it."""
    if isinstance(value, str):
        return REDACTED
    if isinstance(value, list):
        return [_blank(item) for item in value]
    return {key: _blank(item) for key, item in value.items()} if isinstance(value, dict) else value
