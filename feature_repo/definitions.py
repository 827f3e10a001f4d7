"""contracts.features -> Feast's entity, source, view and service; adding a feature to the list adds it here."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Float32, String

from promolift.contracts.features import ATTRIBUTES, NUMERIC, features_hash
from promolift.contracts.tables import FEATURES

VIEW = SERVICE = "shopper_features"
NO_EXPIRY = timedelta(0)
"""A row counts however old it is; its age follows from its moment and is judged by the reader."""


def shopper() -> Entity:
    """The one entity: whom a decision is about."""
    return Entity(name="shopper_id", join_keys=["shopper_id"], value_type=ValueType.STRING, description="Who is decided for.")


def fields() -> list[Field]:
    """Every feature in the order of the contract: numeric ones, then attributes."""
    numeric = [Field(name=f.name, dtype=Float32, description=repr(f)) for f in NUMERIC]
    return [*numeric, *(Field(name=f.name, dtype=String, description=repr(f)) for f in ATTRIBUTES)]


def view(lake: Path) -> FeatureView:
    """Point-in-time features of the gold table of `lake`."""
    path = (lake / FEATURES.path).as_posix()
    source = FileSource(name="gold_features", path=path, timestamp_field="moment", file_format=DeltaFormat())
    return FeatureView(name=VIEW, entities=[shopper()], schema=fields(), source=source, ttl=NO_EXPIRY, description=FEATURES.doc)


def service(features: FeatureView) -> FeatureService:
    """What models are trained on and served with; its tag says which definitions."""
    return FeatureService(name=SERVICE, features=[features], tags={"features_hash": features_hash()})
