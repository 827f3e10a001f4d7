"""The decision log since a stage began -> the guardrails' answers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from promolift.contracts.tables import DECISIONS
from promolift.delta_rows import Row, read_rows
from promolift.policy.exploration import PROBE, rollout_bucket
from promolift.promotion.graph_change import Window
from promolift.promotion.guardrails import Foretold, Guard, Limits, Seen, judge

COLUMNS = ("shopper_id", "promo_id", "reason", "reserved_cents", "latency_ms", "propensity", "envelope")
HARMLESS = frozenset({"stale_features", "no_features", "out_of_support", "segment_prior", "expired_features"})
"""Degradations that come from the shopper, not from the model that was asked."""


def seen_since(lake: Path, since: datetime, window: Window, salt: str) -> list[Seen]:
    """Decisions since a moment, without probes; groups by the shopper's bucket, whoever answered."""
    if not DeltaTable.is_deltatable(str(lake / DECISIONS.path)):
        return []
    start = int(since.timestamp() * 1000)
    # Entries are named by the ledger's clock in milliseconds, of 13 digits until the year 2286: text compares as numbers do.
    rows = read_rows(lake / DECISIONS.path, COLUMNS, f"WHERE entry_id >= '{start}' AND shopper_id NOT LIKE '{PROBE}%'")
    return [_seen(row, window, salt) for row in rows]


def _seen(row: Row, window: Window, salt: str) -> Seen:
    degraded = set(json.loads(row["envelope"]).get("degraded", ())) - HARMLESS
    return Seen(
        row["shopper_id"], rollout_bucket(row["shopper_id"], salt) in window, row["promo_id"], row["reason"], row["reserved_cents"],
        row["latency_ms"], bool(degraded), row["propensity"],
    )  # fmt: skip


def look(rows: Sequence[Seen], window: Window, limits: Limits, shadow: dict[str, Any], planned: int) -> list[Guard]:
    """The guardrails' answers, held against what the shadow foretold."""
    foretold = Foretold(
        float(shadow.get("no_promo_shift", 0.0)), shadow.get("mix_shift", {}),
        max(0.0, float(shadow.get("cents", 0.0)) - float(shadow.get("given_cents", 0.0))),
    )  # fmt: skip
    return judge(rows, window.share, limits, foretold, planned)


def broken(guards: Sequence[Guard]) -> list[Guard]:
    """Those that stop the canary."""
    return [guard for guard in guards if guard.status == "broken"]


def record(guards: Sequence[Guard], canary: int, control: int) -> dict[str, Any]:
    """What a page shows of one look."""
    return {"canary": canary, "control": control, "guards": [asdict(guard) for guard in guards]}
