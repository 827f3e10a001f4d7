"""Policy contributions and predeclared segments of shoppers -> effect per segment and Holm-adjusted evidence of harm."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promolift.uplift.bootstrap import Estimate, HalfSamples
from promolift.uplift.clusters import Floats
from promolift.uplift.distributions import normal_tail

MIN_SHOPPERS = 20


@dataclass(frozen=True)
class Segment:
    """What the policy earns per decision in one segment; `p_harm`: Holm-adjusted p-value of "it earns less than nothing"."""

    name: str
    rows: int
    effect: Estimate
    p_harm: float


def holm(p_values: Floats) -> Floats:
    """Holm's step-down adjustment of p-values [m] (Holm, 1979): reject those at most alpha, family-wise error alpha."""
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (m - np.arange(m)))
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def judge_segments(contribution: Floats, masks: dict[str, NDArray[np.bool_]], samples: HalfSamples) -> tuple[Segment, ...]:
    """Effect of the policy [n] in each segment, worst evidence first. Segments of under 20 shoppers are left out."""
    kept = {name: mask for name, mask in masks.items() if len(np.unique(samples.codes[mask])) >= MIN_SHOPPERS}
    effects = {name: samples.take(mask).mean(contribution[mask]) for name, mask in kept.items()}
    adjusted = holm(np.array([_harm(effect) for effect in effects.values()]))
    rows = [Segment(n, int(kept[n].sum()), e, float(p)) for (n, e), p in zip(effects.items(), adjusted, strict=True)]
    return tuple(sorted(rows, key=lambda segment: segment.p_harm))


def _harm(effect: Estimate) -> float:
    return normal_tail(-effect.value / effect.error) if effect.error > 0 else 1.0


def quantile_masks(name: str, values: Floats, parts: int = 4) -> dict[str, NDArray[np.bool_]]:
    """Segments by equal-count parts of a feature [n], named by part; equal values stay together."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, parts + 1)[1:-1]))
    cell = np.searchsorted(edges, values, side="left")
    return {f"{name} part {part + 1} of {len(edges) + 1}": cell == part for part in range(len(edges) + 1)}
