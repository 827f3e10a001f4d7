"""The truth is out of reach: only landing writes it and only measure_truth reads it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.measure_truth import measure, spearman
from promolift.errors import InputError

ROOT = Path(__file__).parents[2]
ROOMS = ("components", "spark_jobs", "feature_repo", "serving", "src/promolift")
ALLOWED = (
    "components/land_events.py",
    "components/measure_truth.py",
    "components/sources/",
    "src/promolift/simulate.py",
    "src/promolift/contracts/",
)
STAGES = {"land_events", "measure_truth"}


def test_no_other_module_names_the_truth():
    found = {}
    for path in (p for room in ROOMS for p in (ROOT / room).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(ALLOWED):
            found[name] = sorted(set(mentions(ast.parse(path.read_text(encoding="utf-8")))))
    assert {name: where for name, where in found.items() if not set(where) <= STAGES} == {}


def test_the_finder_sees_names_strings_and_imports():
    source = "from components.measure_truth import measure\ndef train(x):\n    return open(f'{x}/truth'), x.has_truth\n"
    assert sorted(mentions(ast.parse(source))) == ["module", "train", "train"]
    assert not list(mentions(ast.parse('"""The truth in a docstring."""\ndef f() -> None:\n    """Truth."""\n')))


def mentions(tree: ast.Module) -> Iterator[str]:
    """The top-level function (or "module") of every identifier, import or string that holds the word."""
    for statement in tree.body:
        where = statement.name if isinstance(statement, ast.FunctionDef | ast.ClassDef) else "module"
        skipped = {id(node.value) for node in ast.walk(statement) if isinstance(node, ast.Expr)}
        yield from (where for node in ast.walk(statement) if id(node) not in skipped and "truth" in text_of(node).lower())


def text_of(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)) | ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
            return text
        case ast.ImportFrom(module=module, names=names):
            return " ".join([module or "", *(alias.name for alias in names)])
        case ast.Import(names=names):
            return " ".join(alias.name for alias in names)
    return ""


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_spearman_agrees_with_scipy(seed: int):
    stats = pytest.importorskip("scipy.stats")
    one, two = np.random.default_rng(seed).integers(0, 6, (2, 30)).astype(float)
    assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic)


def test_a_constant_has_no_rank_correlation():
    assert spearman(np.ones(5), np.arange(5.0)) is None


def test_a_missing_lake_is_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match="No training examples"):
        measure(str(tmp_path / "truth"), str(tmp_path / "lake"), str(tmp_path), str(tmp_path))
