"""Real shopping histories -> a randomised promo experiment laid over them, with the uplift of every decision known.

Real: every shopper, basket, price and time, and so every baseline outcome and its noise. Simulated: who is given which promo, and
what the promo changes (`promolift.response`). Weekly, Mondays 00:00 UTC, in order of time, since promos received before matter:

1. state of each shopper from what *would have been recorded* until then: real baskets, less skipped weeks, plus extra trips;
2. an arm by salted shopper hash: `holdout` (10 % of shoppers, always no_promo), `uniform` (every arm 1/7), `skewed` (likelier in
   categories the shopper buys, every arm at least FLOOR); the propensities that drew the arm are the ones logged;
3. the effect, one draw for each decision: an extra trip (a copy, re-timed into the window, of one of the shopper's own baskets that
   hold the promo's category, fuller than usual: QUANTILES of their margin), a skipped week (none of its real baskets happen) or
   neither; and a redemption when category spend reaches the least spend: certain on an extra trip, else with p_redeem; it costs
   min(depth * category spend, cap).

Truth for each decision and promo is an expectation over those draws, given the state and the shopper's habit at the time: the mean
over the HABIT real weeks around the decision. No model sees that habit. It holds for the promo history that was logged.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promolift.contracts.promos import CATEGORY_NAMES, Promo
from promolift.response import Floats, Response, State, kinds, respond

Ints = NDArray[np.int64]
DAY = 86_400_000_000
WEEK = 7 * DAY
FLOOR = 0.04
QUANTILES = np.linspace(0.55, 0.90, 8)
POOL = len(QUANTILES)
HABIT = 13
BUCKETS = ("holdout", "uniform", "skewed")


@dataclass(frozen=True)
class Histories:
    """B real baskets in order of (shopper, time): shopper [B] indexes shopper_ids, time [B] in µs UTC, the rest in cents.

    `sales` [B, C] by category in the order of CATEGORY_NAMES; `margin` and `discount` [B].
    """

    shopper_ids: tuple[str, ...]
    shopper: Ints
    time: Ints
    sales: Ints
    margin: Ints
    discount: Ints


@dataclass(frozen=True)
class Experiment:
    """E decisions in order of (moment, shopper), and the events they caused. Times in µs UTC, money in cents.

    extra_*: decision, copied basket and new time of each extra trip. skipped: decisions whose window lost its real baskets.
    redeemed_*: decision, cost and time of each redemption. margin, cost [E, P] and kind [E, P] (index into response.KINDS): truth.
    """

    shopper: Ints
    moment: Ints
    arm: Ints
    bucket: Ints
    propensities: Floats
    extra_decision: Ints
    extra_basket: Ints
    extra_time: Ints
    skipped: Ints
    redeemed_decision: Ints
    redeemed_cost: Ints
    redeemed_time: Ints
    margin: Floats
    cost: Floats
    kind: NDArray[np.int8]


def buckets(shopper_ids: tuple[str, ...], seed: int) -> Ints:
    """Bucket [H] of each shopper, an index into BUCKETS: 10 % holdout, the rest half uniform, half skewed; sticky by salted hash."""
    digests = (hashlib.sha256(f"experiment-{seed}:{s}".encode()).digest()[:8] for s in shopper_ids)
    share = np.array([int.from_bytes(d, "big") / 2**64 for d in digests])
    return np.asarray(np.digitize(share, (0.10, 0.55)), dtype=np.int64)


class _Record:
    """Weekly cubes of what has been recorded so far, [H, W] and [H, W, C], week 0 starting at `origin`; the loop edits them."""

    def __init__(self, histories: Histories, origin: int, weeks: int) -> None:
        size = (len(histories.shopper_ids), weeks)
        week = (histories.time - origin) // WEEK
        inside = (week >= 0) & (week < weeks)
        at = (histories.shopper[inside], week[inside])
        self.sales = np.zeros((*size, len(CATEGORY_NAMES)))
        self.margin, self.discount, self.baskets = np.zeros(size), np.zeros(size), np.zeros(size)
        self.holds, self.last = np.zeros_like(self.sales), np.full(self.sales.shape, -np.inf)
        for cube, values in self._values(histories, inside):
            np.add.at(cube, at, values)
        times = np.where(histories.sales[inside] > 0, histories.time[inside, None].astype(float), -np.inf)
        np.maximum.at(self.last, at, times)

    def _values(self, histories: Histories, which: NDArray[np.bool_] | Ints) -> list[tuple[Floats, NDArray[np.generic]]]:
        sales = histories.sales[which]
        return [
            (self.sales, sales), (self.margin, histories.margin[which]), (self.discount, histories.discount[which]),
            (self.baskets, np.ones(len(sales))), (self.holds, sales > 0),
        ]  # fmt: skip

    def skip(self, shoppers: Ints, week: int) -> None:
        for cube in (self.sales, self.margin, self.discount, self.baskets, self.holds):
            cube[shoppers, week] = 0
        self.last[shoppers, week] = -np.inf

    def add(self, histories: Histories, shoppers: Ints, baskets: Ints, times: Ints, week: int) -> None:
        """At most one extra basket for each shopper a week, so plain fancy indexing adds up."""
        for cube, values in self._values(histories, baskets):
            cube[shoppers, week] += values
        held = np.where(histories.sales[baskets] > 0, times[:, None].astype(float), -np.inf)
        self.last[shoppers, week] = np.maximum(self.last[shoppers, week], held)

    def state(self, week: int, moment: int, promos_28d: Floats) -> State:
        """State just before `week` starts: the 12 weeks before it, recency as far back as 52."""
        near, year = slice(max(week - 12, 0), week), slice(max(week - 52, 0), week)
        baskets, sales = self.baskets[:, near].sum(1), self.sales[:, near].sum((1, 2))
        days = np.asarray((moment - self.last[:, year].max(1)) / DAY)
        return State(
            baskets / 12,
            self.discount[:, near].sum(1) / np.maximum(sales, 1),
            self.holds[:, near].sum(1) / np.maximum(baskets, 1)[:, None],
            np.minimum(days, 364.0),
            promos_28d,
        )


def _pools(histories: Histories, categories: list[int]) -> Ints:
    """[H, P, POOL] own baskets with the promo's category, at QUANTILES of margin, that an extra trip may copy; -1: none."""
    pools = np.full((len(histories.shopper_ids), len(categories), POOL), -1, dtype=np.int64)
    for p, category in enumerate(categories):
        baskets = np.flatnonzero(histories.sales[:, category] > 0)
        baskets = baskets[np.lexsort((histories.margin[baskets], histories.shopper[baskets]))]
        owners, start, count = np.unique(histories.shopper[baskets], return_index=True, return_counts=True)
        pools[owners, p] = baskets[start[:, None] + (QUANTILES * count[:, None]).astype(np.int64)]
    return pools


