"""pipelines/*.py -> pipelines/compiled/*.yaml, the form that a cluster takes; a run compiles the same text again."""

import tempfile
from importlib import import_module
from pathlib import Path

from kfp import compiler

from pipelines.images import with_pins
from promolift.errors import ExpectationError

FOLDER = Path(__file__).with_name("compiled")
PIPELINES = ("dataset", "training", "promotion", "monitoring")
"""Each the function of its name in the module of its name, which KFP builds when it is imported: seconds for every one of them."""


def compiled(name: str) -> str:
    """YAML of the pipeline `name`, its images without tags. The same source gives the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(getattr(import_module(f"pipelines.{name}"), name), str(path))
        return path.read_text(encoding="utf-8")


def write_all() -> list[Path]:
    """Rewrite every committed file; returns their paths."""
    FOLDER.mkdir(exist_ok=True)
    paths = [FOLDER / f"{name}.yaml" for name in PIPELINES]
    for path in paths:
        path.write_text(with_pins(compiled(path.stem)), encoding="utf-8")
    return paths


def check_all() -> None:
    """Raise ExpectationError naming the committed files that are not what the source compiles to."""
    paths = {FOLDER / f"{name}.yaml": with_pins(compiled(name)) for name in PIPELINES}
    stale = [path.name for path, text in paths.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if stale:
        raise ExpectationError(
            f"pipelines/compiled/{', '.join(stale)} is not what the source compiles to; run `make compile` and commit it."
        )
