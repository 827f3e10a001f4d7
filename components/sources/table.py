"""Somebody's randomised experiment (CSV or Parquet, explained by a YAML file: table_spec) -> landing tables of the contracts.

Nothing is simulated. Each row is one decision with its covariates and closed outcomes, so that no feature is made from events.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from components.sources.landing_tables import Landed, arrow_table
from components.sources.table_columns import Given, covariates, stored
from components.sources.table_spec import TableSpec, read_spec
from promolift.contracts.promos import LABEL_GRACE_DAYS, NO_PROMO, OUTCOME_WINDOW_DAYS, Promo, SourceCard
from promolift.contracts.tables import schema_of, table
from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.judge_input import Columns, Request, columns_of
from promolift.uplift.judge_table import labels, need, numbers, read_table, refuse
from promolift.uplift.scores import SUM_TOLERANCE

UNTIMED = int(np.datetime64("2000-01-01", "us").astype(np.int64))
"""Moment (µs) of the decisions of a file without times; each further row of the same shopper follows a second later."""
SECOND = 1_000_000
SETTLED = (OUTCOME_WINDOW_DAYS + LABEL_GRACE_DAYS) * 86_400 * SECOND
SHARE_OF_COST = 0.5
"""Budget that is taken where none was given, as a share of what promos cost on average."""


@dataclass(frozen=True)
class _Read:
    """The file as read. `rows` [n]: row numbers; `binary` [n] of 0 and 1; `value`, `cost` [n] in cents; `propensities` [n, K + 1].

    `estimated`: the propensities are the file's own shares of the arms.
    """

    spec: TableSpec
    frame: Any
    columns: Columns
    rows: Integers
    binary: Floats
    value: Floats
    cost: Floats
    propensities: Floats
    estimated: bool


def land(path: str, seed: int) -> Landed:
    """The experiment that the YAML file `path` describes. `seed` is not used: nothing is drawn. Raises InputError on bad input."""
    read = _read(read_spec(Path(path)) if path else _refused())
    given = covariates(read.frame, read.spec.features)
    who, moment = _shoppers(read), _moments(read)
    _refuse_simultaneous(read, who, moment)
    card = _card(read, given, moment)
    _say(read, given, card)
    return Landed(card, {"assignments": _assignments(read, card, who, moment), "trials": _trials(read, card, given, who, moment)})


def _refused() -> TableSpec:
    raise InputError("Source table needs --path of a YAML file that says what each column means; see components/sources/table_spec.py.")


def _read(spec: TableSpec) -> _Read:
    outcome, cost = spec.value or spec.outcome, spec.cost if isinstance(spec.cost, str) else ""
    request = Request(spec.file, spec.arm, outcome, (), control=spec.control, propensity=spec.propensity, cost=cost, cluster=spec.shopper)
    frame = read_table(spec.file)
    columns = columns_of(frame, request)
    need(frame, spec.file.name, [spec.outcome, spec.time, *spec.features])
    rows = np.arange(len(frame)) + 1
    value = _cents(columns.outcome) if spec.value else np.zeros(len(rows))
    propensities, estimated = _propensities(spec, columns)
    return _Read(spec, frame, columns, rows, _binary(spec, frame, rows, columns), value, _costs(spec, columns), propensities, estimated)


def _binary(spec: TableSpec, frame: Any, rows: Integers, columns: Columns) -> Floats:
    """The yes-or-no outcome; without one, whether there is any value."""
    if not spec.outcome:
        return np.asarray(columns.outcome != 0, dtype=np.float64)
    found = numbers(frame, spec.outcome, rows)
    refuse((found != 0) & (found != 1), frame[spec.outcome], spec.outcome, "neither 0 nor 1; an amount is a `value`", rows)
    return found


def _cents(amount: Floats) -> Floats:
    return np.floor(amount * 100 + 0.5)


def _costs(spec: TableSpec, columns: Columns) -> Floats:
    """Cost of what each row was given, in cents. Raises InputError for a negative one, an arm that is none, or a control that costs."""
    if isinstance(spec.cost, dict):
        unknown = [arm for arm in spec.cost if arm not in columns.arms]
        if unknown:
            raise InputError(f"`cost` names arm '{unknown[0]}'; the arms are {', '.join(columns.arms)}.")
        cost = np.array([spec.cost.get(arm, 0.0) for arm in columns.arms])[columns.arm]
    else:
        cost = np.zeros(len(columns.arm)) if columns.cost is None else columns.cost
    wrong = np.flatnonzero((cost < 0) | ((columns.arm == 0) & (cost > 0)))
    if len(wrong):
        row, arm = wrong[0], columns.arms[columns.arm[wrong[0]]]
        raise InputError(f"The cost of row {row + 1}, arm '{arm}', is {cost[row]:g}; a promo costs 0 or more, '{columns.arms[0]}' nothing.")
    return _cents(cost)


def _propensities(spec: TableSpec, columns: Columns) -> tuple[Floats, bool]:
    """[n, K + 1], and whether they are only the file's own shares. Raises InputError for shares that do not fit the arms."""
    shares = spec.shares
    if not shares:
        return columns.propensities, columns.estimated
    if set(shares) != set(columns.arms):
        raise InputError(f"`shares` names {', '.join(shares)}; the file's arms are {', '.join(columns.arms)}: give one share each.")
    row = np.array([shares[arm] for arm in columns.arms])
    if not (np.all(row > 0) and abs(row.sum() - 1) <= SUM_TOLERANCE):
        raise InputError(f"`shares` are {', '.join(f'{a}: {p:g}' for a, p in shares.items())}; each must be above 0 and their sum 1.")
    return np.tile(row / row.sum(), (len(columns.arm), 1)), False


