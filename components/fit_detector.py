"""gold/examples (the version that the model names), baskets and scores -> the drift reference of the chosen model, beside it.

Live traffic is a request at every basket, so a shopper who comes often is asked often. The reference is therefore training's examples as
they would have been asked for: each basket of the training period with the features of its shopper's last example before it. A source that
is a table of decisions has no baskets; its reference has each decision once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from components.examples_input import Examples, open_examples
from components.trial_input import segment_names
from promolift.contracts.artifacts import ModelManifest, read_manifest, read_source_card, read_verdict
from promolift.contracts.promos import CATEGORY_NAMES
from promolift.contracts.tables import EXAMPLES
from promolift.drift.columns import MISSING, Columns, Rows, day_of, shopper_hash
from promolift.drift.fitting import fit
from promolift.drift.reference import write_reference
from promolift.errors import InputError, usable
from promolift.storage import Place, delta_options

STORES, PRODUCTS, FEWEST_LINES = 48, 5_000, 20
"""Stores by name, the others are one; products whose prices are compared, and the lines that one must have been on."""
WEEK_S = 7 * 86_400
"""A basket longer than this after its shopper's last example has no features of its moment."""


@dataclass(frozen=True)
class Baskets:
    """b baskets: shopper, moment in seconds since 1970, store; `numbers` [b, 3] as `columns.BASKET`, `held` [b, categories] yes or no."""

    shopper: NDArray[Any]
    seconds: NDArray[np.int64]
    store: NDArray[Any]
    numbers: NDArray[np.float64]
    held: NDArray[np.bool_]


def fit_chosen(models: str, evaluation: str, lake: str, seed: int) -> dict[str, Any]:
    """Fit the reference of the model that the gate chose; returns what there is to say of it. Raises InputError for missing parts."""
    said = fit_model(Path(models) / read_verdict(Path(evaluation) / "verdict.json").chosen, lake, seed)
    return {name: said[name] for name in ("version", "period", "rows", "matched", "arrays_sha256")}


def fit_model(folder: Path, lake: Place, seed: int) -> dict[str, Any]:
    """Fit the reference of the model in `folder` and write it there."""
    manifest = read_manifest(folder)
    columns, rows = training_rows(folder, manifest, lake)
    reference = fit(columns, rows, manifest.version, seed, segments_of(columns, lake))
    with usable(folder, "a reference is written beside its model"):
        return write_reference(reference, folder)


def segments_of(columns: Columns, lake: Place) -> tuple[str, ...]:
    """Columns whose parts are the predeclared segments, as far as the model reads them."""
    names = (name for kind in segment_names(read_source_card(lake)) for name in kind)
    return tuple(name for name in names if name in columns.features or name in columns.attributes)


def training_rows(folder: Path, manifest: ModelManifest, lake: Place) -> tuple[Columns, Rows]:
    """Training as traffic: its columns and one row a basket, or a decision where the source has no baskets."""
    examples = open_examples(lake)
    if examples.version != manifest.tables[EXAMPLES.path]:
        wanted = manifest.tables[EXAMPLES.path]
        raise InputError(f"'{examples.path}' is at version {examples.version}, but {manifest.version} learnt from {wanted}; train again.")
    names = ["exposure_id", "shopper_id", "moment", *manifest.numeric, *manifest.attributes]
    table = examples.dataset.to_table(columns=names)
    prices, baskets = ({}, None) if examples.card.covariates else _baskets(lake, examples)
    stores = () if baskets is None else _frequent(baskets.store)
    attributes = {name: manifest.vocabularies[name] for name in manifest.attributes}  # JSON sorts them, the model does not
    columns = Columns(manifest.numeric, attributes, tuple(p.promo_id for p in manifest.promos), prices, stores)
    values = _values(folder / "scores.parquet", table["exposure_id"], columns.promos)
    return columns, _rows(columns, table, values, baskets)


def _frequent(stores: NDArray[Any]) -> tuple[str, ...]:
    names, counts = np.unique(stores.astype(str), return_counts=True)
    return tuple(str(name) for name in names[np.argsort(-counts, kind="stable")][:STORES])


def _values(path: Path, exposures: Any, promos: tuple[str, ...]) -> NDArray[np.float64]:
    """Predicted value [n, P] of each example; NaN for those of the train split, whose scores the model has learnt by heart."""
    if not path.is_file():
        raise InputError(f"'{path}' is missing; export the model again.")
    scores = pq.read_table(path)
    place = pc.index_in(exposures, value_set=scores["exposure_id"].combine_chunks().cast(exposures.type))
    found = np.column_stack([scores[f"value_{promo}"].to_numpy() for promo in promos])
    at = place.fill_null(-1).to_numpy()
    return np.where(at[:, None] >= 0, found[at], np.nan)


def _baskets(lake: Place, examples: Examples) -> tuple[dict[str, float], Baskets]:
    """Mean log of a unit's price by product, and every basket with a paid line."""
    names = ["shopper_id", "basket_id", "store_id", "event_time", "product_id", "category", "quantity", "sales_cents"]
    try:
        lines = DeltaTable(f"{lake}/silver/purchases", storage_options=delta_options()).to_pyarrow_dataset().to_table(columns=names)
    except DeltaError as cause:
        why = str(cause).splitlines()[0]
        raise InputError(f"No baskets at '{lake}/silver/purchases' ({why}); ingest the source again.") from cause
    lines = lines.filter((pc.field("sales_cents") > 0) & (pc.field("quantity") > 0))
    if not lines.num_rows:
        raise InputError(f"'{lake}/silver/purchases' has no paid line, but '{examples.path}' was made from it; ingest the source again.")
    price = np.log(lines["sales_cents"].to_numpy() / lines["quantity"].to_numpy())
    products = lines["product_id"].combine_chunks().dictionary_encode()
    at, names = products.indices.to_numpy(), products.dictionary.to_pylist()
    counts = np.bincount(at)
    mean = np.round(np.bincount(at, price) / counts, 4)
    often = [place for place in np.argsort(-counts, kind="stable")[:PRODUCTS] if counts[place] >= FEWEST_LINES]
    matched = np.isin(np.arange(len(counts)), often)[at]
    return {names[place]: float(mean[place]) for place in often}, _gathered(lines, np.where(matched, price - mean[at], np.nan))


