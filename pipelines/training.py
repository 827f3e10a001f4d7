"""Raw source -> data set -> candidates -> verdict -> registered version: the pipeline that `make demo` and a cluster both run."""
# mypy: disable-error-code="untyped-decorator"

from typing import Any

from kfp import dsl

from components import interfaces as stages
from pipelines.dataset import add_dataset
from pipelines.profiles import sized


def add_training(
    *, source: Any, root: Any, mlflow_uri: Any, path: Any, content: Any, seed: Any, epochs: Any, learners: Any, seeds: Any,
    search_trials: Any, search_seconds: Any, redis_url: Any, spark_on: Any, model_name: Any, author: Any,
    linked: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Add the tasks to the pipeline being built. `linked`: `served` and `cause` of a retraining, whose outcome is then noted beside it."""
    effort = {"seeds": seeds, "search_trials": search_trials, "search_seconds": search_seconds, "mlflow_uri": mlflow_uri}
    landed, gold, checked = add_dataset(
        source=source, path=path, content=content, root=root, seed=seed, redis_url=redis_url, spark_on=spark_on
    )
    examples = gold.outputs["gold"]
    uplift = sized(stages.train_uplift(root=root, seed=seed, epochs=epochs, gold=examples, **effort), "train-gpu").after(checked)
    baselines = sized(stages.train_baselines(root=root, seed=seed, learners=learners, gold=examples, **effort), "train").after(checked)
    candidates = {"uplift": uplift.outputs["model"], "baselines": baselines.outputs["models"]}
    champion = sized(stages.fetch_champion(root=root, mlflow_uri=mlflow_uri, model_name=model_name, **candidates), "small")
    champion.set_caching_options(False)  # the registry may have another champion since
    judged = sized(stages.evaluate_uplift(root=root, seed=seed, champion=champion.output, **candidates), "train")
    evaluation = judged.outputs["evaluation"]
    with dsl.If(landed.outputs["Output"] == True, name="has-truth"):  # noqa: E712 (KFP builds the condition from ==)
        sized(stages.measure_truth(root=root, landing=landed.outputs["landing"], evaluation=evaluation), "small")
    with dsl.If(judged.outputs["Output"] == True, name="gate-passed"):  # noqa: E712
        reference = sized(stages.fit_detector(root=root, seed=seed, evaluation=evaluation), "train").outputs["reference"]
        about = {"mlflow_uri": mlflow_uri, "model_name": model_name, "author": author}
        registered = sized(stages.register_model(root=root, evaluation=evaluation, reference=reference, **about), "small")
        if linked:
            sized(stages.link_retraining(root=root, registered=True, after=registered.outputs["version"], **linked), "small")
    if linked:
        with dsl.If(judged.outputs["Output"] == False, name="gate-refused"):  # noqa: E712
            sized(stages.link_retraining(root=root, registered=False, after=evaluation, **linked), "small")


@dsl.pipeline(name="promolift-training", description="Raw retail events -> uplift models -> gate -> registered version.")
def training(  # noqa: PLR0917 (KFP passes them by keyword)
    source: str,
    root: str,
    mlflow_uri: str,
    path: str = "",
    content: str = "",
    seed: int = 1,
    epochs: int = 0,
    learners: str = "",
    seeds: int = 1,
    search_trials: int = 0,
    search_seconds: int = 600,
    redis_url: str = "",
    spark_on: str = "here",
    model_name: str = "promolift-uplift",
    author: str = "unknown",
) -> None:
    """Parameters not named here are those of `dataset`.

    `epochs` 0: as many as it takes; `learners`: names beyond the usual candidates, with commas between; `seeds`: times that each is
    trained; `search_trials` 0: no search of parameters before; `mlflow_uri`: where versions are kept, the champion
    among them; `author`: who trains, and therefore may not approve.
    """
    add_training(
        source=source, root=root, mlflow_uri=mlflow_uri, path=path, content=content, seed=seed, epochs=epochs, learners=learners,
        seeds=seeds, search_trials=search_trials, search_seconds=search_seconds, redis_url=redis_url, spark_on=spark_on,
        model_name=model_name, author=author,
    )  # fmt: skip
