"""The gate on few simulated worlds: noise and harm are refused, the oracle comes through; counts and limits are exact."""

import json
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from promolift.uplift.audit import audit
from promolift.uplift.effects import CHAMPION, Choice, measure
from promolift.uplift.gate import judge
from science.coverage import fixed_models, intervals, predictions
from science.monte_carlo import at_most, exact_interval, largest_usual
from science.operating_curve import ALIKE, ONLY_PROFIT, PROMISES, RESAMPLES, Tally, models_of, promises, run, true_gain, verdicts
from science.world_models import BUDGET, QUALITY, Model, Truth, find_truth, noise, predict, response
from science.worlds import draw_world


@pytest.fixture(scope="module")
def truth() -> Truth:
    return find_truth(3, (0.0, ALIKE), shoppers=6_000)


@pytest.mark.slow
def test_useless_and_harmful_are_refused_and_the_oracle_is_promoted_in_most(truth: Truth):
    models = {"oracle": Model(1.0), "useless": Model(0.0), "harmful": Model(-1.0), "overspending": Model(0.9, cost=0.5)}
    tally = run(20, 3_000, "skewed", truth, models)
    assert tally.worlds == 20 and tally.rows / 20 == pytest.approx(7_500, rel=0.02)
    promoted = {name: tally.answers[name][""]["promoted"] for name in models}
    assert promoted["oracle"] >= 12
    assert max(promoted[name] for name in ("useless", "harmful", "overspending")) <= 1
    assert tally.answers["overspending"]["spend_within_budget"]["failed"] >= 19


def test_verdicts_are_those_of_the_library_on_all_its_parts(truth: Truth):
    seed, world = 5, draw_world(5, 300, "skewed")
    people = world.population
    names = (CHAMPION, "lightgbm", "good")
    models = {CHAMPION: Model(QUALITY[CHAMPION]), "lightgbm": Model(QUALITY["lightgbm"]), "good": Model(0.9)}
    noises = [noise(seed, key, people) for key in range(3)]
    made = {n: predict(people, truth, models[n], own, noises[0]) for n, own in zip(names, noises, strict=True)}
    effects = measure(
        world.measured, made | {"response": response(people)}, Choice("good", truth.single, {}),
        budget=BUDGET, segments=world.segments, resamples=RESAMPLES, seed=seed,
    )  # fmt: skip
    ours = dict(verdicts(world, truth, {"good": Model(0.9)}, seed))["good"]
    theirs = judge(audit(world.trial), effects)
    assert ours.checks == theirs.checks and ours.promoted == theirs.promoted


def test_the_models_are_as_bad_as_their_promises_say(truth: Truth):
    models = models_of(truth)
    assert true_gain(truth, models["worse than champion by the margin"]) == pytest.approx(-0.10, abs=1e-9)
    assert true_gain(truth, models["worse by the margin, alike"]) == pytest.approx(-0.10, abs=1e-9)
    assert true_gain(truth, models["earns 10% more"]) == pytest.approx(0.10, abs=1e-9)
    assert set(ONLY_PROFIT) < set(models)
    assert {promise.model for promise in PROMISES} <= {*models, "no effect"}


def test_a_promise_is_broken_by_more_than_the_largest_usual_count():
    answers: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    answers["useless"][""]["promoted"] = 34
    answers["useless"]["qini_positive"]["passed"] = 33
    found = {(row["model"], row["check"]): row for row in promises(Tally(answers, 500), 0.05)}
    assert largest_usual(500, 0.05) == 33
    assert not found["useless", "verdict"]["kept"] and found["useless", "qini_positive"]["kept"]
    json.dumps(list(found.values()))


def test_binomial_limits_by_hand():
    assert at_most(1, 3, 0.5) == pytest.approx(0.5)
    assert at_most(3, 3, 0.2) == 1.0
    assert largest_usual(3, 0.5, 0.8) == 2
    low, high = exact_interval(0, 10)
    assert low == 0.0 and high == pytest.approx(1 - 0.025**0.1)
    low, high = exact_interval(10, 10)
    assert low == pytest.approx(0.025**0.1) and high == 1.0
    low, high = exact_interval(25, 500)
    assert low < 0.05 < high and math.isclose(at_most(25, 500, high), 0.025, rel_tol=1e-6)


def test_intervals_hold_the_truth_in_most_of_few_worlds(truth: Truth):
    known = fixed_models(truth, shoppers=20_000)
    held: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for seed in range(15):
        world = draw_world(seed, 600, "uniform")
        for row in intervals(world, predictions(world.population, truth, seed), known, seed):
            held[row.quantity, row.truth_is].append(abs(row.value - row.truth) <= 1.96 * row.error)
    assert {"rate/qini", "rate/autoc difference", "value/snips, price fixed"} <= {quantity for quantity, _ in held}
    assert min(np.mean(found) for found in held.values()) >= 0.7


@pytest.mark.slow
def test_both_measurements_count_every_world_and_have_their_tables(capsys: pytest.CaptureFixture[str]):
    from science import coverage, operating_curve, world_tables

    curve, cover = operating_curve.measure(worlds=3, shoppers=(150,)), coverage.measure(worlds=3, designs=("uniform",))
    assert curve["settings"][0]["curve"][0]["model"] == "oracle" and len(curve["settings"][0]["promises"]) == len(PROMISES)
    assert sum(curve["settings"][0]["curve"][0][answer]["count"] for answer in ("promoted", "refused", "cannot tell")) == 3
    assert cover["designs"]["uniform"][0]["worlds"] == 3
    assert [len(t.rows) for t in world_tables.operating_tables(curve)] == [len(curve["settings"][0]["curve"]), len(PROMISES)]
    assert len(next(iter(world_tables.coverage_tables(cover))).rows) == len(cover["designs"]["uniform"])
    assert "3 of 3 worlds" in capsys.readouterr().err
