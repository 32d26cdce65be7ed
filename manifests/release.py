"""Make what a release hands to directories: ``python -m manifests.release DIST COMMIT``.

These are the bundle, server.json with the hash of the bundle, and the entry for Docker's catalog with the commit that
Docker is to build.
"""

import sys
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


if __name__ == "__main__":
    for path in release(Path(sys.argv[1]), sys.argv[2]):
        print(path)
