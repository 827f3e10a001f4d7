"""Decisions of canary and control -> each guardrail's answer. Gross harm and technical failure only: a canary cannot judge value.

What a canary can detect is far from what a promo is worth (notes: uplift.md 1.9), so value is judged off-policy and by the experiment's
readout. Groups are compared as assigned (by bucket), whoever answered: a request that the candidate lost counts as its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from promolift.contracts.promos import NO_PROMO
from promolift.promotion.sequential import Gap, gap, mean_bound, mismatch
from promolift.uplift.clusters import Floats, encode
from promolift.yaml_file import read_yaml

FILE = Path(__file__).with_name("guardrails.yaml")
FAILED = frozenset({"graph_unavailable", "deadline", "model_error", "budget_unavailable"})
"""Reasons of an answer that is none."""
Status = Literal["holds", "broken", "too early"]
_STRICT = ConfigDict(extra="forbid")
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Margins:
    """How much more the canary may show, in shares; `spend` in cents a decision."""

    __pydantic_config__ = _STRICT

    failed: Share
    degraded: Share
    slow: Share
    no_promo: Share
    mix: Share
    spend: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Horizon:
    """What a stage sees before the next one: decisions of the candidate, and hours."""

    __pydantic_config__ = _STRICT

    decisions: Annotated[int, Field(ge=1)]
    hours: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Value:
    """The group-sequential test of what a canary is worth: decisions planned, looks, and alpha over all of them."""

    __pydantic_config__ = _STRICT

    decisions: Annotated[int, Field(ge=100)]
    looks: Annotated[int, Field(ge=1, le=12)]
    alpha: Annotated[float, Field(gt=0, lt=0.5)]


@dataclass(frozen=True)
class Limits:
    """The whole of guardrails.yaml."""

    __pydantic_config__ = _STRICT

    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    first_look: Annotated[int, Field(ge=2)]
    slow_ms: Annotated[float, Field(gt=0)]
    margins: Margins
    stages: dict[Literal["shadow", "canary_10", "canary_50"], Horizon]
    value: Value


@dataclass(frozen=True)
class Seen:
    """What guardrails look at of one decision."""

    shopper_id: str
    canary: bool
    promo_id: str
    reason: str
    cents: int
    ms: float
    degraded: bool
    propensity: float


@dataclass(frozen=True)
class Foretold:
    """What the shadow says of the candidate less the model in service: no_promo share, share by promo, cents a decision."""

    no_promo: float = 0.0
    mix: Mapping[str, float] = field(default_factory=dict)
    cents: float = 0.0


@dataclass(frozen=True)
class Guard:
    """One guardrail: its status, what was seen, the end of the sequential interval that decides, and the margin. `detail`: a sentence."""

    name: str
    status: Status
    value: float | None
    bound: float | None
    limit: float
    detail: str


def read_limits(path: Path = FILE) -> Limits:
    """The limits of a file. Raises InputError with file and line for what is wrong."""
    file = read_yaml(path, "Guardrails file", "--guardrails")
    limits: Limits = file.checked(Limits, file.mapping(), "")
    return limits


def judge(rows: Sequence[Seen], share: float, limits: Limits, foretold: Foretold, planned: int) -> list[Guard]:
    """Every guardrail's answer to the decisions so far. `share`: of shoppers in the canary; `planned`: its decisions at the horizon."""
    return judge_columns(Columns.of(rows), share, limits, foretold, planned)


def judge_columns(table: "Columns", share: float, limits: Limits, foretold: Foretold, planned: int) -> list[Guard]:
    """`judge` for decisions in columns."""
    guards = [_propensities(table), _ratio(table, share, limits.alpha / TESTS)]
    if min(table.canary.sum(), (~table.canary).sum()) < limits.first_look:
        early = f"looked at from {limits.first_look} decisions of each group on; there are {table.canary.sum()} of the canary"
        return [*guards, *(Guard(name, "too early", None, None, limit, early) for name, limit in _means(limits))]
    test, margins = _Test(table, limits.alpha / TESTS, planned * (1.0 - share)), limits.margins
    none = table.promo == NO_PROMO
    guards += [
        test.more("failed", table.failed, margins.failed, "answered without graph, model or ledger"),
        test.more("degraded", table.degraded, margins.degraded, "answered with less than was asked for"),
        test.more("slow", table.ms > limits.slow_ms, margins.slow, f"slower than {limits.slow_ms:g} ms"),
        test.off("no_promo", {NO_PROMO: none}, {NO_PROMO: foretold.no_promo}, margins.no_promo),
        test.off("mix", table.by_promo(), foretold.mix, margins.mix),
        test.more("spend", table.cents, margins.spend + foretold.cents, "cents reserved a decision"),
    ]
    return guards


TESTS = 7
"""Guardrails that share alpha: sample ratio, failed, degraded, slow, no_promo, mix, spend."""


