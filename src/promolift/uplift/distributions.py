"""Probability -> quantile and statistic -> p-value: normal and chi-square, in numpy and the standard library only."""

import math
from statistics import NormalDist

_STANDARD = NormalDist()


def normal_quantile(probability: float) -> float:
    """The z with P(Z <= z) = `probability`, 0 < probability < 1."""
    return _STANDARD.inv_cdf(probability)


def normal_tail(z: float) -> float:
    """P(Z > z) of the standard normal; accurate far out, where 1 - cdf is not."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P(X > statistic) for chi-square with `degrees` >= 1 degrees of freedom (regularised upper incomplete gamma)."""
    if statistic <= 0:
        return 1.0
    a, x = degrees / 2.0, statistic / 2.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    return 1.0 - scale * _lower_series(a, x) if x < a + 1.0 else scale * _upper_fraction(a, x)


def _lower_series(a: float, x: float) -> float:
    term = total = 1.0 / a
    step = a
    while abs(term) > 1e-16 * total:
        step += 1.0
        term *= x / step
        total += term
    return total


def _upper_fraction(a: float, x: float) -> float:
    """Continued fraction of Gamma(a, x) / (x^a e^-x) by Lentz's method (Abramowitz and Stegun 6.5.31)."""
    b = x + 1.0 - a
    c, d = math.inf, 1.0 / b
    total = d
    for i in range(1, 1000):
        an = -i * (i - a)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        total *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return total
