"""The decision log since a stage began -> the guardrails' answers."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from promolift.contracts.tables import DECISIONS
from promolift.delta_rows import Row, read_rows
from promolift.policy.exploration import PROBE, rollout_bucket
from promolift.promotion.graph_change import Window
from promolift.promotion.guardrails import Foretold, Guard, Limits, Seen, judge
from promolift.storage import Place, exists

MINUTES = 60
COLUMNS = ("entry_id", "shopper_id", "promo_id", "reason", "reserved_cents", "latency_ms", "propensity", "envelope")


class SeenLog:
    """Decisions of the log since a moment, without probes; each is read once. Groups by the shopper's bucket, whoever answered."""

    def __init__(self, lake: Place, since: datetime, window: Window, salt: str) -> None:
        self._table, self.window, self._salt = f"{lake}/{DECISIONS.path}", window, salt
        # Entries are named by the ledger's clock in milliseconds, of 13 digits until the year 2286: text compares as numbers do.
        self._after = str(int(since.timestamp() * 1000))
        self._rows: list[Seen] = []
        self._pace: Counter[tuple[int, bool]] = Counter()

    def read(self) -> Sequence[Seen]:
        """All of them so far."""
        if exists(f"{self._table}/_delta_log"):
            new = read_rows(self._table, COLUMNS, f"WHERE entry_id > '{self._after}' AND shopper_id NOT LIKE '{PROBE}%' ORDER BY entry_id")
            seen = [_seen(row, self.window, self._salt) for row in new]
            self._pace.update((int(row["entry_id"].partition("-")[0]) // 60_000, one.canary) for row, one in zip(new, seen, strict=True))
            self._rows += seen
            self._after = new[-1]["entry_id"] if new else self._after
        return self._rows

    def pace(self) -> list[dict[str, Any]]:
        """Decisions of canary and control in each of the last MINUTES minutes that saw any, oldest first."""
        minutes = sorted({minute for minute, _ in self._pace})[-MINUTES:]
        return [
            {"minute": f"{datetime.fromtimestamp(m * 60, UTC):%H:%M}", "canary": self._pace[m, True], "control": self._pace[m, False]}
            for m in minutes
        ]


def _seen(row: Row, window: Window, salt: str) -> Seen:
    return Seen(
        row["shopper_id"], rollout_bucket(row["shopper_id"], salt) in window, row["promo_id"], row["reason"], row["reserved_cents"],
        row["latency_ms"], bool(json.loads(row["envelope"]).get("degraded")), row["propensity"],
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
