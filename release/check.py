"""Check that a commit can be released, and build what is uploaded into dist/release (``make release-check``).

Each check says what is well, or what is wrong and what mends it. Without a tag, what only a release has is a warning;
with ``--tag`` nothing may be left. The exit status is 1 if anything is wrong.
"""

import argparse
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from release.candidate import DIST, Candidate, Finding, ReleaseError
from release.contents import no_paths_of_the_builder, no_secrets, only_what_belongs
from release.packaging_checks import (
    changes_are_dated,
    everything_is_committed,
    has_addresses,
    it_builds,
    metadata_is_valid,
    owner_is_set,
    registry_finds_its_marker,
    twice_the_same,
    versions_agree,
)
from release.recipes import deployments_are_sound, image_is_sound, workflows_are_sound
from release.starting import pythons, starts_on_every_python
from release.tool_list import NOTES, breaks_only_with_a_new_number, notes, stays_within_its_budget
from tests.compat.installs import installed

ROOT: Final = Path(__file__).parent.parent
Check = Callable[[Candidate], Iterable[Finding]]
CHECKS: Final[dict[str, Check]] = {
    "builds": it_builds,
    "committed": everything_is_committed,
    "owner": owner_is_set,
    "changelog": changes_are_dated,
    "versions": versions_agree,
    "reproducible": twice_the_same,
    "metadata": metadata_is_valid,
    "addresses": has_addresses,
    "marker": registry_finds_its_marker,
    "contents": only_what_belongs,
    "secrets": no_secrets,
    "paths": no_paths_of_the_builder,
    "budget": stays_within_its_budget,
    "compatible": breaks_only_with_a_new_number,
    "workflows": workflows_are_sound,
    "image": image_is_sound,
    "deployments": deployments_are_sound,
    "starts": starts_on_every_python,
}


def main(arguments: Sequence[str]) -> int:
    """Run the checks and return the exit status."""
    parser = argparse.ArgumentParser(prog="make release-check", description=__doc__)
    parser.add_argument("--tag", type=_tag, help="the tag that this commit is released under, such as v0.1.0")
    parser.add_argument("--only", choices=CHECKS, nargs="+", metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lium-release-") as scratch:
        candidate = Candidate(ROOT, Path(scratch), installed("release") / "bin", options.tag)
        wrong = _wrong(options.only or list(CHECKS), candidate)
        if not wrong and not options.only:
            _hand_over(candidate)
    if wrong:
        print(f"\nThis cannot be released: {', '.join(wrong)}.")
    return bool(wrong)


def _tag(text: str) -> str:
    if not re.fullmatch(r"v[0-9]\S*", text):
        hint = f"v{text}" if text[:1].isdigit() else "v0.1.0"
        raise argparse.ArgumentTypeError(
            f"{text or 'nothing'}: a tag is v and the version, as {hint} (make release-check TAG={hint})"
        )
    return text


def _wrong(names: Sequence[str], candidate: Candidate) -> list[str]:
    """Run these checks, after the one without which there is nothing to check; return those that failed."""
    if not _is_well("builds", candidate):
        return ["builds"]
    return [name for name in names if name != "builds" and not _is_well(name, candidate)]


def _is_well(name: str, candidate: Candidate) -> bool:
    try:
        findings = list(CHECKS[name](candidate))
    except ReleaseError as reason:
        findings = [Finding(str(reason), "mend that, and check again")]
    wrong = [finding for finding in findings if candidate.tag is not None or not finding.waits]
    word = "WRONG" if wrong else "later" if findings else "ok"
    print(f"{word:6} {name:13} {(CHECKS[name].__doc__ or '').splitlines()[0]}")
    for finding in findings:
        print("\n".join(f"       {line}" for line in f"{finding.said}\n-> {finding.mend}".splitlines()))
    sys.stdout.flush()
    return not wrong


def _hand_over(candidate: Candidate) -> None:
    """Put what is uploaded into dist/release, with the hashes of what people download and the notes of the release."""
    dist = ROOT / DIST
    shutil.rmtree(dist, ignore_errors=True)
    shutil.copytree(candidate.built.folder, dist)
    archives = [path for path in sorted(dist.iterdir()) if path.is_file()]
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in archives)
    (dist / "SHA256SUMS").write_text(sums)
    (dist / NOTES).write_text(told := notes(candidate))
    print(f"\n{DIST}/ has what is uploaded, tried on Python {', '.join(pythons(candidate))}:\n{sums}\n{told}", end="")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
