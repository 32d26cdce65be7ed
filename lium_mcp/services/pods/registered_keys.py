"""The public keys that are registered with the account: how one is shown, and which text is one."""

from lium_mcp.api.ssh_keys import KINDS, SshKey, fingerprint, is_whole
from lium_mcp.failures import Failure
from lium_mcp.results import Result


class SshKeyRow(Result):
    """A public key registered with the account."""

    key_id: str
    name: str | None = None
    type: str | None = None
    fingerprint: str | None = None


def key_material(public_key: str) -> str:
    """Kind and base64 of a public key, without its comment.

    Raises:
        Failure: the text is not one public key.
    """
    parts = public_key.split()
    if "PRIVATE KEY" in public_key:
        problem = "public_key holds a private key, which was not sent anywhere"
    elif "\n" in public_key.strip() or len(parts) < 2 or not parts[0].startswith(KINDS):  # noqa: PLR2004 - type, key
        problem = "public_key is not one line of an OpenSSH public key (such as ssh-ed25519 AAAA... name)"
    elif not is_whole(*parts[:2]):
        problem = f"the second word of public_key is not a whole {parts[0]} key: it may have been cut off"
    else:
        return " ".join(parts[:2])
    raise Failure("invalid_argument", f"{problem}.", "Send the content of a file that ends in .pub.")


def key_row(key: SshKey) -> SshKeyRow:
    """Show a key."""
    parts = (key.public_key or "").split()
    return SshKeyRow(
        key_id=key.id,
        name=key.name,
        type=parts[0] if parts else None,
        fingerprint=fingerprint(parts[1]) if len(parts) > 1 else None,
    )
