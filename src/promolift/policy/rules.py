"""Rules as data: a parsed rules document -> frozen rules of every promo, validated; written by a business user, hashed for the log.

A document has two optional keys: `defaults` (one rule) and `promos` (rule per promo id). A promo's rule overrides the defaults
field by field.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from promolift.contracts.decisions import Channel
from promolift.contracts.promos import CATEGORY_NAMES, Promo
from promolift.errors import InputError

CHANNELS: tuple[Channel, ...] = get_args(Channel)


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Rule:
    """When a promo may be given. An empty tuple means "any"; `None` means "no limit".

    `valid_from` and `valid_until`: days in UTC, both inclusive. `categories`: at least one must be in the basket. Caps count what
    one shopper was given of this promo in the 24 hours, or 7 days, up to the moment. `priority` breaks ties of equal value.
    """

    valid_from: date | None = None
    valid_until: date | None = None
    stores: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = CHANNELS
    categories: tuple[str, ...] = ()
    min_basket_cents: int = Field(default=0, ge=0)
    cap_per_day: int | None = Field(default=None, ge=0)
    cap_per_week: int | None = Field(default=None, ge=0)
    priority: int = 0
    active: bool = True


@dataclass(frozen=True)
class Rules:
    """The rule of every promo of the catalogue, in its order; `version` is a hash of what the rules say."""

    by_promo: Mapping[str, Rule]
    version: str


def read_rules(document: Any, promos: Sequence[Promo], source: str) -> Rules:
    """Validated rules of `promos` from a parsed document; `source` names the file in errors.

    Raises InputError that names file and key: unknown promo, unknown key, wrong type, unknown category, empty date range.
    """
    top = _mapping(document, source, "the document")
    for key in top:
        if key not in ("defaults", "promos"):
            raise InputError(f"{source}: key '{key}' is unknown; a rules file has only 'defaults' and 'promos'.")
    defaults = _mapping(top.get("defaults"), source, "'defaults'")
    overrides = _mapping(top.get("promos"), source, "'promos'")
    _check_known(overrides, promos, source)
    _rule(defaults, f"{source}: defaults")
    by_promo = {p.promo_id: _promo_rule(p.promo_id, defaults, overrides, source) for p in promos}
    return Rules(by_promo, _version(by_promo))


def _mapping(value: Any, source: str, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{source}: {what} must be a mapping of keys to values, not {type(value).__name__} ({value!r}).")
    return value


def _check_known(overrides: Mapping[str, Any], promos: Sequence[Promo], source: str) -> None:
    known = [p.promo_id for p in promos]
    for promo_id in overrides:
        if promo_id not in known:
            raise InputError(f"{source}: promo '{promo_id}' under 'promos' is unknown; the catalogue has {', '.join(known)}.")


def _promo_rule(promo_id: str, defaults: dict[str, Any], overrides: Mapping[str, Any], source: str) -> Rule:
    own = _mapping(overrides.get(promo_id), source, f"promo '{promo_id}'")
    return _rule({**defaults, **own}, f"{source}: promo '{promo_id}'")


def _rule(fields: dict[str, Any], where: str) -> Rule:
    try:
        rule = TypeAdapter(Rule).validate_python(fields)
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: key '{key}' has the value {first['input']!r}: {first['msg']}.") from problem
    _check_rule(rule, where)
    return rule


def _check_rule(rule: Rule, where: str) -> None:
    for category in rule.categories:
        if category not in CATEGORY_NAMES:
            raise InputError(f"{where}: key 'categories' names '{category}'; categories are {', '.join(CATEGORY_NAMES)}.")
    if rule.valid_from and rule.valid_until and rule.valid_until < rule.valid_from:
        raise InputError(f"{where}: key 'valid_until' ({rule.valid_until}) lies before 'valid_from' ({rule.valid_from}).")


def _version(by_promo: Mapping[str, Rule]) -> str:
    text = "\n".join(f"{name}: {rule!r}" for name, rule in by_promo.items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
