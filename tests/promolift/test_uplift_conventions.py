from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift import bootstrap, conventions, qini
from promolift.uplift.bootstrap import half_samples
from promolift.uplift.conventions import DEFINITIONS, all_conventions, qini_radcliffe, uplift_at
from promolift.uplift.curves import qini_curve, uplift_curve
from promolift.uplift.ranking import rank, rate
from promolift.uplift.scores import ipw, make_trial

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
TREATED = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 0])
OUTCOME = np.array([1.0, 0, 1, 1, 0, 0, 1, 1, 0, 1])


@st.composite
def trials(draw: Any) -> tuple[Any, Any, Any]:
    """Outcome, treatment and scores with many ties, both arms present."""
    n = draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    treated = rng.integers(0, 2, n)
    assume(0 < treated.sum() < n)
    outcome = rng.integers(0, 2, n).astype(float) if draw(st.booleans()) else np.round(rng.normal(size=n) * 5, 2)
    return outcome, treated, rng.integers(0, draw(st.integers(1, 20)), n) / 4


def test_ten_rows_by_every_convention():
    """Radcliffe by hand: (0,0) (1,1) (2,1) (3,2) (5,3) (6,3) (7,1.5) (8,2.5) (9,2.5) (10,1): area 19.5, less 5, over 10 rows.

    causalml, straight to depth 2 and through the tied rows: 0 1/2 1 2 5/2 3 3 5/3 7/3 2 1 sum to 19, less the line's 5.5, over 11
    points: the mean of causalml's two answers, 14/11 and 13/11, for the two orders of the tied rows.
    """
    found = all_conventions(OUTCOME, TREATED, SCORE)
    assert set(found) == set(DEFINITIONS)
    assert found["qini/radcliffe"] == pytest.approx(1.45)
    assert found["qini/raw-local"] == pytest.approx(1.4)
    assert found["qini/sklift"] == pytest.approx(14 / 24)
    assert found["qini/causalml"] == found["qini/causalml-raw"] == pytest.approx(13.5 / 11)
    assert found["auuc/sklift"] == pytest.approx(0.7732, abs=5e-5)
    assert found["auuc/causalml"] == pytest.approx(1.6536, abs=5e-5)
    assert found["auuc/causalml-raw"] == pytest.approx(2.7561, abs=5e-5)
    assert found["uplift@30%/overall"] == found["uplift@30%/by-arm"] == 1.0  # (1 + 1)/2 - 0, and 1 - 0


def test_the_curves_of_ten_rows_by_hand():
    k, q = qini_curve(OUTCOME, TREATED, SCORE, scaling="global")
    assert k.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert q.tolist() == pytest.approx([0, 1, 1, 2, 3, 3, 1.5, 2.5, 2.5, 1])
    _, local = qini_curve(OUTCOME, TREATED, SCORE)
    assert local.tolist() == pytest.approx([0, 1, 1, 2, 3, 3, 5 / 3, 7 / 3, 2, 1])
    _, lift = uplift_curve(OUTCOME, TREATED, SCORE)
    assert lift.tolist() == pytest.approx([0, 1, 2, 3, 5, 4.5, 35 / 12, 56 / 15, 3, 5 / 3])  # (3/4 - 1/3) 7 = 35/12