def _gathered(lines: Any, gap: NDArray[np.float64]) -> Baskets:
    """`gap` [lines]: of each line's price from its product's, NaN for a product that is not compared."""
    category = pc.index_in(lines["category"], value_set=pa.array(CATEGORY_NAMES)).to_numpy()
    basket = lines["basket_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    count, first = int(basket.max()) + 1, np.unique(basket, return_index=True)[1]
    size = np.bincount(basket)
    cents = np.bincount(basket, lines["sales_cents"].to_numpy())
    held = np.zeros((count, len(CATEGORY_NAMES)), dtype=np.bool_)
    held[basket, category] = True
    seconds = pc.cast(pc.floor_temporal(lines["event_time"], unit="second").cast(pa.timestamp("s", "UTC")), pa.int64()).to_numpy()
    matched = np.bincount(basket, ~np.isnan(gap))
    index = np.divide(np.bincount(basket, np.nan_to_num(gap)), matched, out=np.full(count, np.nan), where=matched > 0)
    numbers = np.column_stack([size, cents, index])
    return Baskets(lines["shopper_id"].to_numpy()[first], seconds[first], lines["store_id"].to_numpy()[first], numbers, held)


def _rows(columns: Columns, table: Any, values: NDArray[np.float64], baskets: Baskets | None) -> Rows:
    seconds = pc.cast(table["moment"].cast(pa.timestamp("s", "UTC"), safe=False), pa.int64()).to_numpy()
    shopper = table["shopper_id"].to_numpy()
    if baskets is None:
        return _filled(columns, table, values, np.arange(len(shopper)), seconds, None)
    at, kept = _latest_before(shopper, seconds, baskets.shopper, baskets.seconds)
    if not kept.any():
        raise InputError("No basket lies within a week after an example of its shopper; the source's events and decisions do not meet.")
    own = Baskets(*(getattr(baskets, name)[kept] for name in ("shopper", "seconds", "store", "numbers", "held")))
    return _filled(columns, table, values, at[kept], own.seconds, own)


def _latest_before(
    shopper: NDArray[Any], seconds: NDArray[np.int64], who: NDArray[Any], when: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Of each (who, when) [b] the row of the shopper's last example up to then, and whether that is at most a week ago."""
    names, own = np.unique(shopper, return_inverse=True)
    place = np.minimum(np.searchsorted(names, who), len(names) - 1)
    known = names[place] == who
    span = int(max(seconds.max(), when.max())) + 1
    order = np.argsort(own * span + seconds, kind="stable")
    keys = (own * span + seconds)[order]
    at = np.maximum(np.searchsorted(keys, place * span + when, side="right") - 1, 0)
    rows = order[at]
    fresh = known & (own[rows] == place) & (seconds[rows] <= when) & (when - seconds[rows] <= WEEK_S)
    return rows, fresh


def _filled(  # noqa: PLR0917 (one column of the rows each)
    columns: Columns, table: Any, values: NDArray[np.float64], at: NDArray[np.intp], seconds: NDArray[np.int64], baskets: Baskets | None
) -> Rows:
    """Rows [n]: the examples `at`, at moments `seconds`, with what was in the baskets."""
    features = np.column_stack([table[name].to_numpy() for name in columns.features])[at]
    rows = np.zeros(len(at), columns.dtype)
    hashes = {name: shopper_hash(name) for name in table["shopper_id"].unique().to_pylist()}
    rows["shopper"] = [hashes[name] for name in table["shopper_id"].to_numpy()[at]]
    rows["day"] = [day_of(moment) for moment in seconds]
    own = [] if baskets is None else [baskets.numbers]
    rows["numbers"] = np.concatenate([features, *own, values[at]], axis=1)
    rows["codes"] = np.column_stack([*_attributes(columns, table, at), *_held(columns, baskets), _choices(values[at]), np.zeros(len(at))])
    return rows


def _attributes(columns: Columns, table: Any, at: NDArray[np.intp]) -> list[NDArray[np.integer]]:
    found = [pc.index_in(table[name], value_set=pa.array(values, pa.string())) for name, values in columns.attributes.items()]
    return [column.fill_null(0).to_numpy()[at] for column in found]


def _held(columns: Columns, baskets: Baskets | None) -> list[NDArray[Any]]:
    if baskets is None:
        return []
    codes = columns.codes["store"]
    return [np.array([codes.get(str(store), 0) for store in baskets.store]), *baskets.held.T]


def _choices(values: NDArray[np.float64]) -> NDArray[np.integer]:
    """Code of the promo of the greatest value, 0 for none above 0, MISSING for a row without scores."""
    scored = ~np.isnan(values).any(axis=1)
    best = np.argmax(np.where(np.isnan(values), -np.inf, values), axis=1)
    chosen = np.where(values[np.arange(len(values)), best] > 0, best + 1, 0)
    return np.asarray(np.where(scored, chosen, MISSING))
