"""Raw source -> validated examples and features online: the first half of training, and a pipeline of its own."""
# mypy: disable-error-code="untyped-decorator"

from typing import Any

from kfp import dsl

from components import interfaces as stages
from pipelines.profiles import sized, with_redis


def add_dataset(*, source: Any, path: Any, content: Any, root: Any, seed: Any, redis_url: Any, spark_on: Any) -> tuple[Any, Any, Any]:
    """Add the tasks to the pipeline being built; returns the tasks that landed, that wrote gold, and that validated the examples last."""
    landed = sized(stages.land_events(source=source, path=path, content=content, root=root, seed=seed), "small")
    ingested = sized(stages.ingest_events(root=root, spark_on=spark_on, landing=landed.outputs["landing"]), "spark")
    silver_checked = _validated("silver", root, ingested.outputs["silver"])
    gold = sized(stages.build_examples(root=root, spark_on=spark_on, silver=ingested.outputs["silver"]), "spark").after(silver_checked)
    gold_checked = _validated("gold", root, gold.outputs["gold"])
    examples_checked = _validated("training", root, gold.outputs["gold"]).after(gold_checked)
    online = sized(stages.materialize_features(root=root, redis_url=redis_url, gold=gold.outputs["gold"]), "small").after(gold_checked)
    with_redis(online)
    online.set_caching_options(False)  # a Redis may have lost what an earlier run wrote
    return landed, gold, examples_checked


def _validated(layer: str, root: Any, tables: Any) -> Any:
    return sized(stages.validate_data(root=root, layer=layer, tables=tables), "small").set_display_name(f"validate-{layer}")


@dsl.pipeline(name="promolift-dataset", description="Raw retail events -> validated point-in-time examples, features online.")
def dataset(  # noqa: PLR0917 (KFP passes them by keyword)
    source: str, root: str, path: str = "", content: str = "", seed: int = 1, redis_url: str = "", spark_on: str = "here"
) -> None:
    """`root`: where everything is written; `content`: what identifies the input's bytes; see `python -m pipelines.run --help`."""
    add_dataset(source=source, path=path, content=content, root=root, seed=seed, redis_url=redis_url, spark_on=spark_on)
