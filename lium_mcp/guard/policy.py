"""Whether the limits leave room for a rent, a later removal, a template. It computes; it reads and sends nothing.

A figure that nobody knows counts against the caller.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from lium_mcp.api.gpu_names import gpu_fits, gpu_label
from lium_mcp.figures import at_most_usd, counted, in_usd, is_above, known_sum, rate_in_usd
from lium_mcp.guard.commitments import Commitment, committed_usd
from lium_mcp.guard.limits import Limits
from lium_mcp.rentals import PRICE_TOLERANCE_USD, hours_paid_for, whole_hours

log = logging.getLogger(__name__)

_COST_TOLERANCE_USD = 0.005
_CENT_USD = 0.01
_LIFE_TOLERANCE_HOURS = 0.01
# A pod takes some minutes to start, and then its removal has to come in time.
_RESTART_HOURS = 0.25


class PolicyRefused(Exception):
    """A limit leaves no room.

    Attributes:
        limit: Its name, as in the settings.
        happened: What was asked for, and what is allowed.
        fits: What would fit.
    """

    def __init__(self, limit: str, happened: str, fits: str) -> None:
        super().__init__(happened)
        self.limit = limit
        self.happened = happened
        self.fits = fits


@dataclass(frozen=True, slots=True)
class Ask:
    """What a rent would add: so many pods, what all of them cost per hour, and for how long at most (None: open)."""

    price_per_hour_usd: float | None
    hours: float | None
    pods: int = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one limit is used."""

    limit: str
    allowed: float
    used: float | None
    left: float | None


