"""The page of error codes has every code of the source, and none besides."""

import re

from tests.docs.documents import DOCS
from tests.docs.error_codes import ANY_NOUN, codes


def documented() -> list[str]:
    return re.findall(r"^\| `([a-z_]+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


def test_every_code_has_an_entry_and_every_entry_is_a_code() -> None:
    exact = {code for code in codes() if ANY_NOUN not in code}
    endings = {code.removeprefix(ANY_NOUN) for code in codes() - exact}
    assert {"policy_refused", "outcome_unknown", "pod_not_found", "restore_target_unseen", "nodes_taken"} <= exact
    without_entry = exact - set(documented())
    assert without_entry == set(), "docs/troubleshooting.md says what it means, and what to do"
    without_code = {code for code in set(documented()) - exact if not code.endswith(tuple(endings))}
    assert without_code == set(), "nothing answers with it"


def test_no_code_has_two_entries() -> None:
    assert len(documented()) == len(set(documented()))
