"""Our numbers against the real scikit-uplift 0.5.1."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift import qini
from promolift.uplift.conventions import auuc_sklift, uplift_at
from promolift.uplift.curves import qini_curve, uplift_curve

theirs = pytest.importorskip("sklift.metrics")
# scikit-uplift 0.5.1, of 2022, calls a function that scikit-learn 1.8 deprecates; its numbers are the same
pytestmark = pytest.mark.filterwarnings("ignore:Function stable_cumsum is deprecated:FutureWarning")

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
TREATED = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 0])
OUTCOME = np.array([1.0, 0, 1, 1, 0, 0, 1, 1, 0, 1])


@st.composite
def trials(draw: Any, ties: bool = True) -> tuple[Any, Any, Any]:
    """Binary outcome, treatment of both arms, scores."""
    n = draw(st.integers(4, 60))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    outcome, treated = rng.integers(0, 2, n).astype(float), (rng.uniform(size=n) < draw(st.floats(0.1, 0.9))).astype(int)
    assume(0 < treated.sum() < n and 0 < outcome.sum() < n)  # scikit-uplift takes no outcome of one value only
    return outcome, treated, rng.integers(0, 12, n) / 8 if ties else rng.permutation(n) / 8


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def test_ten_rows():
    assert theirs.qini_auc_score(OUTCOME, SCORE, TREATED) == close(14 / 24) == close(qini.sklift(OUTCOME, TREATED, SCORE))
    assert theirs.uplift_auc_score(OUTCOME, SCORE, TREATED) == close(auuc_sklift(OUTCOME, TREATED, SCORE))


@settings(deadline=None)
@given(trials())
def test_curves_and_areas(trial: Any):
    outcome, treated, score = trial
    for ours, other in ((qini_curve, theirs.qini_curve), (uplift_curve, theirs.uplift_curve)):
        for mine, yours in zip(ours(*trial), other(outcome, score, treated), strict=True):
            np.testing.assert_allclose(mine, yours, rtol=1e-9, atol=1e-9)
    for value, score_of in ((qini.sklift, theirs.qini_auc_score), (auuc_sklift, theirs.uplift_auc_score)):
        ours_now = value(*trial)
        if not np.isnan(ours_now):  # a perfect area of zero, which theirs divides by
            assert ours_now == close(score_of(outcome, score, treated))


@settings(deadline=None)
@given(trials(ties=False), st.floats(0.2, 0.9))
def test_uplift_at_k_without_ties(trial: Any, share: float):
    outcome, treated, score = trial
    for by_arm, strategy in ((False, "overall"), (True, "by_group")):
        ours = uplift_at(*trial, share=share, by_arm=by_arm)
        if not np.isnan(ours):  # no row of an arm above the cut: theirs takes the mean of no rows
            assert ours == close(theirs.uplift_at_k(outcome, score, treated, strategy, share))


def test_their_uplift_at_k_depends_on_the_order_of_tied_rows():
    """Rows 4 and 5 share a score and the top four hold one of them. Ours takes half of each: treated (1 + 1 + 1/2)/2.5, control 0.5/1.5."""
    swapped = np.array([0, 1, 2, 4, 3, *range(5, 10)])
    flat = np.where(np.arange(10) == 4, 1.0, OUTCOME)
    answers = [theirs.uplift_at_k(flat[o], SCORE[o], TREATED[o], "overall", 4) for o in (np.arange(10), swapped)]
    assert answers[0] != answers[1]
    ours = [uplift_at(flat[o], TREATED[o], SCORE[o], share=0.4) for o in (np.arange(10), swapped)]
    assert ours[0] == ours[1] == close(2.5 / 2.5 - 0.5 / 1.5)


def test_their_score_without_negative_effects_exceeds_one():
    """Its perfect curve bends at x = y = YT - YC NT/NC = 4 - 2 * 6/4 = 1: (0,0) (1,1) (10,1), area 9.5 less 5 = 4.5; 14/4.5 = 3.11.

    The ten rows themselves reach a height of 3, so that curve bounds nothing. With negative effects, ours and theirs: 14/24.
    """
    assert theirs.qini_auc_score(OUTCOME, SCORE, TREATED, negative_effect=False) == close(14 / 4.5)
    assert qini_curve(OUTCOME, TREATED, SCORE)[1].max() == close(3)
    assert qini.sklift(OUTCOME, TREATED, SCORE) == close(14 / 24)


def test_both_refuse_amounts_for_the_normalised_score_and_ours_has_the_raw_one():
    with pytest.raises(ValueError, match="binary"):
        theirs.qini_auc_score(OUTCOME * 2, SCORE, TREATED)
    with pytest.raises(InputError, match="0 or 1"):
        qini.sklift(OUTCOME * 2, TREATED, SCORE)
    assert qini.raw_local(OUTCOME * 2, TREATED, SCORE) == close(2.8)
