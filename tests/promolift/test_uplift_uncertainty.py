import pickle
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate, half_samples
from promolift.uplift.clusters import encode, mean_error
from promolift.uplift.ranking import rank, rate
from promolift.uplift.uncertainty import (
    Influence,
    PoissonMeans,
    leverage,
    mean_influence,
    p_values,
    poisson_weights,
    power,
    rate_influence,
)


def poisson(values: Any, shoppers: Any, resamples: int = 50, seed: int = 1):
    means = PoissonMeans(1 if values.ndim == 1 else values.shape[1], resamples, seed)
    means.update(values, shoppers)
    return means


def as_bytes(means: PoissonMeans):
    return [(np.float64(found.value).tobytes(), found.draws.tobytes()) for found in means.estimate()]


def clustered(seed: int, shoppers: int = 1500, rows: int = 3):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(shoppers), rows)
    return codes, rng.normal(size=shoppers)[codes] + rng.normal(size=len(codes)), rng


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([1.0, 1e-9, 1e12]))
def test_any_split_of_the_rows_gives_the_same_bytes(seed: int, machines: int, scale: float):
    rng = np.random.default_rng(seed)
    shoppers = rng.integers(0, 60, 200)
    values = np.exp(rng.normal(0, 12, (200, 2))) * scale * rng.choice([-1, 1], (200, 2))
    machine, order = rng.integers(0, machines, 200), rng.permutation(200)
    parts = [poisson(values[order][machine == m], shoppers[order][machine == m].astype(str)) for m in range(machines)]
    assert as_bytes(reduce(PoissonMeans.merge, pickle.loads(pickle.dumps(parts)))) == as_bytes(poisson(values, shoppers))  # noqa: S301
    batches = PoissonMeans(2, 50, 1)
    for start in range(0, 200, 7):
        batches.update(values[start : start + 7], shoppers[start : start + 7])
    assert as_bytes(batches) == as_bytes(poisson(values, shoppers))


def test_poisson_draws_are_the_weighted_means_of_their_stateless_weights():
    codes, values, _ = clustered(1, shoppers=40)
    found = poisson(values, codes, resamples=30, seed=9).estimate()[0]
    weights = poisson_weights(codes, 9, 30)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    np.testing.assert_allclose(found.draws, values @ weights / weights.sum(axis=0), rtol=1e-12)


def test_weights_are_poisson_and_belong_to_shopper_resample_and_seed_only():
    labels = np.arange(4000)
    weights = poisson_weights(labels, 1, 100)
    counts = np.bincount(weights.astype(int).ravel(), minlength=6)[:6] / weights.size
    expected = np.exp(-1) / np.array([1, 1, 2, 6, 24, 120])
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(0.25 / weights.size))
    assert abs(np.corrcoef(weights.T)[np.triu_indices(100, 1)]).max() < 5.5 / np.sqrt(4000)
    assert np.array_equal(poisson_weights(labels[::-1].astype(object), 1, 20), weights[::-1, :20])
    assert np.array_equal(poisson_weights(np.array(["17", "3", "17"]), 1, 20), weights[[17, 3, 17], :20])
    assert not np.array_equal(poisson_weights(labels, 2, 100), weights)


def test_poisson_and_half_samples_give_the_same_error():
    codes, values, rng = clustered(2)
    table = np.column_stack([values, rng.exponential(size=len(values))])
    for one, other in zip(poisson(table, codes, 1000).estimate(), half_samples(codes, 1500, 1000, 1).means(table), strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-12)
        assert one.error == pytest.approx(other.error, rel=0.1)  # each has a Monte-Carlo error of 2.2 %
    one, other = poisson(table, codes, 1000).estimate()
    paired = mean_influence(table[:, 0] - table[:, 1], codes, 1500).error
    assert one.minus(other).error == pytest.approx(paired, rel=0.08)


def test_poisson_refuses_what_it_cannot_answer_and_keeps_its_state():
    means = poisson(np.arange(40.0), np.arange(40))
    before = as_bytes(means)
    for values, shoppers, sentence in (
        (np.array([1.0, np.nan]), np.arange(2), "row 1, column 0 is nan"),
        (np.array([1.0, np.inf]), np.arange(2), "is inf"),
        (np.ones((2, 2)), np.arange(2), r"shape \(2, 2\)"),
        (np.ones(2), np.array([1.0, 2.0]), "text or integers"),
        (np.ones(2), np.array(["a", None], dtype=object), "None is NoneType"),
    ):
        with pytest.raises(InputError, match=sentence):
            means.update(values, shoppers)
    means.update(np.empty(0), np.empty(0, dtype=np.int64))
    assert as_bytes(means) == before
    for few in (PoissonMeans(1, 10, 0), poisson(np.ones(100), np.zeros(100, dtype=int)), poisson(np.ones(19), np.arange(19))):
        with pytest.raises(InputError, match="needs 20 shoppers"):
            few.estimate()
    with pytest.raises(InputError, match="merge only with equal"):
        means.merge(PoissonMeans(1, 50, 2))
    with pytest.raises(InputError, match="got 1 and 1"):
        PoissonMeans(1, 1, 0)


