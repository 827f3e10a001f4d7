import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.contracts.promos import CATEGORY_NAMES, Promo
from promolift.response import KINDS, State, kinds, respond
from promolift.simulate import BUCKETS, DAY, FLOOR, WEEK, Experiment, Histories, simulate

PROMOS = (Promo("produce_25", "produce", 0.25, 250, contact_cents=2), Promo("meat_20", "meat", 0.20, 300, min_spend_cents=400))
CATEGORIES = [CATEGORY_NAMES.index(p.category) for p in PROMOS]
FIRST, WEEKS, SHOPPERS = 12, 40, 700


def shopping(seed: int = 5) -> Histories:
    """Made-up shoppers that differ in how often they come, what they buy and how much of it at a discount."""
    rng = np.random.default_rng(seed)
    visits = rng.gamma(2.0, 0.5, SHOPPERS)
    count = rng.poisson(visits * WEEKS) + 1
    shopper = np.repeat(np.arange(SHOPPERS), count)
    time = rng.integers(0, WEEKS * WEEK, len(shopper))
    order = np.lexsort((time, shopper))
    likes = rng.beta(0.7, 1.2, (SHOPPERS, len(CATEGORY_NAMES)))
    holds = rng.random((len(shopper), len(CATEGORY_NAMES))) < likes[shopper]
    sales = holds * rng.integers(100, 2500, holds.shape)
    discount = (sales.sum(1) * rng.uniform(0, 0.35, SHOPPERS)[shopper]).astype(np.int64)
    ids = tuple(f"s{i}" for i in range(SHOPPERS))
    return Histories(ids, shopper, time[order], sales, (sales.sum(1) * 3) // 10, discount)


HISTORIES = shopping()


def experiment(seed: int = 1) -> Experiment:
    return simulate(HISTORIES, PROMOS, origin=0, weeks=WEEKS, first=FIRST, seed=seed)


WORLD = experiment()


def by_week(values: np.ndarray) -> np.ndarray:
    total = np.zeros((SHOPPERS, WEEKS))
    np.add.at(total, (HISTORIES.shopper, HISTORIES.time // WEEK), values)
    return total


def test_the_same_seed_gives_the_same_experiment_and_another_does_not():
    again, other = experiment(), experiment(seed=2)
    assert all(np.array_equal(getattr(WORLD, name), getattr(again, name)) for name in vars(WORLD))
    assert not np.array_equal(WORLD.arm, other.arm)


def test_every_shopper_decides_every_monday_in_one_bucket():
    shape = (WEEKS - FIRST, SHOPPERS)
    assert np.array_equal(WORLD.moment.reshape(shape)[:, 0], np.arange(FIRST, WEEKS) * WEEK)
    assert (WORLD.bucket.reshape(shape) == WORLD.bucket[:SHOPPERS]).all()
    share = np.bincount(WORLD.bucket[:SHOPPERS], minlength=3) / SHOPPERS
    assert share == pytest.approx([0.10, 0.45, 0.45], abs=0.06)


def test_logged_propensities_are_those_that_drew_the_arms():
    p = WORLD.propensities
    assert p.sum(1) == pytest.approx(1.0, abs=1e-12)
    holdout, uniform, skewed = (WORLD.bucket == BUCKETS.index(b) for b in ("holdout", "uniform", "skewed"))
    assert (p[holdout] == [1, 0, 0]).all()
    assert not WORLD.arm[holdout].any()
    assert p[uniform] == pytest.approx(1 / 3)
    assert p[skewed].min() >= FLOOR
    for arm in range(3):
        for bucket in (uniform, skewed):
            error = (WORLD.arm[bucket] == arm) - p[bucket, arm]
            assert abs(error.mean()) < 4 * error.std() / np.sqrt(bucket.sum())
    assert p[skewed].std(0).min() > 0.01  # it does depend on the shopper


def test_effects_come_from_treated_decisions_and_from_the_shoppers_own_baskets():
    for decisions in (WORLD.extra_decision, WORLD.skipped, WORLD.redeemed_decision):
        assert (WORLD.arm[decisions] > 0).all()
    assert not np.intersect1d(WORLD.extra_decision, WORLD.skipped).size
    assert not np.intersect1d(WORLD.redeemed_decision, WORLD.skipped).size
    assert np.array_equal(HISTORIES.shopper[WORLD.extra_basket], WORLD.shopper[WORLD.extra_decision])
    category = np.array(CATEGORIES)[WORLD.arm[WORLD.extra_decision] - 1]
    assert (HISTORIES.sales[WORLD.extra_basket, category] > 0).all()
    for decisions, times in ((WORLD.extra_decision, WORLD.extra_time), (WORLD.redeemed_decision, WORLD.redeemed_time)):
        assert (times >= WORLD.moment[decisions]).all()
        assert (times < WORLD.moment[decisions] + 7 * DAY).all()


def test_a_redemption_costs_depth_of_the_category_spend_up_to_the_cap():
    extra = np.zeros((len(WORLD.arm), len(CATEGORY_NAMES)))
    extra[WORLD.extra_decision] = HISTORIES.sales[WORLD.extra_basket]
    for decision, cost in zip(WORLD.redeemed_decision[:300], WORLD.redeemed_cost[:300], strict=True):
        promo, category = PROMOS[WORLD.arm[decision] - 1], CATEGORIES[WORLD.arm[decision] - 1]
        start = WORLD.moment[decision]
        own = (HISTORIES.shopper == WORLD.shopper[decision]) & (HISTORIES.time >= start) & (HISTORIES.time < start + WEEK)
        spend = HISTORIES.sales[own, category].sum() + extra[decision, category]
        assert spend >= promo.min_spend_cents
        assert cost == pytest.approx(min(promo.depth * spend, promo.cap_cents), abs=0.5)


def realised_change() -> tuple[np.ndarray, np.ndarray]:
    """Margin and redemption cost of every decision, less what its shopper's real week brings without any promo."""
    week, margin = WORLD.moment // WEEK, np.zeros(len(WORLD.arm))
    margin[WORLD.skipped] -= by_week(HISTORIES.margin)[WORLD.shopper[WORLD.skipped], week[WORLD.skipped]]
    margin[WORLD.extra_decision] += HISTORIES.margin[WORLD.extra_basket]
    cost = np.array([0, *(p.contact_cents for p in PROMOS)])[WORLD.arm].astype(float)
    cost[WORLD.redeemed_decision] += WORLD.redeemed_cost
    return margin, cost


@pytest.mark.parametrize("bucket", ["uniform", "skewed"])
def test_truth_agrees_with_what_happens(bucket: str):
    margin, cost = realised_change()
    for p in range(len(PROMOS)):
        given_it = (WORLD.bucket == BUCKETS.index(bucket)) & (WORLD.arm == p + 1)
        for realised, truth in ((margin, WORLD.margin), (cost, WORLD.cost)):
            error = realised[given_it] - truth[given_it, p]
            assert abs(error.mean()) < 4 * error.std() / np.sqrt(given_it.sum())


def test_effects_are_not_small_beside_that_error():
    profit = (WORLD.margin - WORLD.cost)[WORLD.bucket == BUCKETS.index("uniform")]
    margin, cost = realised_change()
    noise = (margin - cost).std() / np.sqrt((WORLD.arm == 1).sum())
    assert np.abs(profit.mean(0)).max() > 6 * noise


def test_all_four_kinds_are_there_and_mean_what_they_say():
    shares = np.bincount(WORLD.kind.ravel(), minlength=4) / WORLD.kind.size
    assert (shares > 0.03).all()
    profit = WORLD.margin - WORLD.cost
    means = {name: profit[WORLD.kind == k].mean() for k, name in enumerate(KINDS)}
    assert means["persuadable"] > 50
    assert means["sleeping_dog"] < -50
    assert means["sleeping_dog"] < means["sure_thing"] < 0 < means["persuadable"]
    assert abs(WORLD.margin[WORLD.kind == KINDS.index("lost_cause")].mean()) < 15


STATES = st.builds(
    lambda visits, discount, share, days, n: State(*(np.array(v, dtype=float) for v in ([visits], [discount], [share], [days], [n]))),
    st.floats(0, 20), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=11, max_size=11),
    st.lists(st.floats(0, 364), min_size=11, max_size=11), st.integers(0, 4),
)  # fmt: skip


@given(STATES)
@settings(max_examples=200, deadline=None)
def test_response_is_a_probability_and_fatigue_persuades_less_and_annoys_more(state: State):
    response = respond(state, PROMOS)
    tired = respond(State(*(list(vars(state).values())[:4]), state.promos_28d + 1), PROMOS)
    for values in vars(response).values():
        assert ((values >= 0) & (values <= 1)).all()
    assert (response.extra + response.skip <= 1 + 1e-12).all()
    assert (tired.extra <= response.extra + 1e-12).all()
    assert (tired.skip >= response.skip - 1e-12).all()
    assert set(np.unique(kinds(response, np.zeros((1, 2))))) <= set(range(4))


def test_nothing_after_the_moment_changes_a_decision_or_its_effect_draws():
    """Point in time: shoppers whose later baskets vanish get the same arms and propensities up to then."""
    cut = 20 * WEEK
    early = HISTORIES.time < cut
    shorter = Histories(HISTORIES.shopper_ids, *(getattr(HISTORIES, n)[early] for n in ("shopper", "time", "sales", "margin", "discount")))
    world = simulate(shorter, PROMOS, origin=0, weeks=WEEKS, first=FIRST, seed=1)
    first_week = WORLD.moment == FIRST * WEEK  # later weeks also see extra trips, which copy baskets of the whole year
    assert np.array_equal(world.propensities[first_week], WORLD.propensities[first_week])
    assert np.array_equal(world.arm[first_week], WORLD.arm[first_week])
