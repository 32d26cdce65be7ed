"""`make release-check`: each check lets a sound commit pass, and refuses one with the fault that it is there for.

The copies are repositories of their own, and what runs in them is their own check, from the command line. To build one
takes seconds, so all faults that can stand beside each other are in one copy.
"""

import pytest
from packaging.version import Version

from lium_mcp import __version__
from tests.release.conftest import Checked, MakeCopy

pytestmark = [pytest.mark.external, pytest.mark.timeout(900)]
# What has to be so before there is a release at all; the rest waits for its day.
ALWAYS = (
    *("versions", "reproducible", "metadata", "addresses", "marker", "contents", "secrets", "paths", "budget"),
    *("compatible", "workflows", "image", "deployments"),
)
NAMES = ("owner", "changelog", "committed")
OTHER = "9.9.9"
# What each check says of a copy with all faults.
REFUSED = [
    ("owner", "more/left.md still names the account OWNER"),
    ("versions", f"manifests/server.json says {__version__}, and the package is {OTHER}"),
    ("versions", f"more/server.json says 0.0.1, and the package is {OTHER}"),
    ("metadata", "validate-pyproject says:"),
    ("metadata", "twine says:"),
    ("addresses", "there is no address for issues"),
    ("addresses", "there is no address for changelog"),
    ("addresses", "the address Source is https://github.com/else/lium-mcp, but the owner is somebody"),
    ("addresses", "the address Documentation is http://docs.example.com"),
    (
        "marker",
        "the description has io.github.else/lium-mcp, and manifests/server.json is named ",
    ),
    ("contents", "the wheel holds lium_mcp/core.bin"),
    ("contents", "the sdist holds lium_mcp/tests/test_all.py"),
    ("contents", "the wheel lacks lium_mcp/py.typed"),
    ("contents", "the wheel lacks lium_mcp/serving/recorded.tsv"),
    ("contents", "the wheel brings no command lium-mcp"),
    ("secrets", "holds what looks like a secret (Lium API key)"),
    ("secrets", "holds what looks like a secret (AWS Access Key)"),
    ("secrets", "holds what looks like a secret (Private Key)"),
    ("paths", "the wheel names /home/ in lium_mcp/here.py"),
    ("budget", "list_gpus costs"),
    ("workflows", "zizmor says:"),
    ("workflows", "check-jsonschema says:"),
    ("image", "hadolint says:"),
    ("deployments", "check-jsonschema says:"),
    ("deployments", "kubernetes-validate says:"),
]


@pytest.fixture(scope="module")
def faulty(make_copy: MakeCopy) -> Checked:
    """What is said of a copy with all of these faults."""
    copy = make_copy("faulty")
    copy.replace_line("manifests/source.toml", "owner = ", 'owner = "somebody"\n')
    copy.write("more/left.md", "https://github.com/OWNER/lium-mcp")
    copy.set_version(OTHER)
    copy.write("more/server.json", '{"packages": [{"registryType": "oci", "identifier": "ghcr.io/o/lium-mcp:0.0.1"}]}')
    copy.replace("pyproject.toml", "[project]\n", '[project]\ncolour = "red"\n')
    copy.replace("hatch_build.py", '"text/markdown"', '"text/x-rst"')
    for name in ("Homepage", "Changelog", "Issues", "Documentation"):
        copy.replace_line("pyproject.toml", f"{name} = ", "")
    addresses = 'Source = "https://github.com/else/lium-mcp"\nDocumentation = "http://docs.example.com"\n'
    copy.replace("pyproject.toml", "[project.urls]\n", f"[project.urls]\n{addresses}")
    copy.replace_line("README.md", "<!-- mcp-name: ", "<!-- mcp-name: io.github.else/lium-mcp -->\n")
    copy.write("lium_mcp/core.bin", "1")
    copy.write("lium_mcp/tests/test_all.py", "")
    copy.replace(
        "pyproject.toml", 'packages = ["lium_mcp"]', 'packages = ["lium_mcp"]\nexclude = ["*.tsv", "py.typed"]'
    )
    copy.replace("pyproject.toml", 'lium-mcp = "lium_mcp.__main__:main"', 'lium = "lium_mcp.__main__:main"')
    secrets = (f"sk_{'a1b2c3d4' * 4}", f"AKIA{'ABCDEFGH23456789'}", f"-----BEGIN {'RSA'} PRIVATE KEY-----")
    copy.write("lium_mcp/here.py", "\n".join([f'A = "{secret}"' for secret in secrets] + ['HERE = "/home/somebody"\n']))
    listing = "lium_mcp/toolkit/listing.json"
    copy.replace(listing, '"description": "List nodes', f'"description": "{"word " * 400}List nodes')
    pinned = "gh-action-pypi-publish@dc37677b2e1c63e2034f94d8a5b11f265b73ba33"
    copy.replace(".github/workflows/release.yml", pinned, "gh-action-pypi-publish@release/v1")
    copy.replace(".github/workflows/ci.yml", "runs-on:", "runs-where:")
    copy.replace("manifests/compose/compose.yaml", "    restart:", "    restarts:")
    copy.replace("manifests/k8s/base/service.yaml", "targetPort:", "targetPorts:")
    copy.write("Dockerfile", "FROM python\nRUN cd /tmp && apt-get install curl\n")
    copy.commit("Make every mistake")
    return copy.check("--only", *ALWAYS, "owner")


