"""What the drift detector says of the champion, labels and age -> a training where one is due, its outcome linked to the cause.

Submit it on a schedule, a day apart. It decides by the table of retrainings: an alarm that is seen again tomorrow is the same cause.
"""
# mypy: disable-error-code="untyped-decorator"

from kfp import dsl

from components import interfaces as stages
from pipelines.profiles import sized
from pipelines.training import add_training


@dsl.pipeline(name="promolift-monitoring", description="Drift, labels, age -> a training that the gate judges, linked to its cause.")
def monitoring(  # noqa: PLR0917 (KFP passes them by keyword)
    served: str,
    source: str,
    root: str,
    mlflow_uri: str,
    detector: str = "",
    policy: str = "",
    at: str = "",
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
    """`served`: the served run; `detector`: its URL, empty for none; `policy`: a file instead of the shipped one; `at`: now, for replays.

    The others are those of `training`, for the run that begins where one is due, in a root of its own.
    """
    watched = sized(stages.watch_drift(root=root, served=served, detector=detector, policy=policy, at=at), "small")
    watched.set_caching_options(False)  # the world has gone on since
    with dsl.If(watched.outputs["Output"] == True, name="retraining-due"):  # noqa: E712 (KFP builds the condition from ==)
        add_training(
            source=source, root=root, mlflow_uri=mlflow_uri, path=path, content=content, seed=seed, epochs=epochs, learners=learners,
            seeds=seeds, search_trials=search_trials, search_seconds=search_seconds, redis_url=redis_url, spark_on=spark_on,
            model_name=model_name, author=author, linked={"served": served, "cause": watched.outputs["cause"]},
        )  # fmt: skip
