"""docs/science.md: its figures are those of docs/science.json, it defines every public number, and what it names is there."""

import ast
import json
import re
from pathlib import Path

import pytest

from promolift.errors import InputError
from promolift.uplift import metrics
from promolift.uplift.conventions import DEFINITIONS
from promolift.uplift.gate import EFFECT_CHECKS
from promolift.uplift.metrics import Definition
from promolift.uplift.off_policy import METHODS
from science.docs import BLOCK, DOCUMENT, FIGURES, filled, markdown, read, small
from science.report import tables
from science.steps import ROOT
from science.tables import Table

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_blocks_are_what_the_json_gives():
    assert filled(TEXT, read(FIGURES)) == TEXT


def test_another_figure_changes_the_document():
    found = json.loads(FIGURES.read_text())
    model = found["steps"]["hillstrom"]["result"]["models"]["LightGBM T-learner"]
    model["qini/sklift"]["mean"] += 0.1
    assert filled(TEXT, found) != TEXT


def test_no_figure_of_a_table_stands_outside_the_blocks():
    """A mean or difference with three digits that the JSON holds must not be typed by hand into the text."""
    prose = BLOCK.sub("", TEXT)
    shown = {cell for table in tables(read(FIGURES)) for row in table.rows for cell in re.findall(r"\b0\.\d{3,}\b", " ".join(row))}
    assert shown
    assert not [figure for figure in shown if figure in prose]


def test_every_definition_is_explained():
    ids = {value.id for value in vars(metrics).values() if isinstance(value, Definition)}
    ids |= set(DEFINITIONS) | {f"value/{method}" for method in METHODS}
    assert len(ids) > 20
    assert not [name for name in sorted(ids) if f"| `{name}`" not in TEXT]


def test_every_check_of_the_gate_is_explained():
    checks = ("propensity_completeness", "sample_ratio", "profit_over_champion", *EFFECT_CHECKS)
    assert not [name for name in checks if f"`{name}`" not in TEXT]


def test_every_file_and_test_that_is_named_exists():
    files = re.findall(r"`([\w/]+\.(?:py|md|json))`", TEXT)
    assert len(set(files)) > 20
    assert not [name for name in files if not (ROOT / name).is_file()]
    known = {
        node.name for path in (ROOT / "tests/conformance").glob("test_*.py") for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }  # fmt: skip
    named = re.findall(r"`(test_\w+)`", TEXT)
    assert len(named) >= 9
    assert not [name for name in named if name not in known]


def test_a_table_without_its_block_is_refused():
    with pytest.raises(InputError, match="0 blocks '<!-- figures: hillstrom -->'"):
        filled(TEXT.replace("<!-- figures: hillstrom -->\n", ""), read(FIGURES))


def test_the_figures_of_a_quick_run_are_refused(tmp_path: Path):
    (tmp_path / "result.json").write_text(json.dumps({**json.loads(FIGURES.read_text()), "quick": True}))
    with pytest.raises(InputError, match="quick run"):
        read(tmp_path / "result.json")
    with pytest.raises(InputError, match="make science"):
        read(tmp_path / "absent.json")


def test_markdown_has_a_line_a_row_and_the_notes_below():
    lines = markdown(Table("t", "T", ("a", "b"), (("x", "1"), ("y", "2")), ("Note.",)))
    assert lines == ["| a | b |", "|---|---|", "| x | 1 |", "| y | 2 |", "", "Note."]


def test_the_small_record_leaves_out_single_splits_only():
    assert small({"each": [1.0], "models": [{"mean": 0.123456789, "each": []}], "n": 3}) == {"models": [{"mean": 0.123457}], "n": 3}