def test_poisson_of_zeros_and_of_an_outlier():
    zero = poisson(np.zeros(60), np.arange(60)).estimate()[0]
    assert zero.value == 0 and zero.error == 0
    found = poisson(np.append(np.ones(999), 1e6), np.arange(1000), 500).estimate()[0]
    assert found.value == pytest.approx(1000.999) and found.error == pytest.approx(1000, rel=0.15)


def test_mean_influence_is_the_clustered_error():
    codes, values, _ = clustered(3, shoppers=80)
    found = mean_influence(values, codes, 80)
    assert found.value == pytest.approx(values.mean()) and found.shares.sum() == pytest.approx(0, abs=1e-12)
    assert found.error == pytest.approx(mean_error(values, codes, 80))
    low, high = found.interval()
    assert (low + high) / 2 == pytest.approx(found.value) and found.bound(0.025) == pytest.approx(low)
    assert np.isnan(mean_influence(values, np.zeros(len(values), dtype=int), 1).error)


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["no ties", "ties", "few values"])
@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_rate_influence_gives_the_half_sample_error(decimals: int | None, slope: float):
    """Ties, clusters, and effects that depend on the score strongly; 1,500 draws have a Monte-Carlo error of 1.8 %."""
    codes, noise, rng = clustered(4, shoppers=1500, rows=2)
    score = rng.normal(size=len(codes))
    other = score + rng.normal(size=len(codes))
    effect = slope * score + noise
    score, other = (s if decimals is None else np.round(s, decimals) for s in (score, other))
    samples = half_samples(codes, 1500, 1500, 1)
    drawn, drawn_other = rate(rank(score), effect, samples), rate(rank(other), effect, samples)
    found, found_other = rate_influence(rank(score), effect, codes, 1500), rate_influence(rank(other), effect, codes, 1500)
    for name in ("qini", "autoc"):
        assert found[name].value == pytest.approx(drawn[name].value, rel=1e-12)
        assert found[name].error == pytest.approx(drawn[name].error, rel=0.08)
        assert found[name].minus(found_other[name]).error == pytest.approx(drawn[name].minus(drawn_other[name]).error, rel=0.08)


def test_the_estimated_ranks_count_where_effects_depend_on_the_score():
    """Effect = score without noise: the short form sd((effect - mean) w)/sqrt(n) misses the truth, the influence function does not."""
    rng = np.random.default_rng(5)
    values = []
    for _ in range(400):
        score = rng.normal(size=500)
        values.append(rate_influence(rank(score), score, np.arange(500), 500)["qini"])
    spread = np.std([v.value for v in values], ddof=1)
    assert np.mean([v.error for v in values]) == pytest.approx(spread, rel=0.1)
    score = np.sort(rng.normal(size=500))[::-1]
    short = np.std((score - score.mean()) * (0.5 - (np.arange(500) + 0.5) / 500)) / np.sqrt(500)
    assert abs(short / spread - 1) > 0.2


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(-100, 100), st.floats(0.1, 10))
def test_rate_influence_ignores_row_order_and_shifts_and_follows_units(seed: int, shift: float, unit: float):
    rng = np.random.default_rng(seed)
    score, effect, codes, order = np.round(rng.normal(size=60), 1), rng.normal(size=60), rng.integers(0, 20, 60), rng.permutation(60)
    plain = rate_influence(rank(score), effect, codes, 20)
    moved = rate_influence(rank(score[order]), (effect[order] + shift) * unit, codes[order], 20)
    for name in ("qini", "autoc"):
        assert moved[name].value == pytest.approx(plain[name].value * unit, abs=1e-9)
        assert moved[name].error == pytest.approx(plain[name].error * unit, rel=1e-6, abs=1e-9)
        assert plain[name].minus(plain[name]).error == 0


def test_influence_of_degenerate_inputs():
    codes = np.arange(50)
    for score, effect in ((np.ones(50), np.arange(50.0)), (np.arange(50.0), np.zeros(50))):
        for found in rate_influence(rank(score), effect, codes, 50).values():
            assert found.value == pytest.approx(0, abs=1e-12) and found.error == pytest.approx(0, abs=1e-12)
    assert np.isnan(rate_influence(rank(np.arange(50.0)), np.arange(50.0), np.zeros(50, dtype=int), 1)["qini"].error)
    assert np.isfinite(rate_influence(rank(np.arange(50.0)), np.append(np.ones(49), 1e6), codes, 50)["autoc"].error)
    assert rate_influence(rank(np.ones(1)), np.ones(1), np.zeros(1, dtype=int), 1)["qini"].value == 0
    with pytest.raises(InputError, match="value of row 3 is inf"):
        rate_influence(rank(np.arange(4.0)), np.array([0, 0, 0, np.inf]), np.arange(4), 4)
    with pytest.raises(InputError, match="got 0 and 0"):
        mean_influence(np.empty(0), np.empty(0, dtype=int), 0)
    with pytest.raises(InputError, match="these have 2 and 3"):
        Influence(0.0, np.zeros(2)).minus(Influence(0.0, np.zeros(3)))


