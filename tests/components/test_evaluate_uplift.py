"""The gate's stage on a small Delta table made from the contract's columns, with candidates whose worth is known."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from components.evaluate_uplift import evaluate
from promolift.contracts.artifacts import CANDIDATES, ModelManifest, read_verdict, write_json
from promolift.contracts.features import ATTRIBUTE_NAMES, NUMERIC_NAMES, RETAIL
from promolift.contracts.promos import Promo, SourceCard
from promolift.contracts.tables import EXAMPLES, TRUTH
from promolift.errors import InputError

PROMOS = (Promo("deep", "meat", 0.3, 500), Promo("light", "bakery", 0.1, 200))
ROWS, SHOPPERS = 9000, 3000


def make_world(folder: Path) -> dict[str, Any]:
    """A lake with gold/examples, the truth beside it, and the candidates: a good network, a fair LightGBM, a response model."""
    rng = np.random.default_rng(11)
    shopper = np.arange(ROWS) % SHOPPERS
    numeric = rng.uniform(0, 1, (ROWS, len(NUMERIC_NAMES))).astype(np.float32)
    x, y, z = numeric[:, 0], numeric[:, 1], numeric[:, 2]
    cost = np.column_stack([np.full(ROWS, 60.0), np.full(ROWS, 25.0)])
    effect = np.column_stack([800 * (x - 0.55), 600 * (y - 0.6)])
    base = 2000 + 1500 * z
    held_out = shopper % 10 == 0
    table = np.where(held_out[:, None], [1.0, 0, 0], np.where((z > 0.5)[:, None], [0.4, 0.3, 0.3], [0.34, 0.33, 0.33]))
    arm = (rng.uniform(size=ROWS)[:, None] > np.cumsum(table, axis=1)[:, :2]).sum(axis=1)
    arm[held_out] = 0
    paid = np.column_stack([np.zeros(ROWS), cost])[np.arange(ROWS), arm]
    margin = base + np.column_stack([np.zeros(ROWS), effect + cost])[np.arange(ROWS), arm] + 300 * rng.normal(size=ROWS)
    split = np.array(["train", "validation", "test"])[np.searchsorted([0.4, 0.6], (shopper * 7919 % SHOPPERS) / SHOPPERS, side="right")]
    world = {"arm": arm, "table": table, "numeric": numeric, "effect": effect, "cost": cost, "split": split, "shopper": shopper}
    world |= {"margin": margin, "paid": paid, "base": base, "ids": np.array([f"e{i:05d}" for i in range(ROWS)])}
    write_lake(folder / "lake", world)
    write_truth(folder / "truth", world)
    write_models(folder / "models", world, effect + rng.normal(0, 60, effect.shape))
    return world


def write_lake(lake: Path, w: dict[str, Any], **replaced: Any) -> None:
    moment = pa.array(np.full(ROWS, 1_600_000_000_000_000), pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {
        "exposure_id": w["ids"], "shopper_id": np.char.add("s", w["shopper"].astype(str)), "moment": moment, "window_end": moment,
        "bucket": np.where(w["table"][:, 0] == 1, "holdout", "uniform"), "promo_id": np.array(["no_promo", "deep", "light"])[w["arm"]],
        "propensities": pa.array(list(w["table"])), "propensity": w["table"][np.arange(ROWS), w["arm"]], "split": w["split"],
        **{name: w["numeric"][:, i] for i, name in enumerate(NUMERIC_NAMES)},
        **{name: np.where(w["shopper"] % 2 == 0, "even", "odd") for name in ATTRIBUTE_NAMES},
        "visited": w["margin"] > 2700, "converted": w["margin"] > 2700, "spend_cents": (4 * w["margin"]).astype(np.int64),
        "margin_cents": w["margin"].astype(np.int64), "cost_cents": w["paid"].astype(np.int64), **replaced,
    }  # fmt: skip
    write_deltalake(lake / EXAMPLES.path, pa.table({name: columns[name] for name in EXAMPLES.names}), mode="overwrite")
    card = SourceCard("made", "nothing", "everything", "profit", "converted", 30.0, "2020-01-01T00:00:00Z", PROMOS, True)
    write_json(lake / "landing" / "source.json", asdict(card))


def write_truth(path: Path, w: dict[str, Any]) -> None:
    parts = [
        pa.table({
            "exposure_id": w["ids"], "shopper_id": np.char.add("s", w["shopper"].astype(str)),
            "moment": pa.array(np.full(ROWS, 1_600_000_000_000_000), pa.timestamp("us", "UTC")), "promo_id": [promo.promo_id] * ROWS,
            "kind": np.where(w["effect"][:, k] > 0, "persuadable", "sleeping_dog"), "profit_cents": w["effect"][:, k],
            "margin_cents": w["effect"][:, k] + w["cost"][:, k], "cost_cents": w["cost"][:, k],
        })
        for k, promo in enumerate(PROMOS)
    ]  # fmt: skip
    write_deltalake(path, pa.concat_tables(parts).select(list(TRUTH.names)), mode="overwrite")


def write_models(models: Path, w: dict[str, Any], fair: Any) -> None:
    response = np.column_stack([w["base"], w["base"] - 1])
    for name, value in zip(CANDIDATES, (w["effect"], fair, response), strict=True):
        write_scores(models / name, w, value)


def write_scores(folder: Path, w: dict[str, Any], value: Any, rows: slice = slice(None)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = np.flatnonzero(w["split"] != "train")[::-1][rows]
    scores = {f"value_{p.promo_id}": value[kept, k] for k, p in enumerate(PROMOS)}
    costs = {f"cost_{p.promo_id}": w["cost"][kept, k] for k, p in enumerate(PROMOS)}
    pq.write_table(pa.table({"exposure_id": w["ids"][kept], "split": w["split"][kept], **scores, **costs}), folder / "scores.parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], bool]:
    folder = tmp_path_factory.mktemp("run")
    world = make_world(folder)
    return folder, world, evaluate(str(folder / "lake"), str(folder / "models"), "", str(folder / "evaluation"), 7)


def document(folder: Path, name: str = "evaluation") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "metrics.json").read_text())
    return found


def test_a_good_network_is_chosen_and_promoted(run: Any):
    folder, _, promoted = run
    verdict = read_verdict(folder / "evaluation" / "verdict.json")
    assert promoted and verdict.promoted and verdict.chosen == "uplift_net", verdict.reasons
    assert {"profit_over_lightgbm", "qini_positive", "sample_ratio"} <= {check.name for check in verdict.checks}


def test_estimates_agree_with_the_truth_and_carry_their_definition(run: Any):
    folder, world, _ = run
    found = document(folder)
    judged = (world["split"] == "test") & (world["table"][:, 0] < 1)
    assert found["judged"]["decisions"] == judged.sum() and found["test"]["holdout_decisions"] > 0
    for k, promo in enumerate(PROMOS):
        single = found["single_promos"][promo.promo_id]["value"]
        assert single == pytest.approx(world["effect"][judged, k].mean(), abs=60)
    record = found["models"]["uplift_net"]["metrics"]["value/aipw"]
    assert {"id", "scaling", "ties", "normaliser", "outcome", "propensity", "unit", "rows", "interval", "error"} <= record.keys()
    assert found["tables"] == {"gold/examples": 0}
    assert found["outcome_models"]["r_squared_out_of_fold"]["value"] > 0.5


def test_every_model_has_both_qinis_of_every_promo_and_all_policies_are_there(run: Any):
    found = document(run[0])
    for name in CANDIDATES:
        for promo in PROMOS:
            assert set(found["models"][name]["arms"][promo.promo_id]) == {"qini/raw-local", "qini/sklift"}
    assert {"deep", "light", "shuffled same mix", "best single promo"} == set(found["policies"]["values"])
    assert found["models"]["uplift_net"]["policy"]["snips"]["effective"] > 100
    assert (run[0] / "evaluation" / "curves.png").stat().st_size > 5000
    assert (run[0] / "evaluation" / "spend.png").stat().st_size > 5000


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_rows(run: Any, tmp_path: Path):
    folder, world, _ = run
    evaluate(str(folder / "lake"), str(folder / "models"), "", str(tmp_path / "again"), 7)
    for name in ("metrics.json", "verdict.json", "curves.png", "spend.png"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "evaluation" / name).read_bytes()
    write_lake(tmp_path / "lake", world)
    table = pq.ParquetDataset(folder / "lake" / EXAMPLES.path).read()
    write_deltalake(tmp_path / "lake2" / EXAMPLES.path, table.take(np.random.default_rng(1).permutation(ROWS)))
    (tmp_path / "lake2" / "landing").mkdir(parents=True)
    (tmp_path / "lake2" / "landing" / "source.json").write_bytes((tmp_path / "lake" / "landing" / "source.json").read_bytes())
    evaluate(str(tmp_path / "lake2"), str(folder / "models"), "", str(tmp_path / "shuffled"), 7)
    assert document(tmp_path, "shuffled") == document(folder)


def test_useless_candidates_are_refused(run: Any, tmp_path: Path):
    folder, world, _ = run
    noise = np.random.default_rng(3).normal(0, 200, world["effect"].shape)
    for name, value in zip(CANDIDATES, (noise, -world["effect"], noise[::-1]), strict=True):
        write_scores(tmp_path / "models" / name, world, value)
    assert not evaluate(str(folder / "lake"), str(tmp_path / "models"), "", str(tmp_path / "out"), 7)
    assert read_verdict(tmp_path / "out" / "verdict.json").reasons


def test_broken_propensities_are_the_gates_answer(run: Any, tmp_path: Path):
    folder, world, _ = run
    lists = [list(row) for row in world["table"]]
    test_row = int(np.flatnonzero(world["split"] == "test")[0])
    lists[test_row] = [0.0, 0.0, 0.0]
    write_lake(tmp_path / "lake", world, propensities=pa.array(lists))
    assert not evaluate(str(tmp_path / "lake"), str(folder / "models"), "", str(tmp_path / "out"), 7)
    checks = {check.name: check for check in read_verdict(tmp_path / "out" / "verdict.json").checks}
    assert checks["propensity_completeness"].status == "failed" and "sum to 0" in checks["propensity_completeness"].detail
    assert checks["qini_positive"].status == "cannot tell"
    assert document(tmp_path, "out")["promoted"] is False


def test_missing_scores_are_a_sentence(run: Any, tmp_path: Path):
    folder, world, _ = run
    with pytest.raises(InputError, match=r"uplift_net.*cannot be read"):
        evaluate(str(folder / "lake"), str(tmp_path), "", str(tmp_path / "out"), 7)
    write_models(tmp_path, world, world["effect"])
    write_scores(tmp_path / "uplift_net", world, world["effect"], slice(10, None))
    with pytest.raises(InputError, match="has no score for"):
        evaluate(str(folder / "lake"), str(tmp_path), "", str(tmp_path / "out"), 7)
    broken = world["effect"].copy()
    broken[:, 1] = np.nan
    write_scores(tmp_path / "uplift_net", world, broken)
    with pytest.raises(InputError, match=r"Column 'value_light' .* is nan"):
        evaluate(str(folder / "lake"), str(tmp_path), "", str(tmp_path / "out"), 7)


def champion_folder(folder: Path, features: str, content: bytes = b"") -> str:
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(content or b"other")
    vocabularies = dict.fromkeys(ATTRIBUTE_NAMES, ("unknown",))
    manifest = ModelManifest(
        "old", hashlib.sha256(content or b"model").hexdigest(), features, NUMERIC_NAMES, ATTRIBUTE_NAMES, vocabularies,
        PROMOS, "profit", ((0.0, 0.0),), {}, 1, "2020-01-01T00:00:00Z",
    )  # fmt: skip
    write_json(folder / "manifest.json", manifest)
    return str(folder)


@pytest.mark.parametrize(("features", "sentence"), [("old-hash", "cannot be scored here"), (RETAIL.hash, "not the model it claims")])
def test_a_champion_that_cannot_be_compared_blocks_with_a_sentence(run: Any, tmp_path: Path, features: str, sentence: str):
    folder, champion = run[0], champion_folder(tmp_path / "champion", features)
    assert not evaluate(str(folder / "lake"), str(folder / "models"), champion, str(tmp_path / "out"), 7)
    checks = {check.name: check for check in read_verdict(tmp_path / "out" / "verdict.json").checks}
    assert checks["profit_over_champion"].status == "cannot tell" and sentence in checks["profit_over_champion"].detail


def test_a_champions_folder_without_manifest_is_refused(run: Any, tmp_path: Path):
    with pytest.raises(InputError, match=r"no manifest\.json"):
        evaluate(str(run[0] / "lake"), str(run[0] / "models"), str(tmp_path), str(tmp_path / "out"), 7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorFlow's own imports
def test_a_champion_is_scored_through_its_exported_file(run: Any, tmp_path: Path):
    """The champion's file knows the true effect: equal to the network, so it passes as non-inferior with a difference of nothing."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import tensorflow as tf

    from components.export_model import Candidate, to_tflite

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        value = tf.stack([800 * (numeric[:, 0] - 0.55), 600 * (numeric[:, 1] - 0.6)], axis=1)
        return {"value": value + 0 * tf.cast(attributes[:, :1], tf.float32), "cost": tf.constant([[60.0, 25.0]]) + 0 * value}

    content = to_tflite(Candidate("old", serve, lambda batch: (batch.labels, batch.labels), tf.Module(), 1), RETAIL)
    champion = champion_folder(tmp_path / "champion", RETAIL.hash, content)
    folder = run[0]
    assert evaluate(str(folder / "lake"), str(folder / "models"), champion, str(tmp_path / "out"), 7)
    checks = {check.name: check for check in read_verdict(tmp_path / "out" / "verdict.json").checks}
    assert checks["profit_over_champion"].status == "passed"
    found = document(tmp_path, "out")
    assert found["policies"]["chosen_less_other"]["champion"]["value"] == pytest.approx(0, abs=0.5)
    assert found["models"]["champion"]["metrics"]["rate/qini"]["value"] == pytest.approx(
        found["models"]["uplift_net"]["metrics"]["rate/qini"]["value"], rel=1e-4
    )


