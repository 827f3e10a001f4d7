"""Request and rules -> Candidates: the promos that the rules allow, and a sentence for every other one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

from promolift.contracts.decisions import Candidates, Request
from promolift.policy.rules import Rule, Rules


@dataclass(frozen=True)
class Situation:
    """The parts of a request that rules look at: UTC day, store, channel, categories in the basket and its total (cents)."""

    day: date
    store: str
    channel: str
    categories: frozenset[str]
    basket_cents: int


def situation(request: Request) -> Situation:
    """What the rules may look at."""
    return Situation(
        day=datetime.fromisoformat(request.moment).date(),
        store=request.store_id,
        channel=request.channel,
        categories=frozenset(line.category for line in request.basket),
        basket_cents=sum(line.amount_cents for line in request.basket),
    )


def eligible(request: Request, rules: Rules) -> Candidates:
    """Candidates of a request in catalogue order. Caps per shopper are not looked at: the ledger counts them."""
    now = situation(request)
    refusals = {promo_id: refusal(promo_id, rule, now) for promo_id, rule in rules.by_promo.items()}
    allowed = tuple(promo_id for promo_id, reason in refusals.items() if reason is None)
    refused = {promo_id: reason for promo_id, reason in refusals.items() if reason is not None}
    return Candidates(allowed, refused, rules.version)


def refusal(promo_id: str, rule: Rule, now: Situation) -> str | None:
    """The first reason why a rule refuses a promo, as a sentence; None when it allows it."""
    for reason in _REASONS:
        text = reason(rule, now)
        if text is not None:
            return f"promo {promo_id} {text}"
    return None


def _switched_off(rule: Rule, now: Situation) -> str | None:
    return None if rule.active else "is switched off"


def _too_early(rule: Rule, now: Situation) -> str | None:
    return f"is not valid before {rule.valid_from}" if rule.valid_from and now.day < rule.valid_from else None


def _too_late(rule: Rule, now: Situation) -> str | None:
    return f"is not valid after {rule.valid_until}" if rule.valid_until and now.day > rule.valid_until else None


def _wrong_store(rule: Rule, now: Situation) -> str | None:
    return f"is not given in store '{now.store}'" if rule.stores and now.store not in rule.stores else None


def _wrong_channel(rule: Rule, now: Situation) -> str | None:
    return f"is not given in channel '{now.channel}'" if now.channel not in rule.channels else None


def _wrong_basket(rule: Rule, now: Situation) -> str | None:
    missing = rule.categories and now.categories.isdisjoint(rule.categories)
    return f"needs {' or '.join(rule.categories)} in the basket" if missing else None


def _small_basket(rule: Rule, now: Situation) -> str | None:
    short = now.basket_cents < rule.min_basket_cents
    return f"needs a basket of {rule.min_basket_cents} cents and this one has {now.basket_cents}" if short else None


_REASONS: tuple[Callable[[Rule, Situation], str | None], ...] = (
    _switched_off, _too_early, _too_late, _wrong_store, _wrong_channel, _wrong_basket, _small_basket,
)  # fmt: skip
