"""What is wrong with what an entry of a host sets of its server."""

from lium_mcp.hosts.entry_settings import options_of, settings_of
from lium_mcp.hosts.host_entries import InstalledEntry, is_filled_in
from lium_mcp.settings_reading import idle_variables, load_readable
from lium_mcp.settings_table import OVER_HTTP, SETTINGS, as_option, is_option
from lium_mcp.values import no_such


def problems_of_entry(entry: InstalledEntry) -> list[str]:
    """What is wrong with the settings of an entry: misspelt or unreadable ones, for which its server refuses calls."""
    if entry.url:
        return []
    known = [as_option(name) for name in SETTINGS if is_option(name)]
    typed = options_of(entry)
    unknown = [option for name, option in typed.items() if as_option(name) not in known]
    # What a host fills in, nobody knows before it does.
    given = {name: text for name, text in settings_of(entry).items() if text and not is_filled_in(text)}
    # What else is wrong with this environment is nothing to that server.
    found = load_readable({name: text for name, text in given.items() if name not in OVER_HTTP})[1]
    unreadable = [problem.partition(":") for problem in found if problem.startswith("--")]
    names = {as_option(name): typed.get(name, SETTINGS[name].variable) for name in given}
    return [
        *idle_variables(entry.variables),
        *(no_such(option, known, like=option, kind="option") for option in unknown),
        *(f"{names[option]}:{why}" for option, _, why in unreadable if option in names),
    ]
