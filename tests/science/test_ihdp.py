"""IHDP replications: read in every layout, and drawn again as R drew them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from components.effect_config import EffectConfig
from promolift.errors import InputError
from science import ihdp_tables
from science.ihdp import TRIED, errors, measure, over_all, replications, summary
from science.ihdp_replications import RGenerator, draw

PUBLISHED_DRAWS = Path(__file__).parents[3] / "shared" / "data" / "ihdp_npci_1-10.npz"
Array = npt.NDArray[Any]


def _ihdp(rows: int, draws: int) -> dict[str, Array]:
    generator = np.random.default_rng(1)
    arrays = {name: generator.normal(size=(rows, draws)) for name in ("yf", "ycf", "mu0", "mu1")}
    return {**arrays, "x": generator.normal(size=(rows, 25, draws)), "t": generator.integers(0, 2, (rows, draws))}


def test_replications_of_two_files_keep_the_official_test_rows(tmp_path: Path):
    np.savez(tmp_path / "a.train.npz", **_ihdp(9, 2))
    np.savez(tmp_path / "a.test.npz", **_ihdp(3, 2))
    first, second = replications(tmp_path / "a.train.npz")
    assert first.x.shape == (12, 25)
    assert first.test.tolist() == second.test.tolist() == [False] * 9 + [True] * 3
    assert not np.allclose(first.outcome, second.outcome)


def test_replications_of_one_file_with_common_rows(tmp_path: Path):
    arrays = _ihdp(30, 2)
    arrays |= {"x": arrays["x"][..., 0], "t": arrays["t"][:, 0], "test_idx_1_100": np.array([[4], [5]])}
    np.savez(tmp_path / "all.npz", **arrays)
    first, second = replications(tmp_path / "all.npz")
    assert np.flatnonzero(first.test).tolist() == [4, 5]
    assert second.test.sum() == 3
    assert np.array_equal(second.effect, arrays["mu1"][:, 1] - arrays["mu0"][:, 1])


def test_replications_say_what_a_file_lacks(tmp_path: Path):
    np.savez(tmp_path / "no.npz", x=np.zeros(2))
    with pytest.raises(InputError, match="needs x, t"):
        list(replications(tmp_path / "no.npz"))
    with pytest.raises(InputError, match="does not exist"):
        list(replications(tmp_path / "none.npz"))


def test_errors_and_summary_by_hand():
    assert errors(np.array([1.0, 3.0]), np.array([0.0, 0.0])) == (pytest.approx(np.sqrt(5)), 2.0)
    assert summary([{"a": 1.0}, {"a": 3.0}, {"a": 8.0}])["a"] == {"mean": 4.0, "se": pytest.approx(np.sqrt(13 / 3)), "median": 3.0}


def test_the_mean_over_all_follows_the_linear_models_errors():
    generator = np.random.default_rng(4)
    linear = [{"a": float(value)} for value in generator.exponential(size=2_000)]
    ours = [{"a": 3 + 0.5 * row["a"] + 0.1 * float(generator.normal())} for row in linear]
    few = sorted(range(2_000), key=lambda number: linear[number]["a"])[100:400]  # far easier ones than all
    found = over_all([ours[number] for number in few], [linear[number] for number in few], linear)["a"]
    true = float(np.mean([row["a"] for row in ours]))
    assert abs(float(np.mean([ours[number]["a"] for number in few])) - true) > 0.3
    assert found["mean"] == pytest.approx(true, abs=0.1) and found["se"] < 0.02
    assert over_all(ours, linear, linear)["a"]["mean"] == pytest.approx(true)


@pytest.mark.slow
def test_tried_replications_are_not_measured(tmp_path: Path):
    np.savez(tmp_path / "all.npz", **(_ihdp(40, TRIED + 3) | {"t": np.tile(np.arange(40)[:, None] % 2, TRIED + 3)}))
    tiny = {"t": EffectConfig("t", trunk=(4,), head=(4,), epochs=1)}
    found = measure(tmp_path / "all.npz", configurations=tiny, limit=2)
    assert (found["numbers"], found["of"], found["replications"]) == ([TRIED + 1, TRIED + 2], TRIED + 3, 2)


def test_numbers_are_those_of_r():
    """set.seed(1); runif(2) and set.seed(1); rnorm(2) in R."""
    assert np.allclose(RGenerator(1).uniform(2), [0.2655086631421, 0.3721238996368], atol=1e-12)
    assert np.allclose(RGenerator(1).normal(2), [-0.6264538107423, 0.1836433242221], atol=1e-12)


def test_drawn_replications_have_the_effect_on_the_treated_and_are_read_back(tmp_path: Path):
    generator = np.random.default_rng(2)
    continuous, binary, arm = generator.normal(size=(60, 6)), generator.integers(0, 2, (60, 19)), np.arange(60) % 3 // 2
    mu0, mu1, *_ = draw(np.hstack([continuous, binary]), arm, 501)
    assert (mu1 - mu0)[arm == 1].mean() == pytest.approx(4.0)
    np.savez(tmp_path / "seed.npz", x_cont=continuous, x_bin=binary, t=arm, test_idx_1_100=np.zeros((6, 100), np.int16))
    found = replications(tmp_path / "seed.npz")
    first, second = next(found), next(found)
    assert np.allclose(first.mu0, draw(first.x, first.arm, 1)[0]) and np.allclose(second.mu1, draw(first.x, first.arm, 2)[1])
    assert np.array_equal(np.where(first.arm == 1, draw(first.x, first.arm, 1)[3], draw(first.x, first.arm, 1)[2]), first.outcome)
    assert np.flatnonzero(first.test).tolist() == [0]


@pytest.mark.skipif(not PUBLISHED_DRAWS.exists(), reason="the published replications are not part of the project")
def test_published_replications_are_drawn_again_to_rounding():
    for published in replications(PUBLISHED_DRAWS):
        mu0, mu1, y0, y1 = draw(published.x, published.arm, published.number)
        for ours, theirs in ((mu0, published.mu0), (mu1, published.mu1), (np.where(published.arm == 1, y1, y0), published.outcome)):
            assert np.allclose(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_every_replication_is_measured_by_each_configuration(tmp_path: Path):
    np.savez(tmp_path / "all.npz", **(_ihdp(60, 3) | {"t": np.tile(np.arange(60)[:, None] % 2, 3)}))
    tiny = {"tarnet": EffectConfig(trunk=(4,), head=(4,), epochs=2, patience=2), "t": EffectConfig("t", trunk=(4,), head=(4,), epochs=2)}
    found = measure(tmp_path / "all.npz", seeds=(1, 2), configurations=tiny, limit=2)
    assert (found["replications"], set(found["models"])) == (2, {"tarnet", "t"})
    each = found["models"]["t"]["each"]
    assert len(each) == 2 and each[0]["pehe_in"] != each[1]["pehe_in"] and each[0]["spread_out"] > 0
    assert found["models"]["t"]["pehe_out"]["mean"] == pytest.approx((each[0]["pehe_out"] + each[1]["pehe_out"]) / 2)
    assert (found["numbers"], found["of"]) == ([1, 2], 3)  # no more than the tried ones: from the first
    (table,) = ihdp_tables.tables(found)
    assert each[0]["pehe_in"] < each[0]["alone_in"]
    first = ["**tarnet**, one network", "**tarnet**, one network, over all 3", "**tarnet**", "**tarnet**, over all 3"]
    assert [row[0] for row in table.rows][:4] == first and table.rows[8][0] == "linear, one an arm"
    assert len(list(ihdp_tables.targets(found))) == 8
