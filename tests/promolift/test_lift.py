"""Differences of groups with and without CUPED, and the bounds of looks at them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.promotion.group_sequential import bounds, spent
from promolift.uplift.lift import FEWEST, UNITS, Side, lifts

SHOPPERS, WEEKS = 2_000, 4


def sides(rng: np.random.Generator, effect: float = 0.0) -> tuple[Side, Side]:
    """Shoppers with habits of their own, dealt anew to arm or none each week, with logged probabilities that differ by shopper."""
    habit = rng.gamma(2.0, 20.0, SHOPPERS)
    chance = rng.uniform(0.2, 0.7, SHOPPERS)
    unit = rng.integers(0, UNITS, SHOPPERS)
    found = []
    given = rng.random((SHOPPERS, WEEKS)) < chance[:, None]
    outcome = habit[:, None] + rng.normal(0, 10, given.shape) + effect * given
    before = (habit + rng.normal(0, 5, SHOPPERS))[:, None] * np.ones(WEEKS)
    for inside, p in ((given, chance), (~given, 1 - chance)):
        weight = inside / p[:, None]
        totals = [
            np.bincount(unit, weights=(weight * values).sum(1), minlength=UNITS) for values in (np.ones_like(weight), outcome, before)
        ]
        found.append(Side(totals[0], totals[1][:, None], totals[2][:, None], int(inside.sum()), int(inside.any(1).sum())))
    return found[0], found[1]


def test_both_methods_keep_their_level_and_adjusting_narrows_the_interval():
    rng, kept = np.random.default_rng(3), {"plain": 0, "cuped": 0}
    errors: dict[str, list[float]] = {"plain": [], "cuped": []}
    for _ in range(300):
        for lift in lifts(*sides(rng, effect=2.0)) or ():
            kept[lift.method] += bool(abs(lift.effect[0] - 2.0) < 1.96 * lift.error[0])
            errors[lift.method].append(float(lift.error[0]))
    assert all(0.91 <= count / 300 <= 0.985 for count in kept.values()), kept
    assert np.mean(errors["cuped"]) < 0.6 * np.mean(errors["plain"])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_adjusting_never_widens_an_interval_and_no_effect_of_a_constant_remains(seed: int):
    treated, control = sides(np.random.default_rng(seed))
    plain, cuped = lifts(treated, control) or pytest.fail("both sides have units")
    assert cuped.error[0] <= plain.error[0] + 1e-9
    shifted = [Side(side.weight, side.after + 7.0 * side.weight[:, None], side.before, 0, 0) for side in (treated, control)]
    assert (lifts(shifted[0], shifted[1]) or pytest.fail())[0].effect == pytest.approx(plain.effect)


def test_where_nothing_was_known_before_nothing_is_adjusted():
    treated, control = (Side(side.weight, side.after, 0 * side.before, 1, 1) for side in sides(np.random.default_rng(1)))
    plain, cuped = lifts(treated, control) or pytest.fail()
    assert (plain.effect, plain.error) == (cuped.effect, cuped.error)


def test_too_few_units_are_no_answer():
    treated, control = sides(np.random.default_rng(1))
    few = np.arange(UNITS) < FEWEST - 1
    assert lifts(Side(treated.weight * few, treated.after, treated.before, 1, 1), control) is None


@pytest.mark.parametrize(
    ("looks", "published"),
    [(5, (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)), (2, (2.9626, 1.9686)), (1, (1.9600,))],
)
def test_bounds_are_those_published_for_looks_evenly_spaced(looks: int, published: tuple[float, ...]):
    """Lan and DeMets' bounds for two-sided 5 %, as ldbounds and gsDesign print them."""
    assert bounds([(i + 1) / looks for i in range(looks)], 0.05) == pytest.approx(published, abs=2e-4)


def test_who_looks_at_every_bound_is_wrong_as_often_as_alpha_says():
    shares = (0.2, 0.5, 0.6, 1.0)
    limits = np.array(bounds(shares, 0.05))
    steps = np.sqrt(np.diff((0.0, *shares)))
    score = np.cumsum(np.random.default_rng(5).normal(size=(200_000, 4)) * steps, axis=1)
    wrong = np.abs(score / np.sqrt(shares)) > limits
    assert wrong.any(axis=1).mean() == pytest.approx(0.05, abs=0.002)
    assert wrong[:, :2].any(axis=1).mean() == pytest.approx(spent(0.5, 0.05), abs=0.001)


@pytest.mark.parametrize("shares", [(), (0.5, 0.5), (0.0, 1.0), (0.5, 1.2)])
def test_looks_that_do_not_rise_are_refused(shares: tuple[float, ...]):
    with pytest.raises(ValueError, match="rise from above 0"):
        bounds(shares, 0.05)
