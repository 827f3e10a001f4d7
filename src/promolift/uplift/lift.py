"""Weighted outcomes of two groups, summed by units of shoppers -> what one group brought more than the other, plain and CUPED-adjusted.

A unit holds a fixed share of all shoppers by hash, so that memory is the same however many shoppers there are, and the sums of a shopper
stay together: the unit is the cluster of every standard error. Means are self-normalised (Hajek): sum of w y over sum of w, w = 1 / the
logged probability of the arm where it was drawn, 1 where groups are dealt by hash.

CUPED (Deng, Xu, Kohavi and Walker, WSDM 2013) subtracts theta times the groups' difference in what the same shoppers did before the
experiment, whose expectation is 0; theta is the one that makes the clustered variance least.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from promolift.uplift.clusters import Floats

UNITS = 512
"""Units; a standard error from so many is within about 3 % of its own."""
FEWEST = 30
"""Units with weight on either side below which nothing is said."""
Method = Literal["plain", "cuped"]


@dataclass(frozen=True)
class Side:
    """One group, by unit: weight [U], weighted outcomes [U, M] and earlier outcomes [U, M]; decisions and shoppers in all."""

    weight: Floats
    after: Floats
    before: Floats
    decisions: int
    shoppers: int

    @property
    def units(self) -> int:
        """Units that hold anybody of the group."""
        return int((self.weight > 0).sum())

    @property
    def mean(self) -> Floats:
        """Mean outcomes [M]."""
        return np.asarray(self.after.sum(axis=0) / self.weight.sum())


@dataclass(frozen=True)
class Lift:
    """Differences of means [M] with standard errors [M]. `theta` [M]: of the adjustment; 0 where nothing was known before."""

    method: Method
    effect: Floats
    error: Floats
    theta: Floats


def lifts(treated: Side, control: Side) -> tuple[Lift, Lift] | None:
    """The plain and the adjusted difference, treated less control; None where a side has fewer than FEWEST units."""
    if min(treated.units, control.units) < FEWEST:
        return None
    after, pull = _difference(treated, control, "after")
    before, earlier = _difference(treated, control, "before")
    spread = (earlier**2).sum(axis=0)
    theta = np.where(spread > 0, (pull * earlier).sum(axis=0) / np.where(spread > 0, spread, 1.0), 0.0)
    plain = Lift("plain", after, _error(pull), np.zeros_like(theta))
    return plain, Lift("cuped", after - theta * before, _error(pull - theta * earlier), theta)


def _difference(treated: Side, control: Side, name: Literal["after", "before"]) -> tuple[Floats, Floats]:
    """Difference of means [M], and each unit's influence on it [U, M]."""
    means, pulls = [], []
    for side in (treated, control):
        sums, total = getattr(side, name), side.weight.sum()
        mean = sums.sum(axis=0) / total
        means.append(mean)
        pulls.append((sums - side.weight[:, None] * mean) / total)
    return means[0] - means[1], pulls[0] - pulls[1]


def _error(pull: Floats) -> Floats:
    units = len(pull)
    return np.asarray(np.sqrt((pull**2).sum(axis=0) * units / (units - 1)))
