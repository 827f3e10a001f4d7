"""Logged decisions -> what a candidate would have answered to the same envelopes, logged beside them.

A mirrored call inside the graph would add its time and its failures to every decision: the router waits for every step and turns a
transport failure of any into a 500 (notes: kserve.md 1.2). The log holds everything that a decision was made from, so the candidate is
asked from there: the same envelopes, no influence at all.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from deltalake import write_deltalake

from promolift.contracts.decisions import Envelope, read_bytes
from promolift.contracts.promos import NO_PROMO
from promolift.contracts.tables import DECISIONS, SHADOW_DECISIONS
from promolift.delta_rows import Row, arrow_table, created, read_rows
from promolift.policy.eligibility import CompiledRules
from promolift.policy.exploration import PROBE
from promolift.policy.rules import load_rules
from promolift.storage import Place
from serving.kserve.model_folder import load_manifest
from serving.kserve.predictor import Predictor
from serving.kserve.replay import Replay
from serving.kserve.versions import kept


@dataclass(frozen=True)
class Summary:
    """What the shadow's report shows. Shifts: the candidate less what was given; `cents` a decision; `ms`: p50, p99 of one."""

    decisions: int
    agreement: float
    no_promo_shift: float
    mix_shift: Mapping[str, float]
    cents: float
    given_cents: float
    score_shift: float
    score_correlation: float
    ms: tuple[float, float]


class Shadow(Replay):
    """Decides logged envelopes again by another model; the rest is as it was recorded."""

    def __init__(self, folder: Path, salt: str, model: Path) -> None:
        super().__init__(folder, salt)
        self._candidate, self._manifest = Predictor(model), load_manifest(model)
        self.version = self._manifest.version
        self._cents = {promo.promo_id: promo.most_cents for promo in self._manifest.promos} | {NO_PROMO: 0}

    def row(self, logged: Envelope) -> Row | None:
        """One row of `shadow_decisions`; None for a decision that no model was asked for."""
        if logged.decision is None or logged.candidates is None or logged.scores is None or not logged.candidates.promo_ids:
            return None
        answer = self.again(logged)
        if answer.decision is None or answer.scores is None:
            return None
        given, would = logged.decision.promo_id, answer.decision.promo_id
        return {
            "decision_id": logged.decision.decision_id, "shopper_id": logged.request.shopper_id, "model_version": self.version,
            "given": given, "promo_id": would, "given_cents": logged.decision.reserved_cents, "cents": self._cents[would],
            "score": max(logged.scores.value, default=None), "shadow_score": max(answer.scores.value, default=None),
        }  # fmt: skip

    def _predictor(self, version: str) -> Predictor:
        return self._candidate

    def _compiled(self, rules_version: str, version: str) -> CompiledRules:
        if (rules_version, self.version) not in self._rules:
            path = kept(self._folder, "rules", f"{rules_version}.yaml")
            self._rules[rules_version, self.version] = CompiledRules(
                load_rules(path, self._manifest.promos, self._manifest.vocabularies)
            )  # fmt: skip
        return self._rules[rules_version, self.version]


def shadow(folder: Path, salt: str, model: Path, most: int, lake: Place) -> Summary:
    """Ask the model about those of the newest `most` decisions that it was not asked about; the summary is of all that it ever was.

    `folder` keeps the versions by which `lake`'s decisions were made.
    """
    asked = Shadow(folder, salt, model)
    table = created(lake, SHADOW_DECISIONS)
    mine = f"WHERE model_version = '{asked.version}'"
    known = {row["decision_id"] for row in read_rows(f"{lake}/{SHADOW_DECISIONS.path}", ("decision_id",), mine)}
    others = f"WHERE model_version <> '{asked.version}' AND shopper_id NOT LIKE '{PROBE}%' ORDER BY entry_id DESC LIMIT {most}"
    logged = read_rows(f"{lake}/{DECISIONS.path}", ("decision_id", "envelope"), others)
    rows, took = [], []
    for envelope in (read_bytes(Envelope, row["envelope"].encode()) for row in logged if row["decision_id"] not in known):
        started = perf_counter()
        if (row := asked.row(envelope)) is not None:
            rows.append(row)
            took.append((perf_counter() - started) * 1000)
    if rows:
        write_deltalake(table, arrow_table(SHADOW_DECISIONS, rows), mode="append")
    return summarise(read_rows(f"{lake}/{SHADOW_DECISIONS.path}", SHADOW_DECISIONS.names, mine), took)


def summarise(rows: Sequence[Row], took: Sequence[float]) -> Summary:
    """The summary of rows of `shadow_decisions`."""
    count = len(rows)
    if not count:
        return Summary(0, 0.0, 0.0, {}, 0.0, 0.0, 0.0, 0.0, (0.0, 0.0))
    given, would = (Counter(str(row[name]) for row in rows) for name in ("given", "promo_id"))
    shift = {promo: (would[promo] - given[promo]) / count for promo in sorted({*given, *would})}
    both = np.array([(row["score"], row["shadow_score"]) for row in rows if None not in (row["score"], row["shadow_score"])]).reshape(-1, 2)
    correlation = float(np.corrcoef(both.T)[0, 1]) if len(both) > 1 and both.std(axis=0).all() else 0.0
    return Summary(
        count, sum(row["given"] == row["promo_id"] for row in rows) / count, shift.pop(NO_PROMO, 0.0), shift,
        sum(row["cents"] for row in rows) / count, sum(row["given_cents"] for row in rows) / count,
        float((both[:, 1] - both[:, 0]).mean()) if len(both) else 0.0, correlation if math.isfinite(correlation) else 0.0,
        (float(np.percentile(took, 50)), float(np.percentile(took, 99))) if took else (0.0, 0.0),
    )  # fmt: skip


def report(summary: Summary) -> str:
    """The summary as one line of JSON."""
    document: dict[str, Any] = asdict(summary)
    return json.dumps(document, sort_keys=True)
