"""The recipes that others run for us: workflows and the Dockerfile, held against what linters know of them."""

from collections.abc import Iterator

from release.candidate import Candidate, Finding

_WORKFLOWS = ".github/workflows"


def workflows_are_sound(candidate: Candidate) -> Iterator[Finding]:
    """Workflows are of the form that GitHub reads, pinned, and allowed no more than they need."""
    files = [path for path in candidate.tracked if path.startswith(f"{_WORKFLOWS}/")]
    mend = f"mend it in {_WORKFLOWS}"
    form = ("check-jsonschema", "--builtin-schema", "vendor.github-workflows")
    yield from candidate.check_with(*form, *files, mend=mend)
    yield from candidate.check_with(
        "zizmor", "--offline", "--no-progress", "--quiet", "--color", "never", _WORKFLOWS, mend=mend
    )


def image_is_sound(candidate: Candidate) -> Iterator[Finding]:
    """The Dockerfile keeps to what hadolint knows."""
    yield from candidate.check_with("hadolint", "Dockerfile", mend="mend the Dockerfile")