def _shoppers(read: _Read) -> Any:
    """Whose decision each row is, as text [n]."""
    if not read.spec.shopper:
        return np.array(_row_names(read))
    codes, names = labels(read.frame, read.spec.shopper, read.rows)
    return np.array(names)[codes]


def _moments(read: _Read) -> Integers:
    """When each was decided, µs since 1970 UTC [n]. Raises InputError for what is no time."""
    if not read.spec.time:
        nth = pd.Series(read.columns.clusters).groupby(read.columns.clusters).cumcount().to_numpy()
        return np.asarray(UNTIMED + nth * SECOND, dtype=np.int64)
    given = read.frame[read.spec.time]
    times = pd.to_datetime(given.astype(str) if given.dtype.kind not in "M" else given, errors="coerce", utc=True, format="mixed")
    refuse(np.asarray(times.isna()), given, read.spec.time, "no time such as 2026-01-31 or 2026-01-31T12:00:00Z", read.rows)
    found = times.dt.as_unit("us").astype("int64").to_numpy()
    refuse(found < UNTIMED, given, read.spec.time, "a time before 2000", read.rows)
    return np.asarray(found, dtype=np.int64)


def _refuse_simultaneous(read: _Read, who: Any, moment: Integers) -> None:
    twice = pd.DataFrame({"who": who, "moment": moment}).duplicated().to_numpy()
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise InputError(
            f"Shopper '{who[row]}' has two decisions at the same `{read.spec.time}`, one of them in row {row + 1}; "
            "was a row delivered twice?"
        )


def _promos(read: _Read) -> tuple[Promo, ...]:
    """Each arm but the control; what all its rows cost is `contact_cents`, what the dearest costs beyond that `cap_cents`."""
    names = read.columns.arms[1:]
    if NO_PROMO in names:
        raise InputError(f"Arm '{NO_PROMO}' is not the control '{read.columns.arms[0]}'; rename it, since no promo is called so here.")
    costs = [read.cost[read.columns.arm == arm] for arm in range(1, len(read.columns.arms))]
    return tuple(
        Promo(name, "other", 0.0, int(own.max() - own.min()), contact_cents=int(own.min())) for name, own in zip(names, costs, strict=True)
    )


def _card(read: _Read, given: list[Given], moment: Integers) -> SourceCard:
    spec, columns = read.spec, read.columns
    treated = columns.arm > 0
    budget = spec.budget * 100 if spec.budget is not None else SHARE_OF_COST * float(read.cost[treated].mean())
    window = datetime.fromtimestamp((int(moment.max()) + SETTLED) / SECOND + 1, UTC)
    outcome = " and ".join(name for name in (spec.outcome, spec.value) if name)
    return SourceCard(
        name="table", real=f"All {len(read.rows):,} rows of {spec.file.name}: arms, features, {outcome}.",
        simulated="" if spec.time else "Only the time: the file says none, so that all decisions fall on one day.",
        objective="profit" if spec.value else "visited", binary_outcome="converted", budget_cents=budget,
        as_of=window.isoformat(timespec="seconds").replace("+00:00", "Z"), promos=_promos(read), has_truth=False,
        covariates=tuple(g.covariate for g in given), segments=tuple(map(stored, spec.segments)),
        estimated_propensities=read.estimated,
    )  # fmt: skip


def _row_names(read: _Read) -> list[str]:
    return [f"row {number}" for number in read.rows]


def _assignments(read: _Read, card: SourceCard, who: Any, moment: Integers) -> pa.Table:
    names = pa.array(card.arms).take(pa.array(read.columns.arm))
    bucket = np.where(np.ptp(read.propensities, axis=1) < SUM_TOLERANCE, "uniform", "skewed")
    return arrow_table(table("landing", "assignments"), {
        "exposure_id": _row_names(read), "shopper_id": who, "moment": moment, "bucket": bucket, "promo_id": names,
        "propensities": pa.array(list(read.propensities)), "arrived_at": moment,
    })  # fmt: skip


def _trials(read: _Read, card: SourceCard, given: list[Given], who: Any, moment: Integers) -> pa.Table:
    trials = schema_of(card).landing[1]
    return arrow_table(trials, {
        "exposure_id": _row_names(read), "shopper_id": who, "moment": moment, **{g.covariate.name: pa.array(g.values) for g in given},
        "converted": read.binary == 1, "margin_cents": read.value.astype(np.int64), "cost_cents": read.cost.astype(np.int64),
        "arrived_at": moment + SETTLED,
    })  # fmt: skip


def _say(read: _Read, given: list[Given], card: SourceCard) -> None:
    """What was understood, before anything long starts."""
    arms = ", ".join(f"{arm['name']} {arm['rows']:,}" for arm in read.columns.facts["arms"])
    print(f"{read.spec.file.name}: {len(read.rows):,} rows; arms {arms}; {read.columns.arms[0]} is {NO_PROMO}", flush=True)
    for one in given:
        print(f"  {one.covariate.name}: {one.said}", flush=True)
    for sentence in (*read.columns.notes, *read.columns.warnings):
        print(f"  {sentence}", flush=True)
    if card.estimated_propensities:
        print("  No propensity was logged: the arms' shares of the file stand for them.", flush=True)
