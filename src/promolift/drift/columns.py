"""What is watched of one decision, as one fixed-size row: features, basket, scores, choice; and what was wrong with it.

A row holds numbers (NaN: missing) and codes of texts (0: the vocabulary's unknown, UNSEEN: a text that training never saw, MISSING: none).
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from promolift.contracts.decisions import BasketLine, Envelope
from promolift.contracts.promos import CATEGORY_NAMES, NO_PROMO

Rows = NDArray[np.void]
UNSEEN, MISSING = -1, -2
SICK = frozenset({"stale_features", "expired_features", "features_unavailable", "model_error"})
"""Degradations that are nobody's ordinary state; a shopper never seen (`no_features`) is."""
BASKET = ("basket_lines", "basket_cents", "unit_price")
YES_NO = ("no", "yes")
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Columns:
    """Names and vocabularies of one model version's rows.

    `prices`: mean log of a unit's price in cents by product, in training; empty for a source without baskets, whose rows have none.
    `stores`: those of training, most frequent first, the rest being "other".
    """

    features: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    promos: tuple[str, ...]
    prices: Mapping[str, float]
    stores: tuple[str, ...]

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers of a row in order: features, basket, value of each promo."""
        return (*self.features, *(BASKET if self.prices else ()), *(f"value:{promo}" for promo in self.promos))

    @cached_property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """Vocabulary of each text of a row in order: attributes, what the basket holds, what the scores would choose, and state."""
        basket = {"store": ("other", *self.stores), **{f"has_{name}": YES_NO for name in CATEGORY_NAMES}} if self.prices else {}
        state = {"choice": (NO_PROMO, *self.promos), "degraded": YES_NO}
        return {**self.attributes, **basket, **state}

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """Of one row; `day` counts days since 1970 (UTC), `shopper` is a hash: rows of one shopper are not independent."""
        return np.dtype([
            ("shopper", "<u4"), ("day", "<i4"), ("numbers", "<f4", (len(self.numbers),)), ("codes", "<i2", (len(self.texts),)),
        ])  # fmt: skip

    @cached_property
    def codes(self) -> dict[str, dict[str, int]]:
        """Code of each text by column."""
        return {name: {text: code for code, text in enumerate(values)} for name, values in self.texts.items()}


def row_of(columns: Columns, envelope: Envelope, day: int) -> bytes:
    """The row of one envelope: a predictor's answer, or its question, whose values are then missing."""
    row = np.zeros(1, columns.dtype)
    row["shopper"], row["day"] = shopper_hash(envelope.request.shopper_id), day
    numbers = np.array(_numbers(columns, envelope))
    row["numbers"] = np.where(np.isfinite(numbers), numbers, np.nan)
    row["codes"] = _codes(columns, envelope)
    return row.tobytes()


def shopper_hash(shopper_id: str) -> int:
    """32 bits that stand for a shopper."""
    return zlib.crc32(shopper_id.encode())


def day_of(seconds: float) -> int:
    """Days since 1970 of a moment in seconds since 1970."""
    return int(seconds // _SECONDS_A_DAY)


def _numbers(columns: Columns, envelope: Envelope) -> list[float]:
    known = envelope.shopper.features if envelope.shopper else {}
    features = [_number(known.get(name)) for name in columns.features]
    basket = basket_numbers(columns.prices, envelope.request.basket) if columns.prices else []
    values = _values(envelope)
    return [*features, *basket, *(values.get(promo, math.nan) for promo in columns.promos)]


def _number(value: object) -> float:
    return value if type(value) is float else float(value) if isinstance(value, int) else math.nan


def _values(envelope: Envelope) -> dict[str, float]:
    if not envelope.scores or not envelope.candidates or envelope.scores.evidence != "model":
        return {}
    return dict(zip(envelope.candidates.promo_ids, envelope.scores.value, strict=False))


def basket_numbers(prices: Mapping[str, float], basket: Iterable[BasketLine]) -> list[float]:
    """Lines, cents, and how far the units' prices are from the same products' mean in training, in logs; NaN where there is none.

    A matched-model index: what is bought changes from week to week by more than prices do. A rise of every price by 10 % moves it by 0.095
    on the same day, and features over 28 days by a 28th of that.
    """
    paid = [line for line in basket if line.amount_cents > 0]
    if not paid:
        return [math.nan] * 3
    gaps = [math.log(line.amount_cents / line.quantity) - prices[line.product_id] for line in paid if line.product_id in prices]
    return [len(paid), sum(line.amount_cents for line in paid), sum(gaps) / len(gaps) if gaps else math.nan]


def _codes(columns: Columns, envelope: Envelope) -> list[int]:
    """Codes of the texts in order; a code of YES_NO is the truth of it."""
    known, codes = envelope.shopper.features if envelope.shopper else {}, columns.codes
    found = [codes[name].get(str(known[name]), UNSEEN) if name in known else MISSING for name in columns.attributes]
    if columns.prices:
        held = {line.category for line in envelope.request.basket}
        found.append(codes["store"].get(envelope.request.store_id or "", 0))
        found += [name in held for name in CATEGORY_NAMES]
    choice = _choice(columns, envelope)
    return [*found, MISSING if choice is None else codes["choice"].get(choice, UNSEEN), not SICK.isdisjoint(envelope.degraded)]


def _choice(columns: Columns, envelope: Envelope) -> str | None:
    """The promo of the greatest value, if that is more than none; None unless every promo was scored, as in training."""
    values = _values(envelope)
    if len(values) < len(columns.promos):
        return None
    best = max(values, key=lambda promo: values[promo])
    return best if values[best] > 0 else NO_PROMO
