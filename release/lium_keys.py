"""How a Lium key looks, for detect-secrets, which knows those of others."""

import re

from detect_secrets.plugins.base import RegexBasedDetector


class LiumKeyDetector(RegexBasedDetector):  # type: ignore[misc]  # not installed where types are checked
    """Finds API keys of Lium; what the sandbox and the documents show is shorter."""

    secret_type = "Lium API key"  # noqa: S105 - the name of its kind
    denylist = (re.compile(r"\bsk_[A-Za-z0-9_-]{24,}"),)
