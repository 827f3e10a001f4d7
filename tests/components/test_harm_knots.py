"""The do-no-harm bound's knots: what is read for them, and that a bound lies below a known effect and not far below."""

from pathlib import Path

import numpy as np
import pytest
from deltalake import write_deltalake
from numpy.typing import NDArray

from components import harm_knots
from components.examples_input import Batch, Examples, Vocabularies, batches, open_examples, vocabularies
from promolift.contracts.features import NUMERIC_NAMES
from promolift.contracts.tables import EXAMPLES
from promolift.uplift.calibration import lower_at
from tests.components.synthetic_examples import CARD, effects, rows_of, table_of, write_lake

FILES, ROWS = 3, 5_000


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examples, Vocabularies]:
    """Several files, so that rows come in several batches."""
    lake = write_lake(tmp_path_factory.mktemp("knots"), rows=ROWS)
    for seed in range(1, FILES):
        write_deltalake(str(lake / EXAMPLES.path), table_of(rows_of(seed, ROWS)), mode="append")
    found = open_examples(lake)
    return found, vocabularies(found)


@pytest.fixture
def one_file(tmp_path: Path) -> tuple[Examples, Vocabularies]:
    """Several files have random names and with them a random order of rows; one has always the same."""
    found = open_examples(write_lake(tmp_path, rows=FILES * ROWS))
    return found, vocabularies(found)


def true_profit(batch: Batch) -> NDArray[np.float64]:
    margin, cost = effects(dict(zip(NUMERIC_NAMES, batch.numeric.T, strict=True)))
    return margin - cost


@pytest.mark.parametrize(("most", "step"), [(FILES * ROWS, 1), (2_000, 8), (1_999, 8), (FILES * ROWS - 1, 2)])
def test_the_outcome_model_sees_every_kth_train_row_across_files(
    examples: tuple[Examples, Vocabularies], monkeypatch: pytest.MonkeyPatch, most: int, step: int
):
    monkeypatch.setattr(harm_knots, "BASELINE_ROWS", most)
    rows = harm_knots.read_all(batches(*examples, "train"))
    sample, outcome = harm_knots.train_sample(*examples)
    assert len(outcome) <= most
    assert np.array_equal(sample, rows["features"][::step])
    assert np.array_equal(outcome, (rows["labels"][:, 1] - rows["labels"][:, 2]).astype(np.float64)[::step])


def test_the_bound_of_a_true_score_lies_below_the_effect_and_rises_with_it(one_file: tuple[Examples, Vocabularies]):
    """Each row's own score meets its own outcome: dealt to other rows, the same scores tell nothing and their bound is level."""
    value = np.concatenate([true_profit(batch) for batch in batches(*one_file, "validation")])
    names, ends = [promo.promo_id for promo in CARD.promos], np.quantile(value, [0.1, 0.95], axis=0)
    rows = harm_knots.measured(*one_file, seed=1)
    own = harm_knots.knots(rows, value, CARD.promos)
    dealt = harm_knots.knots(rows, np.random.default_rng(0).permutation(value), CARD.promos)
    rise, level = (np.array([np.ptp(lower_at(found[name], ends[:, k])) for k, name in enumerate(names)]) for found in (own, dealt))
    gap = value - np.column_stack([lower_at(own[name], value[:, k]) for k, name in enumerate(names)])
    assert list(own) == names
    assert (gap.mean(axis=0) > 0).all() and (gap > 0).mean() > 0.8
    assert rise.sum() > 2 * level.sum(), (rise, level)


def test_the_prior_bounds_the_mean_effect_of_everybody_and_of_each_segment(one_file: tuple[Examples, Vocabularies]):
    found, vocabulary = one_file
    rows = harm_knots.measured(*one_file, seed=1)
    true = np.concatenate([true_profit(batch) for batch in batches(*one_file, "validation")])
    cost = np.full(true.shape, 7.0)
    prior = harm_knots.prior(rows, cost, found, vocabulary)
    assert set(prior["*"]) == {promo.promo_id for promo in CARD.promos}
    for k, promo in enumerate(CARD.promos):
        mean, lower, paid = prior["*"][promo.promo_id]
        assert lower < mean and lower < true[:, k].mean() and mean == pytest.approx(rows.effect[:, k].mean()) and paid == 7.0
    names = {segment.partition("=")[0] for segment in prior if segment != "*"}
    assert names <= set(harm_knots.segment_names(CARD)[1])
    for segment in prior:
        name, _, value = segment.partition("=")
        if value:
            codes = rows.attributes[:, found.features.attribute_names.index(name)]
            assert (codes == vocabulary[name].index(value)).sum() >= harm_knots.LEAST_ROWS


def test_the_support_holds_every_train_row(one_file: tuple[Examples, Vocabularies]):
    ends = harm_knots.support(*one_file)
    assert tuple(ends) == NUMERIC_NAMES
    low, high = np.array(list(ends.values())).T
    for batch in batches(*one_file, "train"):
        assert (batch.numeric >= low - 1e-6).all() and (batch.numeric <= high + 1e-6).all()
