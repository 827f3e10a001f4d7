"""Predictor on a real LiteRT model; transformer on a real Feast store; both refuse or degrade as they promise."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from promolift.contracts.decisions import Candidates, Envelope, Shopper, read_request
from promolift.contracts.features import RETAIL
from promolift.errors import InputError, UnavailableError
from promolift.redis_server import redis_server, start_redis, stop_redis
from promolift.settings import Settings
from serving.kserve.boxes import Sources, build
from serving.kserve.model_folder import load_manifest
from serving.kserve.predictor import Predictor
from serving.kserve.transformer import Ages, Transformer
from tests.serving.conftest import HEAVY

pytestmark = HEAVY


def asked(shopper_id: str = "7", **features: Any) -> Envelope:
    request = read_request({"request_id": "r", "shopper_id": shopper_id, "moment": "2017-12-02T00:00:00Z"})
    shopper = Shopper({**RETAIL.defaults(), **features}, found=True)
    return Envelope(request, shopper=shopper, candidates=Candidates(("bakery_5", "meat_20"), {}, "v"))


AGES = Ages(2 * 86_400.0, 30 * 86_400.0)
SETTINGS = Settings(token_keys={"k1": SecretStr("x" * 32)})


def test_only_the_model_that_the_deployment_names_is_served(model_folder: Path, tmp_path: Path):
    right = load_manifest(model_folder).sha256
    sources = Sources("redis://127.0.0.1:1/0", model_folder, tmp_path / "registry.db", spill=tmp_path / "spill.jsonl")
    for name in ("eligibility", "predictor", "constraints"):
        build(name, sources, SETTINGS.model_copy(update={"model_sha256": right}))
        with pytest.raises(InputError, match=f"has sha256 {right}, but this deployment is for {'e' * 64} .PROMOLIFT_MODEL_SHA256."):
            build(name, sources, SETTINGS.model_copy(update={"model_sha256": "e" * 64}))


def test_a_model_with_other_tensors_than_its_manifest_says_is_refused(model_folder: Path, tmp_path: Path):
    shutil.copytree(model_folder, tmp_path / "model")
    path = tmp_path / "model/manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "numeric": document["numeric"][:-1]}))
    count = len(document["numeric"])
    with pytest.raises(InputError, match=rf"has the signature .*'numeric': \[1, {count}\].*but its manifest says .*\[1, {count - 1}\]"):
        Predictor(tmp_path / "model")


def test_scores_follow_the_candidates(model_folder: Path):
    final = Predictor(model_folder)(asked(baskets_7d=6.0))
    assert final.scores is not None
    assert final.scores.error is None
    assert final.scores.value == (-10.0, 6.0)
    assert final.scores.lower == pytest.approx((-12.0, 2.6))
    assert final.scores.cost == (7.0, 7.0)
    assert final.scores.model_version == final.versions["predictor"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shopper": None}, "no shopper"),
        ({"candidates": Candidates(("fish_5",), {}, "v")}, "fish_5"),
        ({"shopper": Shopper({**RETAIL.defaults(), "baskets_7d": float("nan")}, found=True)}, "baskets_7d is not a finite number"),
        ({"shopper": Shopper({"baskets_7d": 1.0}, found=True)}, "KeyError"),
    ],
)
def test_a_failure_is_a_sentence_in_the_scores(model_folder: Path, change: dict[str, Any], words: str):
    final = Predictor(model_folder)(replace(asked(), **change))
    assert final.scores is not None
    assert words in str(final.scores.error)
    assert "model_error" in final.degraded


@pytest.mark.parametrize(
    ("change", "codes", "evidence", "value"),
    [
        ({"degraded": ("stale_features",)}, ("stale_features",), "model", (-10.0, 6.0)),
        ({"degraded": ("expired_features",)}, ("expired_features", "segment_prior"), "segment_prior", (2.0, 2.0)),
        (
            {"degraded": ("no_features",), "shopper": Shopper(RETAIL.defaults(), found=False)},
            ("no_features", "segment_prior"), "segment_prior", (2.0, 2.0),
        ),
        (
            {"degraded": ("expired_features",), "shopper": Shopper({**RETAIL.defaults(), "area": "a"}, found=True)},
            ("expired_features", "segment_prior"), "segment_prior", (3.0, 3.0),
        ),
        (
            {"shopper": Shopper({**RETAIL.defaults(), "baskets_7d": 51.0}, found=True)},
            ("out_of_support", "segment_prior"), "segment_prior", (2.0, 2.0),
        ),
    ],
)  # fmt: skip
def test_a_shopper_whom_the_model_cannot_know_is_judged_by_the_segment(
    model_folder: Path, change: dict[str, Any], codes: tuple[str, ...], evidence: str, value: tuple[float, ...]
):
    final = Predictor(model_folder)(replace(asked(baskets_7d=6.0), **change))
    assert final.scores is not None
    assert (final.degraded, final.scores.evidence, final.scores.value) == (codes, evidence, value)
    assert (final.scores.error is None) == (evidence == "model")


def test_what_the_caller_knows_names_the_segment_where_no_features_are(model_folder: Path):
    request = replace(asked().request, context={"area": "a"})
    unknown = replace(asked(), request=request, shopper=Shopper(RETAIL.defaults(), found=False), degraded=("features_unavailable",))
    final = Predictor(model_folder)(unknown)
    assert final.scores is not None and final.scores.lower == (2.0, 2.0)


def test_without_a_prior_there_is_no_score(model_folder: Path, tmp_path: Path):
    final = Predictor(edited(model_folder, tmp_path / "old", prior={}, support={}))(replace(asked(), degraded=("no_features",)))
    assert final.scores is not None
    assert (final.scores.evidence, final.scores.value, final.scores.error) == ("none", (), "The model was not asked: no features.")


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError, match=r"manifest\.json cannot be read \(Is a directory\)"):
        load_manifest(tmp_path)


def test_no_candidates_need_no_model(model_folder: Path):
    final = Predictor(model_folder)(replace(asked(), candidates=Candidates((), {}, "v")))
    assert final.scores is not None
    assert (final.scores.value, final.scores.error) == ((), None)


def test_a_model_of_other_features_than_those_online_gives_no_score(model_folder: Path):
    own = load_manifest(model_folder).features_hash
    for served, words in ((own, None), (f"{own} (not read: TimeoutError; defaults are used)", None), ("other", "but other are online")):
        final = Predictor(model_folder)(replace(asked(), versions={"transformer": served}))
        assert final.scores is not None
        assert (final.scores.error is None) if words is None else (words in str(final.scores.error))


def test_a_transformer_beside_a_model_of_other_features_does_not_start(run_folder: Path, model_folder: Path, tmp_path: Path):
    other = edited(model_folder, tmp_path / "other", features_hash="other")
    shutil.copytree(run_folder / "redis", tmp_path / "redis")
    with redis_server(tmp_path / "redis") as url:
        build("transformer", Sources(url, model_folder, run_folder / "registry.db"), SETTINGS)
        with pytest.raises(InputError, match="was trained on features other, but"):
            build("transformer", Sources(url, other, run_folder / "registry.db"), SETTINGS)


def edited(model_folder: Path, folder: Path, **fields: Any) -> Path:
    shutil.copytree(model_folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **fields}))
    return folder


def test_a_model_that_does_not_fit_is_refused(model_folder: Path, tmp_path: Path):
    cases: dict[str, dict[str, Any]] = {
        "its manifest says 00": {"sha256": "00"},
        "no harm_bound for": {"harm_bound": {}},
    }
    for index, (words, fields) in enumerate(cases.items()):
        with pytest.raises(InputError, match=words):
            Predictor(edited(model_folder, tmp_path / str(index), **fields))
    with pytest.raises(InputError, match="no model in"):
        Predictor(tmp_path / "nowhere")


def test_the_transformer_reads_a_shopper_and_survives_redis(run_folder: Path, tmp_path: Path):
    from serving.kserve.online_features import OnlineFeatures

    shutil.copytree(run_folder / "redis", tmp_path / "redis")
    process, url = start_redis(tmp_path / "redis")
    try:
        box = Transformer(OnlineFeatures(run_folder / "registry.db", url), AGES)
        seen, unseen = box(Envelope(asked().request)), box(Envelope(asked("nobody").request))
    finally:
        stop_redis(process)
    assert seen.shopper is not None
    assert (seen.shopper.found, seen.shopper.age_s) == (True, 86_400.0)
    assert (seen.shopper.features["baskets_7d"], seen.shopper.features["recency_days"]) == (7.0, 2.5)
    assert unseen.shopper == Shopper(RETAIL.defaults(), found=False)
    started = time.perf_counter()
    down = box(Envelope(asked().request))
    assert time.perf_counter() - started < 2
    assert down.shopper == Shopper(RETAIL.defaults(), found=False)
    assert "not read: ConnectionError" in down.versions["transformer"]


def test_a_missing_registry_is_one_sentence_and_a_missing_redis_none(run_folder: Path, tmp_path: Path):
    from serving.kserve.online_features import OnlineFeatures

    with pytest.raises(UnavailableError, match="materialize the features first"):
        OnlineFeatures(tmp_path / "no.db", "redis://127.0.0.1:1/0")
    box = Transformer(OnlineFeatures(run_folder / "registry.db", "redis://127.0.0.1:1/0"), AGES)
    assert box(Envelope(asked().request)).degraded == ("features_unavailable",)
    with redis_server(tmp_path / "empty") as url:
        assert OnlineFeatures(run_folder / "registry.db", url).read("7").moment_s is None


def test_our_read_gives_what_feasts_own_gives(run_folder: Path, tmp_path: Path):
    import feast

    from serving.kserve import online_features as ours

    shutil.copytree(run_folder / "redis", tmp_path / "redis")
    with redis_server(tmp_path / "redis") as url:
        store = feast.FeatureStore(config=ours._config(run_folder / "registry.db", url))
        reader = ours.OnlineFeatures(run_folder / "registry.db", url)
        for shopper_id in [*map(str, range(10)), "nobody", "", "7 ", "ü"]:
            rows = [{ours.ENTITY: shopper_id}]
            theirs = store.get_online_features(store.get_feature_service(ours.SERVICE), rows).to_dict()
            assert reader.read(shopper_id).values == {name: column[0] for name, column in theirs.items() if name != ours.ENTITY}