def test_power_by_hand():
    """(1.6449 + 0.8416) * 4 = 9.9459; of a base of 50 that is 19.9 %, and 10 % needs (9.9459 / 5)^2 = 3.957 times the rows."""
    found = power(error=4.0, base=-50.0, rows=1000)
    assert found.gain == pytest.approx(0.198918, abs=1e-6) and found.rows == 3957
    assert power(error=4.0 * (1000 / 3957) ** 0.5, base=50.0, rows=3957).gain == pytest.approx(0.1, rel=1e-3)
    nothing = [power(1.0, 0.0, 10), power(float("nan"), 1.0, 10), power(float("inf"), 1.0, 10)]
    assert all(p.rows is None and p.gain is None for p in nothing)
    assert power(0.0, 1.0, 10).rows == 0 and power(1e200, 1e-200, 10).rows is None


def test_the_power_line_holds_in_simulation():
    rng = np.random.default_rng(6)
    found = power(error=1.0, base=10.0, rows=400)
    assert found.gain is not None
    draws = rng.normal(found.gain * 10.0, 1.0, 20_000)
    assert np.mean(draws > 1.6449) == pytest.approx(0.80, abs=0.01)


def test_p_values_by_hand():
    """Recentred draws are -2, -1, 0, 1, 2; the estimate is 1."""
    found = p_values(Estimate(1.0, np.array([-1.0, 0.0, 1.0, 2.0, 3.0])))
    assert found.greater == pytest.approx(3 / 6) and found.two_sided == pytest.approx(5 / 6)
    assert p_values(Estimate(-1.0, np.array([-3.0, -2.0, -1.0, 0.0, 1.0]))).greater == pytest.approx(5 / 6)
    same = p_values(Estimate(0.0, np.zeros(9)))
    assert same.two_sided == same.greater == 1.0
    with pytest.raises(InputError, match="1 of 2 are not"):
        p_values(Estimate(0.0, np.array([1.0, np.nan])))


def test_p_values_of_no_difference_are_uniform():
    rng = np.random.default_rng(7)
    codes = np.arange(300)
    samples = half_samples(codes, 300, 200, 1)
    found = [p_values(samples.mean(rng.normal(size=300))) for _ in range(400)]
    for level in (0.05, 0.5):
        error = 4 * np.sqrt(level * (1 - level) / 400)
        assert np.mean([p.two_sided <= level for p in found]) == pytest.approx(level, abs=error)
        assert np.mean([p.greater <= level for p in found]) == pytest.approx(level, abs=error)


def test_leverage_by_hand():
    """Shopper sums of value less mean are -2 and 2; then -2, -1 and 3."""
    assert leverage(np.array([0.0, 1.0, 2.0, 3.0]), np.array(["a", "a", "b", "b"])).share == pytest.approx(0.5)
    found = leverage(np.array([0.0, 0.0, 0.0, 4.0]), np.array([1, 1, 2, 3]))
    assert found.share == pytest.approx(9 / (9 + 4 + 1)) and found.row == 3


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(3, 40), st.floats(1e-100, 1e100))
def test_leverage_is_the_share_of_the_clustered_variance(seed: int, shoppers: int, scale: float):
    rng = np.random.default_rng(seed)
    clusters, values = rng.integers(0, shoppers, 80), rng.normal(size=80)
    found = leverage(values * scale, clusters)
    codes, count = encode(clusters)
    squares = mean_influence(values, codes, count).shares ** 2
    assert found.share == pytest.approx(squares.max() / squares.sum())
    assert 1 / count <= found.share + 1e-12 <= 1 + 1e-9
    assert codes[found.row] == np.argmax(squares)


def test_leverage_tells_that_one_row_decides():
    values, clusters = np.random.default_rng(8).normal(size=1000), np.repeat(np.arange(500), 2)
    assert leverage(values, clusters).share < 0.05
    values[123] = 1e6
    found = leverage(values, clusters)
    assert found.share > 0.99 and found.row == 123
    assert leverage(values, np.zeros(1000)).share == 1.0
    assert leverage(np.zeros(10), np.arange(10)).share == 0.0
    with pytest.raises(InputError, match="value of row 0 is nan"):
        leverage(np.array([np.nan, 1.0]), np.arange(2))
    with pytest.raises(InputError, match="got 0 and 0"):
        leverage(np.empty(0), np.empty(0))
