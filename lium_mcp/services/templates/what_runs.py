"""What a template runs, by which a change is told: a yes counts for what it ran when it was shown."""

from typing import Final

from lium_mcp.api.templates import Template
from lium_mcp.failures import Failure
from lium_mcp.rentals import digest
from lium_mcp.services.accounts import Account

# What decides what a container of a template is and does.
_WHAT_RUNS: Final = frozenset(
    {
        "docker_image",
        "docker_image_tag",
        "docker_image_digest",
        "startup_commands",
        "entrypoint",
        "environment",
        "volumes",
        "internal_ports",
        "container_start_immediately",
        "docker_credential_id",
        "shm_size",
    }
)
_KEYED: Final = "keyed:"


def digest_of_what_runs(account: Account, template: Template) -> str:
    """A digest of what a template runs, from which nobody without the key can tell what that is."""
    return _KEYED + account.lium.keyed_digest(plain_digest(template))


def refuse_changed_template(
    account: Account, agreed: str | None, template_id: str | None, now: Template | None
) -> None:
    """Refuse a template that does not run any more what it ran when somebody agreed to it.

    Args:
        account: Whose key is in the digest.
        agreed: The digest of what it ran then; None where no template was named.
        template_id: Which one it was.
        now: The template as it is now; None where another one, or none, is to be run.

    Raises:
        Failure: it does not.
    """
    if agreed is None:
        return
    # An earlier version of this program wrote a digest without a key.
    if now is None or agreed not in (digest_of_what_runs(account, now), plain_digest(now)):
        raise template_changed(template_id)


def template_changed(template_id: str | None) -> Failure:
    """Say that a template does not run any more what somebody agreed to."""
    return Failure(
        "template_changed",
        f"Template {template_id} was changed since it was shown: what it runs now is not what was agreed to.",
        "Call again, so that it is agreed to as it is now; get_template shows it.",
    )


def plain_digest(template: Template) -> str:
    """A digest of what a template runs; who knows what that may be can tell it, so that it is not shown to others."""
    return digest(template.model_dump(mode="json", include=set(_WHAT_RUNS)))
