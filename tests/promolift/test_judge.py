"""Scores that somebody else made, judged from a file by the command that people use."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from promolift.uplift.judge import main

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


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "result.json").read_text())


def page(folder: Path) -> str:
    return (folder / "out" / "report.html").read_text()


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in found["checks"]}


def test_a_score_that_is_the_effect_passes_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ("--propensity", "p", "--cluster", "id", "--segment", "region", "--cost", "cost", "--budget", "1.2")
    assert run(tmp_path, experiment(), *BASE, *options) == 0
    found = result(tmp_path)
    assert found["answer"] == "passed" and set(statuses(found).values()) == {"passed"}
    assert found["left_out"] == {} and found["reasons"] == []
    assert "spend_within_budget" in statuses(found) and "no_harmed_segment" in statuses(found)
    said = capsys.readouterr().out
    assert said.startswith("Candidate 'good', champion 'bad'.\nPASSED: 'good' passes all 13 checks, and it may replace 'bad'.")


def test_noise_does_not_pass_against_the_effect(tmp_path: Path):
    options = ("--arm", "arm", "--outcome", "y", "--score", "bad", "--score", "good", "--resamples", "60", "--budget", "0.4")
    assert run(tmp_path, experiment(), *options) == 0
    found = result(tmp_path)
    assert found["answer"] == "not passed" and statuses(found)["profit_over_champion"] == "failed"
    difference = next(row for row in found["differences"] if row["less"] == "champion" and row["id"] == "rate/qini")
    assert difference["of"] == "bad" and difference["interval"][1] < 0


def test_values_are_those_of_the_known_effect(tmp_path: Path):
    table = experiment(rows=4000)
    run(tmp_path, table, *BASE, "--propensity", "p")
    found, effect = result(tmp_path)["models"]["good"]["metrics"], table["good"].to_numpy()
    value = found["value/aipw"]
    assert abs(value["value"] - np.maximum(effect, 0).mean()) < 3 * value["error"]
    order = np.sort(effect)[::-1]
    qini = float(order @ (0.5 - (np.arange(4000) + 0.5) / 4000)) / 4000
    assert abs(found["rate/qini"]["value"] - qini) < 3 * found["rate/qini"]["error"]
    assert abs(found["calibration/blp-slope"]["value"] - 1) < 3 * found["calibration/blp-slope"]["error"]


def test_estimated_propensities_are_the_first_line_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(tmp_path, experiment(), *BASE)
    assert capsys.readouterr().out.startswith("Propensities were not logged: the arm shares of this file stand in for them")
    body = re.sub(r"<[^>]+>", "", page(tmp_path).split("<body>")[1]).strip()
    assert body.startswith("Propensities were not logged")
    found = result(tmp_path)
    assert {"sample_ratio", "propensity_completeness"} <= set(found["left_out"])
    assert {d["propensity"] for d in found["definitions"]} == {"estimated: the arm shares of the file"}


@pytest.mark.parametrize(
    ("columns", "failed"),
    [({"p_none": 0.4, "p_mail": 0.6}, "sample_ratio"), ({"p": 0.9}, "propensity_weights")],
)
def test_propensities_that_the_arms_given_contradict_answer_nothing(tmp_path: Path, columns: dict[str, float], failed: str):
    table = experiment().drop(columns="p").assign(**columns)
    assert run(tmp_path, table, *BASE, "--propensity", "p") == 0
    found = result(tmp_path)
    assert found["answer"] == "not passed" and statuses(found)[failed] == "failed" and found["models"] == {}
    assert statuses(found)["qini_positive"] == "cannot tell"
    assert "There are none: the reasons above say why" in page(tmp_path)


def test_one_score_has_no_champion(tmp_path: Path):
    run(tmp_path, experiment(), "--arm", "arm", "--outcome", "y", "--score", "good", "--resamples", "60")
    found = result(tmp_path)
    assert found["champion"] == "" and "profit_over_champion" not in statuses(found)
    assert found["power"].startswith("Power: proving a 10% gain over best single promo")


def test_a_third_score_is_a_baseline_and_the_champion_can_be_named(tmp_path: Path):
    table = experiment().assign(third=lambda t: t["good"] / 2)
    run(tmp_path, table, *BASE, "--score", "third", "--champion", "third")
    found = result(tmp_path)
    assert found["scores"] == {"good": "good", "bad": "bad", "third": "champion"}
    assert {"profit_over_bad", "profit_over_champion"} <= set(statuses(found))
    pairs = {(row["of"], row["less"]) for row in found["differences"] if row["id"] == "rate/autoc"}
    assert pairs == {("good", "bad"), ("good", "champion"), ("bad", "champion")}


def test_several_promos_by_prefix_with_propensities_by_arm(tmp_path: Path):
    options = ("--arm", "arm", "--outcome", "y", "--score", "s", "--propensity", "p", "--resamples", "60")
    assert run(tmp_path, three_arms(), *options, name="trial.parquet") == 0
    found = result(tmp_path)
    assert found["answer"] == "passed" and set(found["models"]["s"]["mix"]) == {"control", "a", "b"}
    assert {"a", "b", "best single promo", "shuffled same mix"} == set(found["policies"])


def test_scores_without_an_arm_judge_the_promos_as_one_or_one_of_them(tmp_path: Path):
    options = ("--arm", "arm", "--outcome", "y", "--score", "one", "--resamples", "60")
    run(tmp_path, three_arms(), *options)
    assert any("judged as one, 'any promo'" in note for note in result(tmp_path)["notes"])
    run(tmp_path, three_arms(), *options, "--promo", "b", "--propensity", "p")
    found = result(tmp_path)
    assert [arm["name"] for arm in found["file"]["arms"]] == ["control", "b"]
    assert found["overlap"]["least"] == pytest.approx(0.2 / 0.7)


def test_rows_where_an_arm_was_impossible_inform_no_effect(tmp_path: Path):
    table = experiment()
    table.loc[:99, ["arm", "y", "p"]] = ["none", 20.0, 1.0]
    run(tmp_path, table, *BASE, "--propensity", "p")
    found = result(tmp_path)
    assert found["rows_measured"] == ROWS - 100 and "100 rows where some arm was impossible" in found["notes"][0]


def test_the_same_file_and_seed_give_the_same_bytes(tmp_path: Path):
    written = []
    for _ in range(2):
        run(tmp_path, experiment(), *BASE, "--budget", "0.3")
        written.append(((tmp_path / "out/result.json").read_bytes(), (tmp_path / "out/report.html").read_bytes()))
    assert written[0] == written[1]


class Tags(HTMLParser):
    """Open and close tags in balance, ids used once, every inner link answered, and nothing loaded from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.wanted: set[str] = set()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href"):
                assert value and value.startswith("#"), value
                self.wanted.add(value[1:])
        if tag not in ("meta", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br"):
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, tag


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path):
    table = experiment().rename(columns={"good": "<b>$x$ & y", "bad": "_bad"})
    run(
        tmp_path,
        table,
        "--arm",
        "arm",
        "--outcome",
        "y",
        "--score",
        "<b>$x$ & y",
        "--score",
        "_bad",
        "--segment",
        "region",
        "--resamples",
        "60",
    )
    text = page(tmp_path)
    tags = Tags()
    tags.feed(text)
    assert tags.stack == [] and len(tags.ids) == len(set(tags.ids)) and tags.wanted <= set(tags.ids)
    assert not {"script", "link", "img", "iframe", "b>"} & tags.seen and text.count("<svg ") == 3
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert 'name="viewport"' in text and "@media print" in text and "prefers-color-scheme: dark" in text
    assert "<b>$x$" not in text and "_bad (champion)" in text and "currentColor" in text


