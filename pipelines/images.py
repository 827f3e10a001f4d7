"""Dependency group -> its image's tag: a hash of the locked pins, and of the source that the image runs.

Both caches of KFP (local and server) look at the image's name only, so what changes a result must change the name. Committed pipelines
carry the pins' hash alone, which changes with uv.lock; `with_sources` adds the source's hash when a pipeline is run or submitted.
`build_images` makes the images under these names.
"""

import ast
import hashlib
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from packaging.markers import Marker

from components.interfaces import IMAGE

ROOT = Path(__file__).resolve().parent.parent
ENTRIES: dict[str, tuple[str, ...]] = {
    "spark": ("components.land_events", "components.sources", "components.run_spark", "spark_jobs"),
    "validate": ("components.validate_data",),
    "features": ("components.materialize_features", "feature_repo"),
    "train": (
        "components.train_uplift", "components.train_baselines", "components.evaluate_uplift", "components.measure_truth",
        "components.register_model", "components.fetch_champion", "components.stage_record", "components.promotion_entry",
        "components.write_dossier", "components.fit_detector", "serving/kserve/graph.yaml",
    ),
    "train-gpu": ("components.train_uplift", "components.stage_record"),
    "promote": ("components.promote", "components.watch_drift", "serving"),
    "serving": ("serving",),
    "online": ("serving",),
    "detector": ("serving.detector",),
    "drift": ("serving.detector",),
}  # fmt: skip
"""Modules that an image's stages start with (of a package, every file), and files by path. What they import is found from there."""
GPU = ("train-gpu",)
"""Images with CUDA's libraries, for a cluster's GPU nodes; on this machine the network trains in the image without."""
ON_REQUEST = (*GPU, "drift")
"""Images that nothing here runs unless somebody wants it: `drift` is `detector` with alibi-detect's tests and their licence."""
LENGTH = 12


def in_registry(name: str, registry: str) -> str:
    """The image's name as `registry` (HOST/PATH, "" for none) has it."""
    return f"{registry.rstrip('/')}/{name}" if registry else name


def with_pins(pipeline: str) -> str:
    """Pipeline YAML with each image tagged by its locked pins."""
    return _tagged(pipeline, pins_hash)


def without_gpus(pipeline: str) -> str:
    """Untagged pipeline YAML with the image of the same stages that asks for no GPU."""
    for group in GPU:
        pipeline = pipeline.replace(f"image: {IMAGE.format(group=group)}\n", f"image: {IMAGE.format(group=group.removesuffix('-gpu'))}\n")
    return pipeline


def with_sources(pipeline: str) -> str:
    """Pipeline YAML with each image tagged by its locked pins and its source."""
    return _tagged(pipeline, lambda group: f"{pins_hash(group)}-{source_hash(group)}")


def _tagged(pipeline: str, tag: Any) -> str:
    for group in ENTRIES:
        named = f"image: {IMAGE.format(group=group)}"
        if f"{named}\n" in pipeline:  # a tag costs a second: all that the group imports is read
            pipeline = pipeline.replace(f"{named}\n", f"{named}-{tag(group)}\n")
    return pipeline


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


@cache
def pins_hash(group: str) -> str:
    """Hash of every 'name==version' that uv.lock installs for `group`. Raises KeyError for a group that the lock does not have."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    own = next(p for p in packages if p["name"] == "promolift")
    environment = {"extra": f"group-9-promolift-{group}"}
    todo = [d for d in (*own["dependencies"], *own["dev-dependencies"][group]) if _applies(d, environment)]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        for package in _matching(packages, wanted):
            key = (f"{package['name']}=={package['version']}", ",".join(wanted.get("extra", ())))
            if key not in seen:
                seen.add(key)
                extras = (d for e in wanted.get("extra", ()) for d in package.get("optional-dependencies", {}).get(e, ()))
                todo += [d for d in (*package.get("dependencies", ()), *extras) if _applies(d, environment)]
    return _short("\n".join(sorted({pin for pin, _ in seen})))


def _applies(dependency: dict[str, Any], environment: dict[str, str]) -> bool:
    return "marker" not in dependency or Marker(dependency["marker"]).evaluate(environment)


def _matching(packages: list[dict[str, Any]], wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (p for p in packages if p["name"] == wanted["name"] and wanted.get("version", p.get("version")) == p.get("version"))


@cache
def source_hash(group: str) -> str:
    """Hash of the Dockerfile and of the files of this repository that the group's stages import, directly or not."""
    files = sorted({*source_files(group), ROOT / "Dockerfile"})
    return _short("\n".join(f"{f.relative_to(ROOT)} {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files))


def source_files(group: str) -> set[Path]:
    """Every file of this repository that the group's stages import, and the data files that lie beside them (scripts for Redis, pages)."""
    found: set[Path] = set()
    todo = [f for entry in ENTRIES[group] for f in _entry_files(entry)]
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += [] if file.suffix != ".py" else [f for name in _imports(file) for f in _module_files(name)]
    return found | {f for folder in {f.parent for f in found} for f in folder.iterdir() if f.is_file() and f.suffix not in {".py", ".pyc"}}


def _entry_files(entry: str) -> list[Path]:
    if "/" in entry:
        return [ROOT / entry]
    folder = ROOT / entry.replace(".", "/")
    if folder.is_dir():
        return [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    return _module_files(entry)


def _imports(file: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere in its text; of `from a import b` both a and a.b, since b may be a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_files(name: str) -> list[Path]:
    """The module's file and the __init__.py of each package above it; none for a module that is not ours."""
    parts = name.split(".")
    paths = [base / Path(*parts[:n]) for base in (ROOT, ROOT / "src") for n in range(1, len(parts) + 1)]
    return [f for path in paths for f in (path / "__init__.py", path.with_suffix(".py")) if f.is_file()]
