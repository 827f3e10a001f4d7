"""A layer of the lake -> data docs; stops the run with the expectation that failed, how many rows, and examples."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from components import expectations
from promolift.contracts.artifacts import read_source_card, write_json
from promolift.contracts.tables import EXPOSURES, Schema, Table, schema_of
from promolift.errors import ExpectationError, InputError
from promolift.storage import delta_options

LAYERS: dict[str, Callable[[Schema], tuple[Table, ...]]] = {
    "silver": lambda schema: schema.silver,
    "gold": lambda schema: (EXPOSURES, schema.features),
    "training": lambda schema: (schema.examples,),
}
"""What is validated before gold is built, before features go online, and before anything is trained."""
EXAMPLES_SHOWN = 3


def validate(lake: str, layer: str, docs: str) -> dict[str, Any]:
    """Validate every table of `layer` and write data docs (HTML) and `result.json` into the folder `docs`, which is replaced.

    Returns {"layer", "expectations", "failed", "tables": {"silver.purchases": {"rows", "version", "expectations", "failed"}}}.
    Raises InputError for an unknown layer, or a missing table or source card, ExpectationError when an expectation failed (docs are
    written first).
    """
    if layer not in LAYERS:
        raise InputError(f"There is no layer '{layer}' to validate; choose one of {', '.join(LAYERS)}.")
    target = Path(docs)
    card = read_source_card(lake)
    context = _context(target)
    tables, failures = {}, []
    for table in LAYERS[layer](schema_of(card)):
        tables[f"{table.layer}.{table.name}"], broken = _validate_table(context, table, f"{lake}/{table.path}", card.arms)
        failures += broken
    context.build_data_docs()
    result = _result(layer, tables)
    write_json(target / "result.json", result)
    if failures:
        raise ExpectationError(_sentence(failures, target))
    return result


def _context(docs: Path) -> Any:
    """Great Expectations in memory, with one static site and no progress bars; this release sends no usage statistics."""
    shutil.rmtree(docs, ignore_errors=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for name in list(context.get_site_names()):
        context.delete_data_docs_site(name)
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    context.add_data_docs_site("docs", {
        "class_name": "SiteBuilder", "store_backend": backend, "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    })  # fmt: skip
    context.data_sources.add_pandas("lake")
    return context


def _validate_table(context: Any, table: Table, path: str, arms: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    rows, version = _read(path, table)
    done, broken = 0, []
    for name, frame, suite in _suites(table, rows, arms):
        results = _run(context, name, frame, suite)
        done += len(results)
        broken += [_failure(name, r) for r in results if not r.success]
    return {"rows": rows.num_rows, "version": version, "expectations": done, "failed": len(broken)}, broken


def _suites(table: Table, rows: pa.Table, arms: Sequence[str]) -> Iterator[tuple[str, pa.Table, list[Any]]]:
    """(name, frame, expectations); rows and facts are asked only of a table that has the contract's columns."""
    name = f"{table.layer}.{table.name}"
    yield f"{name}.schema", expectations.schema_rows(table, rows.schema), expectations.for_schema(table)
    if set(table.names) <= set(rows.column_names):
        yield name, rows, expectations.for_rows(table)
        facts = expectations.fact_rows(rows, arms)
        if facts is not None:
            yield f"{name}.propensities", facts, expectations.for_facts(facts, arms)


def _read(path: str, table: Table) -> tuple[pa.Table, int]:
    """The table's rows, floats that are not finite as null, and the Delta version read."""
    try:
        delta = DeltaTable(path, storage_options=delta_options())
    except TableNotFoundError as error:
        raise InputError(
            f"There is no Delta table {table.layer}.{table.name} at {path}; run the Spark jobs that write it first."
        ) from error
    rows = delta.to_pyarrow_table()
    for index, field in enumerate(rows.schema):
        if pa.types.is_floating(field.type):
            column = rows.column(index)
            rows = rows.set_column(index, field.name, pc.if_else(pc.is_finite(column), column, pa.scalar(None, field.type)))
    return rows, delta.version()


def _run(context: Any, name: str, frame: pa.Table, suite: list[Any]) -> list[Any]:
    """Results of one suite on one frame."""
    asset = context.data_sources.get("lake").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("whole")
    checked = context.suites.add(gx.ExpectationSuite(name=name, expectations=suite))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=checked))
    limits = {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES_SHOWN}
    run = definition.run(batch_parameters={"dataframe": _as_pandas(frame)}, result_format=limits)
    return list(run.results)


def _as_pandas(frame: pa.Table) -> pd.DataFrame:
    """Arrow-backed columns, which keep 1.5 M rows at a few hundred MB; columns of numbers without a null are numpy's.

    Great Expectations compares those with their limits at once, and calls a Python function for every row of others.
    """
    plain = {
        f.name: f.type.to_pandas_dtype()
        for f, c in zip(frame.schema, frame.columns, strict=True)
        if _is_number(f.type) and not c.null_count
    }
    return frame.to_pandas(types_mapper=pd.ArrowDtype).astype(plain)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _failure(name: str, result: Any) -> str:
    """'silver.purchases: expect_column_values_to_be_between (column sales_cents, min_value 0) failed for 3 of 10 rows, for example -5'."""
    config, found = result.expectation_config, result.result or {}
    given = ", ".join(f"{k} {v}" for k, v in config.kwargs.items() if k != "batch_id" and v is not None)
    text = f"{name}: {config.type} ({given}) failed"
    if "unexpected_count" in found:
        text += f" for {found['unexpected_count']:,} of {found['element_count']:,} rows"
        seen = dict.fromkeys(str(value) for value in found.get("partial_unexpected_list", []))
        return text + (f", for example {', '.join(seen)}" if seen else "")
    if "observed_value" in found:
        return f"{text}: found {found['observed_value']}"
    return f"{text}: {_exception(result.exception_info)}"


def _exception(info: dict[str, Any]) -> str:
    nested = info if "exception_message" in info else next(iter(info.values()), {})
    return str(nested.get("exception_message", "no details given")).splitlines()[0]


def _result(layer: str, tables: dict[str, Any]) -> dict[str, Any]:
    totals = {key: sum(t[key] for t in tables.values()) for key in ("expectations", "failed")}
    return {"layer": layer, **totals, "tables": tables}


def _sentence(failures: list[str], docs: Path) -> str:
    count = "1 expectation" if len(failures) == 1 else f"{len(failures)} expectations"
    return f"{count} failed. {'; '.join(failures)}. No later stage ran; the whole result is in {docs / 'index.html'}."
