"""A file of somebody else's experiment -> checked columns, or a sentence with column, count and an example row.

Rows are counted from 1, the header not included.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.judge_facts import describe, sha256, warn
from promolift.uplift.judge_table import Mask, labels, need, numbers, quoted, read_table, refuse
from promolift.uplift.scores import SUM_TOLERANCE

CONTROLS = ("0", "false", "control", "no_promo", "none", "no", "holdout", "no e-mail", "no email")
"""Arm values that are taken for the arm without a promo when the caller names none; case does not matter."""
ANY_PROMO = "any promo"


@dataclass(frozen=True)
class Request:
    """Which file and which of its columns play which part; "" and () where there is none."""

    file: Path
    arm: str
    outcome: str
    scores: tuple[str, ...]
    control: str = ""
    promos: tuple[str, ...] = ()
    propensity: str = ""
    cost: str = ""
    cluster: str = ""
    segments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """What is judged. `arms[0]` is the control; `arm` [n] indexes `arms`; `propensities` [n, K+1]; each score [n, K]; `cost` [n], cents.

    `estimated`: the propensities are the file's own arm shares. `clusters` [n]: labels of the units that were randomised.
    `segments`: for each segment column the code of each row [n] and the text of each code.
    `facts`: what the report says about the file. `notes`: decisions made in reading. `warnings`: what a reviewer must know.
    """

    arms: tuple[str, ...]
    arm: Integers
    outcome: Floats
    scores: dict[str, Floats]
    propensities: Floats
    estimated: bool
    cost: Floats | None
    clusters: Integers
    segments: dict[str, tuple[Integers, tuple[str, ...]]]
    facts: dict[str, Any]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def read_columns(request: Request) -> Columns:
    """Read and check the file. Raises what `read_table` and `columns_of` do."""
    return columns_of(read_table(request.file), request)


def columns_of(table: Any, request: Request) -> Columns:
    """Check the pandas `table` of the request's file.

    Raises InputError with a whole sentence for everything that cannot be judged, UnavailableError without pandas or pyarrow.
    """
    need(table, request.file.name, [request.arm, request.outcome, request.cost, request.cluster, *request.segments])
    arms, arm, kept = _arms(table, request)
    facts = {"name": request.file.name, "sha256": sha256(request.file), "bytes": request.file.stat().st_size, "rows": len(table)}
    facts |= describe(table, _parts(table, request, arms)) | {"rows_judged": int(kept.sum())}
    rows, table = np.flatnonzero(kept) + 1, table if kept.all() else table[kept]
    outcome = _outcome(table, request.outcome, arms, arm, rows)
    facts["arms"] = [
        {"name": name, "rows": int((arm == a).sum()), "share": float((arm == a).mean()), "mean_outcome": float(outcome[arm == a].mean())}
        for a, name in enumerate(arms)
    ]
    propensities, estimated = _propensities(table, request, arms, arm, rows)
    scores, pooled = _scores(table, request, arms, rows)
    cost = numbers(table, request.cost, rows) if request.cost else None
    clusters = labels(table, request.cluster, rows)[0] if request.cluster else np.arange(len(table), dtype=np.int64)
    segments = {name: labels(table, name, rows) for name in request.segments}
    notes = [] if kept.all() else [f"{len(kept) - len(rows):,} rows of arms that were not asked for are left out."]
    if pooled:
        notes.append(
            f"The scores name no arm, so the {len(arms) - 1} promos are judged as one, '{ANY_PROMO}', in the experiment's own mix."
        )
        arms, arm = (arms[0], ANY_PROMO), (arm > 0).astype(np.int64)
        propensities = np.column_stack([propensities[:, 0], 1.0 - propensities[:, 0]])
    money = {request.outcome: outcome} | ({request.cost: cost} if cost is not None else {})
    warnings = warn(facts, money, scores, rows)
    return Columns(
        arms, arm, outcome, scores, propensities, estimated, cost, clusters, segments, facts, tuple(notes), warnings
    )  # fmt: skip


def _parts(table: Any, request: Request, arms: tuple[str, ...]) -> dict[str, str]:
    """What each column of the table that is used is used for."""
    single = {"arm": [request.arm], "outcome": [request.outcome], "cost": [request.cost], "cluster": [request.cluster]}
    named = {"propensity": [request.propensity], "score": list(request.scores)}
    by_arm = {part: [f"{name}_{arm}" for name in names for arm in arms] + names for part, names in named.items()}
    columns = single | by_arm | {"segment": list(request.segments)}
    found = {name: ", ".join(part for part, names in columns.items() if name in names) for name in map(str, table.columns)}
    return {name: parts for name, parts in found.items() if parts}


def _arms(table: Any, request: Request) -> tuple[tuple[str, ...], Integers, Mask]:
    """Names of the arms, control first, the arm of each row kept, and which rows [of the file] are kept."""
    codes, found = labels(table, request.arm, np.arange(len(table)) + 1)
    counts = dict(zip(found, np.bincount(codes).tolist(), strict=True))
    if len(found) < 2:
        only = next(iter(counts))
        raise InputError(f"Column '{request.arm}' has one arm only, '{only}' in all {len(table)} rows; an effect needs a control arm too.")
    control = _control(request, counts)
    wanted = request.promos or tuple(name for name in found if name != control)
    for promo in wanted:
        if promo not in counts or promo == control:
            raise InputError(
                f"--promo '{promo}' is no promo of column '{request.arm}', whose arms are {_listed(counts)}; control '{control}'."
            )
    arms = (control, *wanted)
    place = np.array([arms.index(name) if name in arms else -1 for name in found], dtype=np.int64)
    arm = place[codes]
    kept = np.asarray(arm >= 0, dtype=np.bool_)
    return arms, arm[kept], kept


def _control(request: Request, counts: dict[str, int]) -> str:
    if request.control:
        if request.control not in counts:
            raise InputError(f"--control '{request.control}' is no value of column '{request.arm}', whose arms are {_listed(counts)}.")
        return request.control
    likely = [name for name in counts if name.lower() in CONTROLS]
    if len(likely) != 1:
        raise InputError(f"Which arm of column '{request.arm}' got nothing? Say --control VALUE; its arms are {_listed(counts)}.")
    return likely[0]


def _listed(counts: dict[str, int]) -> str:
    shown = [f"'{name}' ({count} rows)" for name, count in list(counts.items())[:12]]
    return ", ".join(shown) + (f" and {len(counts) - 12} more" if len(counts) > 12 else "")


def _outcome(table: Any, column: str, arms: tuple[str, ...], arm: Integers, rows: Integers) -> Floats:
    missing = np.asarray(table[column].isna(), dtype=bool)
    for index, name in enumerate(arms):
        of_arm = arm == index
        if missing[of_arm].all():
            first = rows[np.flatnonzero(of_arm)[0]]
            raise InputError(
                f"Arm '{name}' has no outcome: column '{column}' is empty in all its {int(of_arm.sum())} rows, row {first} for one. "
                "Add its outcomes, or leave the arm out with --promo."
            )
    return numbers(table, column, rows)


def _propensities(
    table: Any, request: Request, arms: tuple[str, ...], arm: Integers, rows: Integers
) -> tuple[Floats, bool]:  # fmt: skip
    """Probability of every arm [n, K+1]: logged by arm, logged for the arm given (two arms), or the arms' shares (then True)."""
    if not request.propensity:
        return np.tile(np.bincount(arm, minlength=len(arms)) / len(arm), (len(arm), 1)), True
    name, names = request.propensity, [str(column) for column in table.columns]
    by_arm = [f"{name}_{value}" for value in arms]
    if all(column in names for column in by_arm):
        return _by_arm(table, by_arm, arm, rows, partly=bool(request.promos)), False
    if len(arms) > 2 or name not in names or request.promos:
        lacking = [column for column in by_arm if column not in names]
        raise InputError(
            f"--propensity {name}: {request.file.name} lacks {quoted(lacking)}. Give one column for every arm, or, with two arms, "
            f"a column '{name}' with the probability of the arm that the row was given. Its columns are: {', '.join(names)}."
        )
    given = _probabilities(table, name, rows)
    refuse(given <= 0, table[name], name, "a probability of 0 for the arm that was given", rows)
    return np.where(arm[:, None] == np.arange(2), given[:, None], 1.0 - given[:, None]), False