class Policy:
    """The limits in force. In shadow mode they refuse nothing, and log what they would have refused."""

    def __init__(self, limits: Limits, *, shadow: bool = False) -> None:
        self.limits = limits
        self.shadow = shadow

    @property
    def adds_up(self) -> bool:
        """Whether a limit is about everything that runs or was spent, so that a rent is not judged by itself."""
        limits = self.limits
        return any(limit is not None for limit in (limits.max_pods, limits.max_burn_per_hour_usd, limits.budget_usd))

    @property
    def wants_spending(self) -> bool:
        """Whether what was spent has to be known."""
        return self.limits.budget_usd is not None

    def budget_since(self, now: datetime) -> date:
        """The first UTC day of the budget; the present one where it has not begun."""
        return min(self.limits.budget_since or now.date().replace(day=1), now.date())

    def check_budget_has_begun(self, now: datetime) -> None:
        """Refuse what spends before the first day of the budget: none is set for now.

        Raises:
            PolicyRefused: it is not that day yet.
        """
        if (first := self.budget_begins_on(now)) is not None:
            self._refuse("budget_usd", f"The budget begins on {first}", "nothing before that day")

    def budget_begins_on(self, now: datetime) -> date | None:
        """The first day of a budget that has not begun; None where it has, or none is set."""
        first = self.limits.budget_since
        return first if self.limits.budget_usd is not None and first is not None and first > now.date() else None

    def life(self, hours: float | None) -> float | None:
        """The hours a new pod is to live: those asked for, else the most whole ones that are allowed.

        Raises:
            PolicyRefused: they are too many, or the whole ones are that the rent carries.
        """
        most = self.limits.max_hours
        if most is None:
            return hours
        if hours is None:
            return None if self.shadow else float(math.floor(most))
        if (whole := whole_hours(hours)) > most:
            taken = "" if whole == hours or hours > most else f", which Lium takes for {whole} at the rent"
            happened = f"it asks for {counted(hours, 'hour')}{taken}; at most {most:g} are allowed"
            self._refuse("max_hours", happened, f"hours={math.floor(most)}")
        return hours

    def most_per_hour_usd(self, admitted_usd: float | None, pods: int = 1) -> float | None:
        """The most that pods may come out at per hour, all together, when they were admitted at a price.

        Where limits add up, the room was for that price. None where anything goes.
        """
        if self.shadow:
            return None
        most = self.limits.max_price_per_hour_usd
        ceilings = [] if most is None else [most * pods]
        if admitted_usd is not None and (self.limits.max_burn_per_hour_usd, self.limits.budget_usd) != (None, None):
            ceilings.append(admitted_usd + PRICE_TOLERANCE_USD)  # Lium rounds what it quotes
        return min(ceilings, default=None)

    def check_gpu_type(self, machine_name: str, memory_gb: float | None = None) -> None:
        """Refuse a GPU that is not on the list; the memory is its nominal size.

        Raises:
            PolicyRefused: it is not.
        """
        allowed = self.limits.allow_gpu_types
        if allowed and not gpu_fits(",".join(allowed), machine_name, memory_gb):
            self._refuse("allow_gpu_types", f"GPU type {gpu_label(machine_name)[:40]} is not allowed", _one_of(allowed))

    def admits_gpu_type(self, machine_name: str, memory_gb: float | None = None) -> bool:
        """Whether this GPU may be rented; in shadow mode any."""
        allowed = self.limits.allow_gpu_types
        return self.shadow or not allowed or gpu_fits(",".join(allowed), machine_name, memory_gb)

    def check_country(self, country: str | None) -> None:
        """Refuse a node that is not in one of the countries.

        Raises:
            PolicyRefused: it is not, or nobody knows where it is.
        """
        allowed = self.limits.allow_countries
        if allowed and (country or "").casefold() not in {name.casefold() for name in allowed}:
            where = country or "an unknown country"
            self._refuse("allow_countries", f"A node in {where} is not allowed", _one_of(allowed))

    def admits_country(self, country: str | None) -> bool:
        """Whether a node in this country may be rented; in shadow mode any."""
        allowed = {name.casefold() for name in self.limits.allow_countries}
        return self.shadow or not allowed or (country or "").casefold() in allowed

    def check_template(self, template_id: str | None) -> None:
        """Refuse a template that is not on the list.

        Raises:
            PolicyRefused: it is not, or it would be left to Lium.
        """
        allowed = self.limits.allow_templates
        if allowed and (template_id or "").casefold() not in {name.casefold() for name in allowed}:
            self._refuse("allow_templates", f"Template {template_id or 'of Lium'} is not allowed", _one_of(allowed))

    def check_template_change(self, template_id: str) -> None:
        """Refuse to change a template that is on the list: it would then stand for something nobody allowed.

        Raises:
            PolicyRefused: it is on it.
        """
        if template_id.casefold() in {name.casefold() for name in self.limits.allow_templates}:
            happened = f"Template {template_id} is allowed as it is; a change could make it run anything"
            self._refuse("allow_templates", happened, "a template that is not on the list")

    def check_price(self, price_per_hour_usd: float | None, pods: int = 1) -> None:
        """Refuse pods of which one costs more than one may; the price is that of all of them.

        Raises:
            PolicyRefused: it does, or nobody says what it costs.
        """
        most = self.limits.max_price_per_hour_usd
        if most is None:
            return
        if price_per_hour_usd is None:
            self._refuse("max_price_per_hour_usd", "Lium does not say what it costs", f"a price of at most ${most:g}")
        elif is_above(price_per_hour_usd / pods, most):
            self._refuse(
                "max_price_per_hour_usd",
                f"A pod would cost {rate_in_usd(price_per_hour_usd / pods, 4)} an hour; at most ${most:g} is allowed",
                "fewer GPUs or a cheaper node",
            )

    def check_room(self, ask: Ask, commitments: Sequence[Commitment], spent_usd: float | None) -> None:
        """Refuse what would pass a limit together with all that is there; `check_price` judges its price alone.

        Raises:
            PolicyRefused: it would.
        """
        most_pods, pods = self.limits.max_pods, sum(item.pods for item in commitments)
        if most_pods is not None and pods + ask.pods > most_pods:
            self._refuse(
                "max_pods",
                f"{pods} pods live or are starting; at most {most_pods} are allowed",
                f"{most_pods - pods} more" if most_pods > pods else "removing one first" if most_pods else "none",
            )
        self._check_burn(ask, commitments)
        self._check_budget(ask, commitments, spent_usd)

    def check_life(self, name: str, lived_hours: float | None, hours_left: float | None) -> None:
        """Refuse a removal time that lets a pod live longer than one may.

        `lived_hours` is None where nobody knows it, `hours_left` where there is no removal time.

        Raises:
            PolicyRefused: it does.
        """
        most = self.limits.max_hours
        if most is None:
            return
        if lived_hours is None:
            self._refuse("max_hours", f"Lium does not say since when {name} lives", "its present removal time")
        elif hours_left is None or lived_hours + hours_left > most + _LIFE_TOLERANCE_HOURS:
            left = max(most - lived_hours, 0)
            self._refuse(
                "max_hours",
                f"{name} may live {counted(most, 'hour')} in all",
                f"schedule_pod_removal, at most {left:.2f} hours from now",
            )

    def check_restart(self, name: str, hours_left: float | None) -> None:
        """Refuse to start a pod over shortly before its removal, which Lium puts off while a pod starts.

        Raises:
            PolicyRefused: its removal is due.
        """
        limit = "max_hours" if self.limits.max_hours is not None else "budget_usd"
        if getattr(self.limits, limit) is not None and hours_left is not None and hours_left < _RESTART_HOURS:
            self._refuse(limit, f"{name} is removed within minutes, and a start would put that off", "another pod")

    def check_extension(
        self, name: str, ask: Ask, others: Sequence[Commitment], spent_usd: float | None, *, is_longer: bool
    ) -> None:
        """Refuse to let a pod live on for longer than the limits bear, at its price of now; `others` are all but it.

        What bounds a life that had no bound is held against the budget alone: it `is_longer` than nothing.

        Raises:
            PolicyRefused: they do not.
        """
        if is_longer:
            self._check_burn(ask, others)
        if self.limits.budget_usd is not None and ask.hours is None:
            self._refuse("budget_usd", f"Without a removal time {name} has no bounded cost", "a removal time")
            return
        self._check_budget(ask, others, spent_usd)

    def standings(self, commitments: Sequence[Commitment], spent_usd: float | None) -> list[Standing]:
        """How far the limits that add up are used; a use that is not bounded is None.

        Of a budget nothing is left once what was charged alone reaches it, whatever more is committed; where that is
        not bounded, what was charged is used at least.
        """
        burn = known_sum(item.price_per_hour_usd for item in commitments)
        committed = committed_usd(commitments)
        used: dict[str, float | None] = {
            "max_pods": sum(item.pods for item in commitments),
            "max_burn_per_hour_usd": burn,
            "budget_usd": None if committed is None or spent_usd is None else spent_usd + committed,
        }
        rows = []
        for limit, known in used.items():
            allowed = getattr(self.limits, limit)
            if allowed is None:
                continue
            is_spent = limit == "budget_usd" and spent_usd is not None and spent_usd >= allowed
            now = spent_usd if known is None and is_spent else known
            left = 0 if is_spent else None if now is None else max(allowed - now, 0)
            rows.append(Standing(limit, allowed, now, left))
        return rows

    def _check_budget(self, ask: Ask, commitments: Sequence[Commitment], spent_usd: float | None) -> None:
        budget = self.limits.budget_usd
        if budget is None:
            return
        if ask.hours is None:
            self._refuse("budget_usd", "Without hours a pod has no bounded cost", "hours, after which Lium removes it")
            return
        if ask.price_per_hour_usd is None:
            self._refuse("budget_usd", "Lium does not say what it costs", "a node with a price")
            return
        for item in commitments:
            if item.hours_left is None or item.price_per_hour_usd is None:
                lacks = "removal time" if item.hours_left is None else "known price"
                self._refuse(
                    "budget_usd",
                    f"Pod {item.name} has no {lacks}, so what is committed already is not bounded",
                    "a removal time for it (schedule_pod_removal), or its removal",
                )
                return
        if spent_usd is None:
            self._refuse("budget_usd", "Lium does not say what was spent already", "nothing until it does")
            return
        left = budget - spent_usd - (committed_usd(commitments) or 0)
        cost = ask.price_per_hour_usd * ask.hours
        if cost > left + _COST_TOLERANCE_USD:
            fits = hours_paid_for(max(left, 0), ask.price_per_hour_usd) if ask.price_per_hour_usd else 0
            self._refuse(
                "budget_usd",
                f"It would cost up to {in_usd(at_most_usd(cost))}; "
                f"of the budget of ${budget:g} {in_usd(max(left, 0))} is left",
                f"{counted(fits, 'hour')} at this price" if fits >= 1 else "a cheaper node or nothing now",
            )

    def _check_burn(self, ask: Ask, others: Sequence[Commitment]) -> None:
        most = self.limits.max_burn_per_hour_usd
        if most is None:
            return
        burn = self._burn("max_burn_per_hour_usd", others, ask)
        if is_above(burn + (ask.price_per_hour_usd or 0), most):
            self._refuse(
                "max_burn_per_hour_usd",
                f"All pods together would cost {rate_in_usd(burn + (ask.price_per_hour_usd or 0))} an hour; "
                f"at most ${most:g} is allowed",
                f"at most {in_usd(most - burn)} more an hour" if most - burn >= _CENT_USD else "removing a pod first",
            )

    def _burn(self, limit: str, commitments: Sequence[Commitment], ask: Ask) -> float:
        if ask.price_per_hour_usd is None:
            self._refuse(limit, "Lium does not say what it costs", "a node with a price")
        unknown = [item.name for item in commitments if item.price_per_hour_usd is None]
        if unknown:
            self._refuse(limit, f"Nobody says what pod {unknown[0]} costs", "its removal")
        return sum(item.price_per_hour_usd or 0 for item in commitments)

    def _refuse(self, limit: str, happened: str, fits: str) -> None:
        if self.shadow:
            log.warning("policy=shadow limit=%s would have refused a call", limit)
            return
        raise PolicyRefused(limit, happened, fits)


def _one_of(names: frozenset[str]) -> str:
    return f"one of {', '.join(sorted(names))}"
