"""Rules as data: a YAML file that a business user writes -> frozen rules of every promo, validated line by line, hashed for the log.

The file has four optional keys: `defaults` (one rule), `promos` (a rule by promo id, which overrides the defaults key by key),
`shopper` (caps over all promos together) and `depth_ladders` (lists of promos, shallow to deep, whose effect must not fall with depth).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from promolift.contracts.decisions import Channel
from promolift.contracts.promos import CATEGORY_NAMES, Promo
from promolift.yaml_file import YamlFile, nearest, read_yaml

CHANNELS: tuple[Channel, ...] = get_args(Channel)
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
KEYS = ("defaults", "promos", "shopper", "depth_ladders")
_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, config=_STRICT)
class Rule:
    """When a promo may be given. An empty tuple means "any"; `None` means "no limit"; days are days in UTC.

    `valid_from`, `valid_until`: inclusive. `segments`: allowed values by shopper attribute. `categories`: at least one must be in the
    basket; `without_categories`: none may be. `cap_per_day`, `cap_per_week`: how often one shopper may be given it in the 24 hours, or
    7 days, up to the moment; `cool_down_days`: the least time between two. `excludes`: promos of which none was given in the last
    `exclusion_days`, in either order. `budget`: who pays. `priority` breaks ties. `fallback`: may be given when nothing can be scored.
    """

    valid_from: date | None = None
    valid_until: date | None = None
    weekdays: tuple[Weekday, ...] = ()
    stores: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = CHANNELS
    segments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    without_categories: tuple[str, ...] = ()
    min_basket_cents: int = Field(default=0, ge=0)
    cap_per_day: int | None = Field(default=None, ge=0)
    cap_per_week: int | None = Field(default=None, ge=0)
    cool_down_days: int = Field(default=0, ge=0, le=14)
    excludes: tuple[str, ...] = ()
    exclusion_days: int = Field(default=7, ge=1, le=14)
    budget: str = Field(default="main", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    priority: int = 0
    fallback: bool = False
    active: bool = True


@checked(frozen=True, config=_STRICT)
class ShopperCaps:
    """How many promos of any kind one shopper may be given in the 24 hours, or 7 days, up to the moment."""

    cap_per_day: int | None = Field(default=None, ge=0)
    cap_per_week: int | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class Rules:
    """The rule of every promo of the catalogue, in its order; `version` is a hash of what the rules say."""

    by_promo: Mapping[str, Rule]
    version: str
    shopper: ShopperCaps = field(default_factory=ShopperCaps)
    depth_ladders: tuple[tuple[str, ...], ...] = ()


def load_rules(path: Path, promos: Sequence[Promo], attributes: Mapping[str, Sequence[str]] | None = None) -> Rules:
    """The rules of a YAML file for a catalogue; `attributes`: the shopper attributes that segments may name, with their values.

    Raises InputError that names file, line and key: no YAML, unknown promo, key, category, segment or value, wrong type, empty range.
    """
    return read_rules(read_yaml(path, "Rules file", "--rules"), promos, attributes)


def read_rules(file: YamlFile, promos: Sequence[Promo], attributes: Mapping[str, Sequence[str]] | None = None) -> Rules:
    """As `load_rules`, from a file that was read."""
    file.only(file.mapping(), KEYS, "key")
    file.only(file.mapping("promos"), [p.promo_id for p in promos], "promo", "promos")
    by_promo = {p.promo_id: _promo_rule(file, p.promo_id, promos, attributes) for p in promos}
    shopper = file.checked(ShopperCaps, file.mapping("shopper"), "under 'shopper', ", "shopper")
    ladders = _ladders(file, promos)
    return Rules(by_promo, _version(by_promo, shopper, ladders), shopper, ladders)


def _promo_rule(file: YamlFile, promo_id: str, promos: Sequence[Promo], attributes: Mapping[str, Sequence[str]] | None) -> Rule:
    defaults, own = file.mapping("defaults"), file.mapping("promos", promo_id)
    # The defaults by themselves first, so that an error in them is told of them and not of the first promo.
    file.checked(Rule, defaults, "under 'defaults', ", "defaults")
    rule: Rule = file.checked(Rule, {**defaults, **own}, f"promo '{promo_id}', ", "promos", promo_id)
    _check(_Place(file, promo_id, own), rule, promos, attributes)
    return rule


@dataclass(frozen=True)
class _Place:
    """Where a promo's rule is written: under the promo what it says itself, else under the defaults."""

    file: YamlFile
    promo_id: str
    own: Mapping[str, Any]

    def wrong(self, key: str, sentence: str, *below: str | int) -> Exception:
        """The error for one key of the rule."""
        above = ["promos", self.promo_id] if key in self.own else ["defaults"]
        who = f"promo '{self.promo_id}', " if key in self.own else "under 'defaults', "
        return self.file.wrong([*above, key, *below], f"{who}key '{key}' {sentence}.")

    def need(self, key: str, named: Sequence[str], known: Sequence[str]) -> None:
        """Raises InputError for a name that is not known."""
        for index, name in enumerate(named):
            if name not in known:
                raise self.wrong(key, f"names '{name}'; {nearest(name, known)}", index)


def _check(place: _Place, rule: Rule, promos: Sequence[Promo], attributes: Mapping[str, Sequence[str]] | None) -> None:
    place.need("categories", rule.categories, CATEGORY_NAMES)
    place.need("without_categories", rule.without_categories, CATEGORY_NAMES)
    place.need("excludes", rule.excludes, [p.promo_id for p in promos])
    if rule.valid_from and rule.valid_until and rule.valid_until < rule.valid_from:
        raise place.wrong("valid_until", f"({rule.valid_until}) lies before 'valid_from' ({rule.valid_from})")
    for name, values in rule.segments.items() if attributes is not None else ():
        if name not in (attributes or {}):
            raise place.wrong("segments", f"names the attribute '{name}'; {nearest(name, attributes or {})}", name)
        for value in values:
            if value not in (attributes or {})[name]:
                raise place.wrong("segments", f"names {name} '{value}'; {nearest(value, (attributes or {})[name])}", name)


def _ladders(file: YamlFile, promos: Sequence[Promo]) -> tuple[tuple[str, ...], ...]:
    """Each a list of two promos or more of rising depth."""
    depth = {p.promo_id: p.depth for p in promos}
    found = file.mapping().get("depth_ladders") or []
    if not isinstance(found, list) or not all(isinstance(ladder, list) for ladder in found):
        raise file.wrong(["depth_ladders"], f"'depth_ladders' must be a list of lists of promos, not {found!r}.")
    for index, ladder in enumerate(found):
        file.only(ladder, depth, "promo", "depth_ladders", index)
        depths = [depth[promo_id] for promo_id in ladder]
        if len(ladder) < 2 or sorted(set(depths)) != depths:
            shown = ", ".join(f"{promo_id} ({depth[promo_id]:.0%})" for promo_id in ladder)
            raise file.wrong(["depth_ladders", index], f"a ladder needs two promos or more, shallow to deep; this one is {shown}.")
    return tuple(map(tuple, found))


def _version(by_promo: Mapping[str, Rule], shopper: ShopperCaps, ladders: Sequence[Sequence[str]]) -> str:
    lines = [*(f"{name}: {rule!r}" for name, rule in by_promo.items()), repr(shopper), repr(ladders)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
