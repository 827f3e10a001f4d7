"""Every stage once: what it takes, what it gives, in which image; a body says where things lie and calls one plain module.

A table crosses as a URI below `root` (a folder, or s3a://bucket/prefix) with the Delta versions in the artifact's metadata; the
launcher copies nothing of a scheme that it does not know. Files that libraries want on this machine are `kept`: copied from S3 and back.
The image is named by its dependency group; pipelines.images adds the tag.
KFP reads the signatures: plain `str`, `int` and `bool` only, and what a `dsl.If` asks is the one unnamed output of its task.
"""
# mypy: disable-error-code="untyped-decorator"
# ruff: noqa: PLC0415, PLR0917 (a body travels alone, so its imports are inside; KFP passes every argument by keyword)

from functools import partial
from typing import Any

from kfp.dsl import Artifact, Dataset, Input, Model, Output, component

IMAGE = "promolift/{group}:python3.11"


def _stage(group: str) -> Any:
    """Decorator: a component in the image of `group`, which installs nothing when it starts."""
    return partial(component, base_image=IMAGE.format(group=group), install_kfp_package=False)


@_stage("spark")
def land_events(source: str, path: str, content: str, root: str, seed: int, landing: Output[Dataset]) -> bool:
    """Raw source -> landing files, and the truth of a simulated experiment; says whether there is one. `content` names path's bytes."""
    from components.land_events import land

    landing.uri, landing.metadata["landed"] = f"{root}/lake/landing", land(source, path, f"{root}/lake", f"{root}/truth", seed)
    return bool(landing.metadata["landed"]["has_truth"])


@_stage("spark")
def ingest_events(root: str, spark_on: str, landing: Input[Dataset], silver: Output[Dataset]) -> None:
    """Landing files -> bronze as received, silver deduplicated and conformed, quarantine."""
    from components.run_spark import run

    silver.uri, silver.metadata["written"] = f"{root}/lake/silver", run(["ingest_events"], f"{root}/lake", spark_on)


@_stage("spark")
def build_examples(root: str, spark_on: str, silver: Input[Dataset], gold: Output[Dataset]) -> None:
    """Silver -> exposures, point-in-time features and examples with closed labels, in one Spark session."""
    from components.run_spark import run

    jobs = ["build_exposures", "build_features", "build_examples"]
    gold.uri, gold.metadata["written"] = f"{root}/lake/gold", run(jobs, f"{root}/lake", spark_on)


@_stage("validate")
def validate_data(root: str, layer: str, tables: Input[Dataset], docs: Output[Artifact]) -> None:
    """A layer's tables -> data docs; fails when an expectation does."""
    from components.validate_data import validate
    from promolift.storage import kept

    docs.uri = f"{root}/docs/{layer}"
    with kept(root, f"docs/{layer}") as at:
        docs.metadata["result"] = validate(f"{root}/lake", layer, f"{at}/docs/{layer}")


@_stage("features")
def materialize_features(root: str, redis_url: str, gold: Input[Dataset], registry: Output[Artifact]) -> None:
    """Gold features -> the online store and Feast's registry."""
    from components.materialize_features import materialize
    from promolift.storage import kept

    registry.uri = f"{root}/registry.db"
    with kept(root, "registry.db", "redis") as at:
        registry.metadata["online"] = materialize(f"{root}/lake", redis_url, f"{at}/registry.db")


@_stage("train-gpu")
def train_uplift(
    root: str, seed: int, epochs: int, seeds: int, search_trials: int, search_seconds: int, mlflow_uri: str,
    gold: Input[Dataset], model: Output[Model],
) -> None:  # fmt: skip
    """Examples -> the Keras uplift model; 0 epochs: as many as it takes, 0 trials: no search of its parameters before."""
    from components.stage_record import recorded
    from components.train_uplift import searched, train
    from promolift.storage import kept

    model.uri, lake, budget = f"{root}/models/uplift_net", f"{root}/lake", (search_trials, search_seconds, mlflow_uri)
    with kept(root, "search", *(f"models/{part}uplift_net" for part in ("", "checkpoints/", "seeds/"))) as at:
        config = searched(lake, f"{at}/search", seed, budget) if search_trials else None
        trained = train(lake, f"{at}/models", seed, epochs or None, seeds=seeds, config=config)
    model.metadata["trained"] = recorded(root, "train-uplift", trained)


@_stage("train")
def train_baselines(
    root: str, seed: int, learners: str, seeds: int, search_trials: int, search_seconds: int, mlflow_uri: str,
    gold: Input[Dataset], models: Output[Model],
) -> None:  # fmt: skip
    """Examples -> LightGBM T-learner, response model and the named `learners` on the same split; 0 trials: no search before."""
    from components.stage_record import recorded
    from components.train_baselines import train
    from promolift.storage import kept

    models.uri = f"{root}/models/lightgbm"
    with kept(root, "models", "search") as at:
        trained = train(
            f"{root}/lake", f"{at}/models", seed, learners=learners, seeds=seeds,
            trials=search_trials, seconds=search_seconds, mlflow_uri=mlflow_uri,
        )  # fmt: skip
    models.metadata["trained"] = recorded(root, "train-baselines", trained)


