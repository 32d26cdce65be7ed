"""What the words of a refusal tell beyond its status: advice, and whether a pod is being removed already."""

import re

# Says that a pod is being removed already. What is said of something else, such as a pod's backup, does not count.
_GOING = re.compile(
    r"\bpod(?: \S+)? (?:is|was|has been) (?:already |being |already being )(?:delet|remov|terminat)(?:ing|ed)\b"
    r"|\bpod (?:deletion|removal|termination) (?:is )?(?:already )?(?:in progress|under way)\b",
    re.IGNORECASE,
)
_FINAL = "completed|failed|cancell?ed|expired|skipped|deleted|removed|terminated|broken"
# Advice that a refusal's status alone does not give: by the server's code and words, the first that fits.
_CASES: tuple[tuple[frozenset[int], re.Pattern[str], str], ...] = tuple(
    (frozenset(statuses), re.compile(words, re.IGNORECASE), advice)
    for statuses, words, advice in (
        (
            (400, 409),
            r"node_rent_in_progress|node_busy",
            "Somebody rents on that node at this moment: choose another node, or call again in a minute.",
        ),
        (
            (400, 409),
            r"node_unavailable|node_paused_by_provider|provider_banned|node_not_verified",
            "Waiting does not free that node: choose another one.",
        ),
        (
            (400, 409),
            r"gpu_count_invalid|gpu_split_not_allowed",
            "Choose a number of GPUs that the node rents now, or another node.",
        ),
        ((400, 409), r"template_invalid", "Choose another template, or repair this one."),
        (
            (400, 409),
            r"\bpod is (?:already )?(?:creation_|reboot_)?(?:failed|broken|stopped|error)\b",
            "Nothing runs in a pod that failed: save what it holds before you remove it, and rent another one.",
        ),
        (
            (400, 409),
            r"\balready (?:been )?rated\b|\bfeedback\b.*\balready\b|\balready\b.*\bfeedback\b",
            "A pod is rated once, and that rating stands: there is nothing left to do.",
        ),
        (
            (400, 409),
            r"\balready (?:added|registered|taken)\b|\bduplicate\b|(?<!longer )\bexists\b|\bname\b.*\bin use\b",
            "It is there already, so waiting changes nothing: list what there is and use that, or give another name.",
        ),
        (
            (400, 409),
            r"(?<!not )\b(?:attached|mounted)\b|\b(?:volume|template|credential|key)\b.*(?<!not )\bin use\b",
            "Something uses it, and waiting does not end that: look what has it, such as a pod, and end that first.",
        ),
        (
            (400, 409),
            r"\bstill (?:being )?(?:created|deploying|pending|running|starting)\b",
            "Wait until that is over, then call again.",
        ),
        (
            (400, 409),
            rf"\b(?:is|was|has|already)(?: already| been)* (?:{_FINAL})\b",
            "It is over and stays as it is, so waiting changes nothing: look at what it is now.",
        ),
        ((400, 409), _GOING.pattern, "Its removal is under way: there is nothing left to order."),
        (
            (403,),
            r"\b(?:account|user)\b.*\b(?:blocked|suspended|banned|disabled|locked)\b",
            "No other key of the account helps, nor another try: a person has to ask Lium's support.",
        ),
        ((403,), r"\bverif(?:y|ied)\b", "A person has to verify the account on lium.io."),
    )
)


def advice_on(status: int | None, words: str) -> str | None:
    """One sentence on what the caller can do after a refusal, given its code and its message; None if they fit none."""
    return next((advice for statuses, case, advice in _CASES if status in statuses and case.search(words)), None)


def says_going(message: str) -> bool:
    """Whether a refusal to remove a pod says that this pod is being removed, or was removed, already."""
    return _GOING.search(message) is not None
