"""The recipes that others run for us: workflows, the Dockerfile and deployments, held against what is known of them."""

import shutil
from collections.abc import Iterator

from release.candidate import Candidate, Finding, run

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


def deployments_are_sound(candidate: Candidate) -> Iterator[Finding]:
    """What is deployed keeps to the schemas of compose and Kubernetes, and kustomize, where it is, puts it together."""
    compose, kubernetes = "manifests/compose/compose.yaml", "manifests/k8s"
    form = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    yield from candidate.check_with(*form, compose, mend=f"mend {compose}")
    parts = [path for path in candidate.tracked if path.startswith(f"{kubernetes}/") and path.endswith(".yaml")]
    objects = [path for path in parts if not path.endswith("/kustomization.yaml")]
    yield from candidate.check_with("kubernetes-validate", "--strict", "--quiet", *objects, mend="mend that file")
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return
    for overlay in sorted((candidate.export / kubernetes / "overlays").iterdir()):
        made = run([kubectl, "kustomize", overlay], cwd=candidate.export)
        if made.returncode:
            yield Finding(f"kubectl kustomize says of {overlay.name}:\n{made.stderr}", f"mend it in {kubernetes}")
            continue
        whole = candidate.scratch / f"{overlay.name}.yaml"
        whole.write_text(made.stdout)
        yield from candidate.check_with("kubernetes-validate", "--strict", "--quiet", whole, mend=f"mend {overlay}")
