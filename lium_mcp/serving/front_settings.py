"""What the settings offer, as far as that can be told before pydantic is imported.

Only values that are written plainly are read here: for each kind of setting there is a narrow form that `settings.py`
surely takes, and takes for the same. Quotes, placeholders, most files and slips are left to it, and cost the host
the second that the imports take. Standard library only.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence

from lium_mcp.settings_table import (
    DEFAULT_TOOLSETS,
    FALSE,
    LIMITS,
    OVER_HTTP,
    SETTINGS,
    TRUE,
    Offer,
    is_option,
    meant_setting,
)

_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _LETTERS | _DIGITS | frozenset("_-")
_HEX = _DIGITS | frozenset("abcdefABCDEF")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = frozenset(("https_proxy", "all_proxy"))
_MOST_DIGITS = 12


def find_offer(
    words: Sequence[str], environment: Mapping[str, str], tools: Collection[str], read_file: Callable[[str], bytes]
) -> Offer | None:
    """What a server over standard input and output offers; None where that cannot be told here.

    Args:
        words: The command line, without the program.
        environment: The variables.
        tools: The names of all tools that there are.
        read_file: Reads a file, for that of the official client; raises OSError.
    """
    options = _options(words)
    variables = _variables(environment)
    if options is None or variables is None:
        return None
    settings = [*variables.items(), *options.items()]
    if not all(_is_plain(name, value, tools) for name, value in settings):
        return None
    values = variables | options
    is_usual = values.get("transport", "stdio") == "stdio" and _is_period_of_a_budget(values)
    if not is_usual or not _can_be_reached(values, environment) or not _has_plain_files(values, environment, read_file):
        return None
    return Offer(
        toolsets=frozenset(_listed(values["toolsets"])) if "toolsets" in values else DEFAULT_TOOLSETS,
        allow_tools=frozenset(_listed(values.get("allow_tools", ""))),
        deny_tools=frozenset(_listed(values.get("deny_tools", ""))),
        read_only=values.get("read_only", "").lower() in TRUE,
        limits={} if values.get("policy_mode") == "shadow" else _limits(values),
    )


def _limits(values: Mapping[str, str]) -> dict[str, object]:
    """The limits among plain values, each as what it means."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if name in LIMITS:
            kind = LIMITS[name].kind
            is_list = kind not in ("number", "count", "day")
            found[name] = frozenset(_listed(value)) if is_list else value if kind == "day" else float(value)
    return found


def _options(words: Sequence[str]) -> dict[str, str] | None:
    """The options of a command line that serves, by the names of their settings; the last of one name counts."""
    found: dict[str, str] = {}
    waiting = iter(words)
    served = False
    for word in waiting:
        if word == "serve" and not served:
            served = True
            continue
        option, has_value, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        flag = name.removeprefix("no_")
        if not option.startswith("--") or "_" in option or flag in OVER_HTTP:
            return None
        if flag in SETTINGS and SETTINGS[flag].kind == "flag" and is_option(flag) and not has_value:
            found[flag] = "true" if flag == name else "false"
        elif name in SETTINGS and SETTINGS[name].kind != "flag" and is_option(name):
            text = value if has_value else next(waiting, "")
            if not text or text.startswith("-"):
                return None
            found[name] = text
        else:
            return None
    return found


