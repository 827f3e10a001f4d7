"""gold/examples (one Delta version) -> batches of numpy arrays, read file by file; the table is never held whole.

Order of columns: contracts.features. Index 0 of every vocabulary is the unknown value, `Attribute.default`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from promolift.contracts.artifacts import read_source_card
from promolift.contracts.features import FeatureSet, features_of
from promolift.contracts.promos import SourceCard
from promolift.contracts.tables import EXAMPLES, Column, schema_of
from promolift.errors import InputError
from promolift.storage import Place, delta_options

LABEL_NAMES = ("binary", "margin_cents", "cost_cents")
Vocabularies = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Examples:
    """One version of gold/examples and the card of its source."""

    dataset: Any
    version: int
    card: SourceCard
    path: str

    @property
    def features(self) -> FeatureSet:
        """The features of its source."""
        return features_of(self.card)


@dataclass(frozen=True)
class Batch:
    """n decisions; `arm` 0 is no_promo.

    `numeric` [n, N], `attributes` [n, A], `arm` [n], `propensities` [n, P + 1], `labels` [n, 3] as LABEL_NAMES (money in cents).
    """

    exposure_id: NDArray[Any]
    shopper_id: NDArray[Any]
    split: NDArray[Any]
    numeric: NDArray[np.float32]
    attributes: NDArray[np.int32]
    arm: NDArray[np.int32]
    propensities: NDArray[np.float64]
    labels: NDArray[np.float32]


def tensor_specs(features: FeatureSet) -> dict[str, Any]:
    """Signature of every exported model for one shopper: `numeric` float32 [1, N] and `attributes` int32 [1, A]."""
    import tensorflow as tf  # noqa: PLC0415 (loading it takes seconds; only callers that train or export pay)

    return {
        "numeric": tf.TensorSpec([1, len(features.numeric)], tf.float32, name="numeric"),
        "attributes": tf.TensorSpec([1, len(features.attributes)], tf.int32, name="attributes"),
    }


def open_examples(lake: Place) -> Examples:
    """The newest version of gold/examples. Raises InputError for a missing table, column, wrong type, or unknown arm."""
    path = f"{lake}/{EXAMPLES.path}"
    card = read_source_card(lake)
    try:
        table = DeltaTable(path, storage_options=delta_options())
    except (DeltaError, OSError) as cause:
        why = str(cause).splitlines()[0]
        raise InputError(f"No training examples at '{path}' ({why}); run the Spark job build_examples first.") from cause
    dataset = table.to_pyarrow_dataset()
    _check_schema(dataset.schema, schema_of(card).examples.columns, path)
    examples = Examples(_in_file_order(dataset), table.version(), card, path)
    _check_arms(examples)
    return examples


def _in_file_order(dataset: Any) -> Any:
    """Spark numbers its files, so sorting by name makes the order of rows the same for every rebuild of the same table."""
    fragments = sorted(dataset.get_fragments(), key=lambda fragment: Path(fragment.path).name)
    return pds.FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)


_KINDS = {
    "string": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
    "int64": pa.types.is_int64,
    "float32": pa.types.is_float32,
    "float64": pa.types.is_float64,
    "bool": pa.types.is_boolean,
    "timestamp": pa.types.is_timestamp,
    "list<float64>": lambda t: (pa.types.is_list(t) or pa.types.is_large_list(t)) and pa.types.is_float64(t.value_type),
}


def _check_schema(schema: Any, columns: tuple[Column, ...], path: str) -> None:
    for column in columns:
        if column.name not in schema.names:
            raise InputError(f"Column '{column.name}' is missing in '{path}'; rebuild it with the Spark job build_examples.")
        _check_type(column, schema.field(column.name).type, path)


def _check_type(column: Column, found: Any, path: str) -> None:
    if not _KINDS[column.dtype](found):
        raise InputError(f"Column '{column.name}' of '{path}' has type {found} but must be {column.dtype}; rebuild the table.")


def _check_arms(examples: Examples) -> None:
    arms: set[str] = set()
    for batch in examples.dataset.to_batches(columns=["promo_id"]):
        arms.update(batch.column(0).unique().to_pylist())
    unknown = sorted(arms - set(examples.card.arms))
    if unknown:
        known = ", ".join(examples.card.arms)
        raise InputError(f"Arm '{unknown[0]}' in '{examples.path}' is not one of the source's arms ({known}); land the source again.")


def vocabularies(examples: Examples) -> Vocabularies:
    """Sorted values of every attribute in the train split, after the unknown value at index 0."""
    names = examples.features.attribute_names
    seen: dict[str, set[str]] = {name: set() for name in names}
    for batch in examples.dataset.to_batches(columns=list(names), filter=_rows(("train",), randomised=True)):
        for name in names:
            seen[name].update(batch.column(name).unique().to_pylist())
    return {a.name: (a.default, *sorted(seen[a.name] - {a.default})) for a in examples.features.attributes}


def _rows(splits: tuple[str, ...], *, randomised: bool) -> Any:
    """Holdout shoppers had no chance of a promo, so they say nothing of an effect: `randomised` leaves them out."""
    rows = pc.field("split").isin(list(splits))
    return rows & (pc.field("bucket") != "holdout") if randomised else rows


def _columns(card: SourceCard) -> list[str]:
    labels = [card.binary_outcome, "margin_cents", "cost_cents"]
    names = ["exposure_id", "shopper_id", "split", "promo_id", "propensities", *labels]
    return [*names, *features_of(card).names]


def batches(examples: Examples, vocabulary: Vocabularies, *splits: str, randomised: bool = True, rows: int = 16_384) -> Iterator[Batch]:
    """The rows of the splits in the table's order. Raises InputError for a null, a bad propensity, or when no row is left."""
    scan = {"columns": _columns(examples.card), "filter": _rows(splits, randomised=randomised), "batch_size": rows}
    count = 0
    for record in examples.dataset.to_batches(**scan):
        if record.num_rows:
            count += record.num_rows
            yield _batch(record, examples, vocabulary)
    if not count:
        raise InputError(f"No rows of split {' or '.join(splits)} in '{examples.path}'; the source is too small or not split.")


