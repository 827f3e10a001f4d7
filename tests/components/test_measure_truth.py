"""The truth is out of reach: only landing writes it and only measure_truth reads it, and what that stage says of it is right."""

import ast
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.measure_truth import SERVED, bound_coverage, measure, spearman
from promolift.contracts.artifacts import CANDIDATES, ModelManifest, write_json
from promolift.errors import InputError
from promolift.settings import Settings
from promolift.uplift.value import Prediction
from tests.components.synthetic_examples import CARD, effects, rows_of, write_lake

ROOT = Path(__file__).parents[2]
ROOMS = ("components", "spark_jobs", "feature_repo", "serving", "src/promolift")
ALLOWED = (
    "components/land_events.py",
    "components/measure_truth.py",
    "components/sources/",
    "src/promolift/simulate.py",
    "src/promolift/contracts/",
)
STAGES = {"components/interfaces.py": {"land_events", "measure_truth"}}
"""The one file that hands the truth's place on, and the two stages of it that may."""
ROWS = 3_000


def where_named(path: Path) -> set[str]:
    return set(mentions(ast.parse(path.read_text(encoding="utf-8"))))


def test_no_other_module_names_the_truth():
    files = {path.relative_to(ROOT).as_posix(): path for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    named = {name: where_named(path) for name, path in files.items()}
    assert {name: where for name, where in named.items() if where and not name.startswith(ALLOWED)} == STAGES
    assert all(any(where for name, where in named.items() if name.startswith(place)) for place in ALLOWED)


def test_every_module_that_trains_judges_or_serves_is_looked_at():
    for name in (
        "components/train_uplift.py",
        "components/evaluate_uplift.py",
        "spark_jobs/build_features.py",
        "serving/kserve/predictor.py",
    ):
        assert name.startswith(ROOMS) and not name.startswith(ALLOWED) and (ROOT / name).is_file()


@pytest.mark.slow
def test_training_and_the_gate_give_the_same_without_the_truth(tmp_path: Path):
    from components.evaluate_uplift import evaluate
    from components.train_baselines import train

    digests = []
    for run in (tmp_path / "with", tmp_path / "without"):
        lake, models = write_lake(run / "lake", rows=ROWS), run / "models"
        if run.name == "with":
            write_truth(run / "truth", *effects(rows_of(0, ROWS)))
        train(str(lake), str(models), 1)
        shutil.copytree(models / "lightgbm", models / "uplift_net")
        evaluate(str(lake), str(models), "", str(run / "evaluation"), 1)
        written = [models / "lightgbm" / "model.tflite", models / "lightgbm" / "scores.parquet", run / "evaluation" / "metrics.json"]
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in written])
    assert digests[0] == digests[1]


def test_the_finder_sees_names_strings_and_imports():
    source = "from components.measure_truth import measure\ndef train(x):\n    return open(f'{x}/truth'), x.has_truth\n"
    assert sorted(mentions(ast.parse(source))) == ["module", "train", "train"]
    assert not list(mentions(ast.parse('"""The truth in a docstring."""\ndef f() -> None:\n    """Truth."""\n')))


def mentions(tree: ast.Module) -> Iterator[str]:
    """The top-level function (or "module") of every identifier, import or string that holds the word."""
    for statement in tree.body:
        where = statement.name if isinstance(statement, ast.FunctionDef | ast.ClassDef) else "module"
        skipped = {id(node.value) for node in ast.walk(statement) if isinstance(node, ast.Expr)}
        yield from (where for node in ast.walk(statement) if id(node) not in skipped and "truth" in text_of(node).lower())


def text_of(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)) | ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
            return text
        case ast.ImportFrom(module=module, names=names):
            return " ".join([module or "", *(alias.name for alias in names)])
        case ast.Import(names=names):
            return " ".join(alias.name for alias in names)
    return ""


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_spearman_agrees_with_scipy(seed: int):
    stats = pytest.importorskip("scipy.stats")
    one, two = np.random.default_rng(seed).integers(0, 6, (2, 30)).astype(float)
    assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic)


def test_a_constant_has_no_rank_correlation():
    assert spearman(np.ones(5), np.arange(5.0)) is None


Table = NDArray[np.float64]
World = tuple[Path, Table, Table, Table]


def write_truth(path: Path, margin: Table, cost: Table) -> None:
    """Profit and cost of each promo for every exposure, promo by promo and in another order than the examples."""
    ids = np.array([f"e{i:06d}" for i in range(ROWS)])[::-1]
    parts = [
        pa.table({
            "exposure_id": ids, "promo_id": [promo.promo_id] * ROWS, "profit_cents": (margin - cost)[::-1, k], "cost_cents": cost[::-1, k],
        })
        for k, promo in enumerate(CARD.promos)
    ]  # fmt: skip
    write_deltalake(path, pa.concat_tables(parts), mode="overwrite")


