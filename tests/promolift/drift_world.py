"""A small world of shoppers with habits, for tests of drift: rows of many days, envelopes that say the same."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from promolift.contracts.decisions import BasketLine, Candidates, Envelope, Request, Scores, Shopper
from promolift.contracts.promos import CATEGORY_NAMES
from promolift.drift.columns import Columns, Rows, row_of
from promolift.drift.fitting import fit, like
from promolift.drift.look import tested
from promolift.drift.sketch import column_names, day_of_rows, together, width
from promolift.drift.two_samples import CALIBRATED, ChosenTests

PROMOS = ("meat_20", "deli_10", "bakery_5")
COLUMNS = Columns(
    features=("visits", "spend", "twin"),
    attributes={"area": ("unknown", "a", "b")},
    promos=PROMOS,
    prices={"p": float(np.log(200))},
    stores=("1", "2"),
)
FIRST = 17_000
"""First day of the world: Monday, 2016-07-18."""


def envelope(number: int, shopper: int, day: int, rng: np.random.Generator, shift: float = 0.0) -> Envelope:
    """A predictor's answer: `spend` and its `twin` follow the shopper, and everything dear is `shift` dearer in logs."""
    habit = np.random.default_rng(shopper)
    level = float(habit.normal())
    spend = level + 0.3 * rng.normal()
    moment = datetime.fromtimestamp(86_400 * day, UTC) + timedelta(seconds=int(rng.integers(0, 86_400)))
    lines = tuple(
        BasketLine(CATEGORY_NAMES[int(rng.integers(0, 3))], int(200 * np.exp(shift + 0.3 * rng.normal())) + 1, product_id="p")
        for _ in range(1 + shopper % 4)
    )
    request = Request(f"r{number}", str(shopper), moment.strftime("%Y-%m-%dT%H:%M:%SZ"), store_id=str(1 + shopper % 2), basket=lines)
    features = {"visits": float(habit.poisson(3)), "spend": spend, "twin": spend + 0.1 * rng.normal(), "area": "ab"[shopper % 2]}
    scores = Scores("linear-0123456789ab", tuple(float(v) for v in rng.normal(spend, 1.0, 3)), (0.0,) * 3, (7.0,) * 3)
    return Envelope(request, Shopper(features, True, 1.0), Candidates(PROMOS, {}, "rules"), scores)


def asked(answer: Envelope) -> Envelope:
    """The question that was answered so."""
    return replace(answer, scores=None)


def day_of_envelopes(day: int, rng: np.random.Generator, shift: float = 0.0, count: int = 120) -> list[Envelope]:
    """Answers of a day, weekends with other shoppers than weekdays."""
    crowd = range(600, 1_000) if (day + 3) % 7 >= 5 else range(600)
    return [envelope(day * 1_000 + place, int(rng.choice(crowd)), day, rng, shift) for place in range(count)]


def rows_of(envelopes: list[Envelope], day: int) -> Rows:
    """Their rows."""
    return np.frombuffer(b"".join(row_of(COLUMNS, answer, day) for answer in envelopes), COLUMNS.dtype)


def training(days: int = 56, seed: int = 1) -> Rows:
    """Rows of the first days of the world."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rows_of(day_of_envelopes(day, rng), day) for day in range(FIRST, FIRST + days)])


def independent_rows(numbers: NDArray[np.float64], codes: NDArray[np.integer], first: int = 0) -> Rows:
    """Rows [n] of as many shoppers, on one day: `numbers` [n, F] and one text of five values."""
    rows = np.zeros(len(numbers), plain_columns(numbers.shape[1]).dtype)
    rows["shopper"], rows["day"], rows["numbers"] = np.arange(first, first + len(rows)), FIRST, numbers
    rows["codes"][:, 0] = codes
    return rows


def plain_columns(count: int) -> Columns:
    """So many features and one text."""
    return Columns(tuple(f"f{place}" for place in range(count)), {"text": tuple("01234")}, (), {}, ())


def p_values(training: Rows, window: Rows, tests: ChosenTests = CALIBRATED) -> dict[str, float]:
    """What a look makes of a window, by column. Rows of one day have no windows to differ, so only chance counts."""
    columns = plain_columns(training["numbers"].shape[1])
    reference = fit(columns, training, "v", 1)
    found = tested(reference, 0, like(reference, 0, FIRST), together([day_of_rows(reference, window)], width(columns)), tests)[0]
    return dict(zip(column_names(columns), map(float, found), strict=True))