def test_the_chosen_policy_is_valued_by_every_estimator_beside_its_mix_and_the_best_single_promo(run: Any):
    found = document(run[0])["off_policy"]
    single, mixed, target = (rows for _, rows in sorted(found.items()))
    assert [name.split(" (")[0] for name in sorted(found)] == ["best single arm", "shuffled same mix", "target policy"]
    ids = ["value/snips", "value/ips", "value/dm", "value/dr", "value/sndr", "value/switch", "value/dros"]
    assert all([row["id"] for row in rows] == ids for rows in found.values())
    by_id = {row["id"]: row for row in target}
    gain = by_id["value/dr"]["value"] - {row["id"]: row for row in mixed}["value/dr"]["value"]
    compared = document(run[0])["policies"]["chosen_less_other"]["shuffled same mix"]
    assert gain == pytest.approx(compared["value"], abs=3 * compared["error"])
    assert 100 < by_id["value/snips"]["effective"] <= by_id["value/snips"]["matched"]
    assert by_id["value/snips"]["interval"][0] < by_id["value/dr"]["value"] < by_id["value/snips"]["interval"][1]
    assert single[0]["value"] < by_id["value/snips"]["value"]


def test_the_sentence_says_who_earns_most_and_whom_it_is_shown_to_beat(run: Any):
    sentence = document(run[0])["who_wins"]
    assert sentence.startswith("At the budget uplift_net earns most, ") and "shown to earn more than" in sentence and "response" in sentence


def test_scores_of_other_seeds_become_a_spread(run: Any, tmp_path: Path):
    folder = run[0]
    shutil.copytree(folder / "models", tmp_path / "models")
    seeds = tmp_path / "models" / "seeds" / "uplift_net"
    seeds.mkdir(parents=True)
    shutil.copy(folder / "models" / "uplift_net" / "scores.parquet", seeds / "2.parquet")
    shutil.copy(folder / "models" / "response" / "scores.parquet", seeds / "3.parquet")
    evaluate(str(folder / "lake"), str(tmp_path / "models"), "", str(tmp_path / "evaluation"), 7)
    found = document(tmp_path)["models"]
    own, same, other = found["uplift_net"]["seeds"]["rate/qini"]["values"]
    assert own == same == pytest.approx(found["uplift_net"]["metrics"]["rate/qini"]["value"]) and other < own
    assert found["uplift_net"]["seeds"]["n"] == 3 and found["uplift_net"]["seeds"]["value/aipw"]["sd"] > 0
    assert found["response"]["seeds"] == {}
