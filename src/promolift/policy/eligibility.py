"""Request, shopper and rules -> Candidates: the promos that the rules allow, and a sentence for every other one.

The rules are compiled once into masks over the catalogue, so that a request costs a handful of array operations however many
promos there are; sentences are made only for what a mask refuses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

from promolift.contracts.decisions import Candidates, Channel, Request
from promolift.policy.rules import CHANNELS, WEEKDAYS, Rule, Rules

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Situation:
    """The parts of a request that rules look at: UTC day, store, channel, categories in the basket, its total (cents), attributes."""

    day: date
    store: str
    channel: Channel
    categories: frozenset[str]
    basket_cents: int
    attributes: Mapping[str, float | str]


def situation(request: Request, attributes: Mapping[str, float | str] | None = None) -> Situation:
    """What the rules may look at; `attributes`: the shopper's features, if any are known."""
    return Situation(
        day=datetime.fromisoformat(request.moment).date(),
        store=request.store_id,
        channel=request.channel,
        categories=frozenset(line.category for line in request.basket),
        basket_cents=sum(line.amount_cents for line in request.basket),
        attributes=attributes or {},
    )


class CompiledRules:
    """The rules of a catalogue of P promos as masks [P]."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        own = list(rules.by_promo.values())
        self._ids, self._rules = tuple(rules.by_promo), own
        self._active = np.array([r.active for r in own])
        self._from = np.array([r.valid_from.toordinal() if r.valid_from else 0 for r in own])
        self._until = np.array([r.valid_until.toordinal() if r.valid_until else date.max.toordinal() for r in own])
        self._weekday = [np.array([not r.weekdays or day in r.weekdays for r in own]) for day in WEEKDAYS]
        self._channel = {name: np.array([name in r.channels for r in own]) for name in CHANNELS}
        self._store = _by_value([r.stores for r in own])
        self._needs = np.array([bool(r.categories) for r in own])
        self._category = _by_value([r.categories for r in own])
        self._without = _by_value([r.without_categories for r in own])
        self._least = np.array([r.min_basket_cents for r in own])
        names = dict.fromkeys(name for r in own for name in r.segments)
        self._segment = {name: _by_value([r.segments.get(name, ()) for r in own]) for name in names}

    def candidates(self, request: Request, attributes: Mapping[str, float | str] | None = None) -> Candidates:
        """Candidates in catalogue order. Caps per shopper are not looked at: the ledger counts them."""
        now = situation(request, attributes)
        allowed = self.mask(now)
        refused = {self._ids[i]: refusal(self._ids[i], self._rules[i], now) or "" for i in np.flatnonzero(~allowed)}
        return Candidates(tuple(self._ids[i] for i in np.flatnonzero(allowed)), refused, self.rules.version)

    def mask(self, now: Situation) -> Mask:
        """[P] which promos the rules allow."""
        day = now.day.toordinal()
        found = self._active & (self._from <= day) & (day <= self._until) & (self._least <= now.basket_cents)
        found &= self._weekday[now.day.weekday()] & self._channel[now.channel] & self._store.of(now.store)
        if self._needs.any():
            found &= ~self._needs | self._category.any_of(now.categories)
        if self._without.masks:
            found &= ~self._without.any_of(now.categories)
        for name, values in self._segment.items():
            found &= values.of(str(now.attributes.get(name, "")))
        return found


@dataclass(frozen=True)
class _ByValue:
    """By value, which promos name it; `free` [P]: those that name none."""

    masks: Mapping[str, Mask]
    free: Mask

    def of(self, value: str) -> Mask:
        """[P] promos that name the value or none at all."""
        named = self.masks.get(value)
        return self.free if named is None else self.free | named

    def any_of(self, values: frozenset[str]) -> Mask:
        """[P] promos that name one of the values."""
        found = np.zeros_like(self.free)
        for value in values:
            if value in self.masks:
                found |= self.masks[value]
        return found


def _by_value(lists: Sequence[Sequence[str]]) -> _ByValue:
    values = dict.fromkeys(value for own in lists for value in own)
    return _ByValue({value: np.array([value in own for own in lists]) for value in values}, np.array([not own for own in lists]))


def refusal(promo_id: str, rule: Rule, now: Situation) -> str | None:
    """The first reason why a rule refuses a promo, as a sentence; None when it allows it."""
    text = next(filter(None, (reason(rule, now) for reason in _REASONS)), None)
    return None if text is None else f"promo {promo_id} is not eligible: {text}"


def _switched_off(rule: Rule, now: Situation) -> str | None:
    return None if rule.active else "switched off"


def _too_early(rule: Rule, now: Situation) -> str | None:
    return f"not valid before {rule.valid_from}" if rule.valid_from and now.day < rule.valid_from else None


def _too_late(rule: Rule, now: Situation) -> str | None:
    return f"not valid after {rule.valid_until}" if rule.valid_until and now.day > rule.valid_until else None


def _wrong_weekday(rule: Rule, now: Situation) -> str | None:
    today = WEEKDAYS[now.day.weekday()]
    return f"given on {', '.join(rule.weekdays)}, not on {today}" if rule.weekdays and today not in rule.weekdays else None


def _wrong_store(rule: Rule, now: Situation) -> str | None:
    return f"not given in store '{now.store}'" if rule.stores and now.store not in rule.stores else None


def _wrong_channel(rule: Rule, now: Situation) -> str | None:
    return f"not given in channel '{now.channel}'" if now.channel not in rule.channels else None


def _wrong_segment(rule: Rule, now: Situation) -> str | None:
    for name, values in rule.segments.items():
        value = str(now.attributes.get(name, ""))
        if values and value not in values:
            return f"{name} is '{value or 'unknown'}', not {' or '.join(values)}"
    return None


def _wrong_basket(rule: Rule, now: Situation) -> str | None:
    missing = rule.categories and now.categories.isdisjoint(rule.categories)
    return f"no {' or '.join(rule.categories)} in the basket" if missing else None


def _barred_basket(rule: Rule, now: Situation) -> str | None:
    barred = [name for name in rule.without_categories if name in now.categories]
    return f"{barred[0]} in the basket" if barred else None


def _small_basket(rule: Rule, now: Situation) -> str | None:
    short = now.basket_cents < rule.min_basket_cents
    return f"basket {now.basket_cents / 100:.2f} under {rule.min_basket_cents / 100:.2f}" if short else None


_REASONS: tuple[Callable[[Rule, Situation], str | None], ...] = (
    _switched_off, _too_early, _too_late, _wrong_weekday, _wrong_store, _wrong_channel, _wrong_segment, _wrong_basket, _barred_basket,
    _small_basket,
)  # fmt: skip
