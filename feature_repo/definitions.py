"""contracts.features -> Feast's entity, source, view and service; adding a feature to the list adds it here."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Float32, String

from promolift.contracts.features import FeatureSet
from promolift.contracts.tables import FEATURES

VIEW = SERVICE = "shopper_features"
DEFAULT = "default"
NO_EXPIRY = timedelta(0)
"""A row counts however old it is; its age follows from its moment and is judged by the reader."""


def shopper() -> Entity:
    """The one entity: whom a decision is about."""
    return Entity(name="shopper_id", join_keys=["shopper_id"], value_type=ValueType.STRING, description="Who is decided for.")


def fields(features: FeatureSet) -> list[Field]:
    """Every feature in the order of the contract: numeric ones, then attributes. A tag says what stands for a missing value."""
    typed = [*((f, Float32) for f in features.numeric), *((f, String) for f in features.attributes)]
    return [Field(name=f.name, dtype=kind, description=repr(f), tags={DEFAULT: str(f.default)}) for f, kind in typed]


def view(lake: str, features: FeatureSet) -> FeatureView:
    """Point-in-time features of the gold table of `lake`."""
    path = f"{lake}/{FEATURES.path}"
    source = FileSource(name="gold_features", path=path, timestamp_field="moment", file_format=DeltaFormat())
    return FeatureView(name=VIEW, entities=[shopper()], schema=fields(features), source=source, ttl=NO_EXPIRY, description=FEATURES.doc)


def service(served: FeatureView, features: FeatureSet) -> FeatureService:
    """What models are trained on and served with; its tag says which definitions."""
    return FeatureService(name=SERVICE, features=[served], tags={"features_hash": features.hash})
