"""Options of a judgement and checked columns -> which score plays which part, and what the file or the options rule out."""

from dataclasses import dataclass

import numpy as np

from promolift.errors import InputError
from promolift.uplift.effects import BEST_SINGLE, CHAMPION, SHUFFLED
from promolift.uplift.judge_input import Columns


@dataclass(frozen=True)
class Options:
    """How to judge. `budget`: cents per row, or without costs the share of rows that may get a promo; None: no limit.

    `champion`: which score is the one in use; "" means the second. `simulated`: what in the file is simulated, in a sentence.
    """

    budget: float | None = None
    resamples: int = 400
    seed: int = 1
    champion: str = ""
    simulated: str = ""


@dataclass(frozen=True)
class Roles:
    """Names of the scores among the models: `key` by score; `baselines` are the policies that the candidate must not lose to."""

    candidate: str
    champion: str
    key: dict[str, str]
    baselines: tuple[str, ...]


def check_options(columns: Columns, options: Options) -> None:
    """Raises InputError for a budget, champion or number of resamples that this file cannot be judged with."""
    budget = options.budget
    if budget is not None and not (np.isfinite(budget) and budget > 0):
        raise InputError(f"--budget {budget:g} buys nothing; give cents per row above 0.")
    if budget is not None and budget > 1 and not has_cost(columns):
        raise InputError(f"--budget {budget:g} without costs is the share of rows that may get a promo; give a number up to 1, or --cost.")
    if options.champion and options.champion not in list(columns.scores)[1:]:
        others = ", ".join(list(columns.scores)[1:]) or "none"
        raise InputError(f"--champion '{options.champion}' is not among the scores after the first, the candidate; those are: {others}.")
    if options.resamples < 2:
        raise InputError(f"--resamples {options.resamples} gives no spread; 2 is the least, 400 the default.")


def assign_roles(columns: Columns, options: Options) -> Roles:
    """The first score is the candidate, the named one or the second the champion; all others are baselines."""
    first, *rest = columns.scores
    champion = options.champion or (rest[0] if rest else "")
    taken = {CHAMPION, SHUFFLED, BEST_SINGLE, *columns.arms}
    key = {name: CHAMPION if name == champion else f"score {name}" if name in taken else name for name in columns.scores}
    others = [key[name] for name in rest if name != champion]
    return Roles(first, champion, key, (SHUFFLED, BEST_SINGLE, *others))


def has_cost(columns: Columns) -> bool:
    """Whether any row cost anything; where none did, a promo counts as 1."""
    return columns.cost is not None and bool(np.any(columns.cost != 0))