def _discount(spend: Floats, promo: Promo) -> Floats:
    return np.where(spend >= max(promo.min_spend_cents, 1), np.minimum(promo.depth * spend, promo.cap_cents), 0.0)


def _propensities(bucket: Ints, state: State, categories: list[int]) -> Floats:
    """[H, 1 + P], rows sum to 1; no_promo first."""
    arms = 1 + len(categories)
    liking = np.exp(3.0 * np.column_stack([np.full(len(bucket), 0.3), state.basket_share[:, categories]]))
    skewed = FLOOR + (1 - arms * FLOOR) * liking / liking.sum(1, keepdims=True)
    table = np.stack([np.broadcast_to(np.eye(arms)[0], skewed.shape), np.full(skewed.shape, 1 / arms), skewed])
    return np.asarray(table[bucket, np.arange(len(bucket))])


@dataclass(frozen=True)
class _Drawn:
    """One week's draws, [H] each: arm, propensities [H, 1 + P], effect masks, copied basket and its new time."""

    arm: Ints
    propensities: Floats
    response: Response
    extra: NDArray[np.bool_]
    skip: NDArray[np.bool_]
    redeems: NDArray[np.bool_]
    basket: Ints
    time: Ints


def _draw(rng: np.random.Generator, moment: int, bucket: Ints, state: State, world: "_World") -> _Drawn:
    propensities = _propensities(bucket, state, world.categories)
    shoppers = np.arange(len(bucket))
    arm = np.minimum((rng.random(len(bucket))[:, None] > propensities.cumsum(1)).sum(1), len(world.categories))
    given = np.maximum(arm - 1, 0)
    response = world.respond(state)
    luck, wish, treated = rng.random(len(bucket)), rng.random(len(bucket)), arm > 0
    basket = world.pools[shoppers, given, rng.integers(0, POOL, len(bucket))]
    time = moment + rng.integers(0, 7, len(bucket)) * DAY + world.histories.time[basket] % DAY
    extra = treated & (luck < response.extra[shoppers, given])
    skip = treated & (luck > 1 - response.skip[shoppers, given])
    redeems = treated & ~skip & (extra | (wish < response.redeem[shoppers, given]))
    return _Drawn(arm, propensities, response, extra, skip, redeems, basket, time)


