"""Our numbers against the real causalml 0.18.0."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promolift.uplift.bootstrap import half_samples
from promolift.uplift.conventions import auuc_causalml, qini_causalml
from promolift.uplift.ranking import rank, rate

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
TREATED = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 0])
OUTCOME = np.array([1.0, 0, 1, 1, 0, 0, 1, 1, 0, 1])
SWAPPED = np.array([0, 1, 2, 4, 3, 5, 6, 7, 8, 9])


@pytest.fixture(scope="module")
def theirs() -> Any:
    with warnings.catch_warnings():
        # matplotlib warns that seaborn, which causalml imports to plot, calls set_bad; the numbers need neither
        warnings.filterwarnings("ignore", "The set_(bad|over|under|extremes) function", PendingDeprecationWarning)
        return pytest.importorskip("causalml.metrics")


def frame(outcome: Any, treated: Any, score: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"y": outcome, "w": treated, "model": score})


def effects(effect: Any, score: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"tau": effect, "model": score})


def rates(effect: Any, score: Any) -> dict[str, float]:
    samples = half_samples(np.arange(len(effect)), len(effect), 2, 0)
    return {name: found.value for name, found in rate(rank(score), effect, samples).items()}


@st.composite
def trials(draw: Any) -> tuple[Any, Any, Any]:
    """Binary or continuous outcome, treatment of both arms, scores without ties."""
    n = draw(st.integers(4, 60))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    outcome = rng.integers(0, 2, n).astype(float) if draw(st.booleans()) else rng.normal(size=n) * 20
    treated = (rng.uniform(size=n) < draw(st.floats(0.1, 0.9))).astype(int)
    assume(0 < treated.sum() < n)
    return outcome, treated, rng.permutation(n) / 8


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(trial=trials())
def test_qini_and_auuc_without_ties(theirs: Any, trial: Any):
    for ours, other in ((qini_causalml, theirs.qini_score), (auuc_causalml, theirs.auuc_score)):
        assert ours(*trial, normalised=False) == close(other(frame(*trial), normalize=False)["model"])
        normalised = ours(*trial)
        if not np.isnan(normalised):  # a curve that ends at zero, which theirs divides by
            assert normalised == close(other(frame(*trial))["model"])


def test_their_qini_depends_on_the_order_of_tied_rows_and_ours_is_the_mean(theirs: Any):
    """By hand: curve 0 1/2 1 2 x 3 3 5/3 7/3 2 1 with x = 3 or 2 at depth 4; less the line, 5.5, over 11 points.

    Depth 1 has no control row, so it lies halfway to depth 2.
    """
    answers = [float(theirs.qini_score(frame(OUTCOME[o], TREATED[o], SCORE[o]))["model"]) for o in (np.arange(10), SWAPPED)]
    rest = 0.5 + 1 + 2 + 3 + 3 + 5 / 3 + 7 / 3 + 2 + 1 - 5.5
    assert sorted(answers) == close(sorted([(rest + 3) / 11, (rest + 2) / 11]))
    for order in (np.arange(10), SWAPPED):
        assert qini_causalml(OUTCOME[order], TREATED[order], SCORE[order]) == close((rest + 2.5) / 11)


def test_auuc_of_ten_rows(theirs: Any):
    for normalised in (True, False):
        expected = theirs.auuc_score(frame(OUTCOME, TREATED, SCORE), normalize=normalised)["model"]
        assert auuc_causalml(OUTCOME, TREATED, SCORE, normalised=normalised) == close(expected)


def test_their_autoc_is_not_the_integral_of_toc(theirs: Any):
    """Effects 4 1 0 -2 by rank: TOC at 1/4 .. 1 is 13/4, 7/4, 11/12, 0, so AUTOC = (13/4 + 7/4 + 11/12)/4 = 71/48 (Yadlowsky et al.).

    causalml weighs the middles 13/8, 5/2, 4/3, 11/24 of the pieces by 8, 8/3, 8/5, 8/7 over their sum, that is by 1/q: 1.665.
    """
    effect, score = np.array([4.0, 1.0, 0.0, -2.0]), np.array([3.0, 2.0, 1.0, 0.0])
    weights, middles = np.array([8, 8 / 3, 8 / 5, 8 / 7]), np.array([13 / 8, 5 / 2, 4 / 3, 11 / 24])
    assert theirs.rate_score(effects(effect, score), weighting="autoc")["model"] == close(weights @ middles / weights.sum())
    assert rates(effect, score)["autoc"] == close(71 / 48)


def test_their_autoc_of_normal_effects_is_nearly_three_times_the_integral(theirs: Any):
    """Effect = score ~ N(0, 1): TOC(q) = phi(z_q)/q, whose integral over q in (0, 1) is 0.90, by the middles of its pieces."""
    from scipy.stats import norm

    q = (np.arange(20_000) + 0.5) / 20_000
    score = norm.isf(q)
    exact = float(np.mean(norm.pdf(score) / q))
    assert rates(score, score)["autoc"] == pytest.approx(exact, rel=2e-3)
    assert theirs.rate_score(effects(score, score), weighting="autoc")["model"] > 2.5 * exact


@settings(deadline=None)
@given(n=st.integers(4, 80), seed=st.integers(0, 100_000))
def test_their_rate_qini_is_twice_the_integral(theirs: Any, n: int, seed: int):
    """It divides the integral of q TOC(q) by the mean of the weights q, 1/2: always a factor of exactly 2."""
    rng = np.random.default_rng(seed)
    effect, score = rng.normal(size=n), rng.permutation(n) / 4
    found = theirs.rate_score(effects(effect, score), weighting="qini")["model"]
    assert found == close(2 * rates(effect, score)["qini"])


def test_rate_qini_by_hand(theirs: Any):
    """Effects 4 1 0 -2: (1/4 13/4 + 2/4 7/4 + 3/4 11/12)/4 = 19/32; causalml says 19/16."""
    effect, score = np.array([4.0, 1.0, 0.0, -2.0]), np.array([3.0, 2.0, 1.0, 0.0])
    assert rates(effect, score)["qini"] == close(19 / 32)
    assert theirs.rate_score(effects(effect, score), weighting="qini")["model"] == close(19 / 16)


def test_their_normalised_auuc_of_a_useless_score_is_one_half(theirs: Any):
    """Every row has the effect 1: any order gives the straight line, whose mean height is half of its end. Our qini/causalml is 0."""
    rng = np.random.default_rng(3)
    treated = rng.permutation(np.repeat([0, 1], 200))
    trial = treated.astype(float), treated, rng.permutation(400) / 8
    assert theirs.auuc_score(frame(*trial))["model"] == pytest.approx(0.5, abs=0.01)
    assert auuc_causalml(*trial) == pytest.approx(0.5, abs=0.01)
    assert qini_causalml(*trial) == pytest.approx(0, abs=0.05)
