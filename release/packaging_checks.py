"""What an index shows and an installer reads: the metadata, the versions and the addresses."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from release.candidate import CHANGELOG, Candidate, Finding

PLACEHOLDER: Final = "OWNER"
# What an index links beside the description, by the names that it knows.
_ADDRESSES: Final = {
    "source": {"source", "repository", "sourcecode", "github", "homepage"},
    "documentation": {"documentation", "docs"},
    "issues": {"issues", "bugs", "tracker", "issuetracker", "bugtracker"},
    "changelog": {"changelog", "changes", "releasenotes", "history"},
}
_SET_OWNER: Final = "put the account that publishes in its place, in manifests/source.toml first, then `make snapshots`"
_NAMES_A_VERSION: Final = ("plugin.json", "marketplace.json", "gemini-extension.json", "server.json")


def it_builds(candidate: Candidate) -> Iterator[Finding]:
    """The commit builds: an sdist, the wheel from that, the bundle, and what directories are told."""
    if not candidate.built.files:
        yield Finding("the build made nothing", "see [tool.hatch.build] in pyproject.toml")


def everything_is_committed(candidate: Candidate) -> Iterator[Finding]:
    """What is not committed is not checked."""
    if changed := candidate.git("status", "--porcelain").splitlines():
        yield Finding(
            f"{len(changed)} files differ from the commit, which alone is checked: {changed[0].strip()} ...",
            "commit them, or put them away",
            waits=True,
        )


def twice_the_same(candidate: Candidate) -> Iterator[Finding]:
    """Two builds of a commit are the same bytes, wherever they are made."""
    first, second = candidate.built.files, candidate.built_again.files
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second or first[name].read_bytes() != second[name].read_bytes():
            yield Finding(
                f"{name} differs between two builds of one commit",
                "find what puts a path, a time or an order of its own into it: `diffoscope` shows where",
            )


def metadata_is_valid(candidate: Candidate) -> Iterator[Finding]:
    """The metadata is what its formats ask for, and the description can be shown."""
    built = candidate.built
    mend = "mend pyproject.toml, or README.md where it is about the description"
    yield from candidate.check_with("validate-pyproject", "pyproject.toml", mend=mend)
    yield from candidate.check_with("twine", "check", "--strict", built.sdist, built.wheel, mend=mend)


def has_addresses(candidate: Candidate) -> Iterator[Finding]:
    """The page on the index leads to the sources, the documents, the issues and the changes."""
    given = candidate.built.metadata.get("project_urls", {})
    names = {re.sub(r"[\W_]", "", name).lower(): url for name, url in given.items()}
    for wanted, known in _ADDRESSES.items():
        if not known & names.keys():
            yield Finding(f"there is no address for {wanted}", "name it under [project.urls] in pyproject.toml")
    owner = candidate.source["owner"]
    for name, url in given.items():
        if not url.startswith("https://"):
            yield Finding(f"the address {name} is {url}", "let it begin with https://")
        elif url.startswith("https://github.com/") and url.split("/")[3] != owner:
            yield Finding(f"the address {name} is {url}, but the owner is {owner}", _SET_OWNER)


def owner_is_set(candidate: Candidate) -> Iterator[Finding]:
    """An account publishes, and nothing says that nobody does."""
    if not candidate.source["published"]:
        yield Finding(
            "published in manifests/source.toml is false: hosts are told to start what a clone has",
            "set it to true, then `make snapshots`",
            waits=True,
        )
    if candidate.source["owner"] == PLACEHOLDER:
        yield Finding(f"owner in manifests/source.toml is still {PLACEHOLDER}", _SET_OWNER, waits=True)
        return
    for path in candidate.tracked:
        if path.startswith(("tests/", "release/")):
            continue
        text = (candidate.export / path).read_bytes()
        if f"github.com/{PLACEHOLDER}/".encode() in text or f"io.github.{PLACEHOLDER}/".encode() in text:
            yield Finding(f"{path} still names the account {PLACEHOLDER}", _SET_OWNER)


def registry_finds_its_marker(candidate: Candidate) -> Iterator[Finding]:
    """The MCP Registry looks for its name in the description that is on the index, and takes no release without it."""
    name = json.loads((candidate.export / "manifests" / "server.json").read_text())["name"]
    found = re.findall(r"mcp-name: (\S+)", candidate.built.metadata.get("description", ""))
    if found != [name]:
        said = f"has {', '.join(found)}" if found else "has no marker"
        yield Finding(
            f"the description {said}, and manifests/server.json is named {name}",
            f"have exactly one `<!-- mcp-name: {name} -->` in README.md",
        )


def versions_agree(candidate: Candidate) -> Iterator[Finding]:
    """Whatever names a version names this one."""
    version = candidate.version
    built = candidate.built
    named = {
        "the sdist": [built.sdist.name.removesuffix(".tar.gz").rpartition("-")[2]],
        "the bundle": _versions(json.loads(built.bundle_files["manifest.json"])),
        "what the registry is told": _versions(json.loads(built.files["server.json"].read_text())),
    }
    for path in candidate.tracked:
        if path.endswith(_NAMES_A_VERSION) and not path.startswith(("tests/", "lium_mcp/")):
            named[path] = _versions(json.loads((candidate.export / path).read_text()))
    for what, versions in named.items():
        for other in {*versions} - {version}:
            yield Finding(
                f"{what} says {other}, and the package is {version}",
                "set __version__ in lium_mcp/__init__.py, then `make snapshots`",
            )
    if candidate.tag is not None and candidate.tag != f"v{version}":
        yield Finding(f"the tag is {candidate.tag}, and the package is {version}", f"tag it v{version}")


def _versions(described: Any) -> list[str]:  # noqa: ANN401 - JSON
    """Every version in a manifest, with those of images."""
    if isinstance(described, list):
        return [version for item in described for version in _versions(item)]
    if not isinstance(described, dict):
        return []
    own = [described["version"]] if isinstance(described.get("version"), str) else []
    if described.get("registryType") == "oci":
        own.append(str(described["identifier"]).rpartition(":")[2])
    return own + [version for value in described.values() for version in _versions(value)]


def changes_are_dated(candidate: Candidate) -> Iterator[Finding]:
    """The changelog has the version with its day, and no change that is of no version."""
    version = candidate.version
    text = (candidate.export / CHANGELOG).read_text()
    if not re.search(rf"^## \[?{re.escape(version)}\]? - \d{{4}}-\d{{2}}-\d{{2}}$", text, re.MULTILINE):
        yield Finding(
            f"{CHANGELOG} has no heading for {version} with a date",
            f"put `## {version} - YYYY-MM-DD` over what is in this release",
            waits=True,
        )
    if re.search(r"^## \[?Unreleased\]?\n+(?!## )\S", text, re.MULTILINE):
        yield Finding(
            f"{CHANGELOG} has changes under Unreleased", "put the version that brings them over them", waits=True
        )
