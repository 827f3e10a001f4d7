"""gold/examples (one Delta version) -> decisions as a randomised trial: arms, logged propensities, outcomes and features.

Unlike the training reader this one keeps rows with unusable propensities: the gate has to see and report them.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.examples_input import Examples, Vocabularies, open_examples, vocabularies
from promolift.contracts.features import SEGMENT_ATTRIBUTES, SEGMENT_FEATURES, features_of
from promolift.contracts.promos import SourceCard
from promolift.errors import InputError
from promolift.storage import Place
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.scores import Trial, make_trial
from promolift.uplift.segments import quantile_masks

Mask = NDArray[np.bool_]
_LABELS = ("margin_cents", "cost_cents")


@dataclass(frozen=True)
class Decisions:
    """n decisions in the order of `exposure_id`; `table` holds their columns, `trial` who was given what.

    `value` [n]: the objective's outcome (margin less promo cost in cents, or a visit); `cost` [n] cents; `binary` [n] of 0 or 1.
    """

    table: Any
    card: SourceCard
    version: int
    trial: Trial
    value: Floats
    cost: Floats
    binary: Floats

    @property
    def outcome(self) -> tuple[str, str]:
        """What the objective counts, and its unit."""
        if self.card.objective == "profit":
            return "margin less promo cost", "cents per decision"
        return ("outcome that is yes or no", "outcomes per decision") if self.card.covariates else ("visit", "visits per decision")

    @property
    def propensities(self) -> str:
        """Where the propensities come from."""
        return "estimated: the arm shares of the file" if self.card.estimated_propensities else "logged"

    def rows_of(self, split: str) -> Mask:
        """Rows [n] of one split."""
        return np.asarray(pc.equal(self.table["split"], split).to_numpy(), dtype=np.bool_)

    def take(self, rows: Mask) -> "Decisions":
        """The decisions of some rows."""
        part = self.table.filter(pa.array(rows))
        return Decisions(part, self.card, self.version, self.trial.take(rows), self.value[rows], self.cost[rows], self.binary[rows])

    def numeric(self, names: tuple[str, ...] = ()) -> NDArray[np.float32]:
        """Numeric features [n, len(names)]; all of the source's when none are named."""
        chosen = names or features_of(self.card).numeric_names
        return np.column_stack([self.table[name].to_numpy() for name in chosen]).astype(np.float32)

    def attributes(self, vocabulary: Vocabularies) -> NDArray[np.int32]:
        """Index of each attribute's text in its vocabulary [n, A]; 0 for a text that is not there."""
        found = [pc.index_in(self.table[n], value_set=pa.array(v, pa.string())).fill_null(0) for n, v in vocabulary.items()]
        return np.column_stack([column.to_numpy() for column in found]).astype(np.int32)


def read_decisions(lake: Place) -> tuple[Decisions, Vocabularies]:
    """All splits of the newest gold/examples, and the vocabularies of its train split. Raises InputError on missing parts."""
    examples = open_examples(lake)
    card = examples.card
    labels = tuple(dict.fromkeys((*_LABELS, card.binary_outcome, "visited")))
    keys = ("exposure_id", "shopper_id", "split", "promo_id", "propensities")
    table = examples.dataset.to_table(columns=[*keys, *labels, *features_of(card).names])
    table = table.take(pc.sort_indices(table["exposure_id"])).combine_chunks()
    _refuse_empty_values(table, labels, examples)
    margin, cost, binary, visited = (_float(table, name) for name in (*_LABELS, card.binary_outcome, "visited"))
    value = margin - cost if card.objective == "profit" else visited
    arm = pc.index_in(table["promo_id"], value_set=pa.array(card.arms, pa.string())).to_numpy()
    trial = make_trial(arm, propensity_table(table["propensities"], len(card.arms)), table["shopper_id"].to_numpy())
    return Decisions(table, card, examples.version, trial, value, cost, binary), vocabularies(examples)


def _refuse_empty_values(table: Any, labels: tuple[str, ...], examples: Examples) -> None:
    if not table.num_rows:
        raise InputError(f"'{examples.path}' is empty; no decision has a closed outcome window yet.")
    for name in ("shopper_id", "split", *labels):
        if table[name].null_count:
            raise InputError(f"Column '{name}' of '{examples.path}' has {table[name].null_count} empty values; rebuild the table.")


def _float(table: Any, name: str) -> Floats:
    return np.asarray(table[name].cast(pa.float64() if not pa.types.is_boolean(table[name].type) else pa.int8()), dtype=np.float64)


def propensity_table(column: Any, arms: int) -> Floats:
    """Propensities [n, arms] from a list column; a list that is missing or of another length becomes a row of NaN."""
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    whole = lengths == arms
    table = np.full((len(lengths), arms), np.nan)
    if whole.any():
        table[whole] = np.asarray(pc.list_flatten(column.filter(pa.array(whole))), dtype=np.float64).reshape(-1, arms)
    return table


def folds(decisions: Decisions, count: int, seed: int) -> Integers:
    """Fold [n] of each decision by hash of its shopper, so that a nuisance model never sees the shopper it predicts."""
    labels = decisions.table["shopper_id"].combine_chunks().dictionary_encode()
    hashed = np.array([zlib.crc32(f"fold-{seed}:{shopper}".encode()) % count for shopper in labels.dictionary.to_pylist()])
    return np.asarray(hashed[labels.indices.to_numpy()], dtype=np.int64)


def segments(decisions: Decisions) -> dict[str, Mask]:
    """The predeclared segments: quarters of a number, values of a text; those of one part only are left out.

    Where nothing is left, everybody is the one segment, so that harm is looked for all the same.
    A source that is a table of decisions names its own; for one of events they are SEGMENT_FEATURES and SEGMENT_ATTRIBUTES.
    """
    found: dict[str, Mask] = {}
    numeric, attributes = segment_names(decisions.card)
    for name in numeric:
        masks = quantile_masks(name, decisions.numeric((name,))[:, 0].astype(np.float64))
        found |= masks if len(masks) > 1 else {}
    for name in attributes:
        values = sorted(decisions.table[name].unique().to_pylist())
        found |= {f"{name} {v}": pc.equal(decisions.table[name], v).to_numpy() for v in values} if len(values) > 1 else {}
    return found or {"everybody": np.ones(decisions.trial.rows, dtype=np.bool_)}


def segment_names(card: SourceCard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the numeric features and of the attributes whose parts are the segments."""
    if not card.covariates:
        return SEGMENT_FEATURES, SEGMENT_ATTRIBUTES
    numeric = set(features_of(card).numeric_names)
    return tuple(n for n in card.segments if n in numeric), tuple(n for n in card.segments if n not in numeric)
