"""Raw source -> lake/landing/<table>/*.parquet and source.json; the truth of a simulated experiment goes outside the lake."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from promolift.errors import InputError
from promolift.storage import copy, is_remote

SOURCES = ("complete_journey", "hillstrom", "table")


def inputs(source: str, path: str) -> tuple[str, ...]:
    """Every file or folder that landing will read: `path`, and the data file that the YAML file of source `table` names."""
    if source != "table" or not path:
        return (path,)
    from components.sources.table_spec import read_spec  # noqa: PLC0415  YAML is read by this source only

    return path, str(read_spec(Path(path)).file)


@contextmanager
def fetched(source: str, path: str) -> Iterator[str]:
    """The place of the raw data on this machine: `path` itself, or a copy of what it names in S3."""
    if not is_remote(path):
        yield path
        return
    place, _, name = path.rpartition("/")
    with TemporaryDirectory() as folder:
        target = Path(folder, name)
        copy(path, target)
        if source == "table":
            data = Path(inputs(source, str(target))[1])
            copy(f"{place}/{data.relative_to(folder)}", data)
        yield str(target)


def land(source: str, path: str, lake: str, truth: str, seed: int) -> dict[str, Any]:
    """Land one source and say how many rows each table got. Raises InputError; the old landing then stays as it was.

    `path`: where the raw data lie (what is in S3 is copied here), or "" for the source's own place. `truth`: folder outside the lake
    for the known uplift.
    """
    if source not in SOURCES:
        raise InputError(f"Unknown source '{source}'; choose one of {', '.join(SOURCES)}.")
    from components.sources import landing_tables  # noqa: PLC0415  pyarrow is in the image of this stage only

    with fetched(source, path) as place:
        landed = import_module(f"components.sources.{source}").land(place, seed)
    landing_tables.write(landed, lake, truth)
    rows = {name: rows.num_rows for name, rows in landed.tables.items()}
    return {"source": source, "has_truth": landed.card.has_truth, "rows": rows, "counts": dict(landed.counts)}
