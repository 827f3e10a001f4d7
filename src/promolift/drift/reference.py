"""What a model version's rows looked like in training, as counts by bin, with what a window may differ by without any change.

reference.json, reference.npz beside model.tflite, without pickle: the JSON names the hash of the arrays and the model's version.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promolift.contracts.artifacts import json_text
from promolift.drift.columns import Columns, Rows
from promolift.errors import InputError

JSON, ARRAYS = "reference.json", "reference.npz"
WINDOWS = (1, 7, 28)
"""Days that a look goes back: gross changes show at once, slow ones over weeks."""
Counts = NDArray[np.float64]
_OWN = ("weekday", "longer", "between", "furthest", "shoppers", "sample", "visits")
"""Arrays that every segment has its own of; bins and axes are everybody's."""


@dataclass(frozen=True)
class Joint:
    """Principal axes of the features' normal scores: `axes` [k, N], `variances` [k], `centre` [N]."""

    axes: NDArray[np.float64]
    variances: NDArray[np.float64]
    centre: NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """The rows whose `column` is in the bins `first` to `last`: one value of a text, or a quarter of a number as training had it."""

    name: str
    column: str
    first: int
    last: int


@dataclass(frozen=True)
class Reference:
    """`edges` [numbers + 2, BINS - 1]: inner edges of each number's bins, equal ones where values tie; of the joint distances too.

    `weekday` [7, F, K]: days of training added up by weekday, Monday first; `longer` [WINDOWS - 1, F, K]: its windows of so many days;
    both by column and bin, in shoppers. `outside` [2, N]: the least and the greatest value of each feature.
    `between` [WINDOWS, F]: variance between comparable windows of training, in units of 1 / row: 0.01 says that no window, however many
    rows it has, tells more than 100 independent ones. `furthest` [WINDOWS, F]: how far the furthest of them was beyond chance.
    `shoppers` [WINDOWS]: of training, as many as they are worth (Kish 1965: those who are in many windows weigh more).
    `sample`: some of its `rows`; `visits` [WINDOWS, sample]: how many rows the shopper of each has in the window of it.
    `segments`: references of parts of the rows, with everybody's bins; they have none of their own.
    """

    version: str
    columns: Columns
    edges: NDArray[np.float64]
    outside: NDArray[np.float64]
    joint: Joint
    weekday: Counts
    longer: Counts
    between: NDArray[np.float64]
    furthest: NDArray[np.float64]
    shoppers: NDArray[np.float64]
    sample: Rows
    visits: NDArray[np.float64]
    rows: int
    period: tuple[str, str]
    segments: Mapping[Segment, "Reference"] = field(default_factory=dict)

    @property
    def matched(self) -> bool:
        """Whether training has every weekday, so that a day is held against its like."""
        return bool(self.weekday.any(axis=(1, 2)).all())


def write_reference(reference: Reference, folder: Path) -> dict[str, Any]:
    """Write both files, the JSON last; returns it."""
    buffer = io.BytesIO()
    arrays = {name: getattr(reference, name) for name in ("edges", "outside", *_OWN)}
    joint = {f"joint_{name}": getattr(reference.joint, name) for name in ("axes", "variances", "centre")}
    parts = {f"{place}/{name}": getattr(part, name) for place, part in enumerate(reference.segments.values()) for name in _OWN}
    np.savez_compressed(buffer, **arrays, **joint, **parts)
    (folder / ARRAYS).write_bytes(buffer.getvalue())
    columns = reference.columns
    document = {
        "version": reference.version,
        "arrays_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "columns": {
            "features": columns.features, "attributes": list(columns.attributes.items()),
            "promos": columns.promos, "prices": dict(columns.prices),
            "stores": columns.stores,
        },
        "period": reference.period, "rows": reference.rows, "matched": reference.matched,
        "segments": [
            {"segment": [segment.name, segment.column, segment.first, segment.last], "rows": part.rows, "period": part.period}
            for segment, part in reference.segments.items()
        ],
    }  # fmt: skip
    (folder / JSON).write_text(json_text(document), encoding="utf-8")
    return document


def files_in(folder: Path) -> tuple[str, ...]:
    """Names of the reference's files beside the model in `folder`; none where it was not fitted."""
    return tuple(name for name in (JSON, ARRAYS) if (folder / name).exists())


def read_reference(folder: Path, version: str) -> Reference | None:
    """The reference of the model in `folder`, None where none was fitted.

    Raises InputError for one that is damaged or of another version: an answer from it would be about something else.
    """
    path = folder / JSON
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        content = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != document["arrays_sha256"]:
            raise InputError(f"'{folder / ARRAYS}' is not the file that {JSON} names; fit the detector again.")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = _reference(document, arrays)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise InputError(f"'{path}' is no reference ({type(cause).__name__}: {cause}); fit the detector again.") from cause
    if found.version != version:
        raise InputError(f"'{path}' is the reference of {found.version}, but the model is {version}; fit the detector again.")
    return found


def hand_on(folder: Path, former: str, version: str) -> None:
    """The reference in `folder`, where there is one, becomes that of the same model exported anew. Raises as `read_reference` does."""
    if (reference := read_reference(folder, former)) is not None:
        write_reference(replace(reference, version=version), folder)


def _reference(document: Mapping[str, Any], arrays: Mapping[str, Any]) -> Reference:
    given = document["columns"]
    columns = Columns(
        tuple(given["features"]), {name: tuple(values) for name, values in given["attributes"]}, tuple(given["promos"]),
        given["prices"], tuple(given["stores"]),
    )  # fmt: skip
    if arrays["sample"].dtype != columns.dtype:
        raise ValueError("its sample has other columns")
    whole = Reference(
        document["version"], columns, arrays["edges"], arrays["outside"],
        Joint(arrays["joint_axes"], arrays["joint_variances"], arrays["joint_centre"]),
        rows=document["rows"], period=tuple(document["period"]), **{name: arrays[name] for name in _OWN},
    )  # fmt: skip
    parts = {
        Segment(*given["segment"]): replace(
            whole, **{name: arrays[f"{place}/{name}"] for name in _OWN}, rows=given["rows"], period=tuple(given["period"])
        )
        for place, given in enumerate(document["segments"])
    }
    return replace(whole, segments=parts)
