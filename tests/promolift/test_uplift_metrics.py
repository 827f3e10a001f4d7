import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift import metrics, qini
from promolift.uplift.bootstrap import half_samples
from promolift.uplift.ranking import rank, rate, toc_curve
from promolift.uplift.scores import ipw, make_trial

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
TREATED = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 0])
OUTCOME = np.array([1.0, 0, 1, 1, 0, 0, 1, 1, 0, 1])


def rates(score: Any, effect: Any):
    return {k: v.value for k, v in rate(rank(score), effect, half_samples(np.arange(len(effect)), len(effect), 2, 0)).items()}


def effect_of_ten():
    gamma = ipw(OUTCOME, make_trial(TREATED, np.tile([0.4, 0.6], (10, 1)), np.arange(10)))
    return gamma[:, 1] - gamma[:, 0]


def test_ten_rows_by_hand_scikit_uplift():
    k, q = qini.qini_curve(OUTCOME, TREATED, SCORE)
    assert k.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert q == pytest.approx([0, 1, 1, 2, 3, 3, 5 / 3, 7 / 3, 2, 1])
    assert qini.raw_local(OUTCOME, TREATED, SCORE) == pytest.approx(1.4)  # (19 - 5) / 10
    assert qini.sklift(OUTCOME, TREATED, SCORE) == pytest.approx(14 / 24)  # 0.5833


def test_ten_rows_grf_autoc_and_qini():
    found = rates(SCORE, effect_of_ten())
    assert found["autoc"] == pytest.approx(0.6327, abs=5e-5)
    assert found["qini"] == pytest.approx(0.2417, abs=5e-5)


def test_qini_is_the_integral_of_its_curve_and_ends_at_zero():
    shares, gain = toc_curve(rank(SCORE), effect_of_ten(), points=10)
    assert gain[-1] == pytest.approx(0, abs=1e-12) and shares[-1] == 1
    assert gain.mean() == pytest.approx(rates(SCORE, effect_of_ten())["qini"])


def test_tied_rows_give_the_mean_over_their_orders():
    effect = np.array([4.0, 1.0, 0.0, -2.0])
    orders = [rates(np.array([3.0, 2.0, 1.0, 0.0]), effect), rates(np.array([2.0, 3.0, 1.0, 0.0]), effect)]
    tied = rates(np.array([2.0, 2.0, 1.0, 0.0]), effect)
    for name in ("qini", "autoc"):
        assert tied[name] == pytest.approx(np.mean([o[name] for o in orders]))


def test_constant_scores_rank_nobody():
    assert rates(np.ones(10), effect_of_ten()) == pytest.approx({"qini": 0.0, "autoc": 0.0}, abs=1e-12)


@settings(deadline=None)
@given(st.permutations(range(10)))
def test_row_order_changes_nothing(order: Any):
    order = np.array(order)
    before, after = rates(SCORE, effect_of_ten()), rates(SCORE[order], effect_of_ten()[order])
    assert after == pytest.approx(before, abs=1e-12)
    args = OUTCOME[order], TREATED[order], SCORE[order]
    assert qini.sklift(*args) == pytest.approx(14 / 24)
    assert qini.raw_local(*args) == pytest.approx(1.4)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(-5, 5), st.floats(0.01, 100))
def test_scores_may_be_rescaled_and_outcomes_scale_the_metric(scale: float, shift: float, unit: float):
    before = rates(SCORE, effect_of_ten())
    after = rates(np.round(SCORE * 10) * scale + shift, effect_of_ten() * unit)
    assert after == pytest.approx({k: v * unit for k, v in before.items()}, rel=1e-9)
    assert qini.sklift(OUTCOME, TREATED, np.round(SCORE * 10) * scale + shift) == pytest.approx(14 / 24)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_negated_scores_negate_rate_qini(seed: int):
    rng = np.random.default_rng(seed)
    score, effect = np.round(rng.normal(size=40), 1), rng.normal(size=40)
    assert rates(-score, effect)["qini"] == pytest.approx(-rates(score, effect)["qini"], abs=1e-12)


