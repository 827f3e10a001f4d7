"""Shares of the planned decisions at which a value is looked at -> how many standard errors a look has to show.

A plain 95 % interval that is looked at several times is wrong more often than 5 %. Lan and DeMets (Biometrika, 1983) spend alpha over the
looks; with their function of O'Brien and Fleming's kind, 2 - 2 Phi(z_{a / 2} / sqrt(t)) for each side's a = alpha / 2, early looks spend
next to nothing, and the last one is nearly a plain test. Bounds are found by integrating the density of the score over the looks
(Armitage, McPherson and Rowe, 1969).
"""

import math
from collections.abc import Sequence

import numpy as np

from promolift.uplift.clusters import Floats
from promolift.uplift.distributions import normal_quantile, normal_tail

WIDEST = 8.0
"""Standard errors beyond which a bound is not looked for: a look so early decides nothing."""
POINTS = 1_001
"""Of the grid over which the density is integrated."""


def spent(share: float, alpha: float) -> float:
    """Of a two-sided alpha what both sides have spent when `share` (0, 1] of the information is in."""
    return 4.0 * normal_tail(normal_quantile(1.0 - alpha / 4.0) / math.sqrt(share))


def bounds(shares: Sequence[float], alpha: float) -> tuple[float, ...]:
    """Standard errors that each look has to show, for increasing `shares` in (0, 1]. Raises ValueError for others."""
    if not shares or any(a >= b for a, b in zip((0.0, *shares), (*shares, 2.0), strict=True)) or shares[-1] > 1.0:
        raise ValueError(f"Looks are at {tuple(shares)} of the planned decisions; they must rise from above 0 to at most 1.")
    found: list[float] = []
    grid, density, before = np.zeros(1), np.ones(1), 0.0
    for i, share in enumerate(shares):
        step = share - (shares[i - 1] if i else 0.0)
        scale = math.sqrt(share)  # the score B(t) = Z sqrt(t) has independent increments of variance dt
        found.append(_bound(grid, density, step, scale, spent(share, alpha) - before))
        before = spent(share, alpha)
        grid, density = _next(grid, density, step, found[-1] * scale)
    return tuple(found)


def _bound(grid: Floats, density: Floats, step: float, scale: float, probability: float) -> float:
    """The z whose crossing at this look, and at none before, has `probability`."""
    low, high = 0.0, WIDEST
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _beyond(grid, density, step, middle * scale) > probability else (low, middle)
    return (low + high) / 2.0


def _beyond(grid: Floats, density: Floats, step: float, limit: float) -> float:
    width = math.sqrt(2.0 * step)
    tails = [0.5 * (math.erfc((limit - at) / width) + math.erfc((limit + at) / width)) for at in grid]
    return float(_integral(grid, density * np.array(tails)))


def _next(grid: Floats, density: Floats, step: float, limit: float) -> tuple[Floats, Floats]:
    """Density of the score among those that did not cross, on a grid between the bounds."""
    to = np.linspace(-limit, limit, POINTS)
    moved = np.exp(-((to[:, None] - grid[None, :]) ** 2) / (2.0 * step)) / math.sqrt(2.0 * math.pi * step)
    return to, np.array([_integral(grid, row * density) for row in moved])


def _integral(grid: Floats, values: Floats) -> float:
    """Trapezoid over the grid; a grid of one point is a point mass."""
    return float(np.trapezoid(values, grid)) if len(grid) > 1 else float(values[0])
