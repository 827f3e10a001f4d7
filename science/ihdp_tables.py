"""Result of `science/ihdp.py` -> its table and its targets."""

from collections.abc import Iterator

from promolift.uplift.page import number
from science.tables import Record, Table, Target, give_or_take, reached

FIGURES = ("pehe_in", "pehe_out", "ate_in", "ate_out")
PLACES = {"pehe_in": "within", "pehe_out": "out of sample"}
RIVALS = ("TARNet", "CFR-Wass")


def tables(result: Record) -> Iterator[Table]:
    """Ours, the linear reference and the published figures."""
    rows = []
    for part, mark in (("models", "**"), ("reference", "")):
        for name, model in result[part].items():
            cells = [f"{give_or_take(model[key]['mean'], model[key]['se'])} (median {number(model[key]['median'])})" for key in FIGURES]
            rows.append((f"{mark}{name.replace('_', ' ')}{mark}", *cells))
    rows += [(f"{name}, published", *(number(found.get(key)) for key in FIGURES)) for name, found in result["published"].items()]
    columns = ("model", "sqrt-PEHE within", "sqrt-PEHE out", "error of ATE within", "error of ATE out")
    notes = (
        f"Ours in bold: mean ± standard error over {result['replications']} replications{_seeds(result)}. "
        "Published: means over 1,000 replications (Shalit, Johansson and Sontag, 2017, table 1; Shi, Blei and Veitch, 2019, table 1).",
    )
    yield Table("ihdp", "IHDP: error of the effect", columns, tuple(rows), notes)


def _seeds(result: Record) -> str:
    count = len(result["seeds"])
    return f", each the mean of {count} seeds" if count > 1 else ", one seed each"


def targets(result: Record) -> Iterator[Target]:
    """sqrt-PEHE of each configuration against each of the published TARNet and CFR figures."""
    for name, model in result["models"].items():
        for key, place in PLACES.items():
            mean, error = model[key]["mean"], model[key]["se"]
            for rival in RIVALS:
                limit = result["published"][rival][key]
                told = f"{give_or_take(mean, error)}, {result['replications']} replications"
                wanted = f"at most {number(limit)}, as published over 1,000"
                yield Target(f"IHDP, {name} against {rival}, sqrt-PEHE {place}", told, wanted, reached(mean, limit, error))