def test_half_sample_error_is_near_the_influence_function_error():
    rng = np.random.default_rng(5)
    n = 4000
    score, effect = rng.normal(size=n), rng.normal(size=n)
    found = rate(rank(score), effect, half_samples(np.arange(n), n, 400, 1))["qini"]
    weights = np.empty(n)
    weights[np.argsort(-score)] = 0.5 - (np.arange(n) + 0.5) / n
    assert found.error == pytest.approx(np.std((effect - effect.mean()) * weights) / np.sqrt(n), rel=0.12)


def test_tied_and_untied_resampling_agree_when_ties_are_rare():
    rng = np.random.default_rng(6)
    score, effect = rng.normal(size=1000), rng.normal(size=1000)
    samples = half_samples(np.arange(1000), 1000, 50, 1)
    plain = rate(rank(score), effect, samples)
    score[np.argsort(score)[0]] = np.sort(score)[1]
    nearly = rate(rank(score), effect, samples)
    np.testing.assert_allclose(nearly["qini"].draws, plain["qini"].draws, atol=1e-4)


def test_raw_and_normalised_qini_draws_scatter_around_the_value():
    rng = np.random.default_rng(7)
    n = 3000
    score, treated = rng.uniform(size=n), rng.integers(0, 2, n)
    outcome = (rng.uniform(size=n) < 0.2 + 0.3 * treated * score).astype(float)
    for found in qini.estimate(outcome, treated, score, half_samples(np.arange(n), n, 200, 1)):
        assert found.draws.mean() == pytest.approx(found.value, abs=0.5 * found.error)


def test_unusable_inputs_are_named():
    with pytest.raises(InputError, match="row 1 is nan"):
        rank(np.array([1.0, np.nan]))
    with pytest.raises(InputError, match="0 of 10 rows are treated"):
        qini.raw_local(OUTCOME, np.zeros(10, dtype=int), SCORE)
    with pytest.raises(InputError, match=r"row 0 is 2\.0"):
        qini.sklift(OUTCOME * 2, TREATED, SCORE)


def test_a_metric_never_prints_without_its_definition():
    samples = half_samples(np.arange(10), 10, 5, 0)
    found = metrics.metric(metrics.QINI.of("profit", "cents"), rate(rank(SCORE), effect_of_ten(), samples)["qini"], 10)
    for part in ("rate/qini", "cents", "profit", "ties averaged", "doubly robust", "propensity: logged", "10 rows"):
        assert part in str(found)
    assert {"id", "scaling", "ties", "normaliser", "outcome", "propensity", "rows", "interval"} <= found.record().keys()


VISITS, SENT = (458, 630), (4261, 4278)
"""Visits and rows without and with the e-mail in the stated 20 % of Hillstrom's file (women's e-mail against none)."""


def test_published_end_of_the_hillstrom_curve():
    """Q(1) = 170.1727294062427 on visit, published with a random_state=42, stratified 20 % split of that file."""
    treated = np.repeat([0, 1], SENT)
    visit = np.concatenate([np.arange(rows) < visits for visits, rows in zip(VISITS, SENT, strict=True)]).astype(float)
    for score in (np.random.default_rng(0).uniform(size=len(visit)), visit, np.ones(len(visit))):
        assert qini.qini_curve(visit, treated, score)[1][-1] == pytest.approx(170.1727294062427, abs=1e-9)


def test_those_counts_are_the_files_own():
    path = Path(__file__).parents[3] / "shared" / "data" / "hillstrom_no_indices.csv.gz"
    if not path.exists():
        pytest.skip("the Hillstrom file is not beside the repository")
    from sklearn.model_selection import train_test_split

    with gzip.open(path, "rt") as lines:
        rows = [row for row in csv.DictReader(lines) if row["segment"] != "Mens E-Mail"]
    treated = np.array([int(row["segment"] == "Womens E-Mail") for row in rows])
    visit = np.array([int(row["visit"]) for row in rows])
    _, test = train_test_split(np.arange(len(rows)), test_size=0.2, random_state=42, stratify=treated)
    assert tuple(np.bincount(treated[test], weights=visit[test])) == VISITS
    assert tuple(np.bincount(treated[test])) == SENT
