"""Toolset `account`: money and SSH keys."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from lium_mcp.api.ssh_keys import KINDS, SshKey, bare_keys, fingerprint, is_whole
from lium_mcp.failures import Failure
from lium_mcp.figures import rounded
from lium_mcp.inputs import ShortText
from lium_mcp.results import Result, Usd, UtcTime
from lium_mcp.services.pod_details import unknown_billing, unpriced
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import Cursor, Limit, page
from lium_mcp.toolkit.registry import READS, WRITES, Toolset

toolset = Toolset("account")


class Balance(Result):
    """What is left, and how long it lasts at the present rate, where every billing pod has a price."""

    balance_usd: Usd | None = None
    burn_per_hour_usd: Usd
    unpriced_pods: int | None = None
    unknown_billing_pods: int | None = None
    billing_pods: int
    starting_pods: int
    runway_hours: float | None = None
    runs_out_at: UtcTime | None = None


class PodSpending(Result):
    """What one pod was charged."""

    pod_id: str
    name: str | None = None
    gpu: str | None = None
    total_usd: Usd | None = None
    billed_hours: float | None = None
    created_at: UtcTime | None = None
    removed_at: UtcTime | None = None


class Spending(Result):
    """Charges of a period, largest first. Charges reach the ledger some minutes late."""

    start_day: str
    end_day: str
    total_usd: Usd | None = None
    pods: list[PodSpending]
    total: int
    next_cursor: str | None = None


class SshKeyRow(Result):
    """A public key registered with the account."""

    key_id: str
    name: str | None = None
    type: str | None = None
    fingerprint: str | None = None


class SshKeyList(Result):
    """The account's public keys."""

    keys: list[SshKeyRow]
    total: int


class AddedSshKey(Result):
    """A key that is registered now."""

    key: SshKeyRow
    already_registered: bool


@toolset.tool(title="Get balance", hints=READS, search_hint="how much money is left, credit, burn rate")
async def get_balance(call: Call) -> Balance:
    """Read the account's balance in USD, what the living pods burn per hour, and for how many hours the balance lasts.
    get_spending shows past charges.
    """
    me = await call.lium.account.me()
    pods = await call.lium.pods.list()
    burning = [pod for pod in pods if pod.is_billing]
    burn = sum(pod.price or 0 for pod in burning)
    missing = unpriced(pods)
    # A pod whose price nobody says shortens it by nobody knows how much.
    is_known = burn > 0 and missing is None
    runway = max(me.balance, 0) / burn if is_known and me.balance is not None else None
    return Balance(
        balance_usd=me.balance,
        burn_per_hour_usd=burn,
        unpriced_pods=missing,
        unknown_billing_pods=unknown_billing(pods),
        billing_pods=len(burning),
        starting_pods=sum(1 for pod in pods if pod.has_not_started and not pod.is_terminal),
        runway_hours=rounded(runway, 2) if runway is not None else None,
        runs_out_at=_later(call.lium.now(), runway),
    )


@toolset.tool(title="Get spending", hints=READS, search_hint="what did I pay, costs of last week, bill")
async def get_spending(
    call: Call,
    days: Annotated[int, Field(ge=1, le=366, description="UTC days back, with today.")] = 30,
    limit: Limit = 20,
    cursor: Cursor = "",
) -> Spending:
    """Read what was charged over the last days, in total and per pod, with removed pods. get_balance shows what is
    left.
    """
    today = call.lium.now().date()
    start = today - timedelta(days=days - 1)
    statement = await call.lium.account.billing_statement(start_day=start, end_day=today)
    rows = sorted(statement.pods, key=lambda pod: (-(pod.total or 0), pod.pod_id))
    shown, next_cursor = page(rows, limit=limit, cursor=cursor)
    return Spending(
        start_day=(statement.start_day.date() if statement.start_day else start).isoformat(),
        end_day=(statement.end_day.date() if statement.end_day else today).isoformat(),
        total_usd=statement.total,
        pods=[
            PodSpending(
                pod_id=pod.pod_id,
                name=pod.pod_name,
                gpu=f"{pod.gpu_count or '?'}x {pod.gpu_name}" if pod.gpu_name else None,
                total_usd=pod.total,
                billed_hours=rounded(pod.billed_seconds / 3600, 2) if pod.billed_seconds is not None else None,
                created_at=pod.created_at,
                removed_at=pod.removed_at,
            )
            for pod in shown
        ],
        total=len(rows),
        next_cursor=next_cursor,
    )


@toolset.tool(title="List SSH keys", hints=READS, search_hint="which public keys are registered")
async def list_ssh_keys(call: Call) -> SshKeyList:
    """List the public SSH keys registered with the account. rent_pod puts the local key into a pod, or these where
    there is none.
    """
    keys = await call.lium.ssh_keys.list()
    return SshKeyList(keys=[_row(key) for key in keys], total=len(keys))


@toolset.tool(title="Add SSH key", hints=WRITES, search_hint="register my public key to log in to pods")
async def add_ssh_key(
    call: Call,
    name: Annotated[ShortText, Field(min_length=1, description="Label.")],
    public_key: Annotated[str, Field(min_length=1, max_length=16_384, description="One line of a .pub file.")],
) -> AddedSshKey:
    """Register a public SSH key with the account, so that pods rented later accept it. A key that is registered already
    is left as it is. Never takes a private key.
    """
    material = _key_material(public_key)
    for key in await call.lium.ssh_keys.list():
        if material in bare_keys(key.public_key):
            return AddedSshKey(key=_row(key), already_registered=True)
    created = await call.lium.ssh_keys.create(name=name, public_key=material)
    return AddedSshKey(key=_row(created), already_registered=False)


def _key_material(public_key: str) -> str:
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


def _row(key: SshKey) -> SshKeyRow:
    parts = (key.public_key or "").split()
    return SshKeyRow(
        key_id=key.id,
        name=key.name,
        type=parts[0] if parts else None,
        fingerprint=fingerprint(parts[1]) if len(parts) > 1 else None,
    )


def _later(now: datetime, hours: float | None) -> datetime | None:
    # A century is as good as never, and far enough from what a datetime can hold.
    return now + timedelta(hours=hours) if hours is not None and hours < 24 * 365 * 100 else None