def test_every_number_has_a_definition_on_the_page(tmp_path: Path):
    run(tmp_path, experiment(), *BASE, "--cost", "cost")
    found, text = result(tmp_path), page(tmp_path)
    defined = {d["id"] for d in found["definitions"]}
    used = {row["id"] for row in found["differences"]} | {r["id"] for m in found["models"].values() for r in m["metrics"].values()}
    assert used <= defined and "spend/aipw-own-costs" in used
    assert set(re.findall(r"<code>((?:rate|value|spend|curve|calibration|segment)/[a-z-]+)</code>", text)) <= defined
    assert not re.search(r"\bQini\b", text)
    assert found["file"]["sha256"] in text and "Nothing was declared as simulated." in text


def test_what_is_simulated_is_said(tmp_path: Path):
    run(tmp_path, experiment(), *BASE, "--simulated", "Outcomes are drawn from a known effect.")
    assert "Outcomes are drawn from a known effect." in page(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [("good", 0.1, "Score 'good' is 0.1 in all 2000 rows"), ("y", 0.0, "The outcome is 0 in all 2000 rows")],
)
def test_data_at_fault_cannot_tell(tmp_path: Path, column: str, value: float, sentence: str):
    assert run(tmp_path, experiment().assign(**{column: value}), *BASE, "--propensity", "p") == 0
    found = result(tmp_path)
    assert found["answer"] == "cannot tell" and any(sentence in reason for reason in found["reasons"])
    trusted = ("propensity_completeness", "sample_ratio", "propensity_weights")
    assert {status for name, status in statuses(found).items() if name not in trusted} == {"cannot tell"}


def test_policies_equal_for_want_of_a_budget_cannot_tell(tmp_path: Path):
    table = experiment().assign(good=lambda t: t["good"] + 100, bad=lambda t: t["bad"] + 100)
    run(tmp_path, table, *BASE)
    found = result(tmp_path)
    assert statuses(found)["profit_over_champion"] == "cannot tell" and "set --budget" in found["power"]
    assert any("Give --budget" in warning for warning in found["warnings"])


def test_a_champion_that_ties_keep_from_its_budget_cannot_be_beaten(tmp_path: Path):
    assert run(tmp_path, experiment().assign(bad=1.0), *BASE, "--budget", "0.5") == 0
    found = result(tmp_path)
    assert found["answer"] == "cannot tell" and statuses(found)["profit_over_champion"] == "cannot tell"
    assert any("share one score of champion where its budget ends: it spends 0 of 0.5" in warning for warning in found["warnings"])


def test_segments_too_small_to_judge_are_said_to_be(tmp_path: Path):
    table = experiment().assign(region=lambda t: "r" + (t["id"] // 10).astype(str))
    assert run(tmp_path, table, *BASE, "--segment", "region") == 0
    assert statuses(result(tmp_path))["no_harmed_segment"] == "cannot tell"
    assert "No declared segment has enough randomised units." in page(tmp_path)


def test_duplicates_outliers_and_costs_of_zero_are_warned_of(tmp_path: Path):
    table = experiment()
    table.loc[7, "y"] = 1e7
    table = pd.concat([table, table.head(5)], ignore_index=True).assign(cost=0)
    assert run(tmp_path, table, *BASE, "--cost", "cost") == 0
    found = result(tmp_path)
    text = " ".join(found["warnings"])
    assert "5 of 2,005 rows" in text and re.search(r"Row 8 alone holds 100\.0% of the variance of column 'y'", text)
    assert found["left_out"]["spend_within_budget"].startswith("All costs are zero") and not found["has_cost"]
