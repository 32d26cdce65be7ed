"""Make what a release hands to directories: ``.venv/bin/python -m manifests.release DIST COMMIT``.

These are the bundle, server.json with the hash of the bundle, and the entry for Docker's catalog with the commit that
Docker is to build.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from manifests.bundle import build
from manifests.directories import catalog_entry, registry_entry
from manifests.generate import as_json, as_yaml
from manifests.source import read


def release(folder: Path, commit: str) -> list[Path]:
    """Write the three into a folder and return their paths."""
    source = read()
    bundle = build(folder)
    made = {
        "server.json": as_json(registry_entry(source, sha256(bundle.read_bytes()).hexdigest())),
        "catalog/lium/server.yaml": as_yaml(catalog_entry(source, commit)),
    }
    for name, text in made.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return [bundle, *(folder / name for name in made)]


def main(arguments: Sequence[str]) -> None:
    """Write them, and print the path of each."""
    parser = argparse.ArgumentParser(prog="python -m manifests.release", description="Write the files of a release.")
    parser.add_argument("folder", metavar="DIST", type=Path, help="where they go, such as dist")
    parser.add_argument("commit", metavar="COMMIT", type=_commit, help="what `git rev-parse HEAD` prints")
    options = parser.parse_args(arguments)
    for path in release(options.folder, options.commit):
        print(path)


def _commit(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", text):
        raise argparse.ArgumentTypeError("a whole commit id is needed, which `git rev-parse HEAD` prints")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
