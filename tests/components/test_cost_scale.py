"""The factor on the network's promo costs: observed over predicted cost of the validation rows."""

from typing import Any

import numpy as np
import pytest

from components.examples_input import Batch, batches, open_examples, vocabularies
from components.export_model import Candidate
from components.train_uplift import cost_scale
from tests.components.synthetic_examples import CARD, write_lake

PROMOS = len(CARD.promos)


def predicts(cost: Any) -> Candidate:
    """A candidate that predicts `cost` [P] for everybody."""

    def score(batch: Batch) -> tuple[Any, Any]:
        table = np.tile(np.asarray(cost, dtype=np.float64), (len(batch.arm), 1))
        return 0 * table, table

    return Candidate("constant", lambda numeric, attributes: {}, score, None, 1)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = open_examples(write_lake(tmp_path_factory.mktemp("costs"), rows=3_000))
    return found, vocabularies(found)


def test_scaled_costs_add_up_to_what_each_promo_cost(examples: Any):
    scale = cost_scale(predicts([10.0, 20.0, 40.0][:PROMOS]), *examples)
    cost, given = np.zeros(PROMOS), np.zeros(PROMOS)
    for batch in batches(*examples, "validation"):
        for promo in range(PROMOS):
            rows = batch.arm == promo + 1
            cost[promo] += batch.labels[rows, 2].sum()
            given[promo] += rows.sum()
    assert (cost > 0).all()
    np.testing.assert_allclose(scale * np.array([10.0, 20.0, 40.0][:PROMOS]) * given, cost, rtol=1e-5)
    np.testing.assert_allclose(cost_scale(predicts(cost / given), *examples), 1.0, rtol=1e-5)


def test_a_promo_without_predicted_cost_is_left_alone(examples: Any):
    scale = cost_scale(predicts([0.0, *[5.0] * (PROMOS - 1)]), *examples)
    assert scale[0] == 1.0 and (scale[1:] != 1.0).all()
