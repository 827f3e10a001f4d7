"""Delta tables -> Feast's offline retrieval, read with deltalake.

Feast's DuckDB store reads Delta through a DuckDB extension that is downloaded at run time; images here download nothing. So this store
keeps Feast's own retrieval (its ibis functions on DuckDB) and only hands it a reader of its own.
"""

from typing import Any, ClassVar

import ibis
from deltalake import DeltaTable
from feast import FileSource
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.repo_config import FeastConfigBaseModel

from promolift.errors import InputError
from promolift.storage import delta_options


class DeltaOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """The store has no settings: a source carries its own path."""

    type: str = "feature_repo.delta_store.DeltaOfflineStore"


def read_source(source: DataSource, repo_path: str) -> Any:
    """The rows of a Delta file source as an ibis table. Raises InputError for a source of another format."""
    if not (isinstance(source, FileSource) and isinstance(source.file_format, DeltaFormat)):
        raise InputError(f"The source '{source.name}' is not a Delta table; this offline store reads nothing else.")
    return ibis.memtable(DeltaTable(source.path, storage_options=delta_options()).to_pyarrow_table())


def _refuse_to_write(table: Any, source: DataSource, repo_path: str, mode: str = "append", allow_overwrite: bool = False) -> None:
    raise InputError(f"The source '{source.name}' is written by the Spark jobs only.")


class DeltaOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Feast's ibis retrieval over Delta tables; read only."""

    _ACCESS: ClassVar[dict[str, Any]] = {"data_source_reader": read_source, "data_source_writer": _refuse_to_write}

    @staticmethod
    def pull_latest_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Latest row per entity in a time range."""
        return pull_latest_from_table_or_query_ibis(*args, **kwargs, **DeltaOfflineStore._ACCESS)

    @staticmethod
    def pull_all_from_table_or_query(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Every row in a time range."""
        return pull_all_from_table_or_query_ibis(*args, **kwargs, **DeltaOfflineStore._ACCESS)

    @staticmethod
    def get_historical_features(*args: Any, **kwargs: Any) -> RetrievalJob:
        """Features of each entity row as of its timestamp."""
        return get_historical_features_ibis(*args, **kwargs, **DeltaOfflineStore._ACCESS)
