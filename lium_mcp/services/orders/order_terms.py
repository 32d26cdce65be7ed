"""What a standing order may come to, whenever it rents: found once, when it is placed, and agreed to once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from lium_mcp.api.errors import LiumError, NoExecutorMatches
from lium_mcp.api.gpu_names import gpu_names, matching_machine_names, models_of
from lium_mcp.failures import Failure
from lium_mcp.figures import at_most_usd, counted, in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy, PolicyRefused
from lium_mcp.rentals import Entry, PodNameTaken, Task, most_hours
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import NODES_TAKEN, says_taken
from lium_mcp.services.question_words import quoted
from lium_mcp.services.rents.pod_contents import find_contents
from lium_mcp.services.rents.wish import Wish
from lium_mcp.services.targets import is_id
from lium_mcp.services.templates.what_runs import digest_of_what_runs

_MOST_TRYING_HOURS: Final = 168
TryingHours = Annotated[
    float | None,
    Field(
        gt=0,
        le=_MOST_TRYING_HOURS,
        description="If nothing fits now, an order rents once it does within so many hours; needs hours and a ceiling.",
    ),
]
# What a rent is refused with that may be possible later, as the market moves.
_MAY_FIT_LATER: Final = frozenset(
    {
        NODES_TAKEN,
        "no_gpu_matches",
        "node_not_for_rent",
        "gpu_count_not_rentable",
        "price_above_ceiling",
        "price_changed",
        "price_unknown",
        "total_too_low",
    }
)

_SAID_OTHERWISE: Final = frozenset({"gpu_type", "max_usd_per_gpu_hour", "max_usd_per_hour"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What an order may come to, whenever it rents.

    Attributes:
        wish: What was asked for, word for word.
        trying_hours: How long it is to be tried.
        began_at: When the call began that placed it.
        hours: What Lium is to remove the pod after; None where only the total is bounded.
        template_id: The template that was named; None for a default.
        volume_id: The volume that was named.
        most_per_hour_usd: The most that the pod may cost an hour.
        most_usd: The most that it may cost in all.
        is_agreed: A person said yes to it.
        template_image: The image of the template that was named.
        template_digest: Stands for all that the named template ran when the order was placed: nothing else is rented.
            It is keyed, since environment values are in it that could be guessed.
    """

    wish: Wish
    trying_hours: float
    began_at: datetime
    hours: float | None
    template_id: str | None
    volume_id: str | None
    most_per_hour_usd: float | None
    most_usd: float | None
    is_agreed: bool = False
    template_image: str | None = None
    template_digest: str | None = None

    @property
    def expires_at(self) -> datetime:
        """When it is given up."""
        return self.began_at + timedelta(hours=self.trying_hours)

    @property
    def bound_wish(self) -> Wish:
        """What to rent, with ids in the place of names, which may mean something else by then."""
        bound = {"template": self.template_id or "", "volume": self.volume_id or "", "hours": self.hours}
        return self.wish.model_copy(update=bound)

    @property
    def wants(self) -> str:
        """What is wanted, in words."""
        wish = self.wish
        count = wish.gpu_count or 1
        if wish.executor_id:
            gpus = f"{counted(count, 'GPU')} of node {wish.executor_id}"
        elif wish.gpu_type:
            gpus = f"{count}x {wish.gpu_type}"
        else:
            gpus = "the cheapest GPU" if count == 1 else f"{count} of the cheapest GPUs"
        given = {name: getattr(wish, name) for name in wish.given if name not in _SAID_OTHERWISE}
        said = [name if value is True else f"{name}={value}" for name, value in given.items()]
        return " with ".join(filter(None, (gpus, ", ".join(said))))

    def to_json(self) -> dict[str, Any]:
        """Write the terms for the ledger."""
        return {
            "wish": self.wish.model_dump(mode="json"),
            "trying_hours": self.trying_hours,
            "began_at": self.began_at.isoformat(),
            "hours": self.hours,
            "template_id": self.template_id,
            "volume_id": self.volume_id,
            "most_per_hour_usd": self.most_per_hour_usd,
            "most_usd": self.most_usd,
            "is_agreed": self.is_agreed,
            "template_image": self.template_image,
            "template_digest": self.template_digest,
            "expires_at": self.expires_at.isoformat(),
        }

    @classmethod
    def of(cls, task: Task) -> "Terms | None":
        """Read the terms of an order; None where this version of the program does not know all of them."""
        written = dict(task.payload)
        try:
            wish = written.pop("wish")
            if not set(wish) <= set(Wish.model_fields):
                return None  # a constraint that is not known here must not be dropped
            began_at = datetime.fromisoformat(written.pop("began_at"))
            written.pop("expires_at", None)  # for the ledger, and said by the other two
            return cls(wish=Wish.model_validate(wish), began_at=began_at, **written)
        except (KeyError, TypeError, ValueError, ValidationError, Failure):
            return None


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order that is to be placed: what it may come to, and why nothing fits now."""

    terms: Terms
    because: str


def may_fit_later(error: Exception) -> bool:
    """Whether a rent was refused, before anything was rented, for what the market may mend by itself."""
    match error:
        case Failure():
            return error.code in _MAY_FIT_LATER
        case PolicyRefused():
            return error.limit == "max_price_per_hour_usd"
        case NoExecutorMatches():
            return True
        case LiumError():
            return says_taken(error)
        case _:
            return False


def is_bound_to_its_login(task: Task) -> bool:
    """Whether a task is an order that only its own key can carry out: a digest of its template is made with that."""
    terms = Terms.of(task) if task.kind == "standing_order" else None
    return terms is not None and terms.template_digest is not None


def refuse_orders_of_callers(account: Account) -> None:
    """Refuse a standing order of an account for which nothing is done between calls, whether or not it has to wait.

    Raises:
        Failure: it is one.
        MissingApiKey: there is no key.
    """
    account.lium.check_api_key()
    if account.worker is None:
        raise Failure(
            "not_for_callers",
            "A standing order is carried out between calls, and this server keeps no API key of yours to do that with: "
            "it is used for your requests only.",
            "Leave out keep_trying_hours to rent what fits now and watch with list_gpus, or use a server that keeps a "
            "key: one at which people log in at Lium, or one on your machine with your key.",
        )


async def find_terms(account: Account, policy: Policy, wish: Wish, trying_hours: float, began_at: datetime) -> Terms:
    """Find what a standing order for a wish may come to; whatever could never be rented is refused.

    What calls with the same wish have rented since `began_at` is taken for what the order was to rent.

    Raises:
        Failure: it could never be rented, or not by this server.
        PolicyRefused: a limit forbids it, whatever the market does.
        PodNameTaken: a pod of its name lives.
        LiumError, LedgerUnavailable: what has to be known cannot be read.
    """
    hours = policy.life(wish.hours)
    await check_gpu_type(account, policy, wish)
    contents = await find_contents(account, wish)
    if contents.template is not None:
        policy.check_template(contents.template.id)
    pods, entries = await account.renter.look()
    refuse_taken(wish, entries)
    if taken := [pod.id for pod in pods if pod.pod_name == wish.name and pod.is_alive]:
        raise PodNameTaken(wish.name, taken)
    most = _most_per_hour_usd(policy, wish)
    in_all = [wish.max_total_usd] if wish.max_total_usd is not None else []
    in_all += [at_most_usd(most * most_hours(hours))] if most is not None and hours is not None else []
    return Terms(
        wish=wish,
        trying_hours=trying_hours,
        began_at=began_at,
        hours=hours,
        template_id=contents.template.id if contents.template else None,
        volume_id=contents.volume_id,
        most_per_hour_usd=most,
        most_usd=min(in_all, default=None),
        template_image=contents.template.image if contents.template else None,
        template_digest=digest_of_what_runs(account, contents.template) if contents.template else None,
    )


def refuse_unbounded(policy: Policy, wish: Wish) -> None:
    """Refuse what may become a standing order and says not what it may cost, or when it ends, whatever fits now.

    Raises:
        Failure: it does not.
        PolicyRefused: it asks for more hours than are allowed.
    """
    if problem := _unbounded(wish, policy.life(wish.hours)):
        raise Failure("invalid_argument", f"keep_trying_hours {problem}.", "Correct it and call again.")


def refuse_taken(wish: Wish, entries: Sequence[Entry]) -> None:
    """Refuse a name that an open rent of the account has, also one whose pod another key's list does not show.

    Raises:
        PodNameTaken: one of another request has it, and is not being removed.
    """
    for entry in entries:
        if entry.pod_name == wish.name and entry.asked != wish.digest and entry.status != "removing":
            raise PodNameTaken(wish.name, list(entry.pod_ids))


def _unbounded(wish: Wish, hours: float | None) -> str | None:
    if all(ceiling is None for ceiling in (wish.max_usd_per_gpu_hour, wish.max_usd_per_hour, wish.max_total_usd)):
        return "needs a ceiling: max_usd_per_gpu_hour, max_usd_per_hour or max_total_usd"
    if hours is None and wish.max_total_usd is None:
        return "needs hours, after which Lium removes the pod, or max_total_usd"
    if wish.executor_id and wish.gpu_count is None:
        return "with executor_id needs gpu_count, since the node may offer another number by then"
    if wish.executor_id and not is_id(wish.executor_id):
        return "with executor_id needs its id, as list_gpus shows it"
    return None


def _most_per_hour_usd(policy: Policy, wish: Wish) -> float | None:
    count, per_gpu = wish.gpu_count or 1, wish.max_usd_per_gpu_hour
    ceilings = [wish.max_usd_per_hour, None if per_gpu is None else per_gpu * count]
    if not policy.shadow:
        ceilings.append(policy.limits.max_price_per_hour_usd)
    return min((ceiling for ceiling in ceilings if ceiling is not None), default=None)


async def check_gpu_type(account: Account, policy: Policy, wish: Wish) -> None:
    """Refuse a model that there is not, and one that the limits do not allow: no market mends either.

    Raises:
        Failure: Lium knows no such model.
        PolicyRefused: none of the models that are meant is allowed.
        LiumError: Lium does not say which models there are.
    """
    names = sorted({machine.name for machine in await account.lium.machines.list() if machine.name})
    for part in gpu_names(wish.gpu_type):
        if not models_of(part, names):
            raise Failure(
                "no_gpu_matches",
                f"Lium knows no GPU model called {part[:60]}, so a standing order would wait in vain.",
                "Name a model that list_gpus or get_gpu_prices shows.",
            )
    meant = matching_machine_names(wish.gpu_type, names)
    if meant and not any(policy.admits_gpu_type(name) for name in meant):
        policy.check_gpu_type(meant[0])


def question_about_order(order: NewOrder) -> Question:
    """What a person is asked before an order is placed: once for all that it may come to."""
    terms = order.terms
    wish, most = terms.wish, terms.most_per_hour_usd
    price = f" for at most {in_usd(at_most_usd(most))} an hour" if most is not None else ""
    template = "a default template"
    if terms.template_id:
        image = quoted(terms.template_image or "an image that Lium does not name")
        template = f"template {quoted(wish.template)} ({terms.template_id}, image {image})"
    text = (
        f"Place a standing order for pod {quoted(wish.name)}: within {counted(terms.trying_hours, 'hour')} from now, "
        f"rent {terms.wants}{price} with {template} as soon as that fits, while nobody watches and without asking "
        "again?"
    )
    if terms.volume_id:
        text += f" Volume {quoted(wish.volume)} is attached."
    if wish.backup_id:
        text += f" Backup {wish.backup_id} is restored into it."
    if terms.hours is not None:
        text += f" Lium removes the pod {counted(terms.hours, 'hour')} after it starts."
    if terms.most_usd is not None:
        text += f" It costs at most {in_usd(terms.most_usd)} in all"
        text += "." if terms.hours is not None else ": Lium removes it before it has cost more."
    return Question(text, price_per_hour_usd=most, basis=terms.template_digest or "", subject=order)
