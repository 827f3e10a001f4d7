"""Result of `science/ihdp.py` -> its table and its targets."""

from collections.abc import Iterator

from promolift.uplift.page import number
from science.tables import Record, Table, Target, give_or_take, reached

FIGURES = ("pehe_in", "pehe_out", "ate_in", "ate_out")
PLACES = {"pehe_in": "within", "pehe_out": "out of sample"}
RIVALS = ("TARNet", "CFR-Wass")


def tables(result: Record) -> Iterator[Table]:
    """Ours, the linear reference and the published figures."""
    rows, estimated = [], []
    for part, mark in (("models", "**"), ("reference", "")):
        for name, model in result[part].items():
            called = f"{mark}{name.replace('_', ' ')}{mark}"
            cells = [f"{give_or_take(model[key]['mean'], model[key]['se'])} (median {number(model[key]['median'])})" for key in FIGURES]
            rows.append((called, *cells))
            estimated.append((f"{called}, over all {result['of']:,}", *(give_or_take(*_of_all(model, key)) for key in FIGURES)))
    published = [(f"{name}, published", *(number(found.get(key)) for key in FIGURES)) for name, found in result["published"].items()]
    columns = ("model", "sqrt-PEHE within", "sqrt-PEHE out", "error of ATE within", "error of ATE out")
    yield Table("ihdp", "IHDP: error of the effect", columns, (*rows, *estimated, *published), (_note(result),))


def _of_all(model: Record, key: str) -> tuple[float, float]:
    return model["all"][key]["mean"], model["all"][key]["se"]


def _note(result: Record) -> str:
    first, last = result["numbers"]
    return (
        f"Ours in bold: mean ± standard error over replications {first} to {last}{_seeds(result)}; settings were tried on 1 to "
        f"{result['tried']}. Over all {result['of']:,}: the linear model's errors were measured on every one, ours estimated from these by "
        "their regression on the linear model's (Cochran, 1977, section 7.3). "
        "Published: means over 1,000 replications (Shalit, Johansson and Sontag, 2017, table 1; Shi, Blei and Veitch, 2019, table 1)."
    )


def _seeds(result: Record) -> str:
    count = len(result["seeds"])
    return f", each the mean of {count} seeds" if count > 1 else ", one network each"


def targets(result: Record) -> Iterator[Target]:
    """sqrt-PEHE of each configuration, estimated over all replications, against each of the published TARNet and CFR figures."""
    for name, model in result["models"].items():
        for key, place in PLACES.items():
            mean, error = _of_all(model, key)
            for rival in RIVALS:
                limit = result["published"][rival][key]
                told = f"{give_or_take(mean, error)}, estimated over {result['of']:,} from {result['replications']}"
                wanted = f"at most {number(limit)}, as published over 1,000"
                yield Target(f"IHDP, {name} against {rival}, sqrt-PEHE {place}", told, wanted, reached(mean, limit, error))