@settings(deadline=None)
@given(trials(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(trial: Any, random: Any):
    order = np.array(random.sample(range(len(trial[0])), len(trial[0])))
    assert all_conventions(*(part[order] for part in trial)) == pytest.approx(all_conventions(*trial), abs=1e-9, nan_ok=True)


@settings(deadline=None)
@given(trials(), st.randoms(use_true_random=False))
def test_a_weight_is_so_many_rows(trial: Any, random: Any):
    weights = np.array([random.randint(0, 3) for _ in trial[0]])
    assume(0 < weights @ trial[1] < weights.sum())
    weighted = all_conventions(*trial, weights.astype(float))
    repeated = all_conventions(*(np.repeat(part, weights) for part in trial))
    for name in weighted.keys() - {"uplift@30%/overall", "uplift@30%/by-arm"}:  # these cut at a whole number of rows
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-9, nan_ok=True)


@settings(deadline=None)
@given(trials())
def test_weights_of_one_are_no_weights(trial: Any):
    assert all_conventions(*trial, np.ones(len(trial[0]))) == pytest.approx(all_conventions(*trial), nan_ok=True)


@settings(deadline=None)
@given(trials(), st.floats(0.01, 100))
def test_shares_of_weight_do_not_depend_on_the_unit_of_weight(trial: Any, unit: float):
    weights = np.random.default_rng(len(trial[0])).uniform(0.1, 2, len(trial[0]))
    before, after = all_conventions(*trial, weights), all_conventions(*trial, weights * unit)
    for name in before.keys() & {"qini/sklift", "auuc/sklift", "uplift@30%/overall", "uplift@30%/by-arm"}:
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-9, nan_ok=True)
    assert after["qini/radcliffe"] == pytest.approx(unit * before["qini/radcliffe"], rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(trials())
def test_radcliffe_per_treated_row_is_rate_qini_on_ipw_effects(trial: Any):
    """Two derivations of one number: with propensity NT/N, cumulated IPW effects are N/NT times YT - YC NT/NC."""
    outcome, treated, score = trial
    assume(len(outcome) >= 4)
    share = treated.mean()
    gamma = ipw(outcome, make_trial(treated, np.tile([1 - share, share], (len(outcome), 1)), np.arange(len(outcome))))
    expected = rate(rank(score), gamma[:, 1] - gamma[:, 0], half_samples(np.arange(len(outcome)), len(outcome), 2, 0))["qini"].value
    assert qini_radcliffe(outcome, treated, score) / treated.sum() == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(trials())
def test_raw_numbers_scale_with_the_outcome_and_normalised_ones_do_not(trial: Any):
    outcome, treated, score = trial
    before, after = all_conventions(*trial), all_conventions(outcome * 3, treated, score)
    for name in after:
        factor = 1 if name in {"qini/causalml", "auuc/causalml"} else 3
        if not name.endswith("sklift"):
            assert after[name] == pytest.approx(factor * before[name], rel=1e-6, abs=1e-9, nan_ok=True)


def test_constant_scores_have_no_area():
    found = all_conventions(OUTCOME, TREATED, np.zeros(10))
    for name in ("qini/radcliffe", "qini/raw-local", "qini/sklift", "qini/causalml", "auuc/sklift"):
        assert found[name] == pytest.approx(0, abs=1e-12)
    assert found["uplift@30%/overall"] == pytest.approx(4 / 6 - 2 / 4)  # any three rows: the effect of all


def test_amounts_have_no_perfect_order():
    found = all_conventions(OUTCOME * 7, TREATED, SCORE)
    assert set(DEFINITIONS) - set(found) == {"qini/sklift", "auuc/sklift"}
    with pytest.raises(InputError, match=r"qini/sklift needs an outcome of 0 or 1; row 0 is 7\.0. Use qini/raw-local"):
        qini.sklift(OUTCOME * 7, TREATED, SCORE)
    with pytest.raises(InputError, match=r"auuc/sklift needs an outcome of 0 or 1; row 2 is 7\.0. Use auuc/causalml"):
        conventions.auuc_sklift(OUTCOME * 7, TREATED, SCORE, np.array([0.0] + [1.0] * 9))


def test_an_empty_normaliser_or_arm_is_not_a_number():
    found = all_conventions(np.zeros(10), TREATED, SCORE)
    assert {n for n, v in found.items() if np.isnan(v)} == {"qini/sklift", "auuc/sklift", "qini/causalml", "auuc/causalml"}
    assert np.isnan(uplift_at(OUTCOME, TREATED, SCORE, share=0.1))  # the top row is treated
    assert np.isnan(uplift_at(OUTCOME, TREATED, SCORE, share=0.05))  # no row at all


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"treated": np.ones(10, dtype=int)}, "10 of 10 rows are treated"),
        ({"treated": TREATED * 2}, r"must be 0 \(no promo\) or 1; row 0 is 2 \(6 of 10"),
        ({"outcome": OUTCOME * np.nan}, r"outcome must be a finite number; row 0 is nan \(10 of 10"),
        ({"score": np.append(SCORE[:-1], np.inf)}, "row 9 is inf"),
        ({"weights": -OUTCOME}, r"not negative; row 0 is -1\.0"),
        ({"weights": TREATED.astype(float)}, "6 of 6 rows are treated"),
        ({"score": SCORE[:9]}, "'score': 9"),
    ],
)
def test_unusable_rows_are_named(change: dict[str, Any], sentence: str):
    with pytest.raises(InputError, match=sentence):
        all_conventions(**({"outcome": OUTCOME, "treated": TREATED, "score": SCORE} | change))


