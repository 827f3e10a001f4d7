"""The predeclared segments of a trial: a retail source's, the ones that a table names, or everybody."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from components.trial_input import read_decisions, segment_names, segments
from promolift.contracts.features import SEGMENT_ATTRIBUTES, SEGMENT_FEATURES
from promolift.contracts.promos import Covariate
from tests.components.synthetic_examples import write_lake

COVARIATES = (Covariate("baskets_28d", "number"), Covariate("area", "text"))


def test_a_retail_source_has_the_declared_ones(tmp_path: Path):
    decisions = read_decisions(write_lake(tmp_path / "lake", rows=400))[0]
    assert segment_names(decisions.card) == (SEGMENT_FEATURES, SEGMENT_ATTRIBUTES)
    found = segments(decisions)
    assert {name.split(" ")[0] for name in found} == {*SEGMENT_FEATURES, *SEGMENT_ATTRIBUTES}


def test_a_table_names_its_own_and_where_it_names_none_everybody_is_one(tmp_path: Path):
    decisions = read_decisions(write_lake(tmp_path / "lake", rows=400))[0]
    named = replace(decisions, card=replace(decisions.card, covariates=COVARIATES, segments=("area", "baskets_28d")))
    assert segment_names(named.card) == (("baskets_28d",), ("area",))
    found = segments(named)
    assert {name.split(" ")[0] for name in found} == {"baskets_28d", "area"}
    parts = np.array([mask for name, mask in found.items() if name.startswith("area")])
    assert (parts.sum(axis=0) == 1).all()
    unnamed = segments(replace(decisions, card=replace(decisions.card, covariates=COVARIATES)))
    assert list(unnamed) == ["everybody"] and unnamed["everybody"].all()
