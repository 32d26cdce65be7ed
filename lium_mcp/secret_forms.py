"""Finds secrets in a text in whatever form they stand there, and cuts them out. Knows neither HTTP nor MCP.

Other programs repeat a secret inside JSON, inside JSON inside JSON, in a URL, in HTML, in a repr, in base64. So a text
is searched as it is and with its escapes taken away, layer by layer, and what is found in any layer is cut out of the
text itself. The time is linear in the length of the text, whatever it holds.
"""

import html
import json
import re
from array import array
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final

REDACTED: Final = "[redacted]"
LEAST_SECRET_CHARACTERS: Final = 4
"""Shorter secrets are not looked for: they stand in other texts by chance."""
UNSAFE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]?[0-~])?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""C0 and C1 controls except tab and newline, escape sequences with what belongs to them, bidirectional controls,
zero-width and other invisible characters (they hide text from a person but not from a model), and lone surrogates (not
encodable). An escape sequence that is never ended takes nothing else with it: it could hide what follows."""

Span = tuple[int, int]
Find = Callable[[str], Iterable[Span]]
"""Tells where secrets stand in a text without escapes."""

_LEAST_ENCODED_BYTES: Final = 6
# A secret broken over lines is looked for from this length on: shorter ones come together by chance.
_LEAST_BROKEN_CHARACTERS: Final = 8
_LINE_BREAK: Final = re.compile(r"\n[ \t]*")
# JSON in JSON and so on: honest texts have two or three layers.
_MOST_LAYERS: Final = 6
_HEX: Final = "[0-9A-Fa-f]"
_TAIL: Final = "%[89ABab]" + _HEX
# Each match stands for one character.
_ESCAPE: Final = re.compile(
    # JSON, JavaScript, C, Python, the shell.
    rf"\\(?:u[Dd][89ABab]{_HEX}{{2}}\\u[Dd][C-Fc-f]{_HEX}{{2}}|u{_HEX}{{4}}|u\{{{_HEX}{{1,5}}\}}|U000{_HEX}{{5}}"
    rf"|x{_HEX}{{2}}|[abefnrtv0]|[^A-Za-z0-9])"
    # URLs, as UTF-8.
    rf"|%(?:[0-7]{_HEX}|[CDcd]{_HEX}{_TAIL}|[Ee]{_HEX}(?:{_TAIL}){{2}}|[Ff][0-4](?:{_TAIL}){{3}}|{_HEX}{{2}})"
    # HTML.
    r"|&(?:#[0-9]{1,7}|#[Xx][0-9A-Fa-f]{1,6}|quot|apos|amp|lt|gt|nbsp);"
)
_MAY_BE_ESCAPED: Final = re.compile(r"[\\%&]")
_CONTROLS: Final = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


def holds_hidden(text: str) -> bool:
    """Whether a text holds what is never shown, or what may be an escape: it may say more than it seems to."""
    return _MAY_BE_ESCAPED.search(text) is not None or _holds_unsafe(text)


def _holds_unsafe(text: str) -> bool:
    # Of nearly every text it is seen at once.
    return not (text.isascii() and text.isprintable()) and UNSAFE.search(text) is not None


def redacted(text: str, find: Find) -> str:
    """The text without what `find` finds in it, escaped or not."""
    spans = [origin(span) for plain, origin in _layers(text) for span in find(plain)]
    if not spans:
        return text
    pieces: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            pieces += text[done:start], REDACTED
        done = max(done, end)
    return "".join((*pieces, text[done:]))


class Secrets:
    """Secrets that are known, to be looked for in texts. Those that are too short are left out."""

    def __init__(self, values: Iterable[str]) -> None:
        self._forms: set[str] = set()
        self._encoded: set[str] = set()
        for value in values:
            if len(value) >= LEAST_SECRET_CHARACTERS:
                self._add(value)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._forms)

    def _add(self, value: str) -> None:
        for plain, _ in _layers(value):
            # A form in a URL has + for a blank; the repr of bytes has one character for each byte.
            for form in (plain, plain.replace(" ", "+")):
                self._forms.update((form, form.encode("utf-8", "surrogatepass").decode("latin-1")))
        self._forms = {form for form in self._forms if len(form) >= LEAST_SECRET_CHARACTERS}
        # Registries' logins are in base64, and so are whole files of them, in JSON.
        for text in {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
            self._add_encoded(text.encode("utf-8", "surrogatepass"))

    def _add_encoded(self, raw: bytes) -> None:
        if len(raw) >= _LEAST_ENCODED_BYTES:
            for before in range(3):
                # Base64 spells a text in three ways, by where it begins in the whole; both its ends mix with others.
                encoded = b64encode(bytes(before) + raw).decode()[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
                self._encoded.update((encoded, encoded.replace("+", "-").replace("/", "_")))

    def find(self, text: str) -> Iterator[Span]:
        """Where they stand in a text without escapes, also in pieces on several lines."""
        yield from self._find_whole(text)
        if "\n" in text:
            joined = _Joined(text, _LINE_BREAK)
            yield from (joined.origin(span) for span in self._find_whole(joined.text, _LEAST_BROKEN_CHARACTERS))

    def _find_whole(self, text: str, least_characters: int = 0) -> Iterator[Span]:
        for form in self._forms:
            if len(form) < least_characters:
                continue
            for start in _places(form, text):
                yield start, start + len(form)
        for form in self._encoded:
            for start in _places(form, text):
                end = start + len(form)
                # The characters at its ends hold some of its bits.
                yield start - (start > 0 and text[start - 1] in _BASE64), end + (text[end : end + 1] in _BASE64)


class _Joined:
    """A text without what breaks words apart, and where in the text each character of it came from."""

    def __init__(self, broken: str, breaks: re.Pattern[str]) -> None:
        # For each piece: where it begins here, and where in the broken text.
        self._places = array("q")
        self._starts = array("q")
        pieces: list[str] = []
        length = 0
        done = 0
        for start, end in (*(found.span() for found in breaks.finditer(broken)), (len(broken), len(broken))):
            if start > done:
                self._places.append(length)
                self._starts.append(done)
                pieces.append(broken[done:start])
                length += start - done
            done = end
        self.text = "".join(pieces)

    def origin(self, span: Span) -> Span:
        """The span of the original text that this span came from."""
        start, end = span
        return self._of_character(start), self._of_character(end - 1) + 1

    def _of_character(self, place: int) -> int:
        piece = bisect_right(self._places, place) - 1
        return self._starts[piece] + place - self._places[piece]


def _places(form: str, text: str) -> Iterator[int]:
    start = text.find(form)
    while start >= 0:
        yield start
        start = text.find(form, start + len(form))


def _layers(text: str) -> Iterator[tuple[str, Callable[[Span], Span]]]:
    """The text as it is, then without its escapes, without the escapes in that, and so on; each also as it is shown.

    Each comes with a function that tells where in the text itself a span of it came from. That function holds until the
    next layer is asked for.
    """
    below: list[_Layer] = []

    def origin(span: Span) -> Span:
        for layer in reversed(below):
            span = layer.origin(span)
        return span

    yield text, origin
    yield from _without_controls(text, origin)
    while len(below) < _MOST_LAYERS and _MAY_BE_ESCAPED.search(text):
        layer = _Layer(text)
        if layer.text == text:
            return
        below.append(layer)
        text = layer.text
        yield text, origin
        yield from _without_controls(text, origin)


def _without_controls(text: str, origin: Callable[[Span], Span]) -> Iterator[tuple[str, Callable[[Span], Span]]]:
    """The text as it is shown, if it holds what is never shown: invisible characters may stand inside a secret."""
    if _holds_unsafe(text):
        joined = _Joined(text, UNSAFE)
        yield joined.text, lambda span: origin(joined.origin(span))


class _Layer:
    """A text without its outermost escapes, and where in the text each character of it came from."""

    def __init__(self, escaped: str) -> None:
        # For each character that was escaped: its place here, and where its escape begins and ends.
        self._places = array("q")
        self._starts = array("q")
        self._ends = array("q")
        pieces: list[str] = []
        done = length = 0
        for escape in _ESCAPE.finditer(escaped):
            start, end = escape.span()
            length += start - done
            self._places.append(length)
            self._starts.append(start)
            self._ends.append(end)
            length += 1
            pieces += escaped[done:start], _character(escape[0])
            done = end
        self.text = "".join((*pieces, escaped[done:]))

    def origin(self, span: Span) -> Span:
        """The span of the original text that this span came from."""
        start, end = span
        return self._of_character(start)[0], self._of_character(end - 1)[1]

    def _of_character(self, place: int) -> Span:
        index = bisect_right(self._places, place) - 1
        if index < 0:
            return place, place + 1
        past = place - self._places[index]
        if past == 0:
            return self._starts[index], self._ends[index]
        start = self._ends[index] + past - 1
        return start, start + 1


@lru_cache(2**12)
def _character(escape: str) -> str:
    """The one character that an escape stands for."""
    kind = escape[1]
    if escape[0] == "&":
        return html.unescape(escape) or "\ufffd"
    if escape[0] == "%":
        raw = bytes.fromhex(escape.replace("%", ""))
        text = raw.decode("utf-8", "replace")
        # Else it is of another encoding than UTF-8, or of none.
        return text if len(text) == 1 and text != "\ufffd" else chr(raw[0])
    if kind not in "uUx":
        return _CONTROLS.get(kind, kind)
    if len(escape) == len("\\ud800\\udc00"):
        pair = bytes.fromhex(escape[2:6] + escape[8:12])
        return pair.decode("utf-16-be")
    return chr(int(escape[2:].strip("{}"), 16))
