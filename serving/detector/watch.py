"""Closed days -> looks: each version's every day once, by whichever replica is first; alarms with what they cost, told where asked."""

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import prometheus_client as prometheus
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from promolift.drift.columns import Rows, day_of
from promolift.drift.impact import Impact, Key, Score, impact, key_of, ranked
from promolift.drift.look import Finding, Look, look
from promolift.drift.reference import WINDOWS, Reference
from promolift.drift.sketch import Day, day_of_rows, within
from promolift.drift.two_samples import CALIBRATED, ChosenTests
from serving.detector.store import Store

GRACE_S, EVERY_S, MOST_ALARMS = 900.0, 10.0, 10
"""After the end of a day, for late events; between two looks for what is due; alarms whose cost is computed."""
ALARM = "io.promolift.drift.alarm"
DRIFT = prometheus.Gauge("promolift_drift", "1 while the newest look at a version found drift, else 0.", ["version"])
SMALLEST = prometheus.Gauge("promolift_drift_smallest_p_value", "Of the newest look, by window.", ["version", "days"])
LIMIT = prometheus.Gauge("promolift_drift_p_value_limit", "Below it is drift.", ["version"])
COST = prometheus.Gauge("promolift_drift_cents_at_stake", "Of the costliest alarm of the newest look, a decision.", ["version"])
FAILED = prometheus.Counter("promolift_drift_failed_looks", "Looks that could not be made; each is tried again.")
LOOKED = prometheus.Gauge("promolift_drift_last_look_timestamp_seconds", "When the newest look was made.", ["version"])


@dataclass(frozen=True)
class Watched:
    """A version with its reference, and how its model scores."""

    reference: Reference
    score: Score


@dataclass(frozen=True)
class Options:
    """How looks are made. `moments`: a day is over when a later one has rows; else when this clock says so.

    `reply`: where alarms are posted, "" for nowhere.
    """

    alpha: float = 0.05
    tests: ChosenTests = CALIBRATED
    moments: bool = False
    reply: str = ""


class Watch:
    """Makes looks."""

    def __init__(self, store: Store, watched: Mapping[str, Watched], options: Options) -> None:
        self._store, self._watched = store, watched
        self._alpha, self._tests, self._moments, self._reply = options.alpha, options.tests, options.moments, options.reply

    async def look_forever(self) -> None:
        """Look at what is due, for as long as the process lives."""
        while True:
            try:
                for version in list(self._watched):
                    await self.look_at(version, None)
            # Whatever goes wrong in one look must not be the last look.
            except Exception as problem:
                FAILED.inc()
                print(f"no look could be made ({type(problem).__name__}: {problem}); tried again", flush=True)
            await asyncio.sleep(EVERY_S)

    async def look_at(self, version: str, through: int | None) -> list[dict[str, Any]]:
        """Make the looks that are due, and return the new ones. `through`: with `moments`, a day that is over, as those before it are."""
        days = await self._store.days(version)
        over = through if self._moments and through is not None else self._last_over(days)
        return [made for day in days if day <= over and (made := await self._look(version, day, days))]

    def _last_over(self, days: list[int]) -> int:
        if self._moments:
            return max(days, default=0) - 1
        return day_of(time.time() - GRACE_S) - 1

    async def _look(self, version: str, day: int, days: list[int]) -> dict[str, Any] | None:
        if not await self._store.begin_look(version, day):
            return None
        watched = self._watched[version]
        wanted = [d for d in days if day - max(WINDOWS) < d <= day]
        rows = {d: await self._store.rows(version, watched.reference.columns, d) for d in wanted}
        document = await asyncio.to_thread(self._made, watched, rows, day, days[0])
        if not await self._store.end_look(version, day, document):
            return None
        tell(document)
        if document["status"] == "drift" and self._reply:
            await self._post(document)
        return document

    def _made(self, watched: Watched, rows: Mapping[int, Rows], day: int, since: int) -> dict[str, Any]:
        """The look, its costliest alarms first, as it is kept."""
        reference = watched.reference
        by_day = {d: day_of_rows(reference, own) for d, own in rows.items() if len(own)}
        found = look(reference, by_day, day, self._alpha, since, self._tests)
        costs: dict[Key, Impact | None] = {}
        moved: dict[Key, float] = {}
        for finding in found.findings[:MOST_ALARMS]:
            training, window, share = _rows_of(finding, reference, by_day, {d: own for d, own in rows.items() if d > day - finding.days})
            cost = impact(reference.columns, finding, window, training, watched.score)
            costs[key_of(finding)] = cost and cost.of_all(share)
            if finding.column in reference.columns.numbers:
                at = reference.columns.numbers.index(finding.column)
                moved[key_of(finding)] = _distance(*(part["numbers"][:, at] for part in (training, window)))
        return _document(ranked(found, costs), costs, moved)

    async def _post(self, document: Mapping[str, Any]) -> None:
        headers = {
            "ce-id": str(uuid.uuid4()), "ce-type": ALARM, "ce-source": "promolift/detector", "ce-specversion": "1.0",
            "ce-subject": document["version"], "ce-time": document["made_at"], "content-type": "application/json",
        }  # fmt: skip
        try:
            async with httpx.AsyncClient(timeout=5.0) as client:
                (await client.post(self._reply, content=json.dumps(document), headers=headers)).raise_for_status()
        except httpx.HTTPError as problem:
            print(f"the alarm on {document['version']} of {document['day']} did not reach {self._reply} ({problem})", flush=True)


def _rows_of(finding: Finding, reference: Reference, by_day: Mapping[int, Day], rows: Mapping[int, Rows]) -> tuple[Rows, Rows, float]:
    """A sample of training, the window, and the share of its rows that they are: those of the finding's segment."""
    segments = {segment.name: (segment, own) for segment, own in reference.segments.items()}
    if not finding.segment:
        return reference.sample, np.concatenate([*rows.values()]), 1.0
    segment, own = segments[finding.segment]
    parts = [of_day[within(reference.columns, segment, by_day[d].bins)] for d, of_day in rows.items() if len(of_day)]
    window = np.concatenate(parts)
    return own.sample, window, len(window) / sum(map(len, rows.values()))


def _distance(training: NDArray[np.float32], window: NDArray[np.float32]) -> float:
    """Wasserstein distance in the column's unit."""
    return float(f"{wasserstein_distance(training[~np.isnan(training)], window[~np.isnan(window)]):.4g}")


def _document(
    found: Look, costs: Mapping[Key, Impact | None], moved: Mapping[Key, float]
) -> dict[str, Any]:  # fmt: skip
    def told(finding: Finding) -> dict[str, Any]:
        known = costs.get(key_of(finding))
        return asdict(finding) | {"distance": moved.get(key_of(finding)), "impact": asdict(known) if known else None}

    return {
        **asdict(found), "findings": [told(finding) for finding in found.findings],
        "nearest": [asdict(finding) for finding in found.nearest],
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def tell(document: Mapping[str, Any]) -> None:
    """Set the gauges of a version to a look."""
    version = document["version"]
    DRIFT.labels(version).set(document["status"] == "drift")
    LIMIT.labels(version).set(document["limit"])
    LOOKED.labels(version).set(datetime.fromisoformat(document["made_at"]).timestamp())
    COST.labels(version).set(max((f["impact"]["cents"] for f in document["findings"] if f["impact"]), default=0.0))
    for days in WINDOWS:
        smallest = min((f["p_value"] for f in document["nearest"] if f["days"] == days), default=1.0)
        SMALLEST.labels(version, str(days)).set(smallest)
