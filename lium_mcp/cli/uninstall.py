"""``lium-mcp uninstall HOST``: take our entry out of a host's file, and nothing else."""

from typing import Any

from lium_mcp.cli.changes_shown import carry_out, host_named
from lium_mcp.hosts.config_changes import plan_uninstall
from lium_mcp.hosts.host_machine import Machine


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    host, machine = host_named(options["host"]), Machine.this()
    return carry_out(
        lambda is_done: plan_uninstall(host, machine, options["scope"], is_taken_out=is_done),
        machine,
        yes=options["yes"],
        dry_run=options["dry_run"],
    )