class _World:
    """What stays the same over the weeks: real histories, promos, pools, the first real basket by week and category."""

    def __init__(self, histories: Histories, promos: tuple[Promo, ...], origin: int, weeks: int) -> None:
        self.histories, self.promos = histories, promos
        self.categories = [CATEGORY_NAMES.index(p.category) for p in promos]
        self.pools = _pools(histories, self.categories)
        self._able = self.pools[:, :, 0] >= 0
        self.real = _Record(histories, origin, weeks)
        self.first = np.full((len(histories.shopper_ids), weeks, len(promos)), -1, dtype=np.int64)
        week = (histories.time - origin) // WEEK
        for p, category in enumerate(self.categories):
            baskets = np.flatnonzero((histories.sales[:, category] > 0) & (week >= 0) & (week < weeks))[::-1]
            self.first[histories.shopper[baskets], week[baskets], p] = baskets  # written last to first, so the first stays

    def respond(self, state: State) -> Response:
        """No extra trip where the shopper has no basket to copy."""
        response = respond(state, self.promos)
        return Response(response.extra * self._able, response.skip, response.redeem)

    def redeem(self, drawn: _Drawn, week: int) -> tuple[Ints, Ints, Ints]:
        """(shoppers, cost, time) of the redemptions of a week."""
        shoppers = np.flatnonzero(drawn.redeems)
        given, extra = drawn.arm[shoppers] - 1, drawn.extra[shoppers]
        category = np.array(self.categories)[given]
        spend = self.real.sales[shoppers, week, category] + extra * self.histories.sales[drawn.basket[shoppers], category]
        cost = np.zeros(len(shoppers), dtype=np.int64)
        for p, promo in enumerate(self.promos):
            cost = np.where(given == p, np.floor(_discount(spend, promo) + 0.5).astype(np.int64), cost)
        time = np.where(extra, drawn.time[shoppers], self.histories.time[self.first[shoppers, week, given]])
        paid = cost > 0
        return shoppers[paid], cost[paid], time[paid]

    def truth(self, response: Response, week: int) -> tuple[Floats, Floats, NDArray[np.int8]]:
        """Expected incremental margin and cost, and kind, [H, P] each, over the habit weeks and the pool."""
        start = int(np.clip(week - HABIT // 2, 0, self.real.margin.shape[1] - HABIT))
        habit = slice(start, start + HABIT)
        margin, cost, buys = (np.zeros_like(response.extra) for _ in range(3))
        for p, (promo, category) in enumerate(zip(self.promos, self.categories, strict=True)):
            usual = self.real.sales[:, habit, category]
            pool = self.histories.sales[self.pools[:, p], category]
            margin[:, p] = self.histories.margin[self.pools[:, p]].mean(1)
            on_usual, both = _discount(usual, promo).mean(1), _discount(usual[:, :, None] + pool[:, None, :], promo).mean((1, 2))
            stays = 1 - response.extra[:, p] - response.skip[:, p]
            cost[:, p] = promo.contact_cents + stays * response.redeem[:, p] * on_usual + response.extra[:, p] * both
            buys[:, p] = (usual > 0).mean(1)
        lost = response.skip * self.real.margin[:, habit].mean(1)[:, None]
        return response.extra * margin - lost, cost, kinds(response, buys)


def simulate(histories: Histories, promos: tuple[Promo, ...], *, origin: int, weeks: int, first: int, seed: int) -> Experiment:
    """Run the experiment on weeks `first` .. `weeks` - 1, counted from `origin` (µs, a Monday 00:00 UTC). Same seed, same experiment."""
    rng = np.random.default_rng(seed)
    world, record = _World(histories, promos, origin, weeks), _Record(histories, origin, weeks)
    size = len(histories.shopper_ids)
    bucket = buckets(histories.shopper_ids, seed)
    received, parts = np.zeros((size, weeks)), []
    for week in range(first, weeks):
        moment = origin + week * WEEK
        state = record.state(week, moment, received[:, max(week - 4, 0) : week].sum(1))
        drawn = _draw(rng, moment, bucket, state, world)
        received[:, week] = drawn.arm > 0
        extra, skipped = np.flatnonzero(drawn.extra), np.flatnonzero(drawn.skip)
        record.skip(skipped, week)
        record.add(histories, extra, drawn.basket[extra], drawn.time[extra], week)
        at, cost, time = world.redeem(drawn, week)
        base = (week - first) * size
        parts.append((
            np.arange(size), np.full(size, moment), drawn.arm, bucket, drawn.propensities,
            base + extra, drawn.basket[extra], drawn.time[extra], base + skipped, base + at, cost, time,
            *world.truth(drawn.response, week),
        ))  # fmt: skip
    return Experiment(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
