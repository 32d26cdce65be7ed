"""What is in the files that are uploaded: what belongs there, and nothing else."""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from release.candidate import Candidate, Finding

# A `*` crosses folders. What the package reads beside its own sources is here, so that a new kind is a decision.
_PACKAGE: Final = (*(f"lium_mcp/*.{kind}" for kind in ("py", "html", "json", "md", "sh", "tsv")), "lium_mcp/py.typed")
_ABOUT_THE_WHEEL: Final = tuple(
    f"*.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
)
_BUILT_FROM: Final = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
_KINDS: Final = {
    "the wheel": (*_PACKAGE, *_ABOUT_THE_WHEEL),
    "the sdist": (*_PACKAGE, *_BUILT_FROM, "web/*", "CHANGELOG.md", "PKG-INFO", ".gitignore"),
    "the bundle": (*_PACKAGE, "manifest.json", "pyproject.toml", "main.py", "LICENSE", "icon.png"),
}
_SECRETS: Final = ("detect-secrets", "scan", "--all-files", "--disable-plugin", "KeywordDetector")
_KEY_FORMS: Final = Path(__file__).with_name("lium_keys.py")


def only_what_belongs(candidate: Candidate) -> Iterator[Finding]:
    """Each archive holds the package whole, what describes it, and nothing else."""
    package = {path for path in candidate.tracked if path.startswith("lium_mcp/")}
    for what, files in _archives(candidate).items():
        for name in files:
            if not any(fnmatch(name, kind) for kind in _KINDS[what]) or "/test" in name:
                yield Finding(
                    f"{what} holds {name}",
                    "keep it out by [tool.hatch.build] in pyproject.toml, or add its kind to release/contents.py",
                )
        for name in sorted(package - files.keys()):
            yield Finding(f"{what} lacks {name}", "let [tool.hatch.build] or manifests/bundle.py take it along")
    built = candidate.built
    [scripts] = [text for name, text in built.wheel_files.items() if name.endswith("/entry_points.txt")]
    if b"lium-mcp = lium_mcp.__main__:main" not in scripts.splitlines():
        yield Finding("the wheel brings no command lium-mcp", "name it under [project.scripts] in pyproject.toml")
    yield from candidate.check_with(
        "check-wheel-contents", built.wheel, mend="see what its code means at https://pypi.org/p/check-wheel-contents"
    )


def no_secrets(candidate: Candidate) -> Iterator[Finding]:
    """Nothing that looks like a key is uploaded."""
    folder = candidate.scratch / "uploaded"
    for what, files in _archives(candidate).items():
        for name, content in files.items():
            path = folder / what / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    scan = candidate.output_of(*_SECRETS, "--plugin", _KEY_FORMS, ".", cwd=folder)
    for path, found in json.loads(scan)["results"].items():
        for secret in found:
            yield Finding(
                f"{path}, line {secret['line_number']}, holds what looks like a secret ({secret['type']})",
                "take it out, and revoke it if it is real: it is in the history; "
                "if it is none, end its line with `# pragma: allowlist secret`",
            )


def no_paths_of_the_builder(candidate: Candidate) -> Iterator[Finding]:
    """Nothing tells where it was built or by whom."""
    told = {str(path) for path in (candidate.root, candidate.scratch)} | {"/home/", "/Users/", "C:\\Users\\"}
    for what, files in _archives(candidate).items():
        for name, content in files.items():
            for path in sorted(path for path in told if path.encode() in content):
                yield Finding(f"{what} names {path} in {name}", "write no path of one machine into it")


def _archives(candidate: Candidate) -> dict[str, dict[str, bytes]]:
    built = candidate.built
    return {"the wheel": built.wheel_files, "the sdist": built.sdist_files, "the bundle": built.bundle_files}
