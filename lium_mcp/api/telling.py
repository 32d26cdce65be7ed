"""What is told of a request to Lium: to those who count and trace, to the log, and of a change to the audit trail."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lium_mcp.api.addresses import Endpoint
from lium_mcp.api.errors import LiumError
from lium_mcp.auditing import current_act
from lium_mcp.observing import Work, observed

log = logging.getLogger("lium_mcp.upstream")


@contextmanager
def told(method: str, path: str) -> Iterator[Work]:
    """Tell of one attempt of a request: by the template of its path, with its status or the kind of its failure."""
    template, _ = _parts(path)
    started = time.perf_counter()
    with observed(Work("request", f"{method} {template}")) as work:
        try:
            yield work
        except LiumError as error:
            work.outcome, work.request_id = str(error.status or type(error).__name__), error.request_id
            raise
        finally:
            seconds = round(time.perf_counter() - started, 3)
            fields = {"route": work.name, "outcome": work.outcome, "seconds": seconds, "request_id": work.request_id}
            log.debug("%s outcome=%s seconds=%.3f request_id=%r", *fields.values(), extra={"fields": fields})


@contextmanager
def recorded(method: str, path: str, key_tag: str | None) -> Iterator[Callable[[str], None]]:
    """Record a change in the audit trail, before it is sent and when it has ended, however it does."""
    act = current_act()
    template, ids = _parts(path)
    act.begin(key_tag)
    outcomes = ["unknown"]
    try:
        yield outcomes.append
    except LiumError as error:
        if error.effect == "none":
            outcomes.append(str(error.status or type(error).__name__))
        raise
    finally:
        act.sent(f"{method} {template}", ids, outcomes[-1], key_tag)


def _parts(path: str) -> tuple[str, dict[str, str]]:
    return (path.template, path.ids) if isinstance(path, Endpoint) else (path, {})
