"""Result of `science/ihdp.py` -> its table and its targets."""

from collections.abc import Iterator

from promolift.uplift.page import number
from science.tables import Record, Table, Target, give_or_take, reached

FIGURES, ALONE = ("pehe_in", "pehe_out", "ate_in", "ate_out"), ("alone_in", "alone_out")
PLACES = {"pehe_in": "within", "pehe_out": "out of sample"}
RIVALS = ("TARNet", "CFR-Wass")
COLUMNS = ("model", "sqrt-PEHE within", "sqrt-PEHE out", "error of ATE within", "error of ATE out")


def tables(result: Record) -> Iterator[Table]:
    """Ours and the linear reference on the replications that were measured and over all, and the published figures."""
    rows = [row for name, model in result["models"].items() for row in _rows(f"**{name}**", model, result["of"])]
    rows += _rows("linear, one an arm", result["reference"]["linear_per_arm"], result["of"])[-2:]
    rows += [(f"{name}, published", *(number(found.get(key)) for key in FIGURES)) for name, found in result["published"].items()]
    yield Table("ihdp", "IHDP: error of the effect", COLUMNS, tuple(rows), (_note(result),))


def _rows(name: str, model: Record, of: int) -> list[tuple[str, ...]]:
    def cells(keys: tuple[str, ...]) -> list[str]:
        return [f"{give_or_take(model[key]['mean'], model[key]['se'])} (median {number(model[key]['median'])})" for key in keys]

    def over_all(keys: tuple[str, ...]) -> list[str]:
        return [give_or_take(*_of_all(model, key)) for key in keys]

    return [
        (f"{name}, one network", *cells(ALONE), "–", "–"), (f"{name}, one network, over all {of:,}", *over_all(ALONE), "–", "–"),
        (name, *cells(FIGURES)), (f"{name}, over all {of:,}", *over_all(FIGURES)),
    ]  # fmt: skip


def _of_all(model: Record, key: str) -> tuple[float, float]:
    return model["all"][key]["mean"], model["all"][key]["se"]


def _note(result: Record) -> str:
    first, last = result["numbers"]
    spread = ", ".join(f"{name} {number(model['spread_in']['mean'])}" for name, model in result["models"].items())
    return (
        f"Ours in bold, the mean of {len(result['seeds'])} networks' effects: mean ± standard error over replications {first} to {last}; "
        f"1 to {result['tried']} had a part in the settings. Standard deviation of one network's sqrt-PEHE within over seeds: {spread}. "
        f"Over all {result['of']:,}: the linear model's errors were measured on every one, ours estimated by their regression on "
        "the linear model's (Cochran, 1977, section 7.3). Published, of one network each: means over 1,000 replications (Shalit, Johansson "
        "and Sontag, 2017, table 1; Shi, Blei and Veitch, 2019, table 1)."
    )


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