def write_model(folder: Path, value: Table, cost: Table, bound: dict[str, tuple[tuple[float, float], ...]]) -> None:
    folder.mkdir(parents=True)
    columns = {f"{kind}_{p.promo_id}": table[:, k] for kind, table in (("value", value), ("cost", cost)) for k, p in enumerate(CARD.promos)}
    pq.write_table(pa.table({"exposure_id": [f"e{i:06d}" for i in range(ROWS)], **columns}), folder / "scores.parquet")
    write_json(folder / "manifest.json", ModelManifest(folder.name, "", "", (), (), {}, CARD.promos, "profit", bound, {}, 1, "now"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A network that knows every effect, a LightGBM that confuses the promos, a response model that knows nothing; and the noisy scores.

    The bound of the network is its score; that of LightGBM forbids the second promo whatever its score.
    """
    folder = tmp_path_factory.mktemp("truth")
    write_lake(folder / "lake", rows=ROWS)
    margin, cost = effects(rows_of(0, ROWS))
    write_truth(folder / "truth", margin, cost)
    noisy = margin - cost + np.random.default_rng(3).normal(0, 80, margin.shape)
    same = ((-1e4, -1e4), (1e4, 1e4))
    own, second = {p.promo_id: same for p in CARD.promos}, CARD.promos[1].promo_id
    for name, value, bound in zip(
        CANDIDATES, (margin - cost, noisy, np.ones_like(cost)), (own, {**own, second: ((0.0, -1e6),)}, own), strict=True
    ):
        write_model(folder / "models" / name, value, cost, bound)
    return folder, margin - cost, cost, noisy


def measured(world: World, out: Path) -> dict[str, Any]:
    folder = world[0]
    return measure(str(folder / "truth"), str(folder / "lake"), str(folder / "models"), str(out))


def judged_rows() -> NDArray[np.bool_]:
    columns = rows_of(0, ROWS)
    return np.asarray((columns["split"] == "test") & (columns["bucket"] != "holdout"))


def test_whoever_knows_every_effect_is_the_oracle_where_the_budget_is_enough(world: World, tmp_path: Path):
    _, profit, cost, _ = world
    found, rows = measured(world, tmp_path), judged_rows()
    best = profit[rows].argmax(axis=1)
    given = profit[rows].max(axis=1) > 0
    spend = np.where(given, cost[rows][np.arange(rows.sum()), best], 0).mean()
    assert found["decisions"] == rows.sum() and spend < CARD.budget_cents
    network = found["models"]["uplift_net"]
    assert network["profit"] == pytest.approx(np.maximum(profit[rows].max(axis=1), 0).mean())
    assert (network["spend"], network["given"]) == (pytest.approx(spend), pytest.approx(given.mean()))
    assert network["share_of_oracle"] == network["rank_correlation"]["all"] == pytest.approx(1.0)
    assert found["oracle"] == {name: network[name] for name in ("profit", "spend", "given")}
    assert (
        network["share_of_lightgbm"] == pytest.approx(network["profit"] / found["models"]["lightgbm"]["profit"])
        and network["share_of_lightgbm"] > 1
    )
    assert found["models"]["response"]["rank_correlation"]["all"] is None
    for k, promo in enumerate(CARD.promos):
        assert found["single_promos"][promo.promo_id]["profit_to_everybody"] == pytest.approx(profit[rows, k].mean())
    assert json.loads((tmp_path / "truth.json").read_text()) == found


def test_the_served_rule_gives_nothing_below_the_bound_and_has_no_budget(world: World, tmp_path: Path):
    _, profit, cost, noisy = world
    found, rows = measured(world, tmp_path)["models"], judged_rows()
    assert found["uplift_net"]["served"] == {name: found["uplift_net"][name] for name in ("profit", "spend", "given", "share_of_oracle")}

    allowed = noisy[rows].copy()
    allowed[:, 1] = -np.inf
    given, best = allowed.max(axis=1) > 0, allowed.argmax(axis=1)
    at = np.arange(rows.sum()), best
    served = found["lightgbm"]["served"]
    assert served["profit"] == pytest.approx(np.where(given, profit[rows][at], 0).mean())
    assert served["spend"] == pytest.approx(np.where(given, cost[rows][at], 0).mean())
    assert 0 < served["share_of_oracle"] < 1


def test_the_served_rule_is_the_default_of_the_settings():
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert (SERVED.lambda_cost, SERVED.do_no_harm) == (defaults["lambda_cost"], defaults["do_no_harm"])


def test_a_truth_that_lacks_decisions_or_is_not_there_is_a_sentence(world: World, tmp_path: Path):
    folder = world[0]
    with pytest.raises(InputError, match=r"^No truth at '.*/none' .*; only simulated sources have one\.$"):
        measure(str(folder / "none"), str(folder / "lake"), str(folder / "models"), str(tmp_path))
    short = DeltaTable(str(folder / "truth")).to_pyarrow_table()
    kept = [not name.endswith("7") for name in short["exposure_id"].to_pylist()]
    write_deltalake(tmp_path / "truth", short.filter(pa.array(kept)))
    lost = int(judged_rows()[7::10].sum())
    with pytest.raises(InputError, match=rf"^The truth of promo 'meat_20' lacks {lost} of {judged_rows().sum()} test decisions"):
        measure(str(tmp_path / "truth"), str(folder / "lake"), str(folder / "models"), str(tmp_path))
    assert not (tmp_path / "truth.json").exists()


def test_a_missing_lake_is_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match="nothing was landed in this lake"):
        measure(str(tmp_path / "truth"), str(tmp_path / "lake"), str(tmp_path), str(tmp_path))


def test_coverage_of_the_harm_bound_by_hand():
    """Ten pairs of one promo, a bound of 0 everywhere: the truth of the three lowest scores lies below it."""
    value = np.arange(10.0)[:, None]
    known = Prediction(np.where(value < 3, -1.0, 2.0), np.zeros((10, 1)))
    manifest = ModelManifest("m", "", "", (), (), {}, (), "profit", {"one": ((0.0, 0.0), (9.0, 0.0))}, {}, 1, "")
    found = bound_coverage(Prediction(value, np.zeros((10, 1))), manifest, known, ("one",))
    assert found == {"cells_above": 0.7, "cells": 10, "pairs_above": 0.7}
