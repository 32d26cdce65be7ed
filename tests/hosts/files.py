"""The ready-made files in real hosts: `make test-hosts`, or this alone with `python -m tests.hosts.files`.

Each host gets an empty home and each file as it is in `manifests/hosts`, put where a person would put it. `lium-mcp`,
installed from a wheel of this checkout, is on the path, and knows a simulated Lium, whose only key is in the host's own
environment: where the model of the host gets its balance, the key has arrived.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lium_mcp.hosts.documents import Document, Edit
from lium_mcp.hosts.host_entries import KEY_TO_FILL_IN
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.installed_entries import config_file
from manifests.generate import with_generated
from manifests.host_files import LOCAL_URL, SHIPPED, VARIANTS, Variant, path_of, variants
from manifests.source import HERE as MANIFESTS
from tests.compat.simulated import Simulated, simulating
from tests.hosts.hosts import HOSTS, Host
from tests.hosts.installs import CALLED, DOCUMENT
from tests.hosts.programs import Program, install_hosts, install_ours
from tests.hosts.scripted_model import scripted_model
from tests.http_server import serving

KEY: Final = "sk_sandbox"
Seen = dict[str, dict[Variant, bool]]
"""Whether the model got its answer, by the host and the file."""


def main() -> int:
    """Try each file, and write down what was seen; the exit status is the verdict."""
    install_hosts([host.package for host in HOSTS])
    script, *_ = install_ours()
    with tempfile.TemporaryDirectory() as directory:
        seen = try_all(script, Path(directory))
    write_down(seen)
    return 0 if all(all(by_variant.values()) for by_variant in seen.values()) else 1


def try_all(script: Program, homes: Path) -> Seen:
    """Put each file into its host, and let the host's model call a tool."""
    homes.mkdir(exist_ok=True)
    seen: Seen = {}
    with ExitStack() as around:
        lium = around.enter_context(simulating())
        lium.begin()
        port = str(urlsplit(LOCAL_URL).port)
        around.enter_context(serving(homes / "served", "--port", port, LIUM_BASE_URL=lium.base_url))
        path = with_our_command(script, lium, homes / "bin")
        for kind in HOSTS:
            seen[kind.typed] = {}
            for variant in variants(SHIPPED[kind.typed]):
                host = kind(homes / f"{kind.program}-{variant}")
                seen[kind.typed][variant] = works = _try(host, variant, path)
                sys.stdout.write(f"{kind.title()} with {variant} of manifests: {'run' if works else 'FAILS'}\n")
                sys.stdout.flush()
    return seen


def with_our_command(script: Program, lium: Simulated, folder: Path) -> str:
    """A PATH on which `lium-mcp` is the installed one, over the simulated Lium: hosts would not pass on its address."""
    folder.mkdir()
    command = folder / "lium-mcp"
    command.write_text(f'#!/bin/sh\nLIUM_BASE_URL={lium.base_url} exec "{script.command[0]}" "$@"\n')
    command.chmod(0o755)
    return os.pathsep.join((str(folder), os.environ["PATH"]))


def _try(host: Host, variant: Variant, path: str) -> bool:
    key = {} if variant == "sandbox" else {"LIUM_API_KEY": KEY}
    host.add_variables(PATH=path, NO_PROXY="127.0.0.1", **key)
    with scripted_model(*host.calls(CALLED)) as model:
        host.prepare(model)
        _put(host, variant)
        host.prompt(model)
    return len(model.turns) > 1 and re.search(r"balance_usd\W+100\b", json.dumps(model.turns[-1])) is not None


def _put(host: Host, variant: Variant) -> None:
    """Put what a file holds beside what the host has in its own, with a key where one is to be put."""
    shape = SHIPPED[host.typed]
    target = config_file(shape, Machine("linux", {"HOME": str(host.home)}, host.home), "user")
    assert target is not None
    there = target.read_bytes() if target.exists() else b""
    text = (MANIFESTS / path_of(shape, variant)).read_text().replace(KEY_TO_FILL_IN, KEY)
    ready = Document(text.encode(), shape.file_format).content
    edits = [
        Edit((name, inner), entry) if isinstance(value, dict) else Edit((name,), value)
        for name, value in ready.items()
        for inner, entry in (value.items() if isinstance(value, dict) else [("", None)])
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(Document(there, shape.file_format).edited(edits))


def write_down(seen: Seen) -> None:
    """Write what was seen into the document."""
    DOCUMENT.write_text(with_generated(DOCUMENT.read_text(), "files", "\n".join(_part(seen))))


def _part(seen: Seen) -> Iterable[str]:
    titles = {host.typed: host.title() for host in HOSTS}
    yield f"Seen on {datetime.now(UTC).date().isoformat()}."
    yield ""
    yield f"| host | {' | '.join(VARIANTS)} |"
    yield f"|---|{'---|' * len(VARIANTS)}"
    for name, host in SHIPPED.items():
        verdicts = [_verdict(seen.get(name), variant) if variant in variants(host) else "-" for variant in VARIANTS]
        yield f"| {titles.get(name, host.title)} | {' | '.join(verdicts)} |"


def _verdict(seen: dict[Variant, bool] | None, variant: Variant) -> str:
    return "schema only" if seen is None else "run" if seen[variant] else "FAILS"


if __name__ == "__main__":
    sys.exit(main())