@_stage("train")
def fetch_champion(root: str, mlflow_uri: str, model_name: str, uplift: Input[Model], baselines: Input[Model]) -> str:
    """The registry's champion -> its folder below `root`, or empty when there is none but the candidates themselves."""
    from components.fetch_champion import fetch
    from promolift.storage import kept

    with kept(root, "models", "champion") as at:
        return fetch(f"{at}/models", mlflow_uri, model_name, f"{at}/champion").removeprefix(f"{at}/")


@_stage("train")
def evaluate_uplift(
    root: str, seed: int, champion: str, uplift: Input[Model], baselines: Input[Model], evaluation: Output[Artifact]
) -> bool:
    """Candidates and test examples -> metrics, curves and the verdict; true when the gate lets the chosen one pass."""
    from components.evaluate_uplift import evaluate
    from promolift.storage import kept

    evaluation.uri = f"{root}/evaluation"
    with kept(root, "models", "champion", "evaluation") as at:
        return evaluate(f"{root}/lake", f"{at}/models", champion and f"{at}/{champion}", f"{at}/evaluation", seed)


@_stage("train")
def fit_detector(root: str, seed: int, evaluation: Input[Artifact], reference: Output[Artifact]) -> None:
    """The chosen candidate, examples and baskets -> what its traffic looks like without drift, beside the model."""
    from components.fit_detector import fit_chosen
    from components.stage_record import recorded
    from promolift.storage import kept

    reference.uri = f"{root}/evaluation/verdict.json"
    with kept(root, "models", "evaluation") as at:
        fitted = fit_chosen(f"{at}/models", f"{at}/evaluation", f"{root}/lake", seed)
    reference.metadata["fitted"] = recorded(root, "fit-detector", fitted)


@_stage("train")
def register_model(
    root: str, mlflow_uri: str, model_name: str, author: str,
    evaluation: Input[Artifact], reference: Input[Artifact], version: Output[Model],
) -> None:  # fmt: skip
    """The chosen candidate with its reference -> its dossier, a version in the registry, and its first entry in the trail."""
    from components.promotion_entry import enter
    from components.register_model import register
    from components.stage_record import recorded
    from components.write_dossier import write
    from promolift.storage import kept

    version.uri, lake = f"{root}/evaluation/verdict.json", f"{root}/lake"
    with kept(root, "models", "evaluation", "dossier") as at:
        models, judged, dossier = (f"{at}/{part}" for part in ("models", "evaluation", "dossier"))
        write(models, judged, lake, dossier, author)
        registered = register(models, judged, lake, mlflow_uri, model_name, dossier=dossier, author=author)
        enter(lake, registered, dossier)
    version.metadata["version"] = recorded(root, "register-model", registered)


@_stage("promote")
def watch_drift(root: str, served: str, detector: str, policy: str, at: str, cause: Output[Artifact]) -> bool:
    """The detector's looks at the champion, its labels and its age -> whether a training begins, for which cause."""
    from components.watch_drift import decide

    decided = decide(served, detector, policy, root, at)
    cause.uri, cause.metadata["decided"] = f"{served}/lake/serving/retrainings", decided
    return bool(decided["due"])


@_stage("promote")
def link_retraining(root: str, served: str, registered: bool, cause: Input[Artifact], after: Input[Artifact]) -> None:
    """What came of a training -> the row beside its cause."""
    from components.watch_drift import link
    from promolift.storage import kept

    with kept(root, "models", "evaluation", "dossier") as at:
        link(served, cause.metadata["decided"]["cause"], root, at, registered=registered)


@_stage("promote")
def promote_version(
    folder: str, mlflow_uri: str, model_name: str, version: str, stage: str, guardrails: str, patience_s: int, context: str
) -> bool:  # fmt: skip
    """An approved version -> the stage, its share of shoppers probed and its guardrails watched; true when it may go on."""
    from components.promote import promotion

    about = (folder, mlflow_uri, model_name, version)
    return promotion(*about, guardrails=guardrails, patience_s=patience_s, context=context).advance(stage)


@_stage("train")
def measure_truth(root: str, landing: Input[Dataset], evaluation: Input[Artifact], report: Output[Artifact]) -> None:
    """Known uplift of a simulated experiment -> how near the models came; nothing that trains or judges reads it."""
    from components.measure_truth import measure
    from components.stage_record import recorded
    from promolift.storage import kept

    report.uri = f"{root}/measured_truth"
    with kept(root, "models", "measured_truth") as at:
        measured = measure(f"{root}/truth", f"{root}/lake", f"{at}/models", f"{at}/measured_truth")
    report.metadata["measured"] = recorded(root, "measure-truth", measured)
