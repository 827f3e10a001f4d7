"""Worlds: what is written as their truth is what a simulation of their outcomes gives."""

import numpy as np
import pytest

from promolift.uplift.audit import audit
from promolift.uplift.value import Prediction, assign, mean_given
from science.world_models import Model, Truth, find_truth, noise, predict, response, true_price, worse_than, worth
from science.worlds import ARMS, DESIGNS, Population, draw_population, draw_world, observe


@pytest.fixture(scope="module")
def truth() -> Truth:
    return find_truth(3, (0.0, 0.9), shoppers=6_000)


def _repeated(population: Population, shoppers: int, times: int) -> Population:
    """The first `shoppers` shoppers, each `times` times over as somebody else with the same features."""
    keep = population.codes < shoppers
    codes = (population.codes[keep][:, None] + shoppers * np.arange(times)).T.ravel()
    tables = (np.tile(part[keep], (times, 1)) for part in (population.chance, population.outcome, population.cost))
    return Population(codes, shoppers * times, np.tile(population.activity[keep], times), *tables)


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("arm", range(len(ARMS)))
def test_expected_outcomes_are_what_many_simulated_ones_average_to(strength: float, arm: int):
    few = _repeated(draw_population(np.random.default_rng(1), 20, strength), 20, 8_000)
    profit, paid = observe(np.random.default_rng(2 + arm), few, np.full(len(few.codes), arm))
    for seen, true in ((profit, few.outcome[:, arm]), (paid, few.cost[:, arm])):
        error = np.bincount(few.codes, weights=seen - true).std() * np.sqrt(few.shoppers) / len(seen)
        assert abs((seen - true).mean()) <= 4 * error


def test_without_effect_every_promo_earns_exactly_what_it_costs():
    population = draw_population(np.random.default_rng(1), 500, strength=0.0)
    assert np.abs(population.effect).max() < 1e-9 and population.extra_cost.min() > 0


def test_probabilities_stay_probabilities():
    population = draw_population(np.random.default_rng(4), 20_000)
    assert population.chance.min() > 0 and population.chance.max() * 1.3 < 1


@pytest.mark.parametrize("design", ["uniform", "skewed"])
def test_logged_propensities_are_the_ones_drawn_from(design: str):
    world = draw_world(5, 4_000, design)  # type: ignore[arg-type]
    found = audit(world.trial)
    assert found.sound == 1 and found.p_value is not None and found.p_value > 0.001
    assert np.allclose(DESIGNS[design].sum(axis=1), 1)  # type: ignore[index]


def test_by_shopper_gives_a_shopper_one_arm():
    world = draw_world(5, 300, "by shopper")
    assert all(len(set(world.trial.arm[world.trial.codes == code])) == 1 for code in range(300))


def test_the_same_seed_is_the_same_world():
    one, again, other = draw_world(8, 100), draw_world(8, 100), draw_world(9, 100)
    assert np.array_equal(one.profit, again.profit) and not np.array_equal(one.profit[:50], other.profit[:50])


def test_pseudo_outcomes_mean_the_truth():
    world = draw_world(6, 40_000, "skewed")
    gap = world.measured.value - world.population.outcome
    assert np.all(np.abs(gap.mean(axis=0)) <= 4 * gap.std(axis=0) / np.sqrt(len(gap)) * 1.3)
    assert not np.array_equal(world.model, world.population.outcome)


@pytest.mark.parametrize("quality", [0.4, 0.7, 1.0])
def test_a_model_correlates_with_the_truth_as_its_quality_says_and_is_calibrated(truth: Truth, quality: float):
    population = draw_population(np.random.default_rng(11), 20_000)
    made = predict(population, truth, Model(quality), noise(1, 1, population), noise(1, 0, population)).value
    for column in range(made.shape[1]):
        effect, said = population.effect[:, column], made[:, column]
        assert np.corrcoef(effect, said)[0, 1] == pytest.approx(quality, abs=0.03)
        assert np.cov(effect, said)[0, 1] / said.var() == pytest.approx(1.0, abs=0.1)


def test_better_models_earn_more_and_response_is_no_uplift_model(truth: Truth):
    values = list(truth.by_quality[0.0].values())
    assert values == sorted(values)
    assert truth.earns["response"] < truth.by_quality[0.0][0.0] < truth.earns["champion"]


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_worse_by_a_margin_is_worse_by_that_margin(truth: Truth, shared: float):
    population = draw_population(np.random.default_rng(3), 6_000)
    own, champions = noise(3, 1, population), noise(3, 0, population)
    model = worse_than(truth, "champion", 0.10, shared)
    assert worth(population, predict(population, truth, model, own, champions)) == pytest.approx(0.9 * truth.earns["champion"], rel=0.01)


def test_the_true_price_spends_the_budget_and_no_more_than_without_one():
    population = draw_population(np.random.default_rng(12), 2_000)
    for made in (Prediction(population.effect, population.extra_cost), response(population)):
        spend = mean_given(population.extra_cost, assign(made, true_price(population, made, 10.0)))
        assert spend == pytest.approx(10.0, rel=0.02)
    assert true_price(population, Prediction(population.effect, population.extra_cost), 1e6) == 0.0
