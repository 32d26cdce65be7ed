"""Money: what is owed, what a rent must have on the account, what a key may still spend.

Pods are billed by the second at their hourly price while they run. Amounts are decimals of a millionth of a dollar, and
the debits of a pod always add up to its billed seconds times its price, rounded once. It knows nothing of how pods end.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from lium_mcp.sandbox.records import Debit, StoredAccount, StoredApiKey, StoredPod
from lium_mcp.sandbox.refusals import refuse
from lium_mcp.sandbox.simulated_clock import iso_zulu
from lium_mcp.sandbox.world import World

MICRO_USD: Final = Decimal("0.000001")
FLOOR_HOURS: Final = Decimal("0.25")
VOLUME_USD_PER_GB_HOUR: Final = Decimal("0.0001")
BACKUP_USD_PER_GB_HOUR: Final = Decimal("0.00006")


def settle(world: World, pod: StoredPod) -> None:
    """Debit what the pod has run since the last debit."""
    if pod.billable_from is None:
        return
    seconds = int((world.now - pod.billable_from).total_seconds())
    total = (pod.price_per_hour * seconds / 3600).quantize(MICRO_USD)
    if seconds > pod.billed_seconds:
        world.charge(
            Debit(
                at=world.now,
                account_id=pod.account_id,
                kind="pod",
                amount=total - pod.charged,
                pod_id=pod.id,
                api_key_id=pod.api_key_id,
                seconds=seconds - pod.billed_seconds,
                price_per_hour=pod.price_per_hour,
                billed_until=pod.billable_from + timedelta(seconds=seconds),
            )
        )
        pod.billed_seconds, pod.charged = seconds, total


def stop_billing(world: World, pod: StoredPod) -> None:
    """Settle for the last time."""
    settle(world, pod)
    pod.billable_from = None


def charge_storage(world: World) -> None:
    """Debit one hour of what is stored in volumes and finished backups."""
    for account in world.accounts.values():
        volumes = sum(volume.size_bytes for volume in world.volumes.values() if volume.account_id == account.id)
        backups = sum(
            run.total_bytes
            for run in world.transfers.values()
            if run.account_id == account.id and run.kind == "backup" and run.status == "COMPLETED"
        )
        owed = VOLUME_USD_PER_GB_HOUR * volumes / 2**30 + BACKUP_USD_PER_GB_HOUR * backups / 2**30
        amount = owed.quantize(MICRO_USD)
        if amount > 0:
            world.charge(Debit(at=world.now, account_id=account.id, kind="storage", amount=amount))


def floor_usd(price_per_hour: Decimal) -> Decimal:
    """What a price comes to in fifteen minutes."""
    return price_per_hour * FLOOR_HOURS


def required_balance(world: World, account: StoredAccount, price_per_hour: Decimal) -> Decimal:
    """What the balance must exceed: 15 minutes of the new rental and of every open pod."""
    return floor_usd(price_per_hour + sum((pod.price_per_hour for pod in world.open_pods(account.id)), Decimal(0)))


def require_balance(world: World, account: StoredAccount, price_per_hour: Decimal) -> None:
    """Refuse a rental the account cannot carry for 15 minutes."""
    required = required_balance(world, account, price_per_hour)
    if account.balance > required:
        return
    raise refuse(
        403,
        "insufficient_balance",
        "Insufficient balance for this rental.",
        hint="Add funds, then rent again.",
        detail=(
            f"Insufficient balance. This rental costs ${price_per_hour:.2f}/hour, so with your open pods it requires "
            f"at least ${required:.2f} (15 minutes of runtime). Your balance is ${account.balance:.2f}."
        ),
    )


@dataclass(frozen=True)
class KeySpending:
    """What a key has spent in one of its windows."""

    window: str
    spent: Decimal
    budget: Decimal | None

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget is reached."""
        return self.budget is not None and self.spent >= self.budget


def spending(world: World, key: StoredApiKey) -> list[KeySpending]:
    """What the key has spent today, this month and ever, against its budgets."""
    day = world.now.replace(hour=0, minute=0, second=0, microsecond=0)
    starts: dict[str, datetime | None] = {"daily": day, "monthly": day.replace(day=1), "max": None}
    return [
        KeySpending(window, world.spent(key.id, since=start), key.budgets[window]) for window, start in starts.items()
    ]


def exhausted_budget(world: World, key: StoredApiKey) -> KeySpending | None:
    """Return the first budget of the key that is reached."""
    if not any(key.budgets.values()):
        return None
    return next((window for window in spending(world, key) if window.is_exhausted), None)


def require_budget(world: World, key: StoredApiKey | None, *, route: str, amount: Decimal | None) -> None:
    """Refuse a key that has reached one of its budgets, and remember the refusal."""
    reached = None if key is None else exhausted_budget(world, key)
    if key is None or reached is None or reached.budget is None:
        return
    message = f"The {reached.window} budget of this key is used up."
    key.refusals.append(
        {
            "id": world.new_id("refusal"),
            "api_key_id": key.id,
            "event": "api_key_budget_refused",
            "created_at": iso_zulu(world.now),
            "window": reached.window,
            "route": route,
            "amount_usd": None if amount is None else float(amount),
            "budget_usd": float(reached.budget),
            "spent_usd": float(reached.spent),
        }
    )
    raise refuse(
        402,
        "API_KEY_BUDGET_EXCEEDED",
        message,
        detail={
            "message": message,
            "window": reached.window,
            "budget_usd": float(reached.budget),
            "spent_usd": float(reached.spent),
            "api_key_id": key.id,
        },
    )
