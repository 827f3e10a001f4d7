"""Results of `science/coverage.py` and `science/operating_curve.py` -> their tables and targets."""

from collections.abc import Iterator

from promolift.uplift.page import number, percent
from science.coverage import WITHIN
from science.tables import Record, Table, Target

LEAST_WORLDS = 500
NAIVE = "as if each row were a shopper"
ANSWERS = ("promoted", "refused", "cannot tell")


def coverage_tables(result: Record) -> Iterator[Table]:
    """Every interval of every design."""
    rows = tuple(
        (row["quantity"], design, row["truth_is"], _share(row), number(row["bias"]), number(row["error_ratio"]))
        for design, found in result["designs"].items()
        for row in found
    )
    columns = ("interval of", "propensities", "truth of", "coverage", "bias in sd", "mean error over sd")
    size = f"{result['worlds']} worlds of {result['shoppers']} shoppers, {result['resamples']} half samples"
    note = f"{size}. Coverage with its exact 95 % limits."
    yield Table("coverage", "Coverage of the 95 % intervals", columns, rows, (note,))


def coverage_targets(result: Record) -> Iterator[Target]:
    """Policy values, whichever truth they are held against; the interval that ignores shoppers is there to fail."""
    for design, found in result["designs"].items():
        rates = [row["rate"] for row in found if row["quantity"].startswith("value/") and NAIVE not in row["quantity"]]
        met = all(WITHIN[0] <= rate <= WITHIN[1] for rate in rates) and result["worlds"] >= LEAST_WORLDS
        outside = sum(not WITHIN[0] <= rate <= WITHIN[1] for rate in rates)
        yield Target(
            f"Coverage of policy value, {design} propensities",
            f"{percent(min(rates))} to {percent(max(rates))} in {len(rates)} intervals, {outside} outside; {result['worlds']} worlds",
            f"{WITHIN[0]:.0%} to {WITHIN[1]:.0%} of {LEAST_WORLDS} worlds or more",
            "met" if met else "not met",
        )


def operating_tables(result: Record) -> Iterator[Table]:
    """What the gate answers by the true gain of a model, and each promise with its count."""
    curve = tuple(
        (row["model"], number(setting["mean_rows"]), f"{row['true_gain']:+.1%}", *(_share(row[answer]) for answer in ANSWERS))
        for setting in result["settings"]
        for row in setting["curve"]
    )
    note = f"{result['worlds']} worlds, {result['resamples']} half samples. True gain: over the champion. Exact 95 % limits in brackets."
    columns = ("model", "rows", "true gain", *ANSWERS)
    yield Table("operating-curve", "Operating curve and power of the gate", columns, curve, (note,))
    kept = tuple(
        (f"{row['model']}: {row['why']}", number(setting["mean_rows"]), f"{row['check']} {row['status']}", _share(row),
         f"{row['count']} of at most {row['largest_usual']}", "kept" if row["kept"] else "broken")
        for setting in result["settings"]
        for row in setting["promises"]
    )  # fmt: skip
    columns = ("model", "rows", "event that may not be frequent", "rate", "worlds", "answer")
    yield Table("promises", "What the gate promises", columns, kept, ("At most: what a true rate of alpha stays below in 95 % of runs.",))


def operating_targets(result: Record) -> Iterator[Target]:
    """Promotion of models that are no better, at each number of rows."""
    for setting in result["settings"]:
        rows = [row for row in setting["promises"] if row["check"] == "verdict"]
        worst = max(rows, key=lambda row: row["rate"])
        met = all(row["kept"] for row in rows) and result["worlds"] >= LEAST_WORLDS
        broken = sum(not row["kept"] for row in setting["promises"])
        yield Target(
            f"Gate, {number(setting['mean_rows'])} rows: promotes a model that is no better",
            f"worst of {len(rows)}: {_share(worst)} ({worst['model']}); {broken} of {len(setting['promises'])} promises broken",
            f"at most {worst['alpha']:.0%} within Monte-Carlo error, {LEAST_WORLDS} worlds or more",
            "met" if met else "not met",
        )


def _share(row: Record) -> str:
    low, high = row["interval"]
    return f"{row['rate']:.1%} ({low:.1%} to {high:.1%})"
