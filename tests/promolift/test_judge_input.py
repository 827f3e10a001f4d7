"""Files that cannot be judged, one sentence each; and the parts of the judge that are checked by hand."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import UnavailableError
from promolift.uplift.judge import finite, main
from promolift.uplift.judge_curves import arm_means
from promolift.uplift.judge_facts import dominance
from promolift.uplift.libraries import library
from promolift.uplift.page import number

ROWS = 2000
BASE = ("--arm", "arm", "--outcome", "y", "--score", "good", "--score", "bad", "--resamples", "60")
Change = Callable[[pd.DataFrame], Any]


def experiment(seed: int = 1, rows: int = ROWS, noise: float = 5.0) -> pd.DataFrame:
    """Two arms at one half; the effect of the promo is `good`, which crosses zero; `bad` is noise."""
    rng = np.random.default_rng(seed)
    effect, treated = rng.normal(1, 10, rows), rng.integers(0, 2, rows)
    return pd.DataFrame({
        "id": np.arange(rows), "arm": np.where(treated, "mail", "none"), "y": 20 + effect * treated + rng.normal(0, noise, rows),
        "good": effect, "bad": rng.normal(0, 1, rows), "p": 0.5, "cost": 3.0 * treated, "region": rng.choice(["north", "south"], rows),
    })  # fmt: skip


def three_arms(seed: int = 2, rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    arm, effect = rng.choice(3, rows, p=[0.5, 0.3, 0.2]), rng.normal(0, 10, (rows, 2))
    given = np.column_stack([np.zeros(rows), effect])[np.arange(rows), arm]
    return pd.DataFrame({
        "arm": np.array(["control", "a", "b"])[arm], "y": given + rng.normal(0, 5, rows), "s_a": effect[:, 0], "s_b": effect[:, 1],
        "one": rng.normal(size=rows), "p_control": 0.5, "p_a": 0.3, "p_b": 0.2,
    })  # fmt: skip


def run(folder: Path, table: pd.DataFrame, *options: str, name: str = "trial.csv") -> int:
    file = folder / name
    table.to_parquet(file) if name.endswith("parquet") else table.to_csv(file, index=False)
    return main([str(file), "--out", str(folder / "out"), *options])


def put(column: str, value: Any, row: int = 3) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[column] = table[column].astype(object)
        table.loc[row - 1, column] = value
        return table

    return change


BAD: list[tuple[str, Change, tuple[str, ...], str]] = [
    ("score is infinite", put("good", np.inf), (), r"Column 'good' holds no finite number in 1 of 2000 rows; row 3 is 'inf'"),
    ("score is huge", put("good", 1e200), (), r"Column 'good' holds a number beyond 1e\+12 in 1 of 2000 rows; row 3 is '1e\+200'"),
    ("score is tiny", put("good", 1e-200), (), r"Column 'good' holds a number nearer to 0 than 1e-100 in 1 of 2000 rows; row 3"),
    (
        "outcome is a time",
        lambda t: t.assign(y="2020-01-01"),
        (),
        r"Column 'y' holds no finite number in 2000 of 2000 rows; row 1 is '2020",
    ),
    ("score is empty", put("good", np.nan), (), r"Column 'good' holds no finite number in 1 of 2000 rows; row 3 is empty"),
    ("score is text", put("good", "high"), (), r"Column 'good' holds .* row 3 is 'high'"),
    ("outcome is empty in a row", put("y", np.nan), (), r"Column 'y' holds no finite number in 1 of 2000 rows; row 3 is empty"),
    ("arm is empty", put("arm", np.nan), (), r"Column 'arm' holds no value in 1 of 2000 rows; row 3 is empty"),
    ("one arm", lambda t: t.assign(arm="none"), (), r"Column 'arm' has one arm only, 'none' in all 2000 rows"),
    ("arm without outcomes", lambda t: t.assign(y=t["y"].where(t["arm"] == "none")), (), r"Arm 'mail' has no outcome: column 'y' is empty"),
    ("no known control", lambda t: t.assign(arm=t["arm"].map({"none": "x", "mail": "z"})), (), r"Say --control VALUE; its arms are 'x' \("),
    ("unknown control", lambda t: t, ("--control", "nobody"), r"--control 'nobody' is no value of column 'arm', whose arms are 'mail' \("),
    ("unknown promo", lambda t: t, ("--promo", "sms"), r"--promo 'sms' is no promo of column 'arm'"),
    ("no such column", lambda t: t, ("--score", "missing"), r"has no column 'missing'; its columns are: id, arm, y"),
    (
        "p above 1",
        put("p", 1.5),
        ("--propensity", "p"),
        r"Column 'p' holds no probability between 0 and 1 in 1 of 2000 rows; row 3 is '1.5'",
    ),
    (
        "p is 0",
        put("p", 0),
        ("--propensity", "p"),
        r"Column 'p' holds a probability of 0 for the arm that was given in 1 of 2000 rows; row 3",
    ),
    ("no such propensity", lambda t: t, ("--propensity", "q"), r"--propensity q: trial.csv lacks 'q_none', 'q_mail'"),
    (
        "sum is not 1",
        lambda t: t.assign(p_none=0.5, p_mail=0.6),
        ("--propensity", "p"),
        r"'p_none \+ p_mail' holds a sum other than 1 in 2000",
    ),
    ("too few rows", lambda t: t.head(6), (), r"Arm '(none|mail)' has \d of 6 rows from \d randomised units"),
    ("no rows", lambda t: t.head(0), (), r"has a header but no rows"),
    ("budget of nothing", lambda t: t, ("--budget", "0"), r"--budget 0 buys nothing"),
    ("share above 1", lambda t: t, ("--budget", "30"), r"--budget 30 without costs is the share of rows"),
    ("champion is no score", lambda t: t, ("--champion", "good"), r"--champion 'good' is not among the scores after the first"),
    ("one resample", lambda t: t, ("--resamples", "1"), r"--resamples 1 gives no spread"),
]


@pytest.mark.parametrize(("change", "options", "sentence"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_a_sentence_and_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, options: tuple[str, ...], sentence: str
):  # fmt: skip
    assert run(tmp_path, change(experiment()), *BASE, *options) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said), said
    assert said.count("\n") == 1 and said.strip().endswith(".") and not (tmp_path / "out" / "result.json").exists()


def test_a_file_that_is_missing_or_not_what_its_name_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, content, sentence in (
        ("none.csv", None, "There is no file"), ("a.csv", b"", "cannot be read"), ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.parquet", b"no parquet", "cannot be read"), ("a.csv", b"a,b\n1,2\n1,2,3\n", "cannot be read"),
        ("a.xlsx", b"x", "is not a .csv"),
    ):  # fmt: skip
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert main([str(tmp_path / name), "--out", str(tmp_path / "out"), *BASE]) == 2
        assert sentence in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out").write_text("a file stands here")
    assert run(tmp_path, experiment(), *BASE) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_scores_of_prefixes_and_single_columns_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path, three_arms(), "--arm", "arm", "--outcome", "y", "--score", "s", "--score", "one") == 2
    assert "Scores 'one' name no arm" in capsys.readouterr().err


def test_dominance_by_hand_and_near_the_largest_float():
    assert dominance(np.array([1.0, 1.0, 1.0, 5.0])) == (pytest.approx(0.75), 3)
    assert dominance(np.array([0.0, 0.0, 1e308])) == (pytest.approx(2 / 3), 2)
    assert dominance(np.full(4, 2.0)) == (0.0, 0)


def test_arm_means_by_hand_come_from_the_other_fold():
    weights = np.array([[2.0, 0], [2, 0], [0, 2], [0, 2]])
    mu = arm_means(np.array([1.0, 3, 10, 30]), weights, np.array([0, 1, 0, 1]))
    assert mu.tolist() == [[3, 30], [1, 10], [3, 30], [1, 10]]
    alone = arm_means(np.array([1.0, 3, 10]), weights[:3], np.array([0, 0, 1]))
    assert alone.tolist() == [[10, 10], [10, 10], [2, 2]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 2), st.integers(0, 1)), min_size=2, max_size=30))
def test_arm_means_never_see_their_own_fold(rows: list[tuple[float, int, int]]):
    y, arm, fold = (np.array(part) for part in zip(*rows, strict=True))
    weights = (arm[:, None] == np.arange(3)).astype(float)
    moved = np.where(fold == 0, y + 100.0, y)
    before, after = arm_means(y, weights, fold), arm_means(moved, weights, fold)
    assert np.array_equal(before[fold == 0], after[fold == 0])


def test_numbers_for_reading():
    assert [number(v) for v in (None, float("nan"), 0.0, 0.012345, 123.45, 12345.6)] == ["–", "–", "0", "0.0123", "123.5", "12,346"]
    assert finite({"a": [float("inf"), 1.0]}) == {"a": [None, 1.0]}


def test_a_library_that_is_missing_is_a_sentence():
    with pytest.raises(UnavailableError, match="Drawing needs the library no_such_library, which is not installed"):
        library("no_such_library.part", "Drawing")


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "example: a randomised e-mail test" in said and "--budget 0.3 --out judged" in said
