"""Lium's texts advise commands of its own command line; here they name the tools of this server instead."""

import re
from typing import Final

_TOOL_OF_COMMAND: Final = {
    "ls": "list_gpus",
    "ps": "list_pods",
    "up": "rent_pod",
    "rm": "remove_pod",
    "down": "remove_pod",
    "reboot": "reboot_pod",
    "exec": "run_command",
    "ssh": "run_command",
    "logs": "get_pod_logs",
    "scp": "upload_files",
    "rsync": "upload_files",
    "schedules": "list_pods",
    "templates": "list_templates",
    "volumes": "list_volumes",
    "bk": "list_backups",
    "balance": "get_balance",
    "spend": "get_spending",
}
# Quoted with whatever follows, or bare with the options that follow.
_COMMAND: Final = re.compile(
    r"""(?P<mark>[`'"])lium (?P<quoted>[a-z-]+)[^`'"\n]{0,100}(?P=mark)"""
    rf"""|\blium (?P<bare>{"|".join(_TOOL_OF_COMMAND)}|init|fund|config|keys|update|theme)\b(?: --?[\w=-]+)*"""
)


def without_commands(text: str) -> str:
    """Name our tools where a text of Lium's names commands of its own program."""

    def tool(match: re.Match[str]) -> str:
        return _TOOL_OF_COMMAND.get(match["quoted"] or match["bare"], "Lium's web site (lium.io)")

    return _COMMAND.sub(tool, text) if "lium " in text else text
