"""The search of parameters by Optuna: bounded, resumable with the same trials, pruned, logged, and honest about its start."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient

from components import search as module
from components.examples_input import open_examples
from components.search import Budget, search
from components.search_criterion import explained_share
from components.search_spaces import SPACES, first_quarters, start_of
from promolift.errors import InputError, UnavailableError
from promolift.locks import held
from tests.components.synthetic_examples import write_lake

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_lake(tmp_path_factory.mktemp("search"), rows=3_000))


def trials_of(folder: Path) -> list[tuple[str, dict[str, Any], float | None]]:
    (file,) = folder.glob("*.db")
    study = optuna.load_study(study_name=file.stem, storage=f"sqlite:///{file}")
    return [(t.state.name, t.params, t.value) for t in study.get_trials()]


def test_the_share_explained_by_hand():
    """Residual 2 and -1, deviation 0.5 and -0.5: an effect of 4 and 2 leaves 0 and 0; no effect leaves all."""
    residual, deviation = np.array([2.0, -1.0]), np.array([[0.5], [-0.5]])
    assert explained_share(np.array([[4.0], [2.0]]), residual, deviation) == 1.0
    assert explained_share(np.array([[0.0], [0.0]]), residual, deviation) == 0.0
    assert explained_share(np.array([[-4.0], [0.0]]), residual, deviation) == pytest.approx(1 - (16 + 1) / 5)
    with pytest.raises(InputError, match="nothing for a search to explain"):
        explained_share(np.zeros((2, 1)), np.zeros(2), deviation)


def test_quarters_are_of_shoppers_and_grow():
    rows = {"shopper_id": np.array([f"s{i % 40}" for i in range(400)]), "x": np.arange(400)}
    sizes = [first_quarters(rows, k) for k in (1, 2, 4)]
    assert set(sizes[0]["x"]) < set(sizes[1]["x"]) < set(sizes[2]["x"]) and len(sizes[2]["x"]) == 400
    assert not set(sizes[0]["shopper_id"]) & set(np.setdiff1d(rows["shopper_id"], sizes[0]["shopper_id"]))


@pytest.mark.slow
def test_a_stopped_search_goes_on_with_the_trials_of_one_that_was_not(lake: str, tmp_path: Path):
    whole = search(lake, tmp_path / "whole", "lightgbm", 1, Budget(6, 600))
    search(lake, tmp_path / "parts", "lightgbm", 1, Budget(2, 600))
    parts = search(lake, tmp_path / "parts", "lightgbm", 1, Budget(6, 600))
    assert trials_of(tmp_path / "parts") == trials_of(tmp_path / "whole")
    assert parts["best"] == whole["best"] and parts["best"]["value"] >= parts["start"]["value"]
    assert parts["start"]["parameters"] == start_of("lightgbm")
    again = search(lake, tmp_path / "parts", "lightgbm", 1, Budget(6, 600))
    assert again == parts and len(trials_of(tmp_path / "parts")) == 6


@pytest.mark.slow
def test_a_trial_below_the_median_ends_early_and_no_trial_starts_after_the_time(
    lake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = search(lake, tmp_path, "dr_learner", 3, Budget(12, 600))
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 12 and found["trials"]["pruned"] > 0
    assert "below the median of the others" in capsys.readouterr().out
    short = search(lake, tmp_path / "short", "lightgbm", 1, Budget(10_000, 1))
    assert 1 <= sum(short["trials"].values()) < 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_a_search_is_one_run_in_mlflow_however_often_it_goes_on(lake: str, tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for trials in (2, 4):
        found = search(lake, tmp_path / "search", "lightgbm", 1, Budget(trials, 600, uri))
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("promolift-search").experiment_id])
    assert run.data.params["candidate"] == "lightgbm" and run.data.metrics["best_explained_share"] == found["best"]["value"]
    assert json.loads(run.data.tags["best_parameters"]) == found["best"]["parameters"]
    assert len(client.get_metric_history(run.info.run_id, "explained_share")) >= 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_network_is_searched_epoch_by_epoch(lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from components import search_spaces
    from components.uplift_model import NetConfig

    monkeypatch.setattr(search_spaces.NetConfig, "epochs", 2)
    found = search(lake, tmp_path, "uplift_net", 1, Budget(1, 600))
    assert found["best"]["parameters"] == start_of("uplift_net") and search_spaces.net_config(found["best"]["parameters"]) == NetConfig()


def test_what_cannot_be_searched_is_a_sentence(lake: str, tmp_path: Path):
    with pytest.raises(InputError, match="nothing to search for candidate 'response'; choose one of uplift_net, lightgbm"):
        search(lake, tmp_path, "response", 1, Budget(1, 1))
    for trials, seconds, name in ((0, 1, "trials"), (1, 0, "seconds")):
        with pytest.raises(InputError, match=f"budget of {name} is 0"):
            Budget(trials, seconds)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"file/search.* give another run folder"):
        search(lake, tmp_path / "file" / "search", "lightgbm", 1, Budget(1, 1))


def test_two_searches_of_one_study_do_not_mix(lake: str, tmp_path: Path):
    name = f"lightgbm-{module._fingerprint(open_examples(Path(lake)), 'lightgbm', 1)}"
    with held(tmp_path / f"{name}.lock", "", ""), pytest.raises(UnavailableError, match="Another search is at work"):
        search(lake, tmp_path, "lightgbm", 1, Budget(1, 1))


def test_the_command_ends_with_a_sentence_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert module.main(["--run", str(tmp_path), "--candidate", "lightgbm"]) == 2
    assert "source.json' is missing" in capsys.readouterr().err
    assert set(SPACES) == {"uplift_net", "lightgbm", "x_learner", "dr_learner"}
