"""Which refusals of a rent speak of its node alone, so that another node may do."""

import re
from typing import Final

from lium_mcp.api.errors import BadRequest, Conflict, IdempotencyConflict, LiumError, NotFound

# A node that is taken, or may not be rented so, says nothing of other nodes; every other refusal does.
_OF_ONE_NODE: Final = (BadRequest, Conflict, NotFound)
# Of these, what speaks of something else that was asked for: no other node mends that.
_OF_THE_REQUEST: Final = re.compile(
    r"template|image|dockerfile|volume|backup|restore|ttl|termination|public_?key|ssh.?key|pod.?name", re.IGNORECASE
)


def is_of_its_node(refusal: LiumError) -> bool:
    """Whether a rent was surely refused, and for what its node is, so that another node may do.

    What is replayed is no answer to a first request: the answer to that was lost before.
    """
    if not isinstance(refusal, _OF_ONE_NODE) or isinstance(refusal, IdempotencyConflict):
        return False
    is_sure = refusal.effect == "none" and not refusal.replayed
    return is_sure and not _OF_THE_REQUEST.search(f"{refusal.code or ''} {refusal.message}")
