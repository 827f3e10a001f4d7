"""Result of `science/hillstrom.py` -> its tables, its target and the sentence that says which models can be told apart."""

from collections.abc import Iterator
from typing import Any

from promolift.uplift.page import number
from science.tables import Record, Table, Target, give_or_take, span

MAIN = ("qini/raw-local", "qini/sklift")
BESIDE = (*MAIN, "auuc/causalml-raw")
LEVEL = 0.05
LEAST_SPLITS = 10


def tables(result: Record) -> Iterator[Table]:
    """Beside the published figures, every convention, and the paired differences."""
    yield _beside(result)
    yield _conventions(result)
    yield _pairs(result)


def targets(result: Record) -> Iterator[Target]:
    """The contract asks for the figures, their intervals, the published ones beside them and ten splits; none has to be high."""
    splits = result["splits"]
    best = max(result["models"], key=lambda name: result["models"][name]["qini/sklift"]["mean"])
    found = {name: result["models"][best][name] for name in MAIN}
    figure = "; ".join(f"{name} {give_or_take(found[name]['mean'], found[name]['split_error'])}" for name in MAIN)
    yield Target(
        "Hillstrom, women's e-mail, visit, 70/30",
        f"{best}: {figure} (error of one split's half samples); {splits} splits",
        f"raw and normalised Qini with interval beside the published ones, {LEAST_SPLITS} splits or more",
        "met" if splits >= LEAST_SPLITS else "not met",
    )


def verdict(result: Record) -> str:
    """Which pairs of models differ by the Holm-adjusted corrected test over all splits."""
    told = [row for row in result["differences"] if row["holm_p"] <= LEVEL]
    pairs = len(result["differences"])
    if not told:
        return f"None of the {pairs} pairs of models can be told apart on these data (Holm-adjusted p above {LEVEL} for each)."
    names = "; ".join(_order(row) for row in told)
    rest = "The other pairs cannot be told apart on these data." if len(told) < pairs else ""
    return f"Of {pairs} pairs of models {len(told)} can be told apart at {LEVEL} (Holm): {names}. {rest}".rstrip()


def _order(row: Record) -> str:
    better, worse = (row["of"], row["less"]) if row["difference"] > 0 else (row["less"], row["of"])
    return f"{better} over {worse} (p = {row['holm_p']:.2g})"


def _beside(result: Record) -> Table:
    models = result["models"].items()
    rows = [(f"**{name}**", key, _middle(model[key]), number(model[key]["split_sd"]), "ours") for key in BESIDE for name, model in models]
    for figure in result["published"]:
        told = span(figure["value"], *figure["spread"]) if figure["spread"] else number(figure["value"])
        rows.append((figure["model"], figure["id"], told, "–", figure["source"]))
    rows.sort(key=lambda row: BESIDE.index(row[1]))
    notes = (
        f"Ours in bold: mean over {result['splits']} splits with the 95 % interval of one split (mean error of {result['resamples']} half "
        f"samples). {result['rows']:,} customers: {result['train_rows']:,} to train, {result['test_rows']:,} to measure. Raw areas grow "
        f"with the rows they are measured on; all are stated for {result['per_rows']:,}.",
        *(f"{name}: {text}." for name, text in result["sources"].items()),
    )
    columns = ("model", "id", "value (95 %)", "sd over splits", "source")
    return Table("hillstrom", "Hillstrom: ours beside the published", columns, tuple(rows), notes)


def _middle(found: Record) -> str:
    reach = 1.96 * found["split_error"]
    return span(found["mean"], found["mean"] - reach, found["mean"] + reach)


def _conventions(result: Record) -> Table:
    models: dict[str, Any] = result["models"]
    ids = next(iter(models.values()))
    rows = tuple((key, *(f"{give_or_take(model[key]['mean'], model[key]['split_error'])}, {number(model[key]['split_sd'])}"
                         for model in models.values())) for key in ids)  # fmt: skip
    note = "Each cell: mean over splits ± mean half-sample error of one split, then the standard deviation over splits."
    return Table("hillstrom-conventions", "Hillstrom: every convention", ("id", *models), rows, (note,))


def _pairs(result: Record) -> Table:
    rows = tuple(
        (
            f"{row['of']} less {row['less']}", span(row["difference"], *row["interval"]), number(row["p"]), number(row["holm_p"]),
            f"{row['splits_apart']} of {result['splits']}",
        )
        for row in result["differences"]
    )  # fmt: skip
    columns = ("pair", f"difference of {result['compared']} (95 %)", "p", "Holm p", "splits that tell alone")
    note = "Intervals and p by the corrected resampled t-test over splits; the last column: splits whose own half samples leave out 0."
    return Table("hillstrom-pairs", "Hillstrom: can the models be told apart?", columns, rows, (verdict(result), note))
