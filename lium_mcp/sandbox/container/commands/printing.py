"""``printf`` and the escapes of ``echo -e``."""

import re
from typing import Final

WIDEST: Final = 1000
LONGEST: Final = 1024 * 1024
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|0?[0-7]{1,3}|.)", re.DOTALL)
_SPECIFIER: Final = re.compile(r"%(?:%|([-+ 0#]*)(\d*)(?:\.(\d*))?([sdiuxXofeEgGcbq]))")
_CHARACTERS: Final = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "\\": "\\", '"': '"',
}  # fmt: skip


def unescape(text: str) -> str:
    """Replace backslash escapes."""

    def replaced(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] == "x" and len(code) > 1:
            return _byte(int(code[1:], 16))
        if code[0] in "01234567":
            return _byte(int(code, 8) & 255)
        return _CHARACTERS.get(code, match.group())

    return _ESCAPE.sub(replaced, text)


def _byte(number: int) -> str:
    return bytes([number]).decode("utf-8", "surrogateescape")


def formatted(template: str, arguments: list[str]) -> str:
    """Print arguments by a template, which is used again until none is left.

    Raises:
        ValueError: a conversion the sandbox does not know, or a number that is none.
    """
    left, parts, size = list(arguments), [], 0
    while True:
        before = len(left)
        part = _once(template, left)
        parts.append(part)
        size += len(part)
        if size > LONGEST:
            raise ValueError("output too long")
        if not left or len(left) == before:
            return "".join(parts)


def _once(template: str, left: list[str]) -> str:
    parts, at = [], 0
    while at < len(template):
        percent = template.find("%", at)
        end = len(template) if percent < 0 else percent
        parts.append(unescape(template[at:end]))
        if percent < 0:
            break
        match = _SPECIFIER.match(template, percent)
        if match is None:
            raise ValueError(f"{template[percent : percent + 2]}: invalid conversion specification")
        parts.append("%" if match.group() == "%%" else _converted(match, left.pop(0) if left else None))
        at = match.end()
    return "".join(parts)


def _converted(match: re.Match[str], value: str | None) -> str:
    flags, width, precision, kind = match.groups()
    if max(int(width[:9] or 0), int((precision or "0")[:9])) > WIDEST:
        raise ValueError("width too large")
    spec = f"%{flags}{width}{'' if precision is None else f'.{precision}'}"
    if kind in "sbqc":
        text = value or ""
        text = {"b": unescape(text), "c": text[:1], "q": repr(text) if text else "''"}.get(kind, text)
        return f"{spec.replace('0', '', 1) if flags.startswith('0') else spec}s" % text
    number = value or "0"
    if number[:1] in {"'", '"'} and len(number) > 1:
        number = str(ord(number[1]))
    try:
        if kind in "feEgG":
            return f"{spec}{kind}" % float(number[:100])
        return f"{spec}{'d' if kind in 'iu' else kind}" % int(number[:30], 0)
    except (ValueError, OverflowError):
        raise ValueError(f"{number[:40]}: invalid number") from None
