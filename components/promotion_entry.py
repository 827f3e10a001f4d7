"""A registered version -> its first entry in the trail of promotions."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from promolift.promotion.actions import dossier_place
from promolift.promotion.dossier import dossier_hash
from promolift.promotion.stages import Stage
from promolift.promotion.trail import Entry
from promolift.promotion.trail_table import TrailTable
from promolift.storage import copy


def enter(lake: str, registered: dict[str, Any], dossier: str) -> None:
    """Tell the trail of a version that it does not know, and put its dossier where reviewers read it.

    It is a candidate, or the champion where there was none before.
    """
    trail = TrailTable(lake)
    version, tags = str(registered["version"]), registered["tags"]
    if version in trail.standings() or tags["verdict"] != "promoted":
        return
    reigns = "champion" in registered["aliases"]
    stage: Stage = "champion" if reigns else "candidate"
    why = "the first version that passed the gate" if reigns else "passed the gate"
    model, champion = f"{registered['model']}-{tags['sha256'][:12]}", version if reigns else ""
    author = tags.get("author") or "unknown"
    copy(dossier, dossier_place(lake, version))
    evidence = dossier_hash(Path(dossier))
    trail.append(Entry(0, version, model, "register", stage, stage, author, datetime.now(UTC), why, evidence, champion))
