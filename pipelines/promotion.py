"""An approved version -> shadow, 10 %, 50 %, champion: each stage a task, the next one only where the one before says so.

A server of pipelines has no step that waits for a person (notes: kfp.md 4), so the person's decision is a record that each task reads: an
approval lets it move, a pause holds it, an order to roll back is carried out at the next look. A run that ends early is submitted again
and goes on where the trail says.
"""
# mypy: disable-error-code="untyped-decorator"

from kfp import dsl

from components import interfaces as stages
from pipelines.profiles import sized


def _stage(name: str, about: dict[str, object]) -> dsl.PipelineTask:
    task = sized(stages.promote_version(stage=name, **about), "small")
    task.set_caching_options(False)  # the world has gone on since
    task.set_display_name(f"promote-to-{name.replace('_', '-')}")
    return task


@dsl.pipeline(name="promolift-promotion", description="Approved version -> shadow -> canary -> champion, or back.")
def promotion(  # noqa: PLR0917 (KFP passes them by keyword)
    folder: str,
    mlflow_uri: str,
    version: str,
    model_name: str = "promolift-uplift",
    guardrails: str = "",
    patience_s: int = 0,
    context: str = "",
) -> None:
    """`folder`: the served run; `context`: kube context where it is deployed, empty: what serves it on this machine.

    `guardrails`: a file instead of the shipped limits; `patience_s`: watch a stage so long, 0: to its end.
    """
    about = {
        "folder": folder, "mlflow_uri": mlflow_uri, "version": version, "model_name": model_name, "guardrails": guardrails,
        "patience_s": patience_s, "context": context,
    }  # fmt: skip
    shadow = _stage("shadow", about)
    with dsl.If(shadow.output == True, name="shadow-passed"):  # noqa: E712 (KFP builds the condition from ==)
        tenth = _stage("canary_10", about)
        with dsl.If(tenth.output == True, name="canary-10-passed"):  # noqa: E712
            half = _stage("canary_50", about)
            with dsl.If(half.output == True, name="canary-50-passed"):  # noqa: E712
                _stage("champion", about)
