"""The committed pipelines: up to date, and fit for a cluster by rules that are read from the file itself."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import compiled, images
from promolift.errors import ExpectationError

FILES = sorted(compiled.FOLDER.glob("*.yaml"))


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for dag in [spec["root"], *spec["components"].values()]:
        yield from dag.get("dag", {}).get("tasks", {}).values()


def test_committed_files_are_what_the_source_compiles_to():
    compiled.check_all()
    assert [f.stem for f in FILES] == sorted(compiled.PIPELINES)


def test_a_stale_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    compiled.write_all()
    compiled.check_all()
    (tmp_path / "training.yaml").write_text("old")
    with pytest.raises(ExpectationError, match=r"pipelines/compiled/training\.yaml is not what the source compiles to"):
        compiled.check_all()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_images_are_tagged_by_hash_and_install_nothing(path: Path):
    spec, _ = documents(path)
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert re.fullmatch(r"promolift/[a-z-]+:python3\.11-[0-9a-f]{12}", container["image"]), container["image"]
        assert "pip" not in " ".join(container["command"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_task_has_memory_retries_and_a_timeout_and_a_gpu_task_a_toleration(path: Path):
    spec, platform = documents(path)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        resources = executor["container"]["resources"]
        assert resources["resourceMemoryLimit"], name
        assert int(platform[name]["activeDeadlineSeconds"]) > 0, name
        if "accelerator" in resources:
            assert executor["container"]["image"].startswith("promolift/train-gpu:"), name
            assert platform[name]["tolerations"] == [{"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}]
    stages = [t for t in tasks(spec) if not t["componentRef"]["name"].startswith("comp-condition")]
    assert all(t["retryPolicy"]["maxRetryCount"] > 0 for t in stages)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_conditions_ask_single_unnamed_outputs_only(path: Path):
    # A condition on a named output is silently false in a local run of KFP 2.17.
    spec, _ = documents(path)
    conditions = [t["triggerPolicy"]["condition"] for t in tasks(spec) if "triggerPolicy" in t and "condition" in t["triggerPolicy"]]
    assert len(conditions) == {"training": 2, "promotion": 3, "monitoring": 4}.get(path.stem, 0)
    assert all(re.fullmatch(r"inputs\.parameter_values\['pipelinechannel--[\w-]+-Output'\] == (true|false)", c) for c in conditions), (
        conditions
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_no_artifact_is_left_where_the_launcher_would_copy_it(path: Path):
    # An output keeps the place that the launcher chose, and is copied from there, unless its stage names another one.
    spec, _ = documents(path)
    for component in (c for c in spec["components"].values() if "executorLabel" in c):
        body = "\n".join(spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["command"])
        for name in component.get("outputDefinitions", {}).get("artifacts", {}):
            assert re.search(rf"\b{name}\.uri\b[^=\n]*= f\"{{(root|served)}}/", body), (component["executorLabel"], name)


def test_training_reads_no_truth():
    spec, _ = documents(compiled.FOLDER / "training.yaml")
    bodies = {n: "\n".join(e["container"]["command"]) for n, e in spec["deploymentSpec"]["executors"].items()}
    assert {n for n, body in bodies.items() if "/truth" in body} == {"exec-land-events", "exec-measure-truth"}


def test_every_stage_imports_what_its_image_carries():
    spec, _ = documents(compiled.FOLDER / "training.yaml")
    for name, executor in spec["deploymentSpec"]["executors"].items():
        modules = re.findall(r"from ((?:components|promolift)[.\w]+) import", "\n".join(executor["container"]["command"]))
        group = re.match(r"promolift/([a-z-]+):", executor["container"]["image"])
        assert modules and group, name
        carried = {str(file.relative_to(images.ROOT)).removeprefix("src/") for file in images.source_files(group[1])}
        assert {f"{module.replace('.', '/')}.py" for module in modules} <= carried, name


def test_an_images_tag_follows_its_dockerfile_and_the_source_that_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for file in images.source_files("validate"):
        copy = tmp_path / file.relative_to(images.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (tmp_path / "Dockerfile").write_text("FROM base\n")
    monkeypatch.setattr(images, "ROOT", tmp_path)
    hashed = images.source_hash.__wrapped__
    before = hashed("validate")
    (tmp_path / "Dockerfile").write_text("FROM other\n")
    assert hashed("validate") != before
    (tmp_path / "Dockerfile").write_text("FROM base\n")
    (tmp_path / "components" / "unrelated.py").write_text("x = 1\n")
    assert hashed("validate") == before
    tables = tmp_path / "src/promolift/contracts/tables.py"
    tables.write_text(tables.read_text() + "\nMORE = 1\n")
    assert hashed("validate") != before


def test_an_images_pins_are_its_groups_own():
    hashes = {group: images.pins_hash(group) for group in images.ENTRIES}
    assert len(set(hashes.values())) == len(hashes)
    text = compiled.compiled("training")
    assert f"promolift/train:python3.11-{hashes['train']}\n" in images.with_pins(text)
    assert f"promolift/train:python3.11-{hashes['train']}-{images.source_hash('train')}\n" in images.with_sources(text)


def test_on_a_machine_without_a_gpu_the_network_trains_in_the_image_without_cuda():
    text = images.with_sources(images.without_gpus(compiled.compiled("training")))
    assert "promolift/train-gpu" not in text and text.count("image: promolift/train:") == 7
