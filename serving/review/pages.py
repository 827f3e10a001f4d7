"""Trail, dossiers and reports of one lake -> what each page shows."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from promolift.errors import InputError, PromoliftError
from promolift.promotion.actions import Review, acts_for, dossier_place
from promolift.promotion.stages import LIVE, PATH
from promolift.promotion.trail import Entry, Standing
from promolift.storage import copy, exists
from serving.review.lift import lift_of

SHOWN = 200
"""Entries or versions on one page."""
FIGURES = {
    "spend": "Profit against spend, every policy", "curves": "Gain as more shoppers are treated",
    "calibration": "Predicted against measured",
}  # fmt: skip
NAME = re.compile(r"^[\w.-]+$")


class Pages:
    """What is shown. `reports`: the folder where promotions leave their newest look; dossiers are brought once and kept by hash."""

    def __init__(self, review: Review, reports: Path) -> None:
        self._review, self._reports = review, reports
        self._dossiers: dict[str, dict[str, Any]] = {}

    def prepare(self) -> None:
        """Read and verify the trail, and load what copies dossiers, so that the first page does not wait for it."""
        self.versions()
        exists(self._review.lake)

    def versions(self) -> dict[str, Any]:
        """SHOWN versions: the one that reigns, those on their way, candidates, and the rest, newest first."""
        found = list(self._review.trail.standings().values())[::-1]
        order = ("champion", *LIVE, "candidate")
        ranked = sorted(found, key=lambda one: order.index(one.stage) if one.stage in order else len(order))
        return {"versions": ranked[:SHOWN], "count": len(ranked), "chain": self._chain()}

    def version(self, version: str) -> dict[str, Any]:
        """One version's dossier, guardrails, history and what may be done with it. Raises InputError for an unknown one."""
        now = self._review.standing(version)
        history = self._review.trail.history(version)
        return {
            "now": now, "dossier": self._dossier(now), "history": list(reversed(history)), "author": self._review.author(version),
            "champion": self._review.champion(), "guardrails": _drawn(self._report("guardrails", version)),
            "shadow": self._report("shadow", version),
            "acts": acts_for(now), "path": PATH[1:], "figures": FIGURES,
        }  # fmt: skip

    def trail(self, before: str) -> dict[str, Any]:
        """SHOWN entries, newest first, from the entry `before` on, and whether the chain is sound. Raises InputError for no number."""
        if before and not before.isdigit():
            raise InputError(f"'{before}' is no entry's number; give one as ?before=NUMBER.")
        entries = self._review.trail.entries()
        end = min(len(entries), int(before) - 1) if before else len(entries)
        shown = list(reversed(entries[max(0, end - SHOWN) : end]))
        return {
            "entries": shown,
            "count": len(entries),
            "chain": self._chain(),
            "more": shown[-1].seq if shown and shown[-1].seq > 1 else 0,
        }

    def lift(self) -> dict[str, Any]:
        """The experiment's readout, as `measure_lift` left it."""
        return lift_of(self._review.lake)

    def figure(self, version: str, name: str) -> bytes:
        """A figure of the dossier. Raises InputError for one that there is not."""
        if name not in FIGURES or name not in (found := self._dossier(self._review.standing(version))).get("figures", {}):
            raise InputError(f"The dossier of version {version} has no figure '{name}'.")
        content: bytes = found["figures"][name]
        return content

    def _chain(self) -> str:
        """The hash of the newest entry: reading the trail has verified every link."""
        entries: Sequence[Entry] = self._review.trail.entries()
        return entries[-1].hash if entries else ""

    def _dossier(self, now: Standing) -> dict[str, Any]:
        """The dossier's documents; under "problem" a sentence where it is missing or was changed."""
        if now.last.evidence not in self._dossiers:
            try:
                self._dossiers[now.last.evidence] = self._read(now)
            except (PromoliftError, OSError) as problem:
                return {"problem": f"The evidence cannot be shown: {problem}"}
        return self._dossiers[now.last.evidence]

    def _read(self, now: Standing) -> dict[str, Any]:
        if not NAME.match(now.version):
            raise InputError(f"'{now.version}' is no version.")
        hash_now = self._review.evidence(now.version)
        if hash_now != now.last.evidence:
            raise InputError(f"it is {hash_now[:12]} now, and {now.last.evidence[:12]} in the trail.")
        with TemporaryDirectory() as at:
            folder = Path(at) / "dossier"
            copy(dossier_place(self._review.lake, now.version), folder)
            documents = {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in folder.glob("*.json")}
            figures = {f.stem: f.read_bytes() for f in folder.glob("*.png")}
            return {**documents, "figures": figures, "diff": (folder / "graph.diff").read_text(encoding="utf-8"), "problem": ""}

    def _report(self, name: str, version: str) -> dict[str, Any] | None:
        path = self._reports / f"{name}-{version}.json"
        if not NAME.match(version) or not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document


def _drawn(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """The guardrails' report with what is drawn: per guardrail value, sure part and limit in per cent of the widest, and bars by minute."""
    if report is None:
        return None
    for guard in report["guards"]:
        ends = [end for end in (guard["value"], guard["bound"], guard["limit"]) if end is not None]
        guard["drawn"] = None
        if guard["bound"] is not None and guard["limit"] > 0:
            scale = 100.0 / (1.1 * max(ends))
            guard["drawn"] = {name: round(max(0.0, guard[name] * scale), 1) for name in ("value", "bound", "limit")}
    pace = report.get("pace", [])
    most = max((minute["canary"] + minute["control"] for minute in pace), default=0)
    heights = [
        {name: round(40.0 * count / most, 1) for name, count in (("all", m["canary"] + m["control"]), ("part", m["canary"]))} for m in pace
    ]
    return {**report, "bars": [{**minute, **height} for minute, height in zip(pace, heights, strict=True)], "most": most}
