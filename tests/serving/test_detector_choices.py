"""ChosenTests that a look can be made with, and segments: each says what its textbook says, and a change of a few is found among them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from promolift.drift.columns import Rows
from promolift.drift.fitting import fit
from promolift.drift.look import TOGETHER, Look, look
from promolift.drift.reference import Reference, read_reference, write_reference
from promolift.drift.sketch import day_of_rows
from promolift.drift.two_samples import equal_steps, maximum_mean_discrepancy, permutation_p
from promolift.errors import InputError
from serving.detector.tests_by_name import chosen_tests
from tests.promolift.drift_world import COLUMNS, FIRST, day_of_envelopes, independent_rows, p_values, rows_of, training

LATER = FIRST + 56
MMD = chosen_tests(joint="mmd")


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Fitted on eight weeks, with the areas and the quarters of `visits` as segments."""
    return fit(COLUMNS, training(), "v", 1, ("area", "visits"))


def day(seed: int, count: int = 240) -> Rows:
    return rows_of(day_of_envelopes(LATER, np.random.default_rng(seed), count=count), LATER).copy()


def looked(reference: Reference, rows: Rows, joint: str = "none") -> Look:
    return look(reference, {LATER: day_of_rows(reference, rows)}, LATER, tests=chosen_tests(joint=joint))


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.2))
@settings(deadline=None, max_examples=20)
def test_kolmogorov_and_smirnovs_p_is_scipys(seed: int, shift: float):
    rng = np.random.default_rng(seed)
    numbers, codes = (rng.normal(size=(2_000, 1)), rng.normal(shift, size=(500, 1))), (np.zeros(2_000, int), np.zeros(500, int))
    found = p_values(*(independent_rows(n, c, 10_000 * i) for i, (n, c) in enumerate(zip(numbers, codes, strict=True))), chosen_tests("ks"))
    gap = float(stats.ks_2samp(numbers[0][:, 0], numbers[1][:, 0]).statistic)
    worth = np.sqrt(2_000 * 500 / 2_500)
    # of 64 bins the greatest gap is seen at their edges only, which hold 1/64 of training each
    assert special.kolmogorov(worth * gap) - 1e-9 <= found["f0"] <= special.kolmogorov(worth * (gap - 2 / 64))


@pytest.mark.parametrize("shift", [0.0, 0.06, 0.12])
def test_wassersteins_p_is_that_of_a_permutation_test_of_ranks(shift: float):
    rng = np.random.default_rng(7)
    before, now = rng.normal(size=2_000), rng.normal(shift, size=800)
    rows = (independent_rows(part[:, None], np.zeros(len(part), int), 10_000 * i) for i, part in enumerate((before, now)))
    ranks = [stats.rankdata(np.concatenate([before, now]))[place] for place in (slice(None, 2_000), slice(2_000, None))]
    theirs = stats.permutation_test(ranks, stats.wasserstein_distance, n_resamples=999, alternative="greater", rng=1).pvalue
    assert p_values(*rows, chosen_tests("wasserstein"))["f0"] == pytest.approx(theirs, abs=0.06)


def test_of_few_permutations_that_reach_it_the_tail_is_the_truth():
    """A chi-square statistic whose tail is known; 1,000 draws of it say nothing of 1e-5 by themselves."""
    draws = np.random.default_rng(3).chisquare(6, 1_000)
    for p in (0.2, 1e-3, 1e-5):
        assert permutation_p(float(stats.chi2.isf(p, 6)), draws) == pytest.approx(p, rel=0.9)


def test_mmd_keeps_its_level_and_sees_what_no_column_shows():
    rng = np.random.default_rng(5)
    same = [maximum_mean_discrepancy(rng.normal(size=(80, 3)), rng.normal(size=(80, 3)), seed) for seed in range(120)]
    assert stats.binomtest(int(np.sum(np.array(same) <= 0.1)), len(same), 0.1).pvalue > 0.01
    linked = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 300)
    assert maximum_mean_discrepancy(linked, rng.normal(size=(300, 2)), 1) < 1e-4


def test_a_look_with_mmd_finds_a_broken_correlation_and_leaves_a_quiet_day(reference: Reference):
    quiet = day(4)
    assert looked(reference, quiet, "mmd").status == "no drift"
    broken = quiet.copy()
    broken["numbers"][:, 2] = np.random.default_rng(1).permutation(broken["numbers"][:, 2])
    found = {finding.column for finding in looked(reference, broken, "mmd").findings if not finding.segment}
    assert found == {"joint:across", TOGETHER}
    assert looked(reference, broken, "mmd") == looked(reference, broken, "mmd")  # what is drawn is drawn by the day


def test_many_rows_of_few_shoppers_are_too_few_by_whatever_test(reference: Reference):
    rows = day(5)
    rows["shopper"] = np.arange(len(rows)) % 20
    found = looked(reference, rows, "mmd")
    assert (found.status, found.nearest, found.windows["1"]["shoppers"]) == ("too few rows", (), 20)


def test_what_changes_in_one_segment_only_is_found_there_and_named(reference: Reference):
    assert {segment.column for segment in reference.segments} == {"area", "visits"}
    assert {segment.name for segment in reference.segments if segment.column == "area"} == {"area a", "area b"}
    quiet = day(11)
    assert looked(reference, quiet).status == "no drift"
    changed = quiet.copy()
    area = changed["codes"][:, 0] == COLUMNS.codes["area"]["b"]
    changed["numbers"][area, 1] = np.where(np.arange(area.sum()) % 3 == 0, 4.0, changed["numbers"][area, 1])
    found = {finding.segment for finding in looked(reference, changed).findings if finding.column == "spend"}
    assert "area b" in found and "area a" not in found


def test_segments_are_read_as_they_were_written(reference: Reference, tmp_path: Path):
    write_reference(reference, tmp_path)
    found = read_reference(tmp_path, "v")
    assert found is not None and list(found.segments) == list(reference.segments)
    assert looked(found, day(11), "mmd") == looked(reference, day(11), "mmd")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40).filter(lambda counts: sum(counts) > 0), st.integers(1, 500))
def test_rows_at_equal_steps_are_as_many_as_asked_for_and_nearly_distributed_so(counts: list[float], rows: int):
    given_ = np.array(counts)
    made = equal_steps(given_, rows)
    assert made.sum() == rows and (made >= 0).all()
    assert np.abs(np.cumsum(made) / rows - np.cumsum(given_) / given_.sum()).max() <= 0.5 / rows + 1e-9


def test_an_unknown_test_and_one_that_is_not_installed_are_said():
    with pytest.raises(InputError, match="'t' is no test of numbers; choose one of cvm, ks, wasserstein, alibi:cvm, alibi:ks"):
        chosen_tests(numbers="t")
    if importlib.util.find_spec("alibi_detect") is None:
        with pytest.raises(InputError, match="make alibi"):
            chosen_tests(joint="alibi:mmd")