def _variables(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The variables that set something, by the names of their settings."""
    names = {setting.variable: name for name, setting in SETTINGS.items()}
    found: dict[str, str] = {}
    for variable, value in environment.items():
        name = names.get(variable.upper())
        if name is None:
            if meant_setting(variable.upper()) is not None:
                return None
        elif name in found or not variable.isascii() or (not value and variable.upper().startswith("LIUM_MCP_")):
            return None
        else:
            found[name] = value
    return {name: value for name, value in found.items() if value}


def _is_plain(name: str, value: str, tools: Collection[str]) -> bool:  # noqa: C901, PLR0911, PLR0912 - one line a kind
    """Whether a value is surely valid, and means what it says."""
    setting = SETTINGS[name]
    match setting.kind:
        case "key":
            return _is_plain_key(value)
        case "password":
            return value.isascii()
        case "address":
            return _is_plain_address(value)
        case "path":
            return _is_plain_path(value)
        case "flag":
            return value.lower() in TRUE | FALSE
        case "choice":
            return value in setting.choices
        case "choices":
            return _all(_listed(value), lambda entry: entry in setting.choices)
        case "tools":
            return _all(_listed(value), lambda entry: entry in tools)
        case "number" | "count":
            return _is_plain_number(value, setting.low, setting.high, whole=setting.kind == "count")
        case "day":
            return _is_plain_day(value)
        case "gpu types":
            return _all(_listed(value), _is_plain_gpu)
        case "countries":
            return _all(_listed(value), lambda entry: len(entry) == len("US") and set(entry) <= _LETTERS)
        case "ids":
            return _all(_listed(value), _is_plain_id)
        case _:
            return False


def _listed(value: str) -> list[str]:
    return [entry.strip(" ") for entry in value.split(",") if entry.strip(" ")]


def _all(entries: list[str], is_valid: Callable[[str], bool]) -> bool:
    return bool(entries) and all(set(entry) <= _WORD and is_valid(entry) for entry in entries)


def _is_plain_key(value: str) -> bool:
    # With a digit in it, it is none of the words that documentation shows in place of a key.
    rest = set(value.removeprefix("sk_"))
    return value.startswith("sk_") and rest <= _WORD and bool(rest & _DIGITS)


def _is_plain_address(value: str) -> bool:
    scheme, _, rest = value.partition("://")
    host, _, path = rest.rstrip("/").partition("/")
    if scheme == "http":
        name, _, port = host.partition(":")
        is_here = name in ("127.0.0.1", "localhost") and set(port) <= _DIGITS and (not port or 0 < int(port) < 2**16)
        return is_here and set(path) <= _WORD
    labels = host.split(".")
    is_name = len(labels) > 1 and all(_is_plain_label(label) for label in labels)
    return scheme == "https" and is_name and bool(set(labels[-1]) & _LETTERS) and set(path) <= _WORD


def _is_plain_label(label: str) -> bool:
    is_short = 0 < len(label) <= 63  # noqa: PLR2004 - the longest label of a host name
    return is_short and set(label) <= _LETTERS | _DIGITS | {"-"} and label.strip("-") == label and "--" not in label


def _is_plain_path(value: str) -> bool:
    return value.startswith(("/", "~/")) and set(value.removeprefix("~")) <= _WORD | frozenset("/.")


def _is_plain_number(value: str, low: float | None, high: float | None, *, whole: bool) -> bool:
    units, _, parts = value.partition(".")
    is_number = bool(units) and set(units + parts) <= _DIGITS and len(value) <= _MOST_DIGITS
    if not is_number or value not in ((str(int(units)),) if whole else (units, f"{units}.{parts}")):
        return False
    number = float(value)
    return (low is None or number >= low) and (high is None or number <= high)


def _is_plain_day(value: str) -> bool:
    year, month, day = [*value.split("-"), "", "", ""][:3]
    has_form = value == f"{year}-{month}-{day}" and (len(year), len(month), len(day)) == (4, 2, 2)
    is_in_digits = has_form and set(year + month + day) <= _DIGITS
    # Days that every month has.
    return is_in_digits and year >= "2000" and "01" <= month <= "12" and "01" <= day <= "28"


def _is_plain_gpu(value: str) -> bool:
    number = value.lstrip("RTXABHL")
    family = value.removesuffix(number)
    return family in ("RTX", "A", "B", "H", "L") and 1 < len(number) <= len("4090") and set(number) <= _DIGITS


def _is_plain_id(value: str) -> bool:
    parts = value.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and set("".join(parts)) <= _HEX


def _is_period_of_a_budget(values: Mapping[str, str]) -> bool:
    return "budget_since" not in values or "budget_usd" in values


def _can_be_reached(values: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    """Whether proxy and certificates, if any are set, surely can be used."""
    if values.get("base_url", "https").startswith("http:"):
        return True
    for variable, value in environment.items():
        if variable not in _CERTIFICATES and variable.upper() in _CERTIFICATES:
            return False
        if variable.lower() in _PROXIES and value:
            host, _, port = value.removeprefix("http://").rstrip("/").partition(":")
            is_address = value.startswith("http://") and bool(host) and set(host) <= _WORD | frozenset(".")
            if not is_address or not set(port) <= _DIGITS or not 0 < int(port or 1) < 2**16:
                return False
    file, folder = (environment.get(variable, "") for variable in _CERTIFICATES)
    if file:
        return _holds_certificates(file)
    # To import pathlib takes a third of the start.
    return not folder or (_is_plain_path(folder) and folder[0] == "/" and os.path.isdir(folder))  # noqa: PTH112


def _holds_certificates(file: str) -> bool:
    if not _is_plain_path(file) or file[0] != "/" or not os.path.isfile(file):  # noqa: PTH113 - as above
        return False
    import ssl  # noqa: PLC0415 - it takes as long as all else here, and few need it

    try:
        ssl.create_default_context(cafile=file)
    except OSError:
        return False
    return True


def _has_plain_files(
    values: Mapping[str, str], environment: Mapping[str, str], read_file: Callable[[str], bytes]
) -> bool:
    """Whether the official client's file, if it is read and there is one, surely can be read."""
    home = environment.get("HOME", "")
    if "api_key" in values and "ssh_key_path" in values:
        return not ("HOME" in environment and not home.startswith("/"))
    if not home.startswith("/") or environment.get("LIUM_WORKSPACE"):
        return False
    try:
        lines = read_file(f"{home}/.lium/config.ini").decode("ascii").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, UnicodeError):
        return False
    return _is_plain_config(lines)


def _is_plain_config(lines: Sequence[str]) -> bool:
    seen: set[str] = set()
    section = ""
    for line in lines:
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            name = f"[{section}]"
            if not section or section == "DEFAULT" or not set(section) <= _WORD | frozenset("."):
                return False
        elif line:
            key, is_set, value = (part.strip(" ") for part in line.partition("="))
            name = f"{section} {key.lower()}"
            checks = {"api_key": _is_plain_key, "key_path": _is_plain_path}
            is_plain = checks.get(key.lower(), lambda text: set(text) <= _WORD | frozenset("/.:"))
            if not section or not is_set or not key or not set(key) <= _WORD or line[0] == " " or not is_plain(value):
                return False
        else:
            continue
        if name in seen:
            return False
        seen.add(name)
    return True
