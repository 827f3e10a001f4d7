"""How many callers there are at each second of a scenario."""

from collections.abc import Callable, Mapping

Shape = Callable[[float], float]
"""Share of the whole time that has passed (0 to 1) -> share of the callers."""


def ramp(passed: float) -> float:
    """From few to all over half of the time, then all."""
    return min(1.0, 0.1 + 1.8 * passed)


def spike(passed: float) -> float:
    """A quarter of them, all for a fifth of the time in the middle, a quarter again."""
    return 1.0 if 0.4 <= passed < 0.6 else 0.25


def level(_: float) -> float:
    """All of them all the time."""
    return 1.0


SHAPES: Mapping[str, Shape] = {"ramp": ramp, "spike": spike}
"""Scenarios whose number of callers changes; the others keep theirs."""