def _batch(record: Any, examples: Examples, vocabulary: Vocabularies) -> Batch:
    for name, column in zip(record.schema.names, record.columns, strict=True):
        if column.null_count:
            raise InputError(f"Column '{name}' of '{examples.path}' has {column.null_count} empty values; rebuild the table.")
    card = examples.card
    labels = (record.column(name).cast(pa.float32()) for name in (card.binary_outcome, "margin_cents", "cost_cents"))
    return Batch(
        exposure_id=_texts(record, "exposure_id"),
        shopper_id=_texts(record, "shopper_id"),
        split=_texts(record, "split"),
        numeric=_numeric(record, examples),
        attributes=np.stack([_codes(record.column(name), values) for name, values in vocabulary.items()], axis=1),
        arm=_codes(record.column("promo_id"), card.arms),
        propensities=_propensities(record, examples),
        labels=np.stack([column.to_numpy(zero_copy_only=False) for column in labels], axis=1),
    )


def _texts(record: Any, name: str) -> NDArray[Any]:
    values: NDArray[Any] = record.column(name).to_numpy(zero_copy_only=False)
    return values


def _numeric(record: Any, examples: Examples) -> NDArray[np.float32]:
    names = examples.features.numeric_names
    values: NDArray[np.float32] = np.stack([record.column(name).to_numpy() for name in names], axis=1)
    wrong = ~np.isfinite(values).all(axis=0)
    if wrong.any():
        name = names[int(np.argmax(wrong))]
        raise InputError(f"Feature '{name}' in '{examples.path}' has a value that is not finite; rebuild the features.")
    return values


def _codes(column: Any, values: tuple[str, ...]) -> NDArray[np.int32]:
    """Index of each text in `values`; 0 for a text that is not there."""
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(values, pa.string()))
    codes: NDArray[np.int32] = found.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
    return codes


def _propensities(record: Any, examples: Examples) -> NDArray[np.float64]:
    column, arms = record.column("propensities"), examples.card.arms
    flat: NDArray[np.float64] = column.flatten().to_numpy(zero_copy_only=False)
    if flat.size != len(column) * len(arms) or pc.min(pc.list_value_length(column)).as_py() != len(arms):
        raise InputError(f"Propensities in '{examples.path}' do not have {len(arms)} values a row, one for each arm of the source.")
    table = flat.reshape(-1, len(arms))
    given = table[np.arange(len(table)), _codes(record.column("promo_id"), arms)]
    if not (np.all(given > 0) and np.allclose(table.sum(axis=1), 1, atol=1e-4)):
        raise InputError(f"A row of '{examples.path}' has a propensity of 0 for its own arm, or propensities that do not sum to 1.")
    return np.asarray(table / table.sum(axis=1, keepdims=True), dtype=np.float64)