def _means(limits: Limits) -> list[tuple[str, float]]:
    names = ("failed", "degraded", "slow", "no_promo", "mix", "spend")
    return [(name, getattr(limits.margins, name)) for name in names]


@dataclass(frozen=True)
class Columns:
    """Decisions [n] in columns: group, promo, shopper, failed, degraded, milliseconds, cents reserved, propensity."""

    canary: NDArray[np.bool_]
    promo: NDArray[np.generic]
    shopper: NDArray[np.generic]
    failed: NDArray[np.bool_]
    degraded: NDArray[np.bool_]
    ms: Floats
    cents: Floats
    propensity: Floats

    @classmethod
    def of(cls, rows: Sequence[Seen]) -> "Columns":
        """The columns of rows."""
        return cls(
            np.array([row.canary for row in rows], dtype=bool), np.array([row.promo_id for row in rows], dtype=np.str_),
            np.array([row.shopper_id for row in rows], dtype=np.str_), np.array([row.reason in FAILED for row in rows], dtype=bool),
            np.array([row.degraded for row in rows], dtype=bool), np.array([row.ms for row in rows], dtype=np.float64),
            np.array([row.cents for row in rows], dtype=np.float64), np.array([row.propensity for row in rows], dtype=np.float64),
        )  # fmt: skip

    def first(self, count: int) -> "Columns":
        """The first `count` decisions."""
        return Columns(*(getattr(self, one.name)[:count] for one in fields(self)))

    def by_promo(self) -> dict[str, NDArray[np.bool_]]:
        """Which decisions gave which promo."""
        return {str(name): self.promo == name for name in np.unique(self.promo) if name != NO_PROMO}


class _Test:
    """Compares the two groups of one table, with a probability `alpha` of a false alarm a guardrail."""

    def __init__(self, table: Columns, alpha: float, planned: float) -> None:
        self._table, self._alpha, self._planned = table, alpha, planned
        self._codes = {side: encode(table.shopper[table.canary == side])[0] for side in (True, False)}

    def _gap(self, values: Floats) -> Gap:
        inside = self._table.canary
        share = (values.sum() + 2.0) / (len(values) + 4.0)
        floor = share * (1.0 - share) if values.max(initial=0.0) <= 1.0 else 0.0  # a share of 0 in few rows is not known to be 0
        return gap((values[inside], self._codes[True]), (values[~inside], self._codes[False]), floor)

    def more(self, name: str, values: NDArray[np.generic], limit: float, what: str) -> Guard:
        """Broken when the canary's mean is surely more than the control's by over `limit`."""
        found = self._gap(values.astype(np.float64))
        bound = mean_bound(found, self._alpha, self._planned)
        sentence = f"{what}: canary less control {found.value:+.4g}, surely at least {bound:+.4g}; {limit:.4g} is allowed"
        return Guard(name, "broken" if bound > limit else "holds", found.value, bound, limit, sentence)

    def off(self, name: str, groups: Mapping[str, NDArray[np.bool_]], foretold: Mapping[str, float], limit: float) -> Guard:
        """Broken when any of the shares surely differs from what was foretold by over `limit`, up or down."""
        worst = (-np.inf, "no promo was given", 0.0)
        alpha = self._alpha / (2 * max(1, len(groups)))
        for promo, values in groups.items():
            found = self._gap(values.astype(np.float64))
            shift = found.value - foretold.get(promo, 0.0)
            bound = mean_bound(Gap(abs(shift), found.deviation, found.rows), alpha, self._planned)
            if bound > worst[0]:
                worst = (bound, f"{promo}: canary less control {found.value:+.3f}, foretold {foretold.get(promo, 0.0):+.3f}", abs(shift))
        bound, told, value = worst
        sentence = f"{told}; surely off by {max(bound, 0.0):.3f}, {limit:.3g} is allowed"
        return Guard(name, "broken" if bound > limit else "holds", float(value), float(max(bound, -1e9)), limit, sentence)


def _propensities(table: Columns) -> Guard:
    """No canary decision may lack the probability of its arm: without it, it can never be valued."""
    sound = (table.propensity > 0.0) & (table.propensity <= 1.0)
    missing = int((table.canary & ~sound).sum())
    sentence = f"{missing} decisions of the canary lack the probability of their arm"
    return Guard("propensities", "broken" if missing else "holds", float(missing), None, 0.0, sentence)


def _ratio(table: Columns, share: float, alpha: float) -> Guard:
    """Shoppers by group against the share that the graph says."""
    inside, outside = (len(np.unique(table.shopper[side])) for side in (table.canary, ~table.canary))
    p = mismatch(inside, outside, share)
    sentence = f"{inside} shoppers in the canary, {outside} in the control; {share:.0%} were to be in it (anytime-valid p = {p:.3g})"
    return Guard("sample_ratio", "broken" if p < alpha else "holds", p, None, alpha, sentence)