@pytest.mark.parametrize(("check", "said"), REFUSED, ids=[f"{check}: {said}" for check, said in REFUSED])
def test_a_fault_is_refused_and_what_mends_it_is_said(faulty: Checked, check: str, said: str) -> None:
    assert not faulty.is_well
    assert faulty.word_of(check) == "WRONG"
    assert said in faulty.said_of(check)
    assert "\n       -> " in faulty.said_of(check)
    assert check in faulty.said.splitlines()[-1]


def test_every_check_that_judges_files_has_a_fault_here() -> None:
    # These two are about more than one commit, or one build.
    assert {check for check, _ in REFUSED} | {"reproducible", "compatible"} == {*ALWAYS, "owner"}


def test_this_checkout_passes_all_that_is_not_for_a_release_alone(make_copy: MakeCopy) -> None:
    checked = make_copy("sound").check("--only", *ALWAYS, *NAMES)
    assert checked.is_well, checked.said
    assert {checked.word_of(name) for name in ALWAYS} == {"ok"}, checked.said


def test_what_waits_for_a_release_is_refused_under_a_tag(make_copy: MakeCopy) -> None:
    copy = make_copy("untagged")
    copy.write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- More.\n")
    copy.replace_line("manifests/source.toml", "owner = ", 'owner = "OWNER"\n')
    copy.replace_line("manifests/source.toml", "published = ", "published = false\n")
    copy.commit("Undo the release")
    copy.write("left.txt", "not committed")
    untagged, tagged = copy.check("--only", *NAMES), copy.check("--only", *NAMES, "versions", "--tag", f"v{OTHER}")
    assert untagged.is_well
    assert {untagged.word_of(name) for name in NAMES} == {"later"}
    assert {tagged.word_of(name) for name in (*NAMES, "versions")} == {"WRONG"}
    assert "left.txt" in tagged.said_of("committed")
    assert "published in manifests/source.toml is false" in tagged.said_of("owner")
    assert "still OWNER" in tagged.said_of("owner")
    assert f"has no heading for {__version__} with a date" in tagged.said_of("changelog")
    assert "has changes under Unreleased" in tagged.said_of("changelog")
    assert f"the tag is v{OTHER}, and the package is {__version__}" in tagged.said_of("versions")


def test_a_changelog_with_nothing_left_over_passes_under_a_tag(make_copy: MakeCopy) -> None:
    copy = make_copy("changelog")
    copy.write("CHANGELOG.md", f"# Changelog\n\n## Unreleased\n\n## {__version__} - 2026-11-29\n\n- All.\n")
    copy.commit("Release")
    assert copy.check("--only", "changelog", "--tag", f"v{__version__}").is_well


def test_what_does_not_build_is_not_looked_at_further(make_copy: MakeCopy) -> None:
    copy = make_copy("unbuilt")
    copy.replace("pyproject.toml", 'name = "lium-mcp"\ndynamic', 'name = "lium mcp!"\ndynamic')
    copy.commit("Misname it")
    checked = copy.check("--only", "owner", "secrets")
    assert checked.word_of("builds") == "WRONG"
    assert checked.said.splitlines()[-1] == "This cannot be released: builds."
    assert "secrets" not in checked.said


def test_a_build_that_depends_on_where_it_is_made_is_refused(make_copy: MakeCopy) -> None:
    copy = make_copy("elsewhere")
    copy.write("elsewhere.py", BUILD_HOOK)
    hook = '[tool.hatch.build.hooks.custom]\npath = "elsewhere.py"\n\n'
    copy.replace("pyproject.toml", "[tool.hatch.version]", f"{hook}[tool.hatch.version]")
    copy.replace("pyproject.toml", '"/web", "/hatch_build.py"', '"/web", "/elsewhere.py", "/hatch_build.py"')
    copy.commit("Tell where it is built")
    checked = copy.check("--only", "reproducible")
    assert f"lium_mcp-{__version__}.tar.gz differs between two builds of one commit" in checked.said_of("reproducible")
    assert not checked.is_well


BUILD_HOOK = """
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        Path(self.root, "lium_mcp", "here.py").write_text(f"HERE = {self.root!r}")
"""


def test_what_breaks_a_caller_of_the_last_release_needs_a_new_number(make_copy: MakeCopy) -> None:
    copy = make_copy("second")
    copy.git("tag", f"v{__version__}")
    copy.replace("lium_mcp/toolkit/listing.json", '"name": "get_balance"', '"name": "get_money"')
    last = Version(__version__)
    small_step = f"{last.major}.{last.minor}.{last.micro + 1}"
    copy.set_version(small_step)
    copy.commit("Break it")
    told = copy.check("--only", "compatible", "--tag", f"v{small_step}").said_of("compatible")
    assert f"{small_step} does not say that it breaks what worked in v{__version__}" in told
    assert "### Removed" in told
    assert "- `get_balance`" in told
    assert "- `get_money (account)`" in told
    copy.set_version(OTHER)
    copy.commit("Say so")
    assert copy.check("--only", "compatible", "--tag", f"v{OTHER}").word_of("compatible") == "ok"


def test_a_wheel_that_does_not_name_what_it_imports_is_refused(make_copy: MakeCopy) -> None:
    copy = make_copy("lacking")
    copy.replace_line("pyproject.toml", '  "asyncssh[bcrypt]', "")
    copy.commit("Forget one")
    assert "`lium-mcp demo` ends with status 1" in copy.check("--only", "starts").said_of("starts")
