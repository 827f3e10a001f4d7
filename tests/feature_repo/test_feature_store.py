"""Online equals offline, point in time, on a real Redis and a real Delta table."""

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from promolift.contracts.artifacts import write_json
from promolift.contracts.features import ATTRIBUTE_NAMES, FEATURE_NAMES, NUMERIC_NAMES, RETAIL
from promolift.contracts.promos import Promo, SourceCard
from promolift.errors import InputError, UnavailableError
from promolift.redis_server import redis_server
from tests.full_redis import full_redis

pytestmark = [
    # Feast 0.67, its registry and its dependencies (pandas, pydantic, ibis) use what their next releases drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
WEEK = dt.timedelta(days=7)
FIRST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
SHOPPERS, WEEKS = 120, 5


def features(seed: int) -> pa.Table:
    """Shopper i has rows in weeks 0 .. i % WEEKS, so latest moments differ."""
    rng = np.random.default_rng(seed)
    keys = [(f"s{i}", FIRST + week * WEEK) for i in range(SHOPPERS) for week in range(i % WEEKS + 1)]
    columns: dict[str, Any] = {
        "shopper_id": pa.array([k for k, _ in keys]),
        "moment": pa.array([m for _, m in keys], pa.timestamp("us", "UTC")),
    }
    columns |= {name: pa.array(rng.random(len(keys)), pa.float32()) for name in NUMERIC_NAMES}
    columns |= {name: pa.array(rng.choice(["a", "b"], len(keys))) for name in ATTRIBUTE_NAMES}
    return pa.table(columns)


def written(tmp_path: Path, seed: int) -> tuple[Path, pd.DataFrame]:
    rows = features(seed)
    write_deltalake(tmp_path / "lake" / "gold" / "features", rows, mode="overwrite")
    promos = (Promo("meat_20", "meat", 0.2, 500),)
    card = SourceCard("test", "nothing", "all", "profit", "converted", 1.0, "2020-02-01T00:00:00Z", promos, has_truth=False)
    write_json(tmp_path / "lake" / "landing" / "source.json", card)
    return tmp_path / "lake", rows.to_pandas()


def online(store: Any, shoppers: list[str]) -> pd.DataFrame:
    answer = store.get_online_features(store.get_feature_service("shopper_features"), [{"shopper_id": s} for s in shoppers])
    return answer.to_df().set_index("shopper_id")[list(FEATURE_NAMES)]


def as_of(store: Any, shoppers: list[str], moment: dt.datetime) -> pd.DataFrame:
    asked = pd.DataFrame({"shopper_id": shoppers, "event_timestamp": moment})
    answer = store.get_historical_features(asked, store.get_feature_service("shopper_features")).to_df()
    return answer.set_index("shopper_id").loc[shoppers, list(FEATURE_NAMES)]


@pytest.mark.slow
def test_online_values_equal_offline_point_in_time_values(tmp_path: Path):
    from feature_repo.store import materialize, open_store

    lake, rows = written(tmp_path, seed=1)
    asked = [f"s{i}" for i in range(100)]
    with redis_server(tmp_path / "redis") as url:
        result = materialize(lake, url, tmp_path / "registry.db")
        store = open_store(url, tmp_path / "registry.db")
        served, offline = online(store, asked), as_of(store, asked, FIRST + WEEKS * WEEK)

    latest = rows.sort_values("moment").groupby("shopper_id").tail(1).set_index("shopper_id").loc[asked, list(FEATURE_NAMES)]
    pd.testing.assert_frame_equal(served, latest, check_dtype=False)
    pd.testing.assert_frame_equal(offline, latest, check_dtype=False)
    assert result == {"shoppers": SHOPPERS, "features": len(FEATURE_NAMES), "as_of": "2020-01-29T00:00:00+00:00", "version": 0}


@pytest.mark.slow
def test_history_never_sees_a_later_row_and_a_rebuilt_table_replaces_the_old_values(tmp_path: Path):
    from feature_repo.store import materialize, open_store

    lake, rows = written(tmp_path, seed=1)
    with redis_server(tmp_path / "redis") as url:
        materialize(lake, url, tmp_path / "registry.db")
        store = open_store(url, tmp_path / "registry.db")
        second = as_of(store, ["s4"], FIRST + WEEK + dt.timedelta(days=1))
        before = as_of(store, ["s4"], FIRST - dt.timedelta(seconds=1))
        unknown = online(store, ["nobody"])
        _, rebuilt = written(tmp_path, seed=2)
        materialize(lake, url, tmp_path / "registry.db")
        now = online(store, ["s0"])

    of_second_week = rows[(rows.shopper_id == "s4") & (rows.moment == FIRST + WEEK)].set_index("shopper_id")[list(FEATURE_NAMES)]
    pd.testing.assert_frame_equal(second, of_second_week, check_dtype=False)
    assert before.isna().all(axis=None)
    assert unknown.isna().all(axis=None)
    assert now["baskets_7d"].item() == pytest.approx(rebuilt.set_index("shopper_id")["baskets_7d"]["s0"].item())


def test_missing_table_and_dead_redis_are_said_in_a_sentence(tmp_path: Path):
    from feature_repo.store import materialize
    from promolift.feast_redis import connection_string

    with pytest.raises(InputError, match="no Delta table"):
        materialize(tmp_path / "lake", "redis://127.0.0.1:1/0", tmp_path / "registry.db")
    lake, _ = written(tmp_path, seed=1)
    with pytest.raises(UnavailableError, match=r"Redis at redis://127\.0\.0\.1:1/0 does not answer"):
        materialize(lake, "redis://127.0.0.1:1/0", tmp_path / "registry.db")
    with pytest.raises(InputError, match="'localhost' is no Redis URL"):
        connection_string("localhost")
    assert connection_string("rediss://u:p@h:1/2") == "h:1,db=2,username=u,password=p,ssl=true"


def test_an_empty_table_is_refused_before_redis_is_asked(tmp_path: Path):
    from feature_repo.store import materialize

    path = tmp_path / "lake" / "gold" / "features"
    write_deltalake(path, features(seed=1).slice(0, 0))
    with pytest.raises(
        InputError, match=rf"^The table at {path} is empty, so there is nothing to put online; check the Spark jobs' output\.$"
    ):
        materialize(tmp_path / "lake", "redis://127.0.0.1:1/0", tmp_path / "registry.db")
    assert not (tmp_path / "registry.db").exists()


def test_feast_fields_follow_the_contract():
    from feast.types import Float32, String

    from feature_repo.definitions import fields

    assert [(f.name, f.dtype) for f in fields(RETAIL)] == [
        *((name, Float32) for name in NUMERIC_NAMES), *((name, String) for name in ATTRIBUTE_NAMES),
    ]  # fmt: skip


@pytest.mark.parametrize("skipped", [False, True])
def test_what_loads_feast_may_leave_out_its_run_time_type_checks(skipped: bool):
    counted = "import typeguard._decorators as t; seen = []; t.instrument = lambda f: seen.append(f) or 'not instrumented'; "
    before = "from promolift.feast_redis import skip_type_checks; skip_type_checks(); " if skipped else ""
    done = subprocess.run(
        [sys.executable, "-c", f"{counted}{before}import feast; print(len(seen) > 0)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(not skipped)


def test_a_redis_without_room_is_said_in_a_sentence(tmp_path: Path):
    from feature_repo.store import materialize

    lake, _ = written(tmp_path, seed=1)
    with (
        full_redis(tmp_path / "redis", 20_000) as url,
        pytest.raises(UnavailableError, match=r"does not keep the features \(MISCONF .*No space left on device\); give it room"),
    ):
        materialize(lake, url, tmp_path / "registry.db")