def test_unusable_choices_are_named():
    with pytest.raises(InputError, match=r"between 0 and 1; got 1\.5"):
        uplift_at(OUTCOME, TREATED, SCORE, share=1.5)
    with pytest.raises(InputError, match="not 'relative'"):
        qini_curve(OUTCOME, TREATED, SCORE, scaling="relative")


def test_every_definition_is_complete():
    for name, definition in DEFINITIONS.items():
        whole = definition.of("visit", "visits")
        assert whole.id == name and all(vars(whole).values())


@pytest.mark.parametrize("decimals", [None, 1])
def test_half_sample_draws_are_the_numbers_of_the_half_samples(decimals: int | None):
    """`rate` and `qini.estimate` sort once; every draw equals the same number from the rows of that half alone."""
    rng = np.random.default_rng(1)
    n, shoppers = 400, 150
    codes, treated, score = rng.integers(0, shoppers, n), rng.integers(0, 2, n), rng.normal(size=n)
    score = score if decimals is None else np.round(score, decimals)
    outcome, effect = rng.integers(0, 2, n).astype(float), rng.normal(size=n) + 2
    samples = half_samples(codes, shoppers, 20, 3)
    ranks, estimates = rate(rank(score), effect, samples), qini.estimate(outcome, treated, score, samples)
    for i, rows in enumerate(samples.rows()):
        alone = rate(rank(score[rows]), effect[rows], half_samples(np.arange(rows.sum()), int(rows.sum()), 2, 0))
        part = outcome[rows], treated[rows], score[rows]
        assert [ranks[m].draws[i] for m in ranks] == pytest.approx([alone[m].value for m in ranks], abs=1e-12)
        assert estimates[0].draws[i] == pytest.approx(qini.raw_local(*part) * n / rows.sum())
        assert estimates[1].draws[i] == pytest.approx(qini.sklift(*part))


@pytest.mark.parametrize("permuted", [0, 6], ids=["coins", "permutation"])
def test_every_half_of_six_shoppers_is_equally_likely(monkeypatch: pytest.MonkeyPatch, permuted: int):
    monkeypatch.setattr(bootstrap, "PERMUTED", permuted)
    samples = half_samples(np.arange(6), 6, 20_000, 1)
    halves, counts = np.unique(np.asarray(samples.chosen), axis=0, return_counts=True)
    assert len(halves) == 20 and np.all(halves.sum(axis=1) == 3)
    assert np.all(np.abs(counts - 1000) < 4.5 * np.sqrt(1000 * 0.95))


def test_halves_of_many_shoppers_are_exact_and_repeatable():
    shoppers = bootstrap.PERMUTED + 3
    samples = half_samples(np.arange(shoppers), shoppers, 40, 1)
    assert samples.chosen.sum(axis=1).tolist() == [shoppers // 2] * 40
    assert np.array_equal(samples.chosen, half_samples(np.arange(shoppers), shoppers, 40, 1).chosen)
    often = np.asarray(samples.chosen).sum(axis=0)
    assert often.var() == pytest.approx(40 / 4, rel=0.03)  # binomial: no shopper is preferred
    values = np.arange(2.0 * shoppers).reshape(-1, 2)
    full, halves = samples.sums(values)
    assert full == pytest.approx(values.sum(axis=0))
    assert halves[-1] == pytest.approx(values[[*samples.rows()][-1]].sum(axis=0))


def test_bits_behave_like_the_matrix_they_hold():
    cells = np.random.default_rng(1).integers(0, 2, (5, 13)).astype(bool)
    bits = bootstrap.Bits(np.packbits(cells, axis=1), 13)
    assert bits.shape == (5, 13) and len(bits) == 5
    assert np.array_equal(bits, cells) and np.array_equal(bits[1:3], cells[1:3])
    assert np.asarray(bits, dtype=float).dtype == np.float64
    assert np.array_equal(bits.sum(axis=0), cells.sum(axis=0))
    with pytest.raises(ValueError, match="always a copy"):
        np.asarray(bits, copy=False)
