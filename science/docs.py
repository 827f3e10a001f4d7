"""`python -m science.docs`: build/science/result.json -> docs/science.json (small) and the figures between the markers of docs/science.md.

Without --result the document is written anew from docs/science.json; with --check nothing is written, and a difference is an error.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError, PromoliftError, usable
from science.report import sentence, tables
from science.steps import ROOT
from science.tables import Record, Table

DOCUMENT, FIGURES = ROOT / "docs/science.md", ROOT / "docs/science.json"
BLOCK = re.compile(r"(<!-- figures: (?P<name>[a-z-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
BULK = frozenset({"each"})
"""Keys of result.json that the document does without: single splits and replications."""


def small(value: Any) -> Any:
    """The record without its bulk, numbers to six significant digits."""
    if isinstance(value, dict):
        return {name: small(part) for name, part in value.items() if name not in BULK}
    if isinstance(value, list):
        return [small(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def filled(text: str, found: Record) -> str:
    """The document with every block written from the record. Raises InputError on a block or table that has no counterpart."""
    made = {table.name: table for table in tables(found)}
    blocks = [match["name"] for match in BLOCK.finditer(text)]
    for name in made:
        if blocks.count(name) != 1:
            raise InputError(f"The document has {blocks.count(name)} blocks '<!-- figures: {name} -->'; the table needs exactly one.")

    def written(match: re.Match[str]) -> str:
        name = match["name"]
        lines = markdown(made[name]) if name in made else ["Not run yet."]
        if name == "targets":
            lines = [sentence(found), "", *lines]
        return match[1] + "\n".join(lines) + "\n" + match[3]

    return BLOCK.sub(written, text)


def markdown(table: Table) -> list[str]:
    """Lines of a Markdown table, its notes below."""
    head = [f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    rows = [f"| {' | '.join(row)} |" for row in table.rows]
    return [*head, *rows, *(line for note in table.notes for line in ("", note))]


def read(path: Path) -> Record:
    """The document of a run. Raises InputError where it is missing, not JSON, or of a quick run."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path} cannot be read ({problem}); run `make science` first.") from problem
    if found["quick"]:
        raise InputError(f"{path} is of a quick run, whose figures say nothing; run `make science`.")
    return found


def main() -> int:
    """Write or check the document."""
    parser = argparse.ArgumentParser(prog="python -m science.docs", description=__doc__)
    parser.add_argument("--result", type=Path, help="result.json of a finished run; its figures become docs/science.json")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 2 when the document is not what it would be")
    options = parser.parse_args()
    try:
        with usable(DOCUMENT, "run it from a writable checkout"):
            _write(options.result, check=options.check)
    except PromoliftError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_status
    return 0


def _write(result: Path | None, *, check: bool) -> None:
    found = small(read(result)) if result else read(FIGURES)
    before = DOCUMENT.read_text(encoding="utf-8")
    after = filled(before, found)
    if check and (before != after or (result and found != read(FIGURES))):
        raise InputError(f"{DOCUMENT.name} does not show the figures of the result: run `python -m science.docs`.")
    if not check:
        write_json(FIGURES, found)
        DOCUMENT.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
