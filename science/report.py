"""Records of the steps -> result.json's document, its targets and tables, and report.html: targets first, one file, no script."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promolift.uplift.libraries import library
from science import hillstrom_tables, ihdp_tables, world_tables
from science.steps import versions
from science.tables import Record, Table, TableMaker, Target, TargetMaker, runs_table, targets_table

TEMPLATE = Path(__file__).with_name("report.html.j2")
MAKERS: Mapping[str, tuple[TableMaker, TargetMaker]] = {
    "hillstrom": (hillstrom_tables.tables, hillstrom_tables.targets),
    "ihdp": (ihdp_tables.tables, ihdp_tables.targets),
    "coverage": (world_tables.coverage_tables, world_tables.coverage_targets),
    "operating_curve": (world_tables.operating_tables, world_tables.operating_targets),
}
"""The steps in the order of the page, by name."""
TITLES = {
    "hillstrom": "Hillstrom's trial: raw and normalised Qini",
    "ihdp": "IHDP: error of the effect",
    "coverage": "Coverage of policy value",
    "operating_curve": "Operating curve of the gate",
}


def document(records: Mapping[str, Record], *, quick: bool) -> dict[str, Any]:
    """What result.json holds: every step's record, the targets, versions, seconds."""
    seconds = round(sum(record["seconds"] for record in records.values()), 1)
    found = [target.__dict__ for target in targets(records)]
    return {"quick": quick, "seconds": seconds, "versions": versions(), "targets": found, "steps": dict(records)}


def targets(records: Mapping[str, Record]) -> tuple[Target, ...]:
    """Of every step; of one that was not run, that."""
    found: list[Target] = []
    for name, record in records.items():
        if "result" in record:
            found.extend(MAKERS[name][1](record["result"]))
        else:
            found.append(Target(TITLES[name], "–", record["not_run"], "not run"))
    return tuple(found)


def tables(found: Record) -> tuple[Table, ...]:
    """Every table of a document: the targets, those of the steps that have a result, the steps themselves."""
    records: Mapping[str, Record] = {name: found["steps"][name] for name in MAKERS}
    made = [table for name, record in records.items() if "result" in record for table in MAKERS[name][0](record["result"])]
    return (targets_table(tuple(Target(**target) for target in found["targets"])), *made, runs_table(records))


def sentence(found: Record) -> str:
    """The answer in one sentence."""
    answers = [target["status"] for target in found["targets"]]
    counts = ", ".join(f"{answers.count(status)} {status}" for status in ("met", "within error", "not met", "not run") if status in answers)
    return f"Of {len(answers)} targets: {counts}."


def page(found: Record) -> str:
    """The page's text. Raises UnavailableError where jinja2 is not installed."""
    jinja2 = library("jinja2", "Writing report.html")
    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    environment.filters["bold"] = _bold
    return str(environment.get_template(TEMPLATE.name).render(d=found, tables=tables(found), sentence=sentence(found)))


def _bold(text: str) -> Any:
    """A cell whose **words** are set in bold, safe for HTML."""
    markup = library("markupsafe", "Writing report.html")
    return markup.Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text)))
