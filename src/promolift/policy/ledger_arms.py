"""A promo as the ledger sees it, and arms in the form in which reserve.lua reads them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

NONE = -1
"""Stands for no cap."""
NEVER = 2**53
"""More cents than any budget has."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A promo that the ledger must be able to afford: most cents it can cost, its budget, and its caps per shopper (None: no cap).

    `cool_down_s`: least time between two of them; `excludes`: promos of which none may have been given within `exclusion_s`.
    Hashed by identity: `packed` looks up the arms of every decision.
    """

    promo_id: str
    cents: int
    cap_per_day: int | None = None
    cap_per_week: int | None = None
    budget: str = "main"
    cool_down_s: int = 0
    excludes: tuple[str, ...] = ()
    exclusion_s: int = 0


@dataclass(frozen=True)
class Packed:
    """Some arms: the budgets that they draw on, all of them as JSON, and each one's (cents, place of its budget from 1).

    `most`: the most cents that an arm of each budget reserves, or NEVER, which makes the script look at every arm, where a cap is 0.
    """

    budgets: list[str]
    text: str
    chosen: Mapping[str, tuple[int, int]]
    most: list[int]


@lru_cache(1_024)
def packed(arms: tuple[Arm, ...]) -> Packed:
    """Made once for the same arms."""
    budgets = list(dict.fromkeys(arm.budget for arm in arms))
    chosen = {arm.promo_id: (arm.cents, budgets.index(arm.budget) + 1) for arm in arms}
    rows = [
        [
            arm.promo_id, *chosen[arm.promo_id], capped(arm.cap_per_day), capped(arm.cap_per_week), arm.cool_down_s, arm.exclusion_s,
            list(arm.excludes),
        ]
        for arm in arms
    ]  # fmt: skip
    barred = any(0 in (arm.cap_per_day, arm.cap_per_week) for arm in arms)
    most = [NEVER if barred else max(arm.cents for arm in arms if arm.budget == name) for name in budgets]
    return Packed(budgets, json.dumps(rows), chosen, most)


def capped(cap: int | None) -> int:
    """A cap as the script reads it."""
    return NONE if cap is None else cap