def _by_arm(table: Any, columns: list[str], arm: Integers, rows: Integers, *, partly: bool) -> Floats:
    p = np.column_stack([_probabilities(table, column, rows) for column in columns])
    given = p[np.arange(len(arm)), arm]
    for index, column in enumerate(columns):
        refuse((arm == index) & (given <= 0), table[column], column, "0 though the arm was given", rows)
    total = p.sum(axis=1)
    if partly:  # rows of the arms left out are gone, so the arms kept are conditioned on
        refuse(total > 1.0 + SUM_TOLERANCE, total, " + ".join(columns), "a sum above 1", rows)
        return np.asarray(p / total[:, None], dtype=np.float64)
    refuse(np.abs(total - 1.0) > SUM_TOLERANCE, total, " + ".join(columns), "a sum other than 1", rows)
    return p


def _probabilities(table: Any, column: str, rows: Integers) -> Floats:
    values = numbers(table, column, rows)
    refuse((values < 0) | (values > 1), table[column], column, "no probability between 0 and 1", rows)
    return values


def _scores(table: Any, request: Request, arms: tuple[str, ...], rows: Integers) -> tuple[dict[str, Floats], bool]:
    """Each score [n, K], and whether the promos must be pooled into one, since no score says for which arm it is."""
    names = [str(column) for column in table.columns]
    columns: dict[str, list[str]] = {}
    for score in request.scores:
        by_arm = [f"{score}_{value}" for value in arms[1:]]
        if not any(column in names for column in by_arm):
            by_arm = [score]
        need(table, request.file.name, by_arm)
        columns[score] = by_arm
    single = [score for score, found in columns.items() if len(found) == 1]
    if len(arms) > 2 and 0 < len(single) < len(columns):
        raise InputError(
            f"Scores {quoted(single)} name no arm while the others have one column for each of {len(arms) - 1} promos; "
            f"give columns such as '{single[0]}_{arms[1]}', or choose one promo with --promo."
        )
    found = {name: np.column_stack([numbers(table, column, rows) for column in parts]) for name, parts in columns.items()}
    return found, len(arms) > 2 and bool(single)
